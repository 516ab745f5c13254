#include "worker/model/family_fields.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf {

using nlohmann::json;

namespace {

absl::Status ReadHeads(const Fields& fields, const FamilyDefaults& defaults, BlockTraits* block) {
  AttentionTraits& attention = block->attention;
  UQ_ASSIGN_OR_RETURN(attention.num_heads,
                      fields.Integer("num_attention_heads", std::nullopt, 1, kMaxHeads));
  // Null means as many as query heads; the family's default holds where the field is missing.
  const bool null_kv_heads = fields.Has("num_key_value_heads") || defaults.kv_heads == 0;
  UQ_ASSIGN_OR_RETURN(
      attention.num_kv_heads,
      fields.Integer("num_key_value_heads", null_kv_heads ? attention.num_heads : defaults.kv_heads,
                     1, kMaxHeads));
  if (attention.num_heads % attention.num_kv_heads != 0) {
    return ConfigError(
        absl::StrCat("num_key_value_heads = ", attention.num_kv_heads,
                     " does not divide num_attention_heads = ", attention.num_heads));
  }
  int64_t head_dim = defaults.head_dim;
  if (fields.Find("head_dim") == nullptr && (head_dim == 0 || fields.Has("head_dim"))) {
    if (block->hidden_size % attention.num_heads != 0) {
      return ConfigError(absl::StrCat("num_attention_heads = ", attention.num_heads,
                                      " does not divide hidden_size = ", block->hidden_size,
                                      ", and head_dim is missing"));
    }
    head_dim = block->hidden_size / attention.num_heads;
  }
  UQ_ASSIGN_OR_RETURN(head_dim, fields.Integer("head_dim", head_dim, 2, kMaxHeadDim));
  if (head_dim < 2 || head_dim > kMaxHeadDim || head_dim % 2 != 0) {
    return ConfigError(
        absl::StrCat("head_dim = ", head_dim, " must be even and from 2 to ", kMaxHeadDim));
  }
  attention.head_dim = static_cast<int>(head_dim);
  return absl::OkStatus();
}

absl::Status ReadScaling(const Fields& scaling, RopeConfig* rope) {
  UQ_ASSIGN_OR_RETURN(std::string old_type, scaling.String("type", "default"));
  UQ_ASSIGN_OR_RETURN(rope->type, scaling.String("rope_type", old_type));
  if (rope->type == "default") return absl::OkStatus();
  if (rope->type != "linear" && rope->type != "llama3") {
    return ConfigError(absl::StrCat("rotary type \"", rope->type.substr(0, 60),
                                    "\" is not supported; supported are default, linear, llama3"));
  }
  UQ_ASSIGN_OR_RETURN(rope->factor, scaling.Number("factor", std::nullopt, 1.0, 1e6));
  if (rope->type == "linear") return absl::OkStatus();
  UQ_ASSIGN_OR_RETURN(rope->low_freq_factor,
                      scaling.Number("low_freq_factor", std::nullopt, 1e-3, 1e6));
  UQ_ASSIGN_OR_RETURN(rope->high_freq_factor,
                      scaling.Number("high_freq_factor", std::nullopt, 1e-3, 1e6));
  if (rope->high_freq_factor <= rope->low_freq_factor) {
    return ConfigError(absl::StrCat(scaling.path(), "high_freq_factor must exceed ", scaling.path(),
                                    "low_freq_factor"));
  }
  UQ_ASSIGN_OR_RETURN(
      rope->original_max_position_embeddings,
      scaling.Number("original_max_position_embeddings", std::nullopt, 1.0, kMaxPositions));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CommonFields> ReadCommonFields(const Fields& fields,
                                              const FamilyDefaults& defaults) {
  CommonFields common;
  ModelConfig& model = common.model;
  BlockTraits& block = common.block;
  UQ_ASSIGN_OR_RETURN(model.num_layers,
                      fields.Integer("num_hidden_layers", std::nullopt, 1, kMaxLayers));
  UQ_ASSIGN_OR_RETURN(model.vocab_size,
                      fields.Integer("vocab_size", defaults.vocab_size, 1, kMaxVocab));
  UQ_ASSIGN_OR_RETURN(
      model.max_position_embeddings,
      fields.Integer("max_position_embeddings", defaults.max_positions, 1, kMaxPositions));
  UQ_ASSIGN_OR_RETURN(model.ends.tied, fields.Boolean("tie_word_embeddings", defaults.tied));
  UQ_ASSIGN_OR_RETURN(block.hidden_size,
                      fields.Integer("hidden_size", std::nullopt, 1, kMaxHidden));
  model.hidden_size = block.hidden_size;
  UQ_ASSIGN_OR_RETURN(block.mlp.size,
                      fields.Integer("intermediate_size", std::nullopt, 1, kMaxIntermediate));
  UQ_RETURN_IF_ERROR(ReadHeads(fields, defaults, &block));
  UQ_ASSIGN_OR_RETURN(const double eps,
                      fields.Number("rms_norm_eps", defaults.norm_eps, 1e-20, 1.0));
  block.norm.eps = static_cast<float>(eps);
  model.ends.final_norm_kind = block.attention.head_norm_kind = block.norm;
  return common;
}

absl::StatusOr<RopeConfig> ReadRope(const Fields& fields, const FamilyDefaults& defaults,
                                    int head_dim, absl::string_view layer_type) {
  RopeConfig rope;
  rope.width = head_dim;
  UQ_ASSIGN_OR_RETURN(rope.theta, fields.Number("rope_theta", defaults.theta, 1e-3, 1e18));
  UQ_ASSIGN_OR_RETURN(double rotated, fields.Number("partial_rotary_factor", 1.0, 0.0, 1.0));
  if (rotated != 1.0) return ConfigError("partial_rotary_factor other than 1 is not supported");
  // The newer form holds theta too and wins over the old fields, as in Hugging Face.
  const char* name = fields.Find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  UQ_ASSIGN_OR_RETURN(std::optional<Fields> scaling, fields.Object(name));
  if (!scaling.has_value()) return rope;
  if (!layer_type.empty()) {
    UQ_ASSIGN_OR_RETURN(const std::optional<Fields> of_type, scaling->Object(layer_type));
    if (of_type.has_value()) scaling.emplace(*of_type);
  }
  for (const auto& [key, value] : scaling->object().items()) {
    if (value.is_object()) {
      return ConfigError(absl::StrCat("field ", scaling->path(), key.substr(0, 60),
                                      " is an object; rotary parameters that differ between kinds "
                                      "of layers are not supported"));
    }
  }
  UQ_ASSIGN_OR_RETURN(rope.theta, scaling->Number("rope_theta", rope.theta, 1e-3, 1e18));
  UQ_ASSIGN_OR_RETURN(rotated, scaling->Number("partial_rotary_factor", 1.0, 0.0, 1.0));
  if (rotated != 1.0) return ConfigError("partial_rotary_factor other than 1 is not supported");
  UQ_RETURN_IF_ERROR(ReadScaling(*scaling, &rope));
  return rope;
}

absl::StatusOr<std::vector<bool>> ReadLayerTypes(const Fields& fields, int num_layers) {
  const json* types = fields.Find("layer_types");
  std::vector<bool> sliding;
  if (types == nullptr) return sliding;
  if (!types->is_array() || types->size() != static_cast<size_t>(num_layers)) {
    return ConfigError(absl::StrCat(
        "field layer_types must be an array of num_hidden_layers = ", num_layers, " strings"));
  }
  for (int layer = 0; layer < num_layers; ++layer) {
    const json& type = (*types)[layer];
    sliding.push_back(type == "sliding_attention");
    if (!sliding.back() && type != "full_attention") {
      return ConfigError(absl::StrCat("layer_types[", layer, "] is ", Fields::Text(type),
                                      "; supported are full_attention and sliding_attention"));
    }
  }
  return sliding;
}

absl::StatusOr<ops::Activation> ReadActivation(const Fields& fields, absl::string_view name,
                                               absl::string_view fallback) {
  static constexpr struct {
    const char* name;
    ops::Activation kind;
  } kNames[] = {
      {"silu", ops::Activation::kSilu},         {"swish", ops::Activation::kSilu},
      {"gelu", ops::Activation::kGelu},         {"gelu_pytorch_tanh", ops::Activation::kGeluTanh},
      {"gelu_new", ops::Activation::kGeluTanh}, {"gelu_fast", ops::Activation::kGeluTanh},
      {"relu", ops::Activation::kRelu},         {"relu2", ops::Activation::kReluSquared}};
  UQ_ASSIGN_OR_RETURN(const std::string text, fields.String(name, fallback));
  std::string known;
  for (const auto& row : kNames) {
    if (text == row.name) return row.kind;
    absl::StrAppend(&known, known.empty() ? "" : ", ", row.name);
  }
  return ConfigError(absl::StrCat("field ", fields.path(), name, " is \"", text.substr(0, 60),
                                  "\"; supported are ", known));
}

absl::StatusOr<double> ReadNullableNumber(const Fields& fields, absl::string_view name,
                                          double fallback, double low, double high) {
  if (fields.Has(name) && fields.Find(name) == nullptr) return 0.0;
  if (!fields.Has(name)) return fallback;
  return fields.Number(name, fallback, low, high);
}

absl::StatusOr<int> ReadNumExperts(const Fields& fields, absl::string_view name,
                                   std::optional<int64_t> fallback, int num_layers) {
  constexpr int64_t kMaxAllExperts = 1 << 16;
  return fields.Integer(name, fallback, 1, std::min(kMaxExperts, kMaxAllExperts / num_layers));
}

absl::Status ExpectSilu(const Fields& fields) {
  for (const char* name : {"hidden_act", "hidden_activation"}) {
    UQ_ASSIGN_OR_RETURN(std::string activation, fields.String(name, "silu"));
    if (activation != "silu" && activation != "swish") {
      return ConfigError(absl::StrCat("field ", name, " is \"", activation.substr(0, 60),
                                      "\"; only silu is supported"));
    }
  }
  return absl::OkStatus();
}

}  // namespace uniquanf
