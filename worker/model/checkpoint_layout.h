// Which tensors a checkpoint must have and must not have, from its config alone.
#ifndef UNIQUANF_WORKER_MODEL_CHECKPOINT_LAYOUT_H_
#define UNIQUANF_WORKER_MODEL_CHECKPOINT_LAYOUT_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/model/checkpoint_files.h"
#include "worker/model/model_config.h"

namespace uniquanf {

struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
};

// Everything that a full-precision checkpoint of this config holds, each stored tensor once.
std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config);

// Names of a layer's stored tensors that an artifact does not hold as they are, when the linear
// layers in `quantized` (full module names) are: it holds these packed, and every other matrix that
// was a part of a stored tensor, or transposed, as a tensor of its own.
std::set<std::string> ReplacedTensors(const ModelConfig& config, int layer,
                                      const std::set<std::string>& quantized);
// MODULE.weight in full, of a matrix: its name in an artifact when it is a part of a replaced one.
std::string OwnTensorName(const std::string& layer_prefix, const TensorSpec& tensor);

// Presence, dtype (F32, F16 or BF16) and shape. Errors: TENSOR_NOT_FOUND (says what the files hold
// instead), TENSOR_DTYPE, TENSOR_SHAPE.
absl::Status CheckTensor(const CheckpointFiles& files, const ExpectedTensor& expected);

// Whether the tensor, whose name begins as a layer's, may be there although nothing reads it: it is
// copied.
bool IsCopiedTensor(const ModelConfig& config, absl::string_view name);

// Refuses what would silently be lost: leftovers of other quantizers, and tensors inside the layers
// that the config does not account for. `expected` are the names that are accounted for.
// Error: UNEXPECTED_TENSOR.
absl::Status CheckNothingElse(const CheckpointFiles& files, const ModelConfig& config,
                              const std::vector<ExpectedTensor>& expected);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_CHECKPOINT_LAYOUT_H_
