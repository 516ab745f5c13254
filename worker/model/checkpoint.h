// A model's weights in an object store: a Hugging Face checkpoint (one safetensors file or a
// sharded index), also one whose weights are quantized (dequantize.h), or a unified artifact, whose
// layers are. Either is dequantized on reading. Only
// what is asked for is read. Open checks every tensor's presence, dtype and shape against
// config.json from the headers alone; values are checked for NaN and Inf as they are read.
//
// Thread safety: immutable after Open; loads may run in several threads.
// Errors: kInvalidArgument with reason MODEL_NOT_FOUND, TENSOR_NOT_FOUND, TENSOR_SHAPE,
// TENSOR_DTYPE, WEIGHT_NOT_FINITE (names the tensor and the index), UNEXPECTED_TENSOR for
// quantization leftovers, MODEL_ALREADY_QUANTIZED, those of ModelConfig, checkpoint_files.h,
// dequantize.h and safetensors.
#ifndef UNIQUANF_WORKER_MODEL_CHECKPOINT_H_
#define UNIQUANF_WORKER_MODEL_CHECKPOINT_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/artifact/layout.h"
#include "common/artifact/manifest.h"
#include "common/base/status.h"
#include "common/object_store/object_store.h"
#include "worker/block/block.h"
#include "worker/model/model_config.h"
#include "worker/model/source_tensor.h"

namespace uniquanf {

// Host copies of one block's tensors, f32, by their index in BlockSpec::tensors.
using HostBlock = std::vector<std::vector<float>>;

// One block as it is stored: `packed` [tensor] holds the quantized linear layers, whose `values`
// are empty; those of 0 bits are not packed.
struct StoredBlock {
  HostBlock values;
  std::vector<PackedLinear> packed;
};

// How many of a block's large tensors a device's reader has in flight at once, for sizing caches.
inline constexpr int kTensorsReadAtOnce = 7;

class Checkpoint {
 public:
  // `store` holds config.json at its root. allow_quantized: also accept a unified artifact.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(std::shared_ptr<ObjectStore> store,
                                                          bool allow_quantized);
  virtual ~Checkpoint() = default;
  virtual const ModelConfig& config() const = 0;
  virtual const std::string& config_json() const = 0;  // as read
  virtual bool quantized() const = 0;
  virtual const std::shared_ptr<ObjectStore>& store() const = 0;

  virtual absl::StatusOr<HostBlock> LoadBlock(int layer) const = 0;
  virtual absl::StatusOr<StoredBlock> LoadStoredBlock(int layer) const {
    UQ_ASSIGN_OR_RETURN(HostBlock values, LoadBlock(layer));
    return StoredBlock{std::move(values), {}};
  }
  // The embedding's rows `ids`, which ascend, [ids.size(), H]. Reads little else.
  virtual absl::Status LoadEmbeddingRows(absl::Span<const int32_t> ids, float* out) const = 0;
  virtual absl::StatusOr<std::vector<float>> LoadLmHead() const = 0;  // [V, H]; tied: the embedding
  // Any tensor outside the blocks, by its full name.
  virtual absl::StatusOr<std::vector<float>> LoadOuter(absl::string_view name) const = 0;
  // By full name, for copying tensors.
  virtual absl::StatusOr<SourceTensor> FindRaw(absl::string_view name) const = 0;
  virtual std::vector<std::string> TensorNames() const = 0;  // sorted
  // What is read in fewer bits than the tensors have, by format; empty for most.
  virtual const std::vector<ManifestDequantized>& dequantized() const = 0;
  // Whether the checkpoint's head, where the config says that it is the embedding, is that: reads
  // both where there is one. Error: TIED_HEAD_DIFFERS.
  virtual absl::Status CheckTiedHead() const = 0;
};

// Element type on a device of a tensor with this role.
DType DeviceDType(TensorRole role, DType act);
// Puts a host block on a device; linear weights that are in `linear` (by linear; may be shorter)
// and not empty there are on it already.
absl::StatusOr<BlockWeights> UploadBlock(Backend* backend, const BlockSpec& spec, DType act,
                                         const HostBlock& block, std::vector<Tensor> linear = {});

// The same of a stored block; its packed layers go to `packed` (empty where there are none).
absl::StatusOr<BlockWeights> UploadStoredBlock(Backend* backend, const BlockSpec& spec, DType act,
                                               const StoredBlock& block, PackedBlock* packed);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_CHECKPOINT_H_
