// DeepSeek's experts with plain and with latent attention: DeepSeek MoE, V2, V3, R1, V3.1, V3.2,
// Kimi K2, GLM-4.7-Flash, GLM-5, dots.llm1, and MiniCPM3, which has the attention alone. Sources:
// Hugging Face modeling_deepseek_v2, modeling_deepseek_v3, modeling_dots1; the published code.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/model/expert_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

struct LatentDefaults {
  int64_t q_rank, kv_rank, content, rope, value;
};

absl::Status ReadLatent(const Fields& fields, const FamilyDefaults& defaults,
                        const LatentDefaults& sizes, CommonFields* common) {
  AttentionTraits& attention = common->block.attention;
  LatentTraits& latent = attention.latent;
  const bool plain_q = fields.Has("q_lora_rank") && fields.Find("q_lora_rank") == nullptr;
  UQ_ASSIGN_OR_RETURN(latent.q_rank,
                      fields.Integer("q_lora_rank", plain_q ? 0 : sizes.q_rank, 0, kMaxHidden));
  UQ_ASSIGN_OR_RETURN(latent.kv_rank, fields.Integer("kv_lora_rank", sizes.kv_rank, 1, kMaxHidden));
  UQ_ASSIGN_OR_RETURN(const int content,
                      fields.Integer("qk_nope_head_dim", sizes.content, 1, kMaxHeadDim / 2));
  UQ_ASSIGN_OR_RETURN(latent.rope_dim,
                      fields.Integer("qk_rope_head_dim", sizes.rope, 2, kMaxHeadDim / 2));
  UQ_ASSIGN_OR_RETURN(attention.value_dim,
                      fields.Integer("v_head_dim", sizes.value, 1, kMaxHeadDim));
  if (attention.num_kv_heads != attention.num_heads) {
    return ConfigError("num_key_value_heads must be num_attention_heads with latent attention");
  }
  attention.head_dim = content + latent.rope_dim;
  UQ_ASSIGN_OR_RETURN(attention.rope_interleaved, fields.Boolean("rope_interleave", true));
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("attention_bias", false));
  attention.o_bias = attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(const double factor, ReadYarnScoreFactor(fields));
  attention.scale = static_cast<float>(factor / std::sqrt(attention.head_dim));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, latent.rope_dim));
  common->model.ropes = {rope};
  return absl::OkStatus();
}

// Sizes that heads have by themselves come from the fields of latent attention.
FamilyDefaults LatentFamily(int64_t vocab_size, int64_t max_positions) {
  FamilyDefaults defaults;
  defaults.vocab_size = vocab_size;
  defaults.max_positions = max_positions;
  defaults.names.head_dim = "";
  defaults.head_dim = 2;  // replaced
  return defaults;
}

struct ExpertDefaults {
  int64_t experts, chosen, size, shared, dense;
};

// Numbers of experts, the shared ones and the first layers without; what is left of the layers.
absl::StatusOr<ModelConfig> Finish(const Fields& fields, const ExpertDefaults& d, bool sigmoid,
                                   bool normalize, double scale, int64_t groups, int64_t top_groups,
                                   CommonFields common) {
  ExpertNumbers numbers;
  numbers.experts = "n_routed_experts";
  numbers.default_experts = d.experts;
  numbers.default_chosen = d.chosen;
  numbers.default_size = d.size;
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, &common));
  UQ_ASSIGN_OR_RETURN(const int64_t frequency, fields.Integer("moe_layer_freq", 1, 1, 1));
  (void)frequency;
  ExpertsTraits& experts = common.block.experts;
  if (sigmoid) {
    UQ_RETURN_IF_ERROR(ReadSigmoidRouter(fields, normalize, scale, groups, top_groups, &experts));
  } else {
    UQ_ASSIGN_OR_RETURN(const std::string scoring, fields.String("scoring_func", "softmax"));
    if (scoring != "softmax") return ConfigError("field scoring_func must be \"softmax\"");
    UQ_RETURN_IF_ERROR(ExpectFlag(fields, "norm_topk_prob", false));
    UQ_ASSIGN_OR_RETURN(experts.router.scale, ReadFactor(fields, "routed_scaling_factor", scale));
    UQ_ASSIGN_OR_RETURN(const std::string method, fields.String("topk_method", "greedy"));
    if (method == "group_limited_greedy") {
      const int e = experts.router.num_experts;
      UQ_ASSIGN_OR_RETURN(experts.router.num_groups, fields.Integer("n_group", groups, 1, e));
      UQ_ASSIGN_OR_RETURN(experts.router.top_groups,
                          fields.Integer("topk_group", top_groups, 1, experts.router.num_groups));
      experts.router.group_by_best = true;
      if (e % experts.router.num_groups != 0 ||
          experts.router.top_k > e / experts.router.num_groups * experts.router.top_groups) {
        return ConfigError("n_group and topk_group do not fit the numbers of experts");
      }
    } else if (method != "greedy") {
      return ConfigError(absl::StrCat("field topk_method is \"", method.substr(0, 60),
                                      "\"; supported are greedy and group_limited_greedy"));
    }
  }
  const bool no_shared =
      fields.Has("n_shared_experts") && fields.Find("n_shared_experts") == nullptr;
  UQ_ASSIGN_OR_RETURN(const int64_t shared,
                      fields.Integer("n_shared_experts", no_shared ? 0 : d.shared, 0, 64));
  UseSharedExperts("mlp.shared_experts", shared, &experts);
  UQ_ASSIGN_OR_RETURN(const int64_t dense,
                      fields.Integer("first_k_dense_replace", d.dense, 0, kMaxLayers));
  UQ_ASSIGN_OR_RETURN(common.model.num_extra_layers,
                      fields.Integer("num_nextn_predict_layers", 0, 0, kMaxLayers));
  return BuildExpertLayers(std::move(common), [&](int layer) { return layer < dense; });
}

absl::StatusOr<CommonFields> Read(const Fields& fields, const FamilyDefaults& defaults) {
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  return ReadCommonFields(fields, defaults);
}

absl::StatusOr<ModelConfig> ParseV2(const Fields& fields) {
  const FamilyDefaults defaults = LatentFamily(102400, 2048);
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  UQ_RETURN_IF_ERROR(ReadLatent(fields, defaults, {1536, 512, 128, 64, 128}, &common));
  return Finish(fields, {64, 6, 1407, 2, 0}, /*sigmoid=*/false, /*normalize=*/false, 1.0, 1, 1,
                std::move(common));
}

absl::StatusOr<ModelConfig> ParseV3(const Fields& fields) {
  const FamilyDefaults defaults = LatentFamily(129280, 4096);
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  UQ_RETURN_IF_ERROR(ReadLatent(fields, defaults, {1536, 512, 128, 64, 128}, &common));
  return Finish(fields, {256, 8, 2048, 1, 3}, /*sigmoid=*/true, /*normalize=*/true, 2.5, 8, 4,
                std::move(common));
}

// The indexer keeps the index_topk best keys: all, in sequences up to that length.
absl::StatusOr<ModelConfig> ParseIndexed(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(ModelConfig model, ParseV3(fields));
  UQ_ASSIGN_OR_RETURN(const int64_t kept, fields.Integer("index_topk", 2048, 1, kMaxPositions));
  model.max_position_embeddings = std::min(model.max_position_embeddings, kept);
  model.copied_parts = {"self_attn.indexer."};
  return model;
}

absl::StatusOr<ModelConfig> ParseMoe16B(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 102400;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  AttentionTraits& attention = common.block.attention;
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("attention_bias", false));
  attention.o_bias = attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, attention.head_dim));
  common.model.ropes = {rope};
  return Finish(fields, {64, 6, 1407, 2, 0}, /*sigmoid=*/false, /*normalize=*/false, 1.0, 1, 1,
                std::move(common));
}

absl::StatusOr<ModelConfig> ParseDots1(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 152064;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  AttentionTraits& attention = common.block.attention;
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("attention_bias", false));
  attention.o_bias = attention.qkv_bias;
  attention.head_norm = AttentionTraits::HeadNorm::kShared;
  UQ_ASSIGN_OR_RETURN(const int64_t first,
                      fields.Integer("max_window_layers", 62, 0, kMaxPositions));
  UQ_ASSIGN_OR_RETURN(const std::vector<int64_t> windows,
                      ReadWindows(fields, common.model.num_layers, 4096,
                                  [&](int layer) { return layer >= first; }));
  for (int64_t window : windows) {
    if (window > 0) return ConfigError("layers with sliding_attention are not supported");
  }
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, attention.head_dim));
  common.model.ropes = {rope};
  return Finish(fields, {128, 6, 1408, 0, 0}, /*sigmoid=*/true, /*normalize=*/false, 1.0, 1, 1,
                std::move(common));
}

absl::StatusOr<ModelConfig> ParseMiniCpm3(const Fields& fields) {
  FamilyDefaults defaults = LatentFamily(73448, 32768);
  defaults.tied = true;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  const int64_t value = common.model.hidden_size / common.block.attention.num_heads;
  UQ_RETURN_IF_ERROR(ReadLatent(fields, defaults, {768, 256, 64, 32, value}, &common));
  common.block.attention.rope_interleaved = false;
  UQ_RETURN_IF_ERROR(ReadMiniCpmScales(fields, &common));
  return BuildLayers(std::move(common));
}

constexpr Family kFamilies[] = {
    {"deepseek", "DeepseekForCausalLM", ParseMoe16B},
    {"deepseek_v2", "DeepseekV2ForCausalLM", ParseV2},
    {"deepseek_v3", "DeepseekV3ForCausalLM", ParseV3},
    {"deepseek_v32", "DeepseekV32ForCausalLM", ParseIndexed},
    {"dots1", "Dots1ForCausalLM", ParseDots1},
    {"glm4_moe_lite", "Glm4MoeLiteForCausalLM", ParseV3},
    {"glm_moe_dsa", "GlmMoeDsaForCausalLM", ParseIndexed},
    {"kimi_k2", "DeepseekV3ForCausalLM", ParseV3},
    {"minicpm3", "MiniCPM3ForCausalLM", ParseMiniCpm3},
};

}  // namespace

absl::Span<const Family> deepseek();
absl::Span<const Family> deepseek() { return kFamilies; }

}  // namespace uniquanf::families
