// Qwen1.5-MoE, Qwen2-MoE and Qwen3-MoE. Sources: Hugging Face modeling_qwen2_moe,
// modeling_qwen3_moe, modeling_qwen3_vl_moe.
#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "worker/model/expert_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

absl::StatusOr<CommonFields> Read(const Fields& fields, const FamilyDefaults& defaults,
                                  ExpertNumbers numbers) {
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "use_sliding_window", false));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  numbers.experts = fields.FirstOf({"num_experts", "num_local_experts"});
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, &common));
  UQ_ASSIGN_OR_RETURN(common.block.experts.router.normalize,
                      fields.Boolean("norm_topk_prob", false));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope,
                      ReadRope(fields, defaults, common.block.attention.head_dim));
  common.model.ropes = {rope};
  return common;
}

// Every decoder_sparse_step-th layer has experts, but those that mlp_only_layers lists.
absl::StatusOr<ModelConfig> Finish(const Fields& fields, CommonFields common) {
  UQ_ASSIGN_OR_RETURN(const int64_t step, fields.Integer("decoder_sparse_step", 1, 1, kMaxLayers));
  std::vector<int64_t> dense;
  if (const nlohmann::json* list = fields.Find("mlp_only_layers"); list != nullptr) {
    if (!list->is_array()) return ConfigError("field mlp_only_layers must be an array of numbers");
    for (const nlohmann::json& layer : *list) {
      if (!layer.is_number_integer()) {
        return ConfigError("field mlp_only_layers must be an array of numbers");
      }
      dense.push_back(layer.get<int64_t>());
    }
  }
  return BuildExpertLayers(std::move(common), [&](int layer) {
    return (layer + 1) % step != 0 || std::find(dense.begin(), dense.end(), layer) != dense.end();
  });
}

absl::StatusOr<ModelConfig> ParseQwen2Moe(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 151936;
  defaults.kv_heads = 16;
  defaults.max_positions = 32768;
  ExpertNumbers numbers;
  numbers.default_experts = 60;
  numbers.default_chosen = 4;
  numbers.default_size = 1408;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults, numbers));
  UQ_ASSIGN_OR_RETURN(common.block.attention.qkv_bias, fields.Boolean("qkv_bias", true));
  ExpertsTraits& experts = common.block.experts;
  UseSharedExperts("mlp.shared_expert", 1, &experts);
  UQ_ASSIGN_OR_RETURN(experts.shared.size,
                      fields.Integer("shared_expert_intermediate_size", 5632, 1, kMaxIntermediate));
  experts.shared_gate = "mlp.shared_expert_gate";
  return Finish(fields, std::move(common));
}

absl::StatusOr<CommonFields> ReadQwen3Moe(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 151936;
  defaults.kv_heads = 4;
  defaults.max_positions = 32768;
  ExpertNumbers numbers;
  numbers.default_experts = 128;
  numbers.default_chosen = 8;
  numbers.default_size = 768;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults, numbers));
  AttentionTraits& attention = common.block.attention;
  attention.head_norm = AttentionTraits::HeadNorm::kShared;
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("attention_bias", false));
  attention.o_bias = attention.qkv_bias;
  return common;
}

absl::StatusOr<ModelConfig> ParseQwen3Moe(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadQwen3Moe(fields));
  return Finish(fields, std::move(common));
}

// Experts are stored as stacks of transposed matrices.
absl::StatusOr<ModelConfig> ParseQwen3VlMoe(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadQwen3Moe(fields));
  ExpertsTraits& experts = common.block.experts;
  experts.stacked_gate_up = "mlp.experts.gate_up_proj";
  experts.stacked_down = "mlp.experts.down_proj";
  experts.stacked_transposed = true;
  return Finish(fields, std::move(common));
}

constexpr Family kFamilies[] = {
    {"qwen2_moe", "Qwen2MoeForCausalLM", ParseQwen2Moe},
    {"qwen3_moe", "Qwen3MoeForCausalLM", ParseQwen3Moe},
    {"qwen3_vl_moe_text", "Qwen3VLMoeTextModel", ParseQwen3VlMoe},
};

}  // namespace

absl::Span<const Family> qwen_moe();
absl::Span<const Family> qwen_moe() { return kFamilies; }

}  // namespace uniquanf::families
