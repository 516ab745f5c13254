// A Hugging Face config.json of a supported family (Llama, Mistral, Qwen2, Qwen3), checked.
//
// Accepts the old form (`rope_theta`, `rope_scaling`) and the newer `rope_parameters`. Plain
// values, thread-safe. Errors: kInvalidArgument with reason INVALID_MODEL_CONFIG (names the field),
// UNSUPPORTED_ARCHITECTURE (lists those supported), MODEL_ALREADY_QUANTIZED.
#ifndef UNIQUANF_WORKER_MODEL_MODEL_CONFIG_H_
#define UNIQUANF_WORKER_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/block/block.h"

namespace uniquanf {

struct RopeConfig {
  double theta = 10000.0;
  std::string type = "default";                    // "default", "linear", "llama3"
  double factor = 1.0;                             // linear, llama3
  double low_freq_factor = 1.0;                    // llama3
  double high_freq_factor = 4.0;                   // llama3
  double original_max_position_embeddings = 8192;  // llama3
};

struct ModelConfig {
  std::string model_type;    // "llama", "mistral", "qwen2", "qwen3"
  std::string architecture;  // "LlamaForCausalLM", ...
  int num_layers = 0;
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  bool tie_word_embeddings = false;
  RopeConfig rope;
  std::vector<BlockConfig> blocks;  // one a layer (windows may differ)
};

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view config_json);

// Inverse frequencies [D/2] with the type's scaling applied (Hugging Face modeling_rope_utils).
std::vector<double> RopeInverseFrequencies(const RopeConfig& rope, int head_dim);
// Tables for positions 0..seq_len−1.
absl::StatusOr<RopeTables> MakeRopeTables(Backend* backend, const RopeConfig& rope, int head_dim,
                                          int64_t seq_len);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_MODEL_CONFIG_H_
