#include "worker/model/model_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/json_util.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

using nlohmann::json;

constexpr char kReason[] = "INVALID_MODEL_CONFIG";

// What sets a family apart; defaults are those of its Hugging Face configuration class, which
// files leave out when they agree with them.
struct FamilyTraits {
  const char* model_type;
  const char* architecture;
  bool qk_norm;
  bool qkv_bias_always;    // Qwen2: biases on q, k and v, none on o
  bool has_bias_settings;  // attention_bias is a field (Llama, Qwen3)
  bool has_mlp_bias;       // mlp_bias is a field (Llama)
  bool window_by_switch;   // use_sliding_window, max_window_layers (Qwen2, Qwen3)
  bool window_always;      // sliding_window holds for every layer (Mistral)
  int default_kv_heads;    // 0: as many as query heads
  int default_head_dim;    // 0: hidden_size / num_attention_heads
  int64_t default_max_positions;
};
constexpr FamilyTraits kFamilies[] = {
    {"llama", "LlamaForCausalLM", false, false, true, true, false, false, 0, 0, 2048},
    {"mistral", "MistralForCausalLM", false, false, false, false, false, true, 8, 0, 131072},
    {"qwen2", "Qwen2ForCausalLM", false, true, false, false, true, false, 32, 0, 32768},
    {"qwen3", "Qwen3ForCausalLM", true, false, true, false, true, false, 32, 128, 32768},
};
constexpr double kDefaultTheta = 10000.0;
constexpr int64_t kDefaultWindow = 4096;         // Mistral, Qwen2, Qwen3
constexpr int64_t kDefaultMaxWindowLayers = 28;  // Qwen2, Qwen3

// Larger than any model's; keeps every product of two or three of them inside 64 bits.
constexpr int64_t kMaxHidden = 1 << 17, kMaxIntermediate = 1 << 20, kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 512, kMaxLayers = 4096, kMaxVocab = 1 << 24;
constexpr int64_t kMaxPositions = int64_t{1} << 32;

absl::Status ConfigError(absl::string_view message) {
  return InvalidInput(kReason, absl::StrCat("config.json: ", message));
}

// Typed access to the fields of one object. Missing and null are the same, as in Hugging Face.
class Fields {
 public:
  Fields(const json& object, std::string path) : object_(object), path_(std::move(path)) {}

  const json* Find(const char* name) const {
    auto it = object_.find(name);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  bool Has(const char* name) const { return object_.find(name) != object_.end(); }

  absl::StatusOr<int64_t> Integer(const char* name, std::optional<int64_t> fallback, int64_t low,
                                  int64_t high) const {
    const json* value = Find(name);
    if (value == nullptr) {
      if (fallback.has_value()) return *fallback;
      return ConfigError(absl::StrCat("field ", path_, name, " is missing"));
    }
    const bool fits = value->is_number_integer() &&
                      (!value->is_number_unsigned() ||
                       value->get<uint64_t>() <= std::numeric_limits<int64_t>::max());
    if (!fits || value->get<int64_t>() < low || value->get<int64_t>() > high) {
      return ConfigError(absl::StrCat("field ", path_, name, " is ", Text(*value),
                                      "; it must be an integer from ", low, " to ", high));
    }
    return value->get<int64_t>();
  }

  absl::StatusOr<double> Number(const char* name, std::optional<double> fallback, double low,
                                double high) const {
    const json* value = Find(name);
    if (value == nullptr) {
      if (fallback.has_value()) return *fallback;
      return ConfigError(absl::StrCat("field ", path_, name, " is missing"));
    }
    // Written so that NaN fails.
    if (!value->is_number() || !(value->get<double>() >= low && value->get<double>() <= high)) {
      return ConfigError(absl::StrCat("field ", path_, name, " is ", Text(*value),
                                      "; it must be a number from ", low, " to ", high));
    }
    return value->get<double>();
  }

  absl::StatusOr<bool> Boolean(const char* name, bool fallback) const {
    const json* value = Find(name);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) {
      return ConfigError(
          absl::StrCat("field ", path_, name, " is ", Text(*value), "; it must be true or false"));
    }
    return value->get<bool>();
  }

  absl::StatusOr<std::string> String(const char* name, absl::string_view fallback) const {
    const json* value = Find(name);
    if (value == nullptr) return std::string(fallback);
    if (!value->is_string()) {
      return ConfigError(
          absl::StrCat("field ", path_, name, " is ", Text(*value), "; it must be a string"));
    }
    return value->get<std::string>();
  }

  // The value for a message, shortened.
  static std::string Text(const json& value) {
    std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
    if (text.size() > 60) text = text.substr(0, 57) + "...";
    return text;
  }

 private:
  const json& object_;
  std::string path_;
};

absl::Status UnsupportedArchitecture(absl::string_view field, absl::string_view value) {
  std::vector<std::string> names;
  for (const FamilyTraits& family : kFamilies) names.push_back(family.architecture);
  return InvalidInput(
      "UNSUPPORTED_ARCHITECTURE",
      absl::StrCat("config.json: ", field, " \"", value.substr(0, 100),
                   "\" is not supported; supported are ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<const FamilyTraits*> FindFamily(const json& root, const Fields& fields) {
  const FamilyTraits* by_architecture = nullptr;
  if (const json* architectures = fields.Find("architectures"); architectures != nullptr) {
    if (!architectures->is_array() || architectures->size() != 1 ||
        !architectures->front().is_string()) {
      return ConfigError(absl::StrCat("field architectures is ", Fields::Text(*architectures),
                                      "; it must be an array of one string"));
    }
    const std::string name = architectures->front().get<std::string>();
    for (const FamilyTraits& family : kFamilies) {
      if (name == family.architecture) by_architecture = &family;
    }
    if (by_architecture == nullptr) return UnsupportedArchitecture("architecture", name);
  }
  UQ_ASSIGN_OR_RETURN(std::string model_type, fields.String("model_type", ""));
  if (model_type.empty()) {
    if (by_architecture != nullptr) return by_architecture;
    return ConfigError("it names neither architectures nor model_type");
  }
  for (const FamilyTraits& family : kFamilies) {
    if (model_type != family.model_type) continue;
    if (by_architecture != nullptr && by_architecture != &family) {
      return ConfigError(absl::StrCat("architecture ", by_architecture->architecture,
                                      " does not belong to model_type ", model_type));
    }
    return &family;
  }
  return UnsupportedArchitecture("model_type", model_type);
}

absl::StatusOr<RopeConfig> ParseRope(const Fields& fields) {
  RopeConfig rope;
  UQ_ASSIGN_OR_RETURN(rope.theta, fields.Number("rope_theta", kDefaultTheta, 1e-3, 1e18));
  UQ_ASSIGN_OR_RETURN(double rotated, fields.Number("partial_rotary_factor", 1.0, 0.0, 1.0));
  if (rotated != 1.0) return ConfigError("partial_rotary_factor other than 1 is not supported");
  // The newer form holds theta too and wins over the old fields, as in Hugging Face.
  const char* name = fields.Find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  const json* object = fields.Find(name);
  if (object == nullptr) return rope;
  if (!object->is_object()) {
    return ConfigError(
        absl::StrCat("field ", name, " is ", Fields::Text(*object), "; it must be an object"));
  }
  const Fields scaling(*object, absl::StrCat(name, "."));
  for (const auto& [key, value] : object->items()) {
    if (value.is_object()) {
      return ConfigError(absl::StrCat("field ", name, ".", key.substr(0, 60),
                                      " is an object; rotary parameters that differ between kinds "
                                      "of layers are not supported"));
    }
  }
  UQ_ASSIGN_OR_RETURN(rope.theta, scaling.Number("rope_theta", rope.theta, 1e-3, 1e18));
  UQ_ASSIGN_OR_RETURN(rotated, scaling.Number("partial_rotary_factor", 1.0, 0.0, 1.0));
  if (rotated != 1.0) return ConfigError("partial_rotary_factor other than 1 is not supported");
  UQ_ASSIGN_OR_RETURN(std::string old_type, scaling.String("type", "default"));
  UQ_ASSIGN_OR_RETURN(rope.type, scaling.String("rope_type", old_type));
  if (rope.type == "default") return rope;
  if (rope.type != "linear" && rope.type != "llama3") {
    return ConfigError(absl::StrCat("rotary type \"", rope.type.substr(0, 60),
                                    "\" is not supported; supported are default, linear, llama3"));
  }
  UQ_ASSIGN_OR_RETURN(rope.factor, scaling.Number("factor", std::nullopt, 1.0, 1e6));
  if (rope.type == "linear") return rope;
  UQ_ASSIGN_OR_RETURN(rope.low_freq_factor,
                      scaling.Number("low_freq_factor", std::nullopt, 1e-3, 1e6));
  UQ_ASSIGN_OR_RETURN(rope.high_freq_factor,
                      scaling.Number("high_freq_factor", std::nullopt, 1e-3, 1e6));
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    return ConfigError(
        absl::StrCat(name, ".high_freq_factor must exceed ", name, ".low_freq_factor"));
  }
  UQ_ASSIGN_OR_RETURN(
      rope.original_max_position_embeddings,
      scaling.Number("original_max_position_embeddings", std::nullopt, 1.0, kMaxPositions));
  return rope;
}

// Window of each layer; 0: none.
absl::StatusOr<std::vector<int64_t>> ParseWindows(const FamilyTraits& family, const Fields& fields,
                                                  int num_layers) {
  std::vector<int64_t> windows(num_layers, 0);
  if (!family.window_always && !family.window_by_switch) return windows;
  if (fields.Has("sliding_window") && fields.Find("sliding_window") == nullptr) return windows;
  UQ_ASSIGN_OR_RETURN(int64_t window,
                      fields.Integer("sliding_window", kDefaultWindow, 1, kMaxPositions));
  int64_t first_layer = 0;
  if (family.window_by_switch) {
    UQ_ASSIGN_OR_RETURN(bool use_window, fields.Boolean("use_sliding_window", false));
    if (!use_window) return windows;
    UQ_ASSIGN_OR_RETURN(first_layer, fields.Integer("max_window_layers", kDefaultMaxWindowLayers, 0,
                                                    kMaxPositions));
  }
  const json* types = fields.Find("layer_types");
  if (types != nullptr && (!types->is_array() || types->size() != windows.size())) {
    return ConfigError(absl::StrCat(
        "field layer_types must be an array of num_hidden_layers = ", num_layers, " strings"));
  }
  for (int layer = 0; layer < num_layers; ++layer) {
    bool sliding = layer >= first_layer;
    if (types != nullptr) {
      const json& type = (*types)[layer];
      sliding = type == "sliding_attention";
      if (!sliding && type != "full_attention") {
        return ConfigError(absl::StrCat("layer_types[", layer, "] is ", Fields::Text(type),
                                        "; supported are full_attention and sliding_attention"));
      }
    }
    if (sliding) windows[layer] = window;
  }
  return windows;
}

absl::StatusOr<BlockConfig> ParseBlock(const FamilyTraits& family, const Fields& fields) {
  BlockConfig block;
  UQ_ASSIGN_OR_RETURN(block.hidden_size,
                      fields.Integer("hidden_size", std::nullopt, 1, kMaxHidden));
  UQ_ASSIGN_OR_RETURN(block.intermediate_size,
                      fields.Integer("intermediate_size", std::nullopt, 1, kMaxIntermediate));
  UQ_ASSIGN_OR_RETURN(block.num_heads,
                      fields.Integer("num_attention_heads", std::nullopt, 1, kMaxHeads));
  // Null means as many as query heads; the family's default holds where the field is missing.
  const bool null_kv_heads = fields.Has("num_key_value_heads") || family.default_kv_heads == 0;
  UQ_ASSIGN_OR_RETURN(
      block.num_kv_heads,
      fields.Integer("num_key_value_heads",
                     null_kv_heads ? block.num_heads : family.default_kv_heads, 1, kMaxHeads));
  if (block.num_heads % block.num_kv_heads != 0) {
    return ConfigError(absl::StrCat("num_key_value_heads = ", block.num_kv_heads,
                                    " does not divide num_attention_heads = ", block.num_heads));
  }
  int64_t head_dim = family.default_head_dim;
  if (fields.Find("head_dim") == nullptr && (head_dim == 0 || fields.Has("head_dim"))) {
    if (block.hidden_size % block.num_heads != 0) {
      return ConfigError(absl::StrCat("num_attention_heads = ", block.num_heads,
                                      " does not divide hidden_size = ", block.hidden_size,
                                      ", and head_dim is missing"));
    }
    head_dim = block.hidden_size / block.num_heads;
  }
  UQ_ASSIGN_OR_RETURN(head_dim, fields.Integer("head_dim", head_dim, 2, kMaxHeadDim));
  if (head_dim < 2 || head_dim > kMaxHeadDim || head_dim % 2 != 0) {
    return ConfigError(
        absl::StrCat("head_dim = ", head_dim, " must be even and from 2 to ", kMaxHeadDim));
  }
  block.head_dim = static_cast<int>(head_dim);
  UQ_ASSIGN_OR_RETURN(double eps, fields.Number("rms_norm_eps", 1e-6, 1e-20, 1.0));
  block.rms_norm_eps = static_cast<float>(eps);
  block.qk_norm = family.qk_norm;
  block.qkv_bias = family.qkv_bias_always;
  if (family.has_bias_settings) {
    UQ_ASSIGN_OR_RETURN(block.qkv_bias, fields.Boolean("attention_bias", false));
    block.o_bias = block.qkv_bias;
  }
  if (family.has_mlp_bias) {
    UQ_ASSIGN_OR_RETURN(block.mlp_bias, fields.Boolean("mlp_bias", false));
  }
  return block;
}

absl::Status RefuseQuantized(const Fields& fields) {
  for (const char* name : {"quantization_config", "compression_config", "anyprec"}) {
    if (fields.Find(name) == nullptr) continue;
    return InvalidInput("MODEL_ALREADY_QUANTIZED",
                        absl::StrCat("config.json has a \"", name,
                                     "\": the model is already quantized. Give the original "
                                     "checkpoint in float32, float16 or bfloat16"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view config_json) {
  UQ_ASSIGN_OR_RETURN(const json root, ParseJson(config_json, "config.json", kReason));
  if (!root.is_object()) return ConfigError("it must hold a JSON object");
  const Fields fields(root, "");
  UQ_RETURN_IF_ERROR(RefuseQuantized(fields));
  UQ_ASSIGN_OR_RETURN(const FamilyTraits* family, FindFamily(root, fields));

  ModelConfig config;
  config.model_type = family->model_type;
  config.architecture = family->architecture;
  UQ_ASSIGN_OR_RETURN(config.num_layers,
                      fields.Integer("num_hidden_layers", std::nullopt, 1, kMaxLayers));
  UQ_ASSIGN_OR_RETURN(config.vocab_size, fields.Integer("vocab_size", std::nullopt, 1, kMaxVocab));
  UQ_ASSIGN_OR_RETURN(
      config.max_position_embeddings,
      fields.Integer("max_position_embeddings", family->default_max_positions, 1, kMaxPositions));
  UQ_ASSIGN_OR_RETURN(config.tie_word_embeddings, fields.Boolean("tie_word_embeddings", false));
  for (const char* name : {"hidden_act", "hidden_activation"}) {
    UQ_ASSIGN_OR_RETURN(std::string activation, fields.String(name, "silu"));
    if (activation != "silu" && activation != "swish") {
      return ConfigError(absl::StrCat("field ", name, " is \"", activation.substr(0, 60),
                                      "\"; only silu is supported"));
    }
  }
  UQ_ASSIGN_OR_RETURN(config.rope, ParseRope(fields));
  UQ_ASSIGN_OR_RETURN(const BlockConfig block, ParseBlock(*family, fields));
  UQ_ASSIGN_OR_RETURN(const std::vector<int64_t> windows,
                      ParseWindows(*family, fields, config.num_layers));
  config.blocks.assign(config.num_layers, block);
  for (int layer = 0; layer < config.num_layers; ++layer) {
    config.blocks[layer].window = windows[layer];
  }
  return config;
}

}  // namespace uniquanf
