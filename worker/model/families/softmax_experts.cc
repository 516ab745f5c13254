// ERNIE 4.5 and Hunyuan with experts. Sources: Hugging Face modeling_ernie4_5_moe,
// modeling_hunyuan_v1_moe.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/model/expert_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

// Chosen by the softmax and a correction, which does not count for the weights.
absl::StatusOr<ModelConfig> ParseErnieMoe(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 103424;
  defaults.kv_heads = 4;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.theta = 5e5;
  defaults.tied = true;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  BlockTraits& block = common.block;
  block.attention.rope_interleaved = true;
  UQ_ASSIGN_OR_RETURN(const bool bias, fields.Boolean("use_bias", false));
  block.attention.qkv_bias = block.attention.o_bias = block.mlp.bias = bias;
  ExpertNumbers numbers;
  numbers.experts = "moe_num_experts";
  numbers.default_experts = 64;
  numbers.chosen = "moe_k";
  numbers.default_chosen = 6;
  numbers.default_size = 1536;
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, &common));
  ExpertsTraits& experts = block.experts;
  experts.bias = bias;
  experts.router.normalize = true;
  UQ_ASSIGN_OR_RETURN(const double least, fields.Number("moe_norm_min", 1e-12, 0.0, 1e-6));
  experts.router.epsilon = static_cast<float>(least);
  experts.correction = "mlp.moe_statics.e_score_correction_bias";
  experts.correction_is_row = true;
  UQ_ASSIGN_OR_RETURN(const int64_t shared,
                      fields.Integer("moe_num_shared_experts", 2, 0, kMaxExperts));
  UseSharedExperts("mlp.shared_experts", shared, &experts);
  experts.shared.bias = bias;
  const int num_layers = common.model.num_layers;
  UQ_ASSIGN_OR_RETURN(const int64_t first,
                      fields.Integer("moe_layer_start_index", 1, 0, kMaxLayers));
  UQ_ASSIGN_OR_RETURN(int64_t last, fields.Integer("moe_layer_end_index", -1, -1, kMaxLayers));
  if (last < 0) last = num_layers - 1;
  UQ_ASSIGN_OR_RETURN(const int64_t interval,
                      fields.Integer("moe_layer_interval", 1, 1, kMaxLayers));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, block.attention.head_dim));
  common.model.ropes = {rope};
  return BuildExpertLayers(std::move(common), [&](int layer) {
    return layer < first || layer > last || (layer + 1) % interval != 0;
  });
}

// A number for all layers, or a list with one for each of them, all the same.
absl::StatusOr<int64_t> ReadNumberOrList(const Fields& fields, absl::string_view name, int64_t high,
                                         int num_layers) {
  const nlohmann::json* value = fields.Find(name);
  if (value == nullptr || !value->is_array()) {
    return fields.Integer(name, std::nullopt, 1, high);
  }
  UQ_ASSIGN_OR_RETURN(const std::vector<int> list, ReadByLayer(fields, name, num_layers));
  for (int item : list) {
    if (item == list[0] && item >= 1 && item <= high) continue;
    return ConfigError(
        absl::StrCat("field ", name, " must hold one number from 1 to ", high, " for all layers"));
  }
  return list[0];
}

absl::StatusOr<ModelConfig> ParseHunyuanMoe(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 290943;
  defaults.norm_eps = 1e-5;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "use_cla", false));
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "use_qk_norm", true));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  AttentionTraits& attention = common.block.attention;
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("attention_bias", false));
  attention.o_bias = attention.qkv_bias;
  attention.head_norm = AttentionTraits::HeadNorm::kShared;
  attention.q_norm = "self_attn.query_layernorm";
  attention.k_norm = "self_attn.key_layernorm";
  attention.norm_after_rope = true;
  ExpertsTraits& experts = common.block.experts;
  const int num_layers = common.model.num_layers;
  UQ_ASSIGN_OR_RETURN(experts.router.num_experts,
                      ReadNumExperts(fields, "num_experts", std::nullopt, num_layers));
  UQ_ASSIGN_OR_RETURN(experts.router.top_k,
                      ReadNumberOrList(fields, "moe_topk", experts.router.num_experts, num_layers));
  experts.router.normalize = true;
  experts.size = std::exchange(common.block.mlp.size, 0);
  experts.router_module = "mlp.gate.wg";
  UseSharedExperts("mlp.shared_mlp", 1, &experts);
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, attention.head_dim));
  common.model.ropes = {rope};
  return BuildLayers(std::move(common));
}

constexpr Family kFamilies[] = {
    {"ernie4_5_moe", "Ernie4_5_MoeForCausalLM", ParseErnieMoe},
    {"hunyuan_v1_moe", "HunYuanMoEV1ForCausalLM", ParseHunyuanMoe},
};

}  // namespace

absl::Span<const Family> softmax_experts();
absl::Span<const Family> softmax_experts() { return kFamilies; }

}  // namespace uniquanf::families
