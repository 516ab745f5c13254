// Gemma 4 (text), as far as layers read nothing but the layer before: 31B and 26B-A4B. Norms scale
// by w again; full layers have larger heads, fewer keys, which are also the values, and a rotary
// embedding of a quarter of the frequencies; experts stand beside the dense MLP. Source: Hugging
// Face modeling_gemma4.
#include <cmath>
#include <utility>

#include "common/base/status.h"
#include "worker/model/expert_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

constexpr int kFullTable = 0, kSlidingTable = 1;

absl::Status RefuseSideInputs(const Fields& fields) {
  for (const char* name : {"hidden_size_per_layer_input", "num_kv_shared_layers"}) {
    UQ_ASSIGN_OR_RETURN(const int64_t value, fields.Integer(name, 0, 0, kMaxHidden));
    if (value == 0) continue;
    return ConfigError(std::string("field ") + name +
                       " is not 0: layers that read more than the layer before are not supported");
  }
  return ExpectFlag(fields, "use_double_wide_mlp", false);
}

absl::Status UseExperts(const Fields& fields, CommonFields* common) {
  ExpertNumbers numbers;
  numbers.chosen = "top_k_experts";
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, common));
  ExpertsTraits& experts = common->block.experts;
  experts.activation = common->block.mlp.activation;
  experts.router.normalize = true;
  experts.router_module = "router.proj";
  experts.router_norm_scale = "router.scale";
  experts.router_input_factor =
      static_cast<float>(1 / std::sqrt(static_cast<double>(common->model.hidden_size)));
  experts.expert_scale = "router.per_expert_scale";
  experts.experts = "experts.";
  experts.stacked_gate_up = "experts.gate_up_proj";
  experts.stacked_down = "experts.down_proj";
  experts.input_norm = "pre_feedforward_layernorm_2";
  experts.output_norm = "post_feedforward_layernorm_2";
  experts.dense_output_norm = "post_feedforward_layernorm_1";
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> ParseGemma4(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 262144;
  defaults.kv_heads = 4;
  defaults.head_dim = 256;
  defaults.max_positions = 131072;
  defaults.tied = true;
  defaults.theta = 1e6;
  defaults.rotated = 1;
  UQ_RETURN_IF_ERROR(RefuseSideInputs(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  BlockTraits& block = common.block;
  block.attention_output_norm = "post_attention_layernorm";
  block.mlp_input_norm = "pre_feedforward_layernorm";
  block.mlp_output_norm = "post_feedforward_layernorm";
  block.output_scale = "layer_scalar";
  UQ_ASSIGN_OR_RETURN(block.mlp.activation,
                      ReadActivation(fields, "hidden_activation", "gelu_pytorch_tanh"));
  ModelEnds& ends = common.model.ends;
  ends.embedding_scale =
      static_cast<float>(std::sqrt(static_cast<double>(common.model.hidden_size)));
  ends.embedding_scale_rounded = true;
  UQ_ASSIGN_OR_RETURN(const double cap,
                      ReadNullableNumber(fields, "final_logit_softcapping", 0, 1e-6, 1e9));
  ends.logit_softcap = static_cast<float>(cap);
  UQ_ASSIGN_OR_RETURN(const bool with_experts, fields.Boolean("enable_moe_block", false));
  if (with_experts) UQ_RETURN_IF_ERROR(UseExperts(fields, &common));

  AttentionTraits& sliding = block.attention;
  UQ_ASSIGN_OR_RETURN(sliding.qkv_bias, fields.Boolean("attention_bias", false));
  sliding.o_bias = sliding.qkv_bias;
  sliding.head_norm = AttentionTraits::HeadNorm::kShared;
  sliding.value_norm = true;
  sliding.scale = 1;
  sliding.rope_table = kSlidingTable;
  UQ_ASSIGN_OR_RETURN(const int64_t window,
                      fields.Integer("sliding_window", 512, 1, kMaxPositions));
  AttentionTraits full = sliding;
  full.rope_table = kFullTable;
  UQ_ASSIGN_OR_RETURN(full.head_dim,
                      fields.Integer("global_head_dim", full.head_dim, 2, kMaxHeadDim));
  UQ_ASSIGN_OR_RETURN(const bool keys_are_values, fields.Boolean("attention_k_eq_v", false));
  if (keys_are_values) {
    full.v = "";
    UQ_ASSIGN_OR_RETURN(full.num_kv_heads, fields.Integer("num_global_key_value_heads",
                                                          full.num_kv_heads, 1, full.num_heads));
    if (full.num_heads % full.num_kv_heads != 0) {
      return ConfigError("num_global_key_value_heads does not divide num_attention_heads");
    }
  }
  sliding.window = window;
  FamilyDefaults local = defaults;
  local.theta = 10000.0;
  UQ_ASSIGN_OR_RETURN(const RopeConfig full_rope,
                      ReadRope(fields, defaults, full.head_dim, "full_attention"));
  UQ_ASSIGN_OR_RETURN(const RopeConfig sliding_rope,
                      ReadRope(fields, local, sliding.head_dim, "sliding_attention"));
  common.model.ropes = {full_rope, sliding_rope};
  const int num_layers = common.model.num_layers;
  UQ_ASSIGN_OR_RETURN(std::vector<bool> slides, ReadLayerTypes(fields, num_layers));
  for (int layer = static_cast<int>(slides.size()); layer < num_layers; ++layer) {
    slides.push_back((layer + 1) % 6 != 0);
  }
  slides.back() = false;
  return BuildLayers(std::move(common), [&](int layer, BlockTraits* b) {
    if (!slides[layer]) b->attention = full;
  });
}

constexpr Family kFamilies[] = {
    {"gemma4_text", "Gemma4ForCausalLM", ParseGemma4},
};

}  // namespace

absl::Span<const Family> gemma4();
absl::Span<const Family> gemma4() { return kFamilies; }

}  // namespace uniquanf::families
