// Which tensors a checkpoint must have and must not have, from its config alone.
#ifndef UNIQUANF_WORKER_MODEL_CHECKPOINT_LAYOUT_H_
#define UNIQUANF_WORKER_MODEL_CHECKPOINT_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/model/checkpoint_files.h"
#include "worker/model/model_config.h"

namespace uniquanf {

inline constexpr char kEmbeddingName[] = "model.embed_tokens.weight";
inline constexpr char kFinalNormName[] = "model.norm.weight";
inline constexpr char kLmHeadName[] = "lm_head.weight";

// Names of the norms inside a layer, without LayerPrefix.
inline constexpr char kInputNormSuffix[] = "input_layernorm.weight";
inline constexpr char kPostNormSuffix[] = "post_attention_layernorm.weight";
inline constexpr char kQNormSuffix[] = "self_attn.q_norm.weight";
inline constexpr char kKNormSuffix[] = "self_attn.k_norm.weight";

struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
};

// Everything that a full-precision checkpoint of this config holds.
std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config);

// Presence, dtype (F32, F16 or BF16) and shape. Errors: TENSOR_NOT_FOUND, TENSOR_DTYPE,
// TENSOR_SHAPE.
absl::Status CheckTensor(const TensorMap& tensors, const ExpectedTensor& expected);

// Refuses what would silently be lost: leftovers of other quantizers, and tensors inside the layers
// that the config does not account for. `expected` are the names that are accounted for.
// Error: UNEXPECTED_TENSOR.
absl::Status CheckNothingElse(const TensorMap& tensors,
                              const std::vector<ExpectedTensor>& expected);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_CHECKPOINT_LAYOUT_H_
