// Llama's block with layer norms: StarCoder2, StableLM, Nemotron (Minitron). Sources: Hugging Face
// modeling_starcoder2, modeling_stablelm, modeling_nemotron.
#include <utility>

#include "common/base/status.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

absl::StatusOr<CommonFields> Read(const Fields& fields, const FamilyDefaults& defaults) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  UseLayerNorm(/*bias=*/true, &common);
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope,
                      ReadRope(fields, defaults, common.block.attention.head_dim));
  common.model.ropes = {rope};
  return common;
}

absl::StatusOr<ModelConfig> ParseStarcoder2(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 49152;
  defaults.kv_heads = 2;
  defaults.max_positions = 4096;
  defaults.names.eps = "norm_epsilon";
  defaults.norm_eps = 1e-5;
  defaults.tied = true;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  BlockTraits& block = common.block;
  UQ_ASSIGN_OR_RETURN(block.mlp.bias, fields.Boolean("use_bias", true));
  block.attention.qkv_bias = block.attention.o_bias = block.mlp.bias;
  block.mlp.gated = false;
  block.mlp.up = "mlp.c_fc";
  block.mlp.down = "mlp.c_proj";
  UQ_ASSIGN_OR_RETURN(block.mlp.activation,
                      ReadActivation(fields, "hidden_act", "gelu_pytorch_tanh"));
  UQ_ASSIGN_OR_RETURN(const std::vector<int64_t> windows,
                      ReadWindows(fields, common.model.num_layers, 0, [](int) { return true; }));
  return BuildLayers(std::move(common),
                     [&](int layer, BlockTraits* b) { b->attention.window = windows[layer]; });
}

absl::StatusOr<ModelConfig> ParseStableLm(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 50304;
  defaults.kv_heads = 32;
  defaults.max_positions = 4096;
  defaults.names.eps = "layer_norm_eps";
  defaults.norm_eps = 1e-5;
  defaults.rotated = 0.25;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  // One tensor a head, for which there is no place.
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "qk_layernorm", false));
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  UQ_ASSIGN_OR_RETURN(common.block.attention.qkv_bias, fields.Boolean("use_qkv_bias", false));
  UQ_ASSIGN_OR_RETURN(common.block.parallel, fields.Boolean("use_parallel_residual", false));
  if (common.block.parallel) common.block.mlp_input_norm = "";
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParseNemotron(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 256000;
  defaults.max_positions = 4096;
  defaults.names.eps = "norm_eps";
  defaults.norm_eps = 1e-5;
  defaults.rotated = 0.5;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  BlockTraits& block = common.block;
  block.norm.added = common.model.ends.final_norm_kind.added = 1;
  UQ_ASSIGN_OR_RETURN(block.attention.qkv_bias, fields.Boolean("attention_bias", false));
  block.attention.o_bias = block.attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(block.mlp.bias, fields.Boolean("mlp_bias", false));
  block.mlp.gated = false;
  UQ_ASSIGN_OR_RETURN(block.mlp.activation, ReadActivation(fields, "hidden_act", "relu2"));
  return BuildLayers(std::move(common));
}

constexpr Family kFamilies[] = {
    {"nemotron", "NemotronForCausalLM", ParseNemotron},
    {"stablelm", "StableLmForCausalLM", ParseStableLm},
    {"starcoder2", "Starcoder2ForCausalLM", ParseStarcoder2},
};

}  // namespace

absl::Span<const Family> layer_norm();
absl::Span<const Family> layer_norm() { return kFamilies; }

}  // namespace uniquanf::families
