// gpt-oss: attention sinks, a window in every second layer, and experts stored as stacks of
// transposed matrices, gate and up columns alternating, with biases. Source: Hugging Face
// modeling_gpt_oss.
#include <utility>

#include "common/base/status.h"
#include "worker/model/expert_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

absl::StatusOr<ModelConfig> ParseGptOss(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 201088;
  defaults.kv_heads = 8;
  defaults.head_dim = 64;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.theta = 150000.0;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(const double limit, fields.Number("swiglu_limit", 7.0, 0.0, 1e9));
  if (limit != 7.0) return ConfigError("swiglu_limit other than 7 is not supported");
  if (fields.Find("rope_parameters") == nullptr && fields.Find("rope_scaling") == nullptr) {
    return ConfigError("field rope_parameters is missing");
  }
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  BlockTraits& block = common.block;
  UQ_ASSIGN_OR_RETURN(block.attention.qkv_bias, fields.Boolean("attention_bias", true));
  block.attention.o_bias = block.attention.qkv_bias;
  block.attention.sinks = "self_attn.sinks";
  ExpertNumbers numbers;
  numbers.experts = "num_local_experts";
  numbers.default_experts = 128;
  numbers.chosen = fields.FirstOf({"num_experts_per_tok", "experts_per_token"});
  numbers.default_chosen = 4;
  numbers.size = "intermediate_size";
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, &common));
  block.mlp.size = 0;
  ExpertsTraits& experts = block.experts;
  experts.router.normalize = true;  // the softmax of the chosen logits
  experts.router_module = "mlp.router";
  experts.router_bias = experts.bias = true;
  experts.activation = ops::Activation::kClampedSwiGlu;
  experts.stacked_gate_up = "mlp.experts.gate_up_proj";
  experts.stacked_down = "mlp.experts.down_proj";
  experts.stacked_transposed = experts.stacked_interleaved = true;
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, block.attention.head_dim));
  common.model.ropes = {rope};
  UQ_ASSIGN_OR_RETURN(
      const std::vector<int64_t> windows,
      ReadWindows(fields, common.model.num_layers, 128, [](int layer) { return layer % 2 == 0; }));
  return BuildLayers(std::move(common),
                     [&](int layer, BlockTraits* b) { b->attention.window = windows[layer]; });
}

constexpr Family kFamilies[] = {
    {"gpt_oss", "GptOssForCausalLM", ParseGptOss},
};

}  // namespace

absl::Span<const Family> gpt_oss();
absl::Span<const Family> gpt_oss() { return kFamilies; }

}  // namespace uniquanf::families
