// Phi 1 to 4 and Phi-3.5-MoE. Sources: Hugging Face modeling_phi, modeling_phi3, modeling_phimoe.
#include <utility>

#include "common/base/status.h"
#include "worker/model/expert_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

// Phi 1 and 2: attention and MLP side by side behind one layer norm, half the head rotated.
absl::StatusOr<ModelConfig> ParsePhi(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 51200;
  defaults.names.eps = "layer_norm_eps";
  defaults.norm_eps = 1e-5;
  defaults.rotated = 0.5;
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "qk_layernorm", false));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  UseLayerNorm(/*bias=*/true, &common);
  BlockTraits& block = common.block;
  block.parallel = true;
  block.mlp_input_norm = "";
  block.attention.o = "self_attn.dense";
  block.attention.qkv_bias = block.attention.o_bias = true;
  block.mlp.gated = false;
  block.mlp.bias = true;
  block.mlp.up = "mlp.fc1";
  block.mlp.down = "mlp.fc2";
  UQ_ASSIGN_OR_RETURN(block.mlp.activation, ReadActivation(fields, "hidden_act", "gelu_new"));
  common.model.ends.final_norm = "model.final_layernorm";
  common.model.ends.head_bias = true;
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, block.attention.head_dim));
  common.model.ropes = {rope};
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParsePhi3(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 32064;
  defaults.max_positions = 4096;
  defaults.norm_eps = 1e-5;
  defaults.rotated = 1;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  for (const char* flag : {"attention_bias", "mlp_bias", "lm_head_bias"}) {
    UQ_RETURN_IF_ERROR(ExpectFlag(fields, flag, false));
  }
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  BlockTraits& block = common.block;
  block.attention.fused = AttentionTraits::Fused::kInOrder;
  block.attention.fused_module = "self_attn.qkv_proj";
  block.mlp.fused_module = "mlp.gate_up_proj";
  if (fields.Find("sliding_window") != nullptr) {
    UQ_ASSIGN_OR_RETURN(block.attention.window,
                        fields.Integer("sliding_window", std::nullopt, 1, kMaxPositions));
  }
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, block.attention.head_dim));
  common.model.ropes = {rope};
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParsePhiMoe(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 32064;
  defaults.kv_heads = 8;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.theta = 1e6;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  UseLayerNorm(/*bias=*/true, &common);
  BlockTraits& block = common.block;
  UQ_ASSIGN_OR_RETURN(block.attention.qkv_bias, fields.Boolean("attention_bias", false));
  block.attention.o_bias = block.attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(common.model.ends.head_bias, fields.Boolean("lm_head_bias", false));
  ExpertNumbers numbers;
  numbers.experts = "num_local_experts";
  numbers.default_experts = 16;
  numbers.default_chosen = 2;
  numbers.size = "intermediate_size";
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, &common));
  ExpertsTraits& experts = block.experts;
  experts.router.sparse_mixer = true;
  UQ_ASSIGN_OR_RETURN(experts.router.jitter, ReadFactor(fields, "router_jitter_noise", 0.01));
  experts.router_module = "block_sparse_moe.gate";
  experts.experts = "block_sparse_moe.experts.";
  experts.gate = ".w1";
  experts.up = ".w3";
  experts.down = ".w2";
  block.mlp.size = 0;
  if (fields.Find("sliding_window") != nullptr) {
    UQ_ASSIGN_OR_RETURN(block.attention.window,
                        fields.Integer("sliding_window", std::nullopt, 1, kMaxPositions));
  }
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, block.attention.head_dim));
  common.model.ropes = {rope};
  return BuildLayers(std::move(common));
}

constexpr Family kFamilies[] = {
    {"phi", "PhiForCausalLM", ParsePhi},
    {"phi3", "Phi3ForCausalLM", ParsePhi3},
    {"phimoe", "PhiMoEForCausalLM", ParsePhiMoe},
    {"phimoe", "PhimoeForCausalLM", ParsePhiMoe},
};

}  // namespace

absl::Span<const Family> phi();
absl::Span<const Family> phi() { return kFamilies; }

}  // namespace uniquanf::families
