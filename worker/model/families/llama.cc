// Llama and what differs from it in a bias, a norm or a window only: Mistral, Qwen2, Qwen3.
// Sources: Hugging Face modeling_llama, modeling_mistral, modeling_qwen2, modeling_qwen3.
#include "common/base/status.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

constexpr int64_t kDefaultWindow = 4096;         // Mistral, Qwen2, Qwen3
constexpr int64_t kDefaultMaxWindowLayers = 28;  // Qwen2, Qwen3

// What the four have in common; `windows` by layer, 0: none.
absl::StatusOr<ModelConfig> Finish(const Fields& fields, const FamilyDefaults& defaults,
                                   CommonFields common, const std::vector<int64_t>& windows) {
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope,
                      ReadRope(fields, defaults, common.block.attention.head_dim));
  common.model.ropes = {rope};
  for (int64_t window : windows) {
    common.block.attention.window = window;
    common.model.blocks.push_back(BuildBlock(common.block));
  }
  return std::move(common.model);
}

absl::StatusOr<std::vector<int64_t>> WindowsByType(const Fields& fields, int num_layers,
                                                   int64_t first_layer) {
  std::vector<int64_t> windows(num_layers, 0);
  if (fields.Has("sliding_window") && fields.Find("sliding_window") == nullptr) return windows;
  UQ_ASSIGN_OR_RETURN(const int64_t window,
                      fields.Integer("sliding_window", kDefaultWindow, 1, kMaxPositions));
  UQ_ASSIGN_OR_RETURN(const std::vector<bool> types, ReadLayerTypes(fields, num_layers));
  for (int layer = 0; layer < num_layers; ++layer) {
    if (types.empty() ? layer >= first_layer : types[layer]) windows[layer] = window;
  }
  return windows;
}

// Qwen2 and Qwen3: sliding windows in the upper layers, when they are switched on.
absl::StatusOr<std::vector<int64_t>> SwitchedWindows(const Fields& fields, int num_layers) {
  if (fields.Find("sliding_window") != nullptr) {
    UQ_RETURN_IF_ERROR(fields.Integer("sliding_window", kDefaultWindow, 1, kMaxPositions).status());
  }
  UQ_ASSIGN_OR_RETURN(const bool use_window, fields.Boolean("use_sliding_window", false));
  if (!use_window) return std::vector<int64_t>(num_layers, 0);
  UQ_ASSIGN_OR_RETURN(
      const int64_t first_layer,
      fields.Integer("max_window_layers", kDefaultMaxWindowLayers, 0, kMaxPositions));
  return WindowsByType(fields, num_layers, first_layer);
}

absl::StatusOr<ModelConfig> ParseLlama(const Fields& fields) {
  const FamilyDefaults defaults;
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  AttentionTraits& attention = common.block.attention;
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("attention_bias", false));
  attention.o_bias = attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(common.block.mlp.bias, fields.Boolean("mlp_bias", false));
  const std::vector<int64_t> windows(common.model.num_layers, 0);
  return Finish(fields, defaults, std::move(common), windows);
}

absl::StatusOr<ModelConfig> ParseMistral(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.kv_heads = 8;
  defaults.max_positions = 131072;
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  UQ_ASSIGN_OR_RETURN(const std::vector<int64_t> windows,
                      WindowsByType(fields, common.model.num_layers, 0));
  return Finish(fields, defaults, std::move(common), windows);
}

FamilyDefaults QwenDefaults() {
  FamilyDefaults defaults;
  defaults.kv_heads = 32;
  defaults.max_positions = 32768;
  return defaults;
}

absl::StatusOr<ModelConfig> ParseQwen2(const Fields& fields) {
  const FamilyDefaults defaults = QwenDefaults();
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  common.block.attention.qkv_bias = true;
  UQ_ASSIGN_OR_RETURN(const std::vector<int64_t> windows,
                      SwitchedWindows(fields, common.model.num_layers));
  return Finish(fields, defaults, std::move(common), windows);
}

absl::StatusOr<ModelConfig> ParseQwen3(const Fields& fields) {
  FamilyDefaults defaults = QwenDefaults();
  defaults.head_dim = 128;
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  AttentionTraits& attention = common.block.attention;
  attention.head_norm = AttentionTraits::HeadNorm::kShared;
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("attention_bias", false));
  attention.o_bias = attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(const std::vector<int64_t> windows,
                      SwitchedWindows(fields, common.model.num_layers));
  return Finish(fields, defaults, std::move(common), windows);
}

constexpr Family kFamilies[] = {
    {"llama", "LlamaForCausalLM", ParseLlama},
    {"mistral", "MistralForCausalLM", ParseMistral},
    {"qwen2", "Qwen2ForCausalLM", ParseQwen2},
    {"qwen3", "Qwen3ForCausalLM", ParseQwen3},
    // The text parts of vision models: three equal rows of positions are one.
    {"qwen2_vl", "Qwen2VLForConditionalGeneration", ParseQwen2, "qwen2_vl_text"},
    {"qwen2_vl_text", "Qwen2VLTextModel", ParseQwen2},
    {"qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", ParseQwen2, "qwen2_5_vl_text"},
    {"qwen2_5_vl_text", "Qwen2_5_VLTextModel", ParseQwen2},
    {"qwen3_vl_text", "Qwen3VLTextModel", ParseQwen3},
};

}  // namespace

absl::Span<const Family> llama();
absl::Span<const Family> llama() { return kFamilies; }

}  // namespace uniquanf::families
