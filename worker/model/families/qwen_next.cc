// Qwen3-Next and Qwen3.5: three layers of the gated delta rule to one of gated attention. Norms
// scale by 1 + w, but for the gated one. Sources: Hugging Face modeling_qwen3_next,
// modeling_qwen3_5, modeling_qwen3_5_moe.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/model/expert_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

// Whether each layer is the delta rule: by layer_types or all but every full_attention_interval-th.
absl::StatusOr<std::vector<bool>> ReadRecurrent(const Fields& fields, int num_layers) {
  std::vector<bool> recurrent;
  UQ_ASSIGN_OR_RETURN(const int64_t interval,
                      fields.Integer("full_attention_interval", 4, 1, kMaxLayers));
  const nlohmann::json* types = fields.Find("layer_types");
  if (types != nullptr &&
      (!types->is_array() || types->size() != static_cast<size_t>(num_layers))) {
    return ConfigError(absl::StrCat(
        "field layer_types must be an array of num_hidden_layers = ", num_layers, " strings"));
  }
  for (int layer = 0; layer < num_layers; ++layer) {
    if (types == nullptr) {
      recurrent.push_back((layer + 1) % interval != 0);
      continue;
    }
    const nlohmann::json& type = (*types)[layer];
    recurrent.push_back(type == "linear_attention");
    if (!recurrent.back() && type != "full_attention") {
      return ConfigError(absl::StrCat("layer_types[", layer, "] is ", Fields::Text(type),
                                      "; supported are linear_attention and full_attention"));
    }
  }
  return recurrent;
}

absl::Status ReadDelta(const Fields& fields, bool joined, CommonFields* common) {
  RecurrentTraits& delta = common->block.recurrent;
  delta.kind = RecurrentTraits::Kind::kDelta;
  delta.module = "linear_attn";
  delta.joined = joined;
  UQ_ASSIGN_OR_RETURN(delta.num_key_heads,
                      fields.Integer("linear_num_key_heads", 16, 1, kMaxHeads));
  UQ_ASSIGN_OR_RETURN(delta.num_heads, fields.Integer("linear_num_value_heads", 32, 1, kMaxHeads));
  UQ_ASSIGN_OR_RETURN(delta.key_dim, fields.Integer("linear_key_head_dim", 128, 1, kMaxHeadDim));
  UQ_ASSIGN_OR_RETURN(delta.value_dim,
                      fields.Integer("linear_value_head_dim", 128, 1, kMaxHeadDim));
  UQ_ASSIGN_OR_RETURN(delta.taps, fields.Integer("linear_conv_kernel_dim", 4, 1, 64));
  if (delta.num_heads % delta.num_key_heads != 0) {
    return ConfigError("linear_num_key_heads does not divide linear_num_value_heads");
  }
  delta.norm = common->block.norm;
  delta.norm.added = 0;
  delta.norm_before_gate = true;
  return absl::OkStatus();
}

absl::StatusOr<CommonFields> Read(const Fields& fields, FamilyDefaults defaults, bool joined) {
  defaults.head_dim = 256;
  defaults.max_positions = 32768;
  defaults.rotated = 0.25;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "attn_output_gate", true));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  UQ_RETURN_IF_ERROR(ReadDelta(fields, joined, &common));
  BlockTraits& block = common.block;
  AttentionTraits& attention = block.attention;
  block.norm.added = common.model.ends.final_norm_kind.added = 1;
  attention.head_norm_kind.added = 1;
  attention.head_norm = AttentionTraits::HeadNorm::kShared;
  attention.output_gate = true;
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("attention_bias", false));
  attention.o_bias = attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, attention.head_dim));
  common.model.ropes = {rope};
  return common;
}

absl::Status UseExperts(const Fields& fields, const ExpertNumbers& numbers, bool normalize,
                        CommonFields* common) {
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, common));
  ExpertsTraits& experts = common->block.experts;
  UQ_ASSIGN_OR_RETURN(experts.router.normalize, fields.Boolean("norm_topk_prob", normalize));
  UseSharedExperts("mlp.shared_expert", 1, &experts);
  UQ_ASSIGN_OR_RETURN(experts.shared.size,
                      fields.Integer("shared_expert_intermediate_size", 512, 1, kMaxIntermediate));
  experts.shared_gate = "mlp.shared_expert_gate";
  return absl::OkStatus();
}

// Each layer has one mixer.
void KeepOne(bool recurrent, BlockTraits* block) {
  if (recurrent) {
    block->attention.num_heads = 0;
  } else {
    block->recurrent = {};
  }
}

absl::StatusOr<ModelConfig> ParseNext(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 151936;
  defaults.kv_heads = 2;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults, /*joined=*/true));
  ExpertNumbers numbers;
  numbers.default_experts = 512;
  numbers.default_chosen = 10;
  numbers.default_size = 512;
  UQ_RETURN_IF_ERROR(UseExperts(fields, numbers, /*normalize=*/true, &common));
  const int num_layers = common.model.num_layers;
  UQ_ASSIGN_OR_RETURN(const std::vector<bool> recurrent, ReadRecurrent(fields, num_layers));
  UQ_ASSIGN_OR_RETURN(const int64_t step, fields.Integer("decoder_sparse_step", 1, 1, kMaxLayers));
  const nlohmann::json* dense = fields.Find("mlp_only_layers");
  if (dense != nullptr && !dense->empty()) {
    return ConfigError("mlp_only_layers is not supported");
  }
  return BuildExpertLayers(
      std::move(common), [&](int layer) { return (layer + 1) % step != 0; },
      [&](int layer, BlockTraits* block) { KeepOne(recurrent[layer], block); });
}

absl::StatusOr<ModelConfig> Parse35(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 248320;
  defaults.kv_heads = 4;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults, /*joined=*/false));
  UQ_ASSIGN_OR_RETURN(const std::vector<bool> recurrent,
                      ReadRecurrent(fields, common.model.num_layers));
  return BuildLayers(std::move(common),
                     [&](int layer, BlockTraits* block) { KeepOne(recurrent[layer], block); });
}

// Experts are stored as stacks.
absl::StatusOr<ModelConfig> Parse35Moe(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 248320;
  defaults.kv_heads = 2;
  defaults.four_times = true;  // no layer has a dense MLP
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults, /*joined=*/false));
  ExpertNumbers numbers;
  numbers.default_experts = 256;
  numbers.default_chosen = 8;
  numbers.default_size = 512;
  UQ_RETURN_IF_ERROR(UseExperts(fields, numbers, /*normalize=*/true, &common));
  ExpertsTraits& experts = common.block.experts;
  experts.router.normalize = true;
  experts.stacked_gate_up = "mlp.experts.gate_up_proj";
  experts.stacked_down = "mlp.experts.down_proj";
  UQ_ASSIGN_OR_RETURN(const std::vector<bool> recurrent,
                      ReadRecurrent(fields, common.model.num_layers));
  return BuildExpertLayers(
      std::move(common), [](int) { return false; },
      [&](int layer, BlockTraits* block) { KeepOne(recurrent[layer], block); });
}

constexpr Family kFamilies[] = {
    {"qwen3_5_moe_text", "Qwen3_5MoeForCausalLM", Parse35Moe},
    {"qwen3_5_text", "Qwen3_5ForCausalLM", Parse35},
    {"qwen3_next", "Qwen3NextForCausalLM", ParseNext},
};

}  // namespace

absl::Span<const Family> qwen_next();
absl::Span<const Family> qwen_next() { return kFamilies; }

}  // namespace uniquanf::families
