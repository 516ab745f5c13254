// Families with sigmoid routers beside DeepSeek's: MiniMax M2, MiMo V2, Ling 2; and Ling 1.
// Sources: the published code.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/model/expert_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

// Norms of queries and keys as a whole; a part of each head is rotated.
absl::StatusOr<ModelConfig> ParseMiniMaxM2(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 200064;
  defaults.kv_heads = 8;
  defaults.head_dim = 128;
  defaults.max_positions = 196608;
  defaults.theta = 5e6;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "use_qk_norm", true));
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "use_routing_bias", true));
  UQ_ASSIGN_OR_RETURN(const std::string norm, fields.String("qk_norm_type", "per_layer"));
  if (norm != "per_layer") return ConfigError("field qk_norm_type must be \"per_layer\"");
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  BlockTraits& block = common.block;
  const int head_dim = block.attention.head_dim;
  block.attention.head_norm = AttentionTraits::HeadNorm::kProjection;
  UQ_ASSIGN_OR_RETURN(const int64_t rotated, fields.Integer("rotary_dim", head_dim, 2, head_dim));
  defaults.rotated = static_cast<double>(rotated) / head_dim;
  ExpertNumbers numbers;
  numbers.experts = "num_local_experts";
  numbers.default_experts = 256;
  numbers.default_chosen = 8;
  numbers.size = "intermediate_size";
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, &common));
  block.mlp.size = 0;
  ExpertsTraits& experts = block.experts;
  experts.router_module = "block_sparse_moe.gate";
  UQ_RETURN_IF_ERROR(ReadSigmoidRouter(fields, /*normalize=*/true, 1.0, 1, 1, &experts));
  experts.router.normalize = true;
  experts.router.epsilon = 0;
  experts.correction = "block_sparse_moe.e_score_correction_bias";
  experts.experts = "block_sparse_moe.experts.";
  experts.gate = ".w1";
  experts.up = ".w3";
  experts.down = ".w2";
  UQ_ASSIGN_OR_RETURN(common.model.num_extra_layers,
                      fields.Integer("num_mtp_modules", 0, 0, kMaxLayers));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, head_dim));
  common.model.ropes = {rope};
  return BuildLayers(std::move(common));
}

// Layers with a window have other numbers of heads, another rotary base and sinks.
absl::StatusOr<ModelConfig> ParseMimoV2(const Fields& fields) {
  constexpr int kFullTable = 0, kSlidingTable = 1;
  FamilyDefaults defaults;
  defaults.vocab_size = 152576;
  defaults.max_positions = 262144;
  defaults.names.eps = "layernorm_epsilon";
  defaults.norm_eps = 1e-5;
  defaults.rotated = 1;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "attention_bias", false));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  const int num_layers = common.model.num_layers;
  FamilyDefaults sliding_defaults = defaults;
  sliding_defaults.names.heads = "swa_num_attention_heads";
  sliding_defaults.names.kv_heads = "swa_num_key_value_heads";
  sliding_defaults.names.head_dim = "swa_head_dim";
  sliding_defaults.names.theta = "swa_rope_theta";
  UQ_ASSIGN_OR_RETURN(const CommonFields sliding_fields,
                      ReadCommonFields(fields, sliding_defaults));
  AttentionTraits full = common.block.attention, sliding = sliding_fields.block.attention;
  UQ_ASSIGN_OR_RETURN(full.value_dim, fields.Integer("v_head_dim", full.head_dim, 1, kMaxHeadDim));
  UQ_ASSIGN_OR_RETURN(sliding.value_dim,
                      fields.Integer("swa_v_head_dim", full.value_dim, 1, kMaxHeadDim));
  UQ_ASSIGN_OR_RETURN(full.value_scale, ReadFactor(fields, "attention_value_scale"));
  sliding.value_scale = full.value_scale;
  UQ_ASSIGN_OR_RETURN(const bool sliding_sinks,
                      fields.Boolean("add_swa_attention_sink_bias", true));
  UQ_ASSIGN_OR_RETURN(const bool full_sinks, fields.Boolean("add_full_attention_sink_bias", false));
  if (sliding_sinks) sliding.sinks = "self_attn.attention_sink_bias";
  if (full_sinks) full.sinks = "self_attn.attention_sink_bias";
  UQ_ASSIGN_OR_RETURN(sliding.window, fields.Integer("sliding_window", 128, 1, kMaxPositions));
  full.rope_table = kFullTable;
  sliding.rope_table = kSlidingTable;
  UQ_ASSIGN_OR_RETURN(const RopeConfig full_rope, ReadRope(fields, defaults, full.head_dim));
  UQ_ASSIGN_OR_RETURN(const RopeConfig sliding_rope,
                      ReadRope(fields, sliding_defaults, sliding.head_dim));
  common.model.ropes = {full_rope, sliding_rope};
  ExpertNumbers numbers;
  numbers.experts = "n_routed_experts";
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, &common));
  ExpertsTraits& experts = common.block.experts;
  UQ_RETURN_IF_ERROR(ReadSigmoidRouter(fields, /*normalize=*/true, 1.0, 1, 1, &experts));
  UQ_ASSIGN_OR_RETURN(const int64_t shared, fields.Integer("n_shared_experts", 0, 0, kMaxExperts));
  UseSharedExperts("mlp.shared_experts", shared, &experts);
  UQ_ASSIGN_OR_RETURN(const std::vector<int> slides,
                      ReadByLayer(fields, "hybrid_layer_pattern", num_layers));
  UQ_ASSIGN_OR_RETURN(const std::vector<int> sparse,
                      ReadByLayer(fields, "moe_layer_freq", num_layers));
  if (slides.empty() || sparse.empty()) {
    return ConfigError("fields hybrid_layer_pattern and moe_layer_freq are needed");
  }
  return BuildExpertLayers(
      std::move(common), [&](int layer) { return sparse[layer] == 0; },
      [&](int layer, BlockTraits* block) {
        block->attention = slides[layer] != 0 ? sliding : full;
      });
}

absl::StatusOr<CommonFields> ReadLing(const Fields& fields, FamilyDefaults* defaults) {
  defaults->vocab_size = 126464;
  defaults->max_positions = 16384;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, *defaults));
  AttentionTraits& attention = common.block.attention;
  attention.fused = AttentionTraits::Fused::kInOrder;
  attention.fused_module = "attention.query_key_value";
  attention.q = "attention.q_proj";
  attention.k = "attention.k_proj";
  attention.v = "attention.v_proj";
  attention.o = "attention.dense";
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("use_qkv_bias", false));
  UQ_ASSIGN_OR_RETURN(attention.o_bias, fields.Boolean("use_bias", false));
  UQ_ASSIGN_OR_RETURN(const bool head_norm, fields.Boolean("use_qk_norm", false));
  if (head_norm) {
    attention.head_norm = AttentionTraits::HeadNorm::kShared;
    attention.q_norm = "attention.query_layernorm";
    attention.k_norm = "attention.key_layernorm";
  }
  common.model.ends.embedding = "model.word_embeddings";
  UQ_ASSIGN_OR_RETURN(common.model.ends.head_rows_normalized, fields.Boolean("norm_head", false));
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, {}, &common));
  return common;
}

absl::StatusOr<ModelConfig> FinishLing(const Fields& fields, const FamilyDefaults& defaults,
                                       CommonFields common) {
  UQ_ASSIGN_OR_RETURN(const int64_t shared,
                      fields.Integer("num_shared_experts", 0, 0, kMaxExperts));
  UseSharedExperts("mlp.shared_experts", shared, &common.block.experts);
  UQ_ASSIGN_OR_RETURN(const int64_t dense,
                      fields.Integer("first_k_dense_replace", 0, 0, kMaxLayers));
  UQ_ASSIGN_OR_RETURN(common.model.num_extra_layers,
                      fields.Integer("num_nextn_predict_layers", 0, 0, kMaxLayers));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope,
                      ReadRope(fields, defaults, common.block.attention.head_dim));
  common.model.ropes = {rope};
  return BuildExpertLayers(std::move(common), [&](int layer) { return layer < dense; });
}

absl::StatusOr<ModelConfig> ParseLing(const Fields& fields) {
  FamilyDefaults defaults;
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadLing(fields, &defaults));
  UQ_ASSIGN_OR_RETURN(common.block.experts.router.normalize,
                      fields.Boolean("norm_topk_prob", true));
  return FinishLing(fields, defaults, std::move(common));
}

absl::StatusOr<ModelConfig> ParseLing2(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.rotated = 1;
  UQ_ASSIGN_OR_RETURN(const std::string score, fields.String("score_function", "sigmoid"));
  if (score != "sigmoid") return ConfigError("field score_function must be \"sigmoid\"");
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadLing(fields, &defaults));
  ExpertsTraits& experts = common.block.experts;
  UQ_RETURN_IF_ERROR(ReadSigmoidRouter(fields, /*normalize=*/true, 1.0, 1, 1, &experts));
  experts.correction = "mlp.gate.expert_bias";
  return FinishLing(fields, defaults, std::move(common));
}

constexpr Family kFamilies[] = {
    {"bailing_moe", "BailingMoeForCausalLM", ParseLing},
    {"bailing_moe", "BailingMoeV2ForCausalLM", ParseLing2},
    {"bailing_moe_v2", "BailingMoeV2ForCausalLM", ParseLing2},
    {"mimo_v2_flash", "MiMoV2FlashForCausalLM", ParseMimoV2},
    {"minimax_m2", "MiniMaxM2ForCausalLM", ParseMiniMaxM2},
};

}  // namespace

absl::Span<const Family> sigmoid_experts();
absl::Span<const Family> sigmoid_experts() { return kFamilies; }

}  // namespace uniquanf::families
