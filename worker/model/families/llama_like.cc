// Llama with one or two things changed: Arcee, Ministral, Ministral 3, MiMo, Seed-OSS, SmolLM3,
// ERNIE 4.5, Hunyuan (dense), InternLM3, Apertus, MiniCPM. Sources: Hugging Face modeling_arcee,
// modeling_ministral, modeling_ministral3, modeling_seed_oss, modeling_smollm3, modeling_ernie4_5,
// modeling_hunyuan_v1_dense, modeling_apertus; the published code of the others.
#include <utility>

#include "common/base/status.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

// Reads what all have, one rotary table and the biases of attention.
absl::StatusOr<CommonFields> Read(const Fields& fields, const FamilyDefaults& defaults,
                                  bool attention_bias = false) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  AttentionTraits& attention = common.block.attention;
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("attention_bias", attention_bias));
  attention.o_bias = attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(common.block.mlp.bias, fields.Boolean("mlp_bias", false));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, attention.head_dim));
  common.model.ropes = {rope};
  return common;
}

absl::StatusOr<ModelConfig> ParseArcee(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 32000;
  defaults.max_positions = 4096;
  defaults.norm_eps = 1e-5;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  common.block.mlp.gated = false;
  UQ_ASSIGN_OR_RETURN(common.block.mlp.activation, ReadActivation(fields, "hidden_act", "relu2"));
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParseMinistral(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 32000;
  defaults.kv_heads = 8;
  defaults.max_positions = 131072;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  UQ_ASSIGN_OR_RETURN(const std::vector<int64_t> windows,
                      ReadWindows(fields, common.model.num_layers, 4096, [](int) { return true; }));
  return BuildLayers(std::move(common), [&](int layer, BlockTraits* block) {
    block->attention.window = windows[layer];
  });
}

absl::StatusOr<ModelConfig> ParseMinistral3(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 131072;
  defaults.kv_heads = 8;
  defaults.head_dim = 128;
  defaults.max_positions = 262144;
  defaults.norm_eps = 1e-5;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(const std::optional<Fields> rope, fields.Object("rope_parameters"));
  if (!rope.has_value()) return ConfigError("field rope_parameters is missing");
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  // Queries are scaled by 1 + β ln(1 + ⌊position / original⌋): 1 up to the original length.
  UQ_ASSIGN_OR_RETURN(const double beta, rope->Number("llama_4_scaling_beta", 0.0, 0.0, 1e6));
  if (beta != 0) {
    common.model.max_position_embeddings =
        std::min(common.model.max_position_embeddings,
                 static_cast<int64_t>(common.model.ropes[0].original_max_position_embeddings));
  }
  UQ_ASSIGN_OR_RETURN(const std::vector<int64_t> windows,
                      ReadWindows(fields, common.model.num_layers, 0, [](int) { return true; }));
  return BuildLayers(std::move(common), [&](int layer, BlockTraits* block) {
    block->attention.window = windows[layer];
  });
}

// Layers that predict further tokens lie outside the list of layers.
absl::StatusOr<ModelConfig> ParseMimo(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.kv_heads = 32;
  defaults.max_positions = 32768;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "use_sliding_window", false));
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults, /*attention_bias=*/true));
  common.block.attention.o_bias = false;
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParseSeedOss(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 155136;
  defaults.kv_heads = 8;
  defaults.head_dim = 128;
  defaults.max_positions = 524288;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults, /*attention_bias=*/true));
  UQ_ASSIGN_OR_RETURN(common.block.attention.o_bias, fields.Boolean("attention_out_bias", false));
  return BuildLayers(std::move(common));
}

// Every few layers have no rotary embedding; only these may have a window.
absl::StatusOr<ModelConfig> ParseSmolLm3(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 128256;
  defaults.kv_heads = 4;
  defaults.max_positions = 32768;
  defaults.theta = 2e6;
  defaults.tied = true;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  const int num_layers = common.model.num_layers;
  UQ_ASSIGN_OR_RETURN(const int64_t interval,
                      fields.Integer("no_rope_layer_interval", 4, 1, kMaxLayers));
  UQ_ASSIGN_OR_RETURN(std::vector<int> rotates, ReadByLayer(fields, "no_rope_layers", num_layers));
  if (rotates.empty()) {
    for (int layer = 0; layer < num_layers; ++layer) rotates.push_back((layer + 1) % interval != 0);
  }
  UQ_ASSIGN_OR_RETURN(const bool use_window, fields.Boolean("use_sliding_window", false));
  std::vector<int64_t> windows(num_layers, 0);
  if (use_window) {
    UQ_ASSIGN_OR_RETURN(windows, ReadWindows(fields, num_layers, 0,
                                             [&](int layer) { return rotates[layer] == 0; }));
  }
  return BuildLayers(std::move(common), [&](int layer, BlockTraits* block) {
    block->attention.window = windows[layer];
    if (rotates[layer] == 0) block->attention.rope_table = -1;
  });
}

absl::StatusOr<ModelConfig> ParseErnie(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 103424;
  defaults.kv_heads = 2;
  defaults.head_dim = 128;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.theta = 5e5;
  defaults.tied = true;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  AttentionTraits& attention = common.block.attention;
  attention.rope_interleaved = true;
  UQ_ASSIGN_OR_RETURN(common.block.mlp.bias, fields.Boolean("use_bias", false));
  attention.qkv_bias = attention.o_bias = common.block.mlp.bias;
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParseHunyuan(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 290943;
  defaults.norm_eps = 1e-5;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "use_cla", false));
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "use_qk_norm", true));
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  AttentionTraits& attention = common.block.attention;
  attention.head_norm = AttentionTraits::HeadNorm::kShared;
  attention.q_norm = "self_attn.query_layernorm";
  attention.k_norm = "self_attn.key_layernorm";
  attention.norm_after_rope = true;
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParseInternLm3(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 128512;
  defaults.max_positions = 32768;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  AttentionTraits& attention = common.block.attention;
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("qkv_bias", false));
  attention.o_bias = attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(common.block.mlp.bias, fields.Boolean("bias", false));
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParseApertus(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 131072;
  defaults.max_positions = 65536;
  defaults.norm_eps = 1e-5;
  defaults.theta = 1.2e7;
  UQ_ASSIGN_OR_RETURN(const std::string activation, fields.String("hidden_act", "xielu"));
  if (activation != "xielu") return ConfigError("field hidden_act must be \"xielu\"");
  if (fields.Find("rope_parameters") == nullptr && fields.Find("rope_scaling") == nullptr) {
    return ConfigError("field rope_parameters is missing");
  }
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  BlockTraits& block = common.block;
  block.attention_input_norm = "attention_layernorm";
  block.mlp_input_norm = "feedforward_layernorm";
  block.attention.head_norm = AttentionTraits::HeadNorm::kShared;
  block.mlp.gated = false;
  block.mlp.xielu = "mlp.act_fn";
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParseMiniCpm(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 32000;
  defaults.tied = true;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  UQ_RETURN_IF_ERROR(ReadMiniCpmScales(fields, &common));
  return BuildLayers(std::move(common));
}

constexpr Family kFamilies[] = {
    {"apertus", "ApertusForCausalLM", ParseApertus},
    {"arcee", "ArceeForCausalLM", ParseArcee},
    {"ernie4_5", "Ernie4_5ForCausalLM", ParseErnie},
    {"hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM", ParseHunyuan},
    {"internlm3", "InternLM3ForCausalLM", ParseInternLm3},
    {"mimo", "MiMoForCausalLM", ParseMimo},
    {"minicpm", "MiniCPMForCausalLM", ParseMiniCpm},
    {"ministral", "MinistralForCausalLM", ParseMinistral},
    {"ministral3", "Ministral3ForCausalLM", ParseMinistral3},
    {"seed_oss", "SeedOssForCausalLM", ParseSeedOss},
    {"smollm3", "SmolLM3ForCausalLM", ParseSmolLm3},
};

}  // namespace

absl::Span<const Family> llama_like();
absl::Span<const Family> llama_like() { return kFamilies; }

}  // namespace uniquanf::families
