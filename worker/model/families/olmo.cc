// OLMo 1, 2 and 3, OLMoE, and EXAONE 4, which norms what attention and MLP give as OLMo 2 does.
// Sources: Hugging Face modeling_olmo, modeling_olmo2, modeling_olmo3, modeling_olmoe,
// modeling_exaone4.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/model/expert_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

constexpr int kFullTable = 0, kSlidingTable = 1;

absl::StatusOr<CommonFields> Read(const Fields& fields, const FamilyDefaults& defaults) {
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  AttentionTraits& attention = common.block.attention;
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("attention_bias", false));
  attention.o_bias = attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(const double clip, ReadNullableNumber(fields, "clip_qkv", 0, 1e-6, 1e6));
  attention.clip = static_cast<float>(clip);
  return common;
}

FamilyDefaults Defaults(int64_t vocab_size) {
  FamilyDefaults defaults;
  defaults.vocab_size = vocab_size;
  defaults.norm_eps = 1e-5;
  return defaults;
}

// Layer norms without parameters.
absl::StatusOr<ModelConfig> ParseOlmo(const Fields& fields) {
  FamilyDefaults defaults = Defaults(50304);
  defaults.names.eps = "";
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  UseLayerNorm(/*bias=*/false, &common);
  common.block.norm.weight = common.model.ends.final_norm_kind.weight = false;
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope,
                      ReadRope(fields, defaults, common.block.attention.head_dim));
  common.model.ropes = {rope};
  return BuildLayers(std::move(common));
}

// Norms of outputs, and of queries and keys as a whole.
void UseOutputNorms(AttentionTraits::HeadNorm head_norm, BlockTraits* block) {
  block->attention_input_norm = block->mlp_input_norm = "";
  block->attention_output_norm = "post_attention_layernorm";
  block->mlp_output_norm = "post_feedforward_layernorm";
  block->attention.head_norm = head_norm;
}

absl::StatusOr<ModelConfig> ParseOlmo2(const Fields& fields) {
  const FamilyDefaults defaults = Defaults(50304);
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  UseOutputNorms(AttentionTraits::HeadNorm::kProjection, &common.block);
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope,
                      ReadRope(fields, defaults, common.block.attention.head_dim));
  common.model.ropes = {rope};
  return BuildLayers(std::move(common));
}

// Rotary scaling is for full layers only.
absl::StatusOr<ModelConfig> ParseOlmo3(const Fields& fields) {
  FamilyDefaults defaults = Defaults(50304);
  defaults.theta = 5e5;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  UseOutputNorms(AttentionTraits::HeadNorm::kProjection, &common.block);
  const int head_dim = common.block.attention.head_dim;
  UQ_ASSIGN_OR_RETURN(const RopeConfig full,
                      ReadRope(fields, defaults, head_dim, "full_attention"));
  RopeConfig sliding;
  sliding.width = full.width;
  sliding.theta = full.theta;
  UQ_ASSIGN_OR_RETURN(const std::optional<Fields> parameters, fields.Object("rope_parameters"));
  if (parameters.has_value() && parameters->Find("sliding_attention") != nullptr) {
    UQ_ASSIGN_OR_RETURN(sliding, ReadRope(fields, defaults, head_dim, "sliding_attention"));
  }
  common.model.ropes = {full, sliding};
  UQ_ASSIGN_OR_RETURN(const std::vector<int64_t> windows,
                      ReadWindows(fields, common.model.num_layers, 4096,
                                  [](int layer) { return (layer + 1) % 4 != 0; }));
  return BuildLayers(std::move(common), [&](int layer, BlockTraits* block) {
    block->attention.window = windows[layer];
    block->attention.rope_table = windows[layer] > 0 ? kSlidingTable : kFullTable;
  });
}

absl::StatusOr<ModelConfig> ParseOlmoe(const Fields& fields) {
  FamilyDefaults defaults = Defaults(50304);
  defaults.max_positions = 4096;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  ExpertNumbers numbers;
  numbers.default_experts = 64;
  numbers.default_chosen = 8;
  numbers.size = "intermediate_size";
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, &common));
  common.block.attention.head_norm = AttentionTraits::HeadNorm::kProjection;
  UQ_ASSIGN_OR_RETURN(common.block.experts.router.normalize,
                      fields.Boolean("norm_topk_prob", false));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope,
                      ReadRope(fields, defaults, common.block.attention.head_dim));
  common.model.ropes = {rope};
  return BuildExpertLayers(std::move(common), [](int) { return false; });
}

// Which layers slide: by a number n, all but every n-th; by letters, those with an L.
absl::StatusOr<std::string> ReadPattern(const Fields& fields) {
  const nlohmann::json* value = fields.Find("sliding_window_pattern");
  if (value != nullptr && value->is_string()) {
    UQ_ASSIGN_OR_RETURN(const std::string pattern, fields.String("sliding_window_pattern", ""));
    if (pattern.empty() || pattern.find_first_not_of("LG") != std::string::npos) {
      return ConfigError("field sliding_window_pattern must be a number or letters L and G");
    }
    return pattern;
  }
  UQ_ASSIGN_OR_RETURN(const int64_t every,
                      fields.Integer("sliding_window_pattern", 4, 1, kMaxLayers));
  return std::string(every - 1, 'L') + "G";
}

// Where there is a window, only layers with it have a rotary embedding.
absl::StatusOr<ModelConfig> ParseExaone4(const Fields& fields) {
  FamilyDefaults defaults = Defaults(102400);
  defaults.kv_heads = 32;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  UseOutputNorms(AttentionTraits::HeadNorm::kShared, &common.block);
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope,
                      ReadRope(fields, defaults, common.block.attention.head_dim));
  common.model.ropes = {rope};
  UQ_ASSIGN_OR_RETURN(const std::string pattern, ReadPattern(fields));
  UQ_ASSIGN_OR_RETURN(const std::vector<int64_t> windows,
                      ReadWindows(fields, common.model.num_layers, 4096, [&](int layer) {
                        return pattern[layer % pattern.size()] == 'L';
                      }));
  const bool hybrid = !fields.Has("sliding_window") || fields.Find("sliding_window") != nullptr;
  return BuildLayers(std::move(common), [&](int layer, BlockTraits* block) {
    block->attention.window = windows[layer];
    if (hybrid && windows[layer] == 0) block->attention.rope_table = -1;
  });
}

constexpr Family kFamilies[] = {
    {"exaone4", "Exaone4ForCausalLM", ParseExaone4}, {"olmo", "OlmoForCausalLM", ParseOlmo},
    {"olmo2", "Olmo2ForCausalLM", ParseOlmo2},       {"olmo3", "Olmo3ForCausalLM", ParseOlmo3},
    {"olmoe", "OlmoeForCausalLM", ParseOlmoe},
};

}  // namespace

absl::Span<const Family> olmo();
absl::Span<const Family> olmo() { return kFamilies; }

}  // namespace uniquanf::families
