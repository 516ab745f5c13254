// Mamba 2, alone, beside attention (Falcon-H1) and between layers of it (Nemotron-H, Nemotron 3),
// and LFM2's gated convolutions. Sources: Hugging Face modeling_mamba2, modeling_falcon_h1,
// modeling_nemotron_h, modeling_lfm2.
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/model/expert_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"
#include "worker/model/state_space_fields.h"

namespace uniquanf::families {
namespace {

absl::StatusOr<ModelConfig> ParseMamba2(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 32768;
  defaults.max_positions = int64_t{1} << 20;
  defaults.norm_eps = 1e-5;
  defaults.four_times = defaults.odd_heads = true;
  defaults.head_dim = 2;
  defaults.names.heads = "num_heads";
  defaults.names.kv_heads = defaults.names.head_dim = defaults.names.intermediate = "";
  defaults.names.eps = "layer_norm_epsilon";
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  StateSpaceNames names;
  names.groups = "n_groups";
  names.state = "state_size";
  names.taps = "conv_kernel";
  names.conv_bias = "use_conv_bias";
  names.bias = "use_bias";
  UQ_RETURN_IF_ERROR(ReadStateSpace(fields, names, &common));
  BlockTraits& block = common.block;
  block.recurrent.module = "mixer";
  block.attention_input_norm = "norm";
  block.mlp_input_norm = "";
  block.attention.num_heads = 0;
  block.mlp.size = 0;
  ModelConfig& model = common.model;
  model.layers = "backbone.layers.";
  model.ends.embedding = "backbone.embeddings";
  model.ends.final_norm = "backbone.norm_f";
  return BuildLayers(std::move(common));
}

// An array of `count` factors; ones where the field is missing.
absl::StatusOr<std::vector<float>> ReadFactors(const Fields& fields, absl::string_view name,
                                               size_t count) {
  const nlohmann::json* array = fields.Find(name);
  std::vector<float> factors(count, 1);
  if (array == nullptr) return factors;
  const absl::Status wrong =
      ConfigError(absl::StrCat("field ", name, " must be an array of ", count, " numbers"));
  if (!array->is_array() || array->size() != count) return wrong;
  for (size_t i = 0; i < count; ++i) {
    if (!(*array)[i].is_number()) return wrong;
    factors[i] = (*array)[i].get<float>();
    if (!(std::fabs(factors[i]) < 1e9f) || factors[i] == 0) return wrong;
  }
  return factors;
}

// Attention and a state space side by side, with factors on most of what flows.
absl::StatusOr<ModelConfig> ParseFalconH1(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 128000;
  defaults.kv_heads = 8;
  defaults.max_positions = 8192;
  defaults.norm_eps = 1e-5;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  StateSpaceNames names = MambaNames();
  names.width = "mamba_d_ssm";
  UQ_RETURN_IF_ERROR(ReadStateSpace(fields, names, &common));
  BlockTraits& block = common.block;
  RecurrentTraits& space = block.recurrent;
  space.module = "mamba";
  UQ_ASSIGN_OR_RETURN(space.gated_norm, fields.Boolean("mamba_rms_norm", false));
  UQ_ASSIGN_OR_RETURN(space.norm_before_gate, fields.Boolean("mamba_norm_before_gate", true));
  space.norm_groups = space.num_key_heads;
  AttentionTraits& attention = block.attention;
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("attention_bias", false));
  UQ_ASSIGN_OR_RETURN(attention.o_bias, fields.Boolean("attention_bias", false));
  UQ_ASSIGN_OR_RETURN(attention.in_factor, ReadFactor(fields, "attention_in_multiplier"));
  UQ_ASSIGN_OR_RETURN(attention.key_factor, ReadFactor(fields, "key_multiplier"));
  UQ_ASSIGN_OR_RETURN(attention.out_factor, ReadFactor(fields, "attention_out_multiplier"));
  UQ_ASSIGN_OR_RETURN(space.in_factor, ReadFactor(fields, "ssm_in_multiplier"));
  UQ_ASSIGN_OR_RETURN(space.out_factor, ReadFactor(fields, "ssm_out_multiplier"));
  UQ_ASSIGN_OR_RETURN(const std::vector<float> parts, ReadFactors(fields, "ssm_multipliers", 5));
  std::copy(parts.begin(), parts.end(), space.factors);
  UQ_ASSIGN_OR_RETURN(const std::vector<float> mlp, ReadFactors(fields, "mlp_multipliers", 2));
  block.mlp.gate_factor = mlp[0];
  block.mlp.out_factor = mlp[1];
  UQ_ASSIGN_OR_RETURN(block.mlp.bias, fields.Boolean("mlp_bias", false));
  block.mlp.gate = "feed_forward.gate_proj";
  block.mlp.up = "feed_forward.up_proj";
  block.mlp.down = "feed_forward.down_proj";
  block.mlp_input_norm = "pre_ff_layernorm";
  ModelEnds& ends = common.model.ends;
  ends.final_norm = "model.final_layernorm";
  UQ_ASSIGN_OR_RETURN(ends.embedding_scale, ReadFactor(fields, "embedding_multiplier"));
  UQ_ASSIGN_OR_RETURN(ends.logit_scale, ReadFactor(fields, "lm_head_multiplier"));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, attention.head_dim));
  common.model.ropes = {rope};
  return BuildLayers(std::move(common));
}

// One mixer a layer, by the letters of hybrid_override_pattern: a state space, attention without
// rotary embedding, an MLP, or experts.
absl::StatusOr<ModelConfig> ParseNemotronH(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 131072;
  defaults.kv_heads = 8;
  defaults.head_dim = 128;
  defaults.max_positions = 4096;
  defaults.norm_eps = 1e-5;
  defaults.names.head_dim = fields.FirstOf({"head_dim", "attention_head_dim"});
  defaults.names.eps = fields.FirstOf({"layer_norm_epsilon", "rms_norm_eps", "norm_eps"});
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  const int num_layers = common.model.num_layers;
  UQ_ASSIGN_OR_RETURN(const std::string pattern, fields.String("hybrid_override_pattern", ""));
  if (pattern.size() != static_cast<size_t>(num_layers) ||
      pattern.find_first_not_of("M*-E") != std::string::npos) {
    return ConfigError("field hybrid_override_pattern must have a letter M, *, - or E a layer");
  }
  StateSpaceNames names;
  names.heads = "mamba_num_heads";
  names.head_dim = "mamba_head_dim";
  names.groups = "n_groups";
  names.state = "ssm_state_size";
  names.taps = "conv_kernel";
  names.conv_bias = "use_conv_bias";
  names.bias = "mamba_proj_bias";
  UQ_RETURN_IF_ERROR(ReadStateSpace(fields, names, &common));
  BlockTraits& block = common.block;
  block.recurrent.module = "mixer";
  block.recurrent.norm_groups = block.recurrent.num_key_heads;
  AttentionTraits& attention = block.attention;
  attention.rope_table = -1;
  attention.q = "mixer.q_proj";
  attention.k = "mixer.k_proj";
  attention.v = "mixer.v_proj";
  attention.o = "mixer.o_proj";
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("attention_bias", false));
  attention.o_bias = attention.qkv_bias;
  block.mlp.gated = false;
  block.mlp.up = "mixer.up_proj";
  block.mlp.down = "mixer.down_proj";
  UQ_ASSIGN_OR_RETURN(block.mlp.bias, fields.Boolean("mlp_bias", false));
  UQ_ASSIGN_OR_RETURN(block.mlp.activation, ReadActivation(fields, "mlp_hidden_act", "relu2"));
  if (pattern.find('E') != std::string::npos) {
    ExpertNumbers numbers;
    numbers.experts = "n_routed_experts";
    UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, &common));
    ExpertsTraits& experts = block.experts;
    experts.router_module = "mixer.gate";
    UQ_RETURN_IF_ERROR(ReadSigmoidRouter(fields, /*normalize=*/true, 1.0, 1, 1, &experts));
    experts.gated = false;
    experts.activation = block.mlp.activation;
    experts.experts = "mixer.experts.";
    UseSharedExperts("mixer.shared_experts", 1, &experts);
    experts.shared.gated = false;
    UQ_ASSIGN_OR_RETURN(experts.shared.size, fields.Integer("moe_shared_expert_intermediate_size",
                                                            experts.size, 1, kMaxIntermediate));
  }
  ModelConfig& model = common.model;
  model.layers = "backbone.layers.";
  model.ends.embedding = "backbone.embeddings";
  model.ends.final_norm = "backbone.norm_f";
  return BuildLayers(std::move(common), [&](int layer, BlockTraits* b) {
    const char kind = pattern[layer];
    const bool mixes = kind == 'M' || kind == '*';
    b->attention_input_norm = mixes ? "norm" : "";
    b->mlp_input_norm = mixes ? "" : "norm";
    if (kind != 'M') b->recurrent = {};
    if (kind != '*') b->attention.num_heads = 0;
    if (kind != '-') b->mlp.size = 0;
    if (kind != 'E') b->experts = {};
  });
}

// Two thirds of intermediate_size, times a factor, up to the next multiple.
absl::StatusOr<int64_t> InnerSize(const Fields& fields, int64_t size) {
  UQ_ASSIGN_OR_RETURN(const bool adjusted, fields.Boolean("block_auto_adjust_ff_dim", true));
  if (!adjusted) return size;
  UQ_ASSIGN_OR_RETURN(const double factor,
                      fields.Number("block_ffn_dim_multiplier", 1.0, 1e-3, 1e3));
  UQ_ASSIGN_OR_RETURN(const int64_t multiple,
                      fields.Integer("block_multiple_of", 256, 1, kMaxIntermediate));
  const auto inner = static_cast<int64_t>(factor * static_cast<double>(2 * size / 3));
  return (inner + multiple - 1) / multiple * multiple;
}

absl::StatusOr<ModelConfig> ParseLfm2(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 65536;
  defaults.kv_heads = 8;
  defaults.max_positions = 128000;
  defaults.norm_eps = 1e-5;
  defaults.theta = 1e6;
  defaults.names.eps = "norm_eps";
  defaults.names.intermediate = fields.FirstOf({"block_ff_dim", "intermediate_size"});
  UQ_ASSIGN_OR_RETURN(defaults.tied, fields.Boolean("tie_embedding", true));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  const int num_layers = common.model.num_layers;
  BlockTraits& block = common.block;
  block.attention_input_norm = "operator_norm";
  block.mlp_input_norm = "ffn_norm";
  AttentionTraits& attention = block.attention;
  attention.o = "self_attn.out_proj";
  attention.head_norm = AttentionTraits::HeadNorm::kShared;
  attention.q_norm = "self_attn.q_layernorm";
  attention.k_norm = "self_attn.k_layernorm";
  UQ_ASSIGN_OR_RETURN(block.mlp.size, InnerSize(fields, block.mlp.size));
  block.mlp.gate = "feed_forward.w1";
  block.mlp.up = "feed_forward.w3";
  block.mlp.down = "feed_forward.w2";
  RecurrentTraits& conv = block.recurrent;
  conv.kind = RecurrentTraits::Kind::kConvolution;
  conv.module = "conv";
  UQ_ASSIGN_OR_RETURN(conv.taps, fields.Integer("conv_L_cache", 3, 1, 64));
  UQ_ASSIGN_OR_RETURN(conv.bias, fields.Boolean("conv_bias", false));
  conv.conv_bias = conv.bias;
  common.model.ends.final_norm = "model.embedding_norm";
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, attention.head_dim));
  common.model.ropes = {rope};
  const nlohmann::json* types = fields.Find("layer_types");
  if (types == nullptr || !types->is_array() || types->size() != static_cast<size_t>(num_layers)) {
    return ConfigError(absl::StrCat(
        "field layer_types must be an array of num_hidden_layers = ", num_layers, " strings"));
  }
  for (const nlohmann::json& type : *types) {
    if (type == "conv" || type == "full_attention") continue;
    return ConfigError(absl::StrCat("layer_types has ", Fields::Text(type),
                                    "; supported are conv and full_attention"));
  }
  return BuildLayers(std::move(common), [&](int layer, BlockTraits* b) {
    if ((*types)[layer] == "conv") {
      b->attention.num_heads = 0;
    } else {
      b->recurrent = {};
    }
  });
}

constexpr Family kFamilies[] = {
    {"falcon_h1", "FalconH1ForCausalLM", ParseFalconH1},
    {"lfm2", "Lfm2ForCausalLM", ParseLfm2},
    {"mamba2", "Mamba2ForCausalLM", ParseMamba2},
    {"nemotron_h", "NemotronHForCausalLM", ParseNemotronH},
};

}  // namespace

absl::Span<const Family> state_space();
absl::Span<const Family> state_space() { return kFamilies; }

}  // namespace uniquanf::families
