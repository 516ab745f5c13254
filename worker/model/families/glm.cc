// GLM-4 (9B and 0414) and GLM-4.5 to 4.7 with experts. Sources: Hugging Face modeling_glm,
// modeling_glm4, modeling_glm4_moe.
#include <utility>

#include "common/base/status.h"
#include "worker/model/expert_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

FamilyDefaults Defaults() {
  FamilyDefaults defaults;
  defaults.vocab_size = 151552;
  defaults.max_positions = 131072;
  defaults.rotated = 0.5;
  return defaults;
}

absl::StatusOr<CommonFields> Read(const Fields& fields, const FamilyDefaults& defaults,
                                  bool attention_bias) {
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  UQ_ASSIGN_OR_RETURN(common.block.attention.qkv_bias,
                      fields.Boolean("attention_bias", attention_bias));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope,
                      ReadRope(fields, defaults, common.block.attention.head_dim));
  common.model.ropes = {rope};
  return common;
}

absl::StatusOr<CommonFields> ReadDense(const Fields& fields) {
  FamilyDefaults defaults = Defaults();
  defaults.kv_heads = 2;
  defaults.head_dim = 128;
  defaults.norm_eps = 1.5625e-7;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults, /*attention_bias=*/true));
  common.block.attention.rope_interleaved = true;
  common.block.mlp.fused_module = "mlp.gate_up_proj";
  return common;
}

absl::StatusOr<ModelConfig> ParseGlm(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadDense(fields));
  return BuildLayers(std::move(common));
}

// post_attention_layernorm is the norm of the MLP's input, as in Llama.
absl::StatusOr<ModelConfig> ParseGlm4(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadDense(fields));
  common.block.attention_output_norm = "post_self_attn_layernorm";
  common.block.mlp_output_norm = "post_mlp_layernorm";
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParseGlm4Moe(const Fields& fields) {
  FamilyDefaults defaults = Defaults();
  defaults.kv_heads = 8;
  defaults.norm_eps = 1e-5;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults, /*attention_bias=*/false));
  UQ_ASSIGN_OR_RETURN(const bool head_norm, fields.Boolean("use_qk_norm", false));
  if (head_norm) common.block.attention.head_norm = AttentionTraits::HeadNorm::kShared;
  ExpertNumbers numbers;
  numbers.experts = "n_routed_experts";
  numbers.default_experts = 128;
  numbers.default_chosen = 8;
  numbers.default_size = 1408;
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, &common));
  ExpertsTraits& experts = common.block.experts;
  UQ_RETURN_IF_ERROR(ReadSigmoidRouter(fields, /*normalize=*/true, 1.0, 1, 1, &experts));
  UQ_ASSIGN_OR_RETURN(const int64_t shared, fields.Integer("n_shared_experts", 1, 0, kMaxExperts));
  UseSharedExperts("mlp.shared_experts", shared, &experts);
  UQ_ASSIGN_OR_RETURN(const int64_t dense,
                      fields.Integer("first_k_dense_replace", 1, 0, kMaxLayers));
  UQ_ASSIGN_OR_RETURN(common.model.num_extra_layers,
                      fields.Integer("num_nextn_predict_layers", 0, 0, kMaxLayers));
  return BuildExpertLayers(std::move(common), [&](int layer) { return layer < dense; });
}

constexpr Family kFamilies[] = {
    {"glm", "GlmForCausalLM", ParseGlm},
    {"glm4", "Glm4ForCausalLM", ParseGlm4},
    {"glm4_moe", "Glm4MoeForCausalLM", ParseGlm4Moe},
};

}  // namespace

absl::Span<const Family> glm();
absl::Span<const Family> glm() { return kFamilies; }

}  // namespace uniquanf::families
