#include "worker/model/family_fields.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf {

using nlohmann::json;

namespace {

absl::Status ReadHeads(const Fields& fields, const FamilyDefaults& defaults, BlockTraits* block) {
  AttentionTraits& attention = block->attention;
  const FieldNames& names = defaults.names;
  UQ_ASSIGN_OR_RETURN(attention.num_heads, fields.Integer(names.heads, std::nullopt, 1, kMaxHeads));
  // Null means as many as query heads; the family's default holds where the field is missing.
  const bool null_kv_heads = fields.Has(names.kv_heads) || defaults.kv_heads == 0;
  UQ_ASSIGN_OR_RETURN(
      attention.num_kv_heads,
      fields.Integer(names.kv_heads, null_kv_heads ? attention.num_heads : defaults.kv_heads, 1,
                     kMaxHeads));
  if (attention.num_heads % attention.num_kv_heads != 0) {
    return ConfigError(absl::StrCat(names.kv_heads, " = ", attention.num_kv_heads,
                                    " does not divide ", names.heads, " = ", attention.num_heads));
  }
  int64_t head_dim = defaults.head_dim;
  if (fields.Find(names.head_dim) == nullptr && (head_dim == 0 || fields.Has(names.head_dim))) {
    if (block->hidden_size % attention.num_heads != 0) {
      return ConfigError(absl::StrCat(names.heads, " = ", attention.num_heads, " does not divide ",
                                      names.hidden, " = ", block->hidden_size,
                                      ", and head_dim is missing"));
    }
    head_dim = block->hidden_size / attention.num_heads;
  }
  UQ_ASSIGN_OR_RETURN(head_dim, fields.Integer(names.head_dim, head_dim, 2, kMaxHeadDim));
  if (head_dim < 2 || head_dim > kMaxHeadDim || (head_dim % 2 != 0 && !defaults.odd_heads)) {
    return ConfigError(
        absl::StrCat("head_dim = ", head_dim, " must be even and from 2 to ", kMaxHeadDim));
  }
  attention.head_dim = static_cast<int>(head_dim);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CommonFields> ReadCommonFields(const Fields& fields,
                                              const FamilyDefaults& defaults) {
  CommonFields common;
  ModelConfig& model = common.model;
  BlockTraits& block = common.block;
  const FieldNames& names = defaults.names;
  UQ_ASSIGN_OR_RETURN(model.num_layers, fields.Integer(names.layers, std::nullopt, 1, kMaxLayers));
  UQ_ASSIGN_OR_RETURN(model.vocab_size,
                      fields.Integer(names.vocab, defaults.vocab_size, 1, kMaxVocab));
  UQ_ASSIGN_OR_RETURN(model.max_position_embeddings,
                      fields.Integer(names.positions, defaults.max_positions, 1, kMaxPositions));
  UQ_ASSIGN_OR_RETURN(model.ends.tied, fields.Boolean("tie_word_embeddings", defaults.tied));
  UQ_ASSIGN_OR_RETURN(block.hidden_size, fields.Integer(names.hidden, std::nullopt, 1, kMaxHidden));
  model.hidden_size = block.hidden_size;
  std::optional<int64_t> inner;
  if (defaults.four_times) inner = 4 * block.hidden_size;
  UQ_ASSIGN_OR_RETURN(block.mlp.size,
                      fields.Integer(names.intermediate, inner, 1, kMaxIntermediate));
  UQ_RETURN_IF_ERROR(ReadHeads(fields, defaults, &block));
  UQ_ASSIGN_OR_RETURN(const double eps, fields.Number(names.eps, defaults.norm_eps, 1e-20, 1.0));
  block.norm.eps = static_cast<float>(eps);
  model.ends.final_norm_kind = block.attention.head_norm_kind = block.norm;
  return common;
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

absl::StatusOr<std::vector<int64_t>> ReadWindows(const Fields& fields, int num_layers,
                                                 int64_t default_window,
                                                 const std::function<bool(int)>& slides) {
  std::vector<int64_t> windows(num_layers, 0);
  if (fields.Has("sliding_window") && fields.Find("sliding_window") == nullptr) return windows;
  if (default_window == 0 && !fields.Has("sliding_window")) return windows;
  UQ_ASSIGN_OR_RETURN(const int64_t window,
                      fields.Integer("sliding_window", default_window, 1, kMaxPositions));
  UQ_ASSIGN_OR_RETURN(const std::vector<bool> types, ReadLayerTypes(fields, num_layers));
  for (int layer = 0; layer < num_layers; ++layer) {
    if (types.empty() ? slides(layer) : types[layer]) windows[layer] = window;
  }
  return windows;
}

absl::Status ExpectFlag(const Fields& fields, absl::string_view name, bool wanted) {
  UQ_ASSIGN_OR_RETURN(const bool value, fields.Boolean(name, wanted));
  if (value == wanted) return absl::OkStatus();
  return ConfigError(absl::StrCat("field ", fields.path(), name, " = ", value ? "true" : "false",
                                  " is not supported"));
}

absl::StatusOr<float> ReadFactor(const Fields& fields, absl::string_view name, double fallback) {
  UQ_ASSIGN_OR_RETURN(const double factor, fields.Number(name, fallback, 1e-9, 1e9));
  return static_cast<float>(factor);
}

absl::Status ReadMiniCpmScales(const Fields& fields, CommonFields* common) {
  ModelConfig& model = common->model;
  UQ_ASSIGN_OR_RETURN(model.ends.embedding_scale, ReadFactor(fields, "scale_emb"));
  UQ_ASSIGN_OR_RETURN(const double depth, fields.Number("scale_depth", 1.0, 1e-6, 1e6));
  common->block.residual_factor = static_cast<float>(depth / std::sqrt(model.num_layers));
  UQ_ASSIGN_OR_RETURN(const double base, fields.Number("dim_model_base", 1.0, 1e-6, 1e6));
  model.ends.logit_scale = static_cast<float>(base / static_cast<double>(model.hidden_size));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int>> ReadByLayer(const Fields& fields, absl::string_view name,
                                             int num_layers) {
  std::vector<int> values;
  const json* array = fields.Find(name);
  if (array == nullptr) return values;
  const absl::Status wrong = ConfigError(absl::StrCat(
      "field ", fields.path(), name, " must be an array of num_hidden_layers = ", num_layers,
      " numbers from 0 to 1000000"));
  if (!array->is_array() || array->size() != static_cast<size_t>(num_layers)) return wrong;
  for (const json& value : *array) {
    if (!value.is_number_integer() || value < 0 || value > 1000000) return wrong;
    values.push_back(value.get<int>());
  }
  return values;
}

absl::StatusOr<ModelConfig> BuildLayers(CommonFields common,
                                        const std::function<void(int, BlockTraits*)>& change) {
  if (change == nullptr) {
    common.model.blocks.assign(common.model.num_layers, BuildBlock(common.block));
    return std::move(common.model);
  }
  for (int layer = 0; layer < common.model.num_layers; ++layer) {
    BlockTraits block = common.block;
    change(layer, &block);
    common.model.blocks.push_back(BuildBlock(block));
  }
  return std::move(common.model);
}

void UseLayerNorm(bool bias, CommonFields* common) {
  for (NormTraits* kind :
       {&common->block.norm, &common->model.ends.final_norm_kind,
        &common->model.ends.embedding_norm_kind, &common->block.attention.head_norm_kind}) {
    kind->center = true;
    kind->bias = bias;
    kind->eps = common->block.norm.eps;
  }
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
      {"relu", ops::Activation::kRelu},         {"relu2", ops::Activation::kReluSquared},
      {"swiglu", ops::Activation::kSilu}};
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
