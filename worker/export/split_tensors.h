// Tensors of the source that an artifact holds in parts, put together again. The quantizer works
// along the rows of one linear layer, so what the source fuses (q, k and v), stacks (experts) or
// transposes is split when it is read, and each part is a module of the artifact; a runtime looks
// for the source's names.
//
// Thread safety: free functions. Lifetime: parts point into the manifest and the config. Errors: as
// ArtifactReader; kInvalidArgument (EXPORT_NOT_POSSIBLE).
#ifndef UNIQUANF_WORKER_EXPORT_SPLIT_TENSORS_H_
#define UNIQUANF_WORKER_EXPORT_SPLIT_TENSORS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/artifact/artifact_reader.h"
#include "worker/block/block_spec.h"
#include "worker/model/model_config.h"

namespace uniquanf {

struct SplitTensor {
  struct Part {
    std::string module;                // NAME.weight in the artifact where it is not quantized
    const TensorSpec* spec = nullptr;  // where it lies in the tensor
    const ManifestModule* packed = nullptr;  // null: not quantized
  };
  std::string name;            // "model.layers.0.self_attn.qkv_proj.weight"
  std::vector<int64_t> shape;  // as the source stores it
  std::vector<Part> parts;     // at least one

  bool is_quantized() const;  // some part is
};

std::vector<SplitTensor> FindSplitTensors(const Manifest& manifest, const ModelConfig& config);

// What the tensor would be as one module. EXPORT_NOT_POSSIBLE unless the parts are rows of a
// matrix, all quantized, with one number of bits and one group size: then a form that goes by rows
// can hold them together.
absl::StatusOr<ManifestModule> JoinedModule(const SplitTensor& tensor);
// Its packed weights. REQUIRES: JoinedModule gives one.
absl::StatusOr<PackedLinear> ReadJoinedRows(const ArtifactReader& reader,
                                            const SplitTensor& tensor);

// All its values, as the source lays them out. `dtype`: of its parts that are not quantized; left
// alone where there is none.
absl::StatusOr<std::vector<float>> ReadJoinedValues(const ArtifactReader& reader,
                                                    const SplitTensor& tensor,
                                                    SafetensorsDType* dtype);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_EXPORT_SPLIT_TENSORS_H_
