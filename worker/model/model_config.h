// A Hugging Face config.json of a supported family, checked and resolved to what the engine
// computes: a BlockSpec a layer, rotary tables, and the ends of the model. The families are the
// files of worker/model/families.
//
// Plain values, thread-safe. Errors: kInvalidArgument with reason INVALID_MODEL_CONFIG (names the
// field), UNSUPPORTED_ARCHITECTURE (lists those supported), MODEL_ALREADY_QUANTIZED.
#ifndef UNIQUANF_WORKER_MODEL_MODEL_CONFIG_H_
#define UNIQUANF_WORKER_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/block/block.h"
#include "worker/block/block_traits.h"
#include "worker/model/source_quantization.h"

namespace uniquanf {

// A rotary table's frequencies are theta^(−2i / width), changed as the type says (Hugging Face
// modeling_rope_utils).
struct RopeConfig {
  int width = 0;  // of the part of a head that is rotated; even
  double theta = 10000.0;
  // "default", "linear", "dynamic", "llama3", "yarn", "longrope", "proportional"
  std::string type = "default";
  double factor = 1.0;                             // linear, dynamic, llama3, yarn, proportional
  double low_freq_factor = 1.0;                    // llama3
  double high_freq_factor = 4.0;                   // llama3
  double original_max_position_embeddings = 8192;  // dynamic, llama3, yarn, longrope
  double beta_fast = 32, beta_slow = 1;            // yarn
  bool truncate = true;                            // yarn: its bounds are rounded
  // longrope: by frequency, for sequences up to the original length and for longer ones.
  std::vector<double> short_factor, long_factor;
  int rotated = 0;                     // proportional: the first so many frequencies, others are 0
  double attention_factor = 1.0;       // cosines and sines are multiplied by it
  double long_attention_factor = 0.0;  // longrope, longer sequences; 0: the same
};

// What lies before the first block and after the last. Names are those of modules, in full; their
// tensors are MODULE.weight and MODULE.bias. An empty name: the model has no such thing.
struct ModelEnds {
  std::string embedding = "model.embed_tokens";  // [V, H]
  float embedding_scale = 1;
  bool embedding_scale_rounded = false;  // to the activation type, before it multiplies (Gemma)
  std::string positions;                 // learned, [rows, H], added to the embedding
  int64_t num_positions = 0;             // rows of it
  int64_t position_offset = 0;           // the row of position 0
  std::string embedding_norm;            // after both
  NormTraits embedding_norm_kind;
  std::string final_norm = "model.norm";
  NormTraits final_norm_kind;
  std::string head = "lm_head";  // [V, H]; unless tied
  bool head_bias = false;
  bool tied = false;                  // the head is the embedding
  bool head_rows_normalized = false;  // each row of the head is divided by its length
  float logit_scale = 1;
  float logit_softcap = 0;  // after the scale; 0: none
};

struct ModelConfig {
  std::string model_type;    // "llama", "mistral", ...
  std::string architecture;  // "LlamaForCausalLM", ...
  int num_layers = 0;
  int64_t hidden_size = 0;
  int64_t vocab_size = 0;
  // The longest sequence; fewer than config.json says where longer ones need what is left out here.
  int64_t max_position_embeddings = 0;
  std::vector<RopeConfig> ropes;  // the tables that blocks name by index
  std::vector<BlockSpec> blocks;  // one a layer
  ModelEnds ends;
  std::string layers = "model.layers.";  // what the names of all layers' tensors begin with
  // Names that checkpoints of the same config differ in: the prefix of everything but the head, and
  // the head. The first whose embedding the checkpoint has is taken (ChooseNames); those above are
  // by the first.
  struct Names {
    std::string prefix, head;
  };
  std::vector<Names> names;
  // Layers after num_layers that the checkpoint may hold and nothing here reads: they predict
  // tokens further ahead. Copied as they are.
  int num_extra_layers = 0;
  // What the names of other tensors of a layer begin with that nothing here reads
  // ("self_attn.indexer."). Copied as they are.
  std::vector<std::string> copied_parts;
  SourceQuantization source;  // how the checkpoint's weights are stored

  std::string LayerPrefix(int layer) const;        // "model.layers.3."
  std::string ModuleName(int layer, int l) const;  // "model.layers.3.mlp.down_proj", linear l
  std::vector<std::string> ModuleNames(int layer) const;  // by linear
  // The decoder layer that a tensor's name lies in, below num_layers; −1: none.
  int LayerOf(absl::string_view tensor_name) const;
  // Takes the names that fit a checkpoint, of which `has` says whether it has a tensor.
  void ChooseNames(const std::function<bool(const std::string&)>& has);
};

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view config_json);

// Inverse frequencies [width/2] with the type's scaling applied, for sequences of this length.
std::vector<double> RopeInverseFrequencies(const RopeConfig& rope, int64_t seq_len);
// Tables for positions 0..seq_len−1, one for each of `ropes`.
absl::StatusOr<RopeTables> MakeRopeTables(Backend* backend, const std::vector<RopeConfig>& ropes,
                                          int64_t seq_len);
uint64_t RopeTablesBytes(const std::vector<RopeConfig>& ropes, int64_t seq_len);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_MODEL_CONFIG_H_
