// The older decoders with layer norms, biases and an MLP without a gate: GPT-2, GPT-NeoX (Pythia),
// OPT, BLOOM, Falcon. Sources: Hugging Face modeling_gpt2, modeling_gpt_neox, modeling_opt,
// modeling_bloom, modeling_falcon.
#include <cmath>
#include <utility>

#include "common/base/status.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

// Names, biases and kinds of norms that all have.
absl::StatusOr<CommonFields> Read(const Fields& fields, const FamilyDefaults& defaults) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  UseLayerNorm(/*bias=*/true, &common);
  BlockTraits& block = common.block;
  block.attention.qkv_bias = block.attention.o_bias = block.mlp.bias = true;
  block.mlp.gated = false;
  return common;
}

void UseFused(AttentionTraits::Fused form, const std::string& module, const std::string& output,
              AttentionTraits* attention) {
  attention->fused = form;
  attention->fused_module = module + ".query_key_value";
  attention->q = module + ".q_proj";
  attention->k = module + ".k_proj";
  attention->v = module + ".v_proj";
  attention->o = module + output;
}

// Matrices are stored [inputs, outputs].
absl::StatusOr<ModelConfig> ParseGpt2(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 50257;
  defaults.max_positions = 1024;
  defaults.norm_eps = 1e-5;
  defaults.tied = true;
  defaults.four_times = defaults.odd_heads = true;
  defaults.names.layers = "n_layer";
  defaults.names.hidden = "n_embd";
  defaults.names.heads = "n_head";
  defaults.names.kv_heads = defaults.names.head_dim = "";
  defaults.names.intermediate = "n_inner";
  defaults.names.eps = "layer_norm_epsilon";
  defaults.names.positions = "n_positions";
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "scale_attn_weights", true));
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "add_cross_attention", false));
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  BlockTraits& block = common.block;
  block.attention_input_norm = "ln_1";
  block.mlp_input_norm = "ln_2";
  UseFused(AttentionTraits::Fused::kInOrder, "attn", ".c_proj", &block.attention);
  block.attention.fused_module = "attn.c_attn";
  block.attention.transposed = block.mlp.transposed = true;
  block.attention.rope_table = -1;
  block.mlp.up = "mlp.c_fc";
  block.mlp.down = "mlp.c_proj";
  UQ_ASSIGN_OR_RETURN(block.mlp.activation,
                      ReadActivation(fields, "activation_function", "gelu_new"));
  ModelConfig& model = common.model;
  model.layers = "transformer.h.";
  model.ends.embedding = "transformer.wte";
  model.ends.positions = "transformer.wpe";
  model.ends.num_positions = model.max_position_embeddings;
  model.ends.final_norm = "transformer.ln_f";
  model.names = {{"transformer.", "lm_head"}, {"", "lm_head"}};
  UQ_ASSIGN_OR_RETURN(const bool by_layer,
                      fields.Boolean("scale_attn_by_inverse_layer_idx", false));
  return BuildLayers(std::move(common), [&](int layer, BlockTraits* b) {
    if (!by_layer) return;
    b->attention.scale = static_cast<float>(1 / (std::sqrt(b->attention.head_dim) * (layer + 1.0)));
  });
}

absl::StatusOr<ModelConfig> ParseGptNeoX(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 50432;
  defaults.norm_eps = 1e-5;
  defaults.names.kv_heads = "";
  defaults.names.eps = "layer_norm_eps";
  defaults.names.theta = fields.FirstOf({"rotary_emb_base", "rope_theta"});
  UQ_ASSIGN_OR_RETURN(defaults.rotated, fields.Number("rotary_pct", 0.25, 0.0, 1.0));
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  BlockTraits& block = common.block;
  UQ_ASSIGN_OR_RETURN(block.attention.qkv_bias, fields.Boolean("attention_bias", true));
  block.attention.o_bias = block.attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(block.parallel, fields.Boolean("use_parallel_residual", true));
  UseFused(AttentionTraits::Fused::kPerHead, "attention", ".dense", &block.attention);
  block.mlp.up = "mlp.dense_h_to_4h";
  block.mlp.down = "mlp.dense_4h_to_h";
  UQ_ASSIGN_OR_RETURN(block.mlp.activation, ReadActivation(fields, "hidden_act", "gelu"));
  ModelConfig& model = common.model;
  model.layers = "gpt_neox.layers.";
  model.ends.embedding = "gpt_neox.embed_in";
  model.ends.final_norm = "gpt_neox.final_layer_norm";
  model.ends.head = "embed_out";
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, block.attention.head_dim));
  model.ropes = {rope};
  return BuildLayers(std::move(common));
}

// Positions are counted from 2.
absl::StatusOr<ModelConfig> ParseOpt(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 50272;
  defaults.norm_eps = 1e-5;
  defaults.tied = true;
  defaults.odd_heads = true;
  defaults.names.kv_heads = defaults.names.head_dim = defaults.names.eps = "";
  defaults.names.intermediate = "ffn_dim";
  for (const char* flag :
       {"do_layer_norm_before", "enable_bias", "layer_norm_elementwise_affine"}) {
    UQ_RETURN_IF_ERROR(ExpectFlag(fields, flag, true));
  }
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "_remove_final_layer_norm", false));
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  ModelConfig& model = common.model;
  UQ_ASSIGN_OR_RETURN(const int64_t embedding_size,
                      fields.Integer("word_embed_proj_dim", model.hidden_size, 1, kMaxHidden));
  if (embedding_size != model.hidden_size) {
    return ConfigError("word_embed_proj_dim other than hidden_size is not supported");
  }
  BlockTraits& block = common.block;
  block.attention_input_norm = "self_attn_layer_norm";
  block.mlp_input_norm = "final_layer_norm";
  block.attention.o = "self_attn.out_proj";
  block.attention.rope_table = -1;
  block.mlp.up = "fc1";
  block.mlp.down = "fc2";
  UQ_ASSIGN_OR_RETURN(block.mlp.activation, ReadActivation(fields, "activation_function", "relu"));
  model.layers = "model.decoder.layers.";
  model.ends.embedding = "model.decoder.embed_tokens";
  model.ends.positions = "model.decoder.embed_positions";
  model.ends.position_offset = 2;
  model.ends.num_positions = model.max_position_embeddings + 2;
  model.ends.final_norm = "model.decoder.final_layer_norm";
  model.names = {{"model.decoder.", "lm_head"}, {"decoder.", "lm_head"}};
  return BuildLayers(std::move(common));
}

// Powers of one base for a power of two heads; what is more takes every second power of its root.
std::vector<float> AlibiSlopes(int num_heads) {
  std::vector<float> slopes;
  const int whole = 1 << static_cast<int>(std::floor(std::log2(num_heads)));
  for (int h = 0; h < num_heads; ++h) {
    const double exponent = h < whole ? 8.0 * (h + 1) / whole : 4.0 * (2 * (h - whole) + 1) / whole;
    slopes.push_back(static_cast<float>(std::exp2(-exponent)));
  }
  return slopes;
}

absl::StatusOr<ModelConfig> ParseBloom(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 250880;
  defaults.norm_eps = 1e-5;
  defaults.tied = true;
  defaults.four_times = defaults.odd_heads = true;
  defaults.names.layers = fields.FirstOf({"n_layer", "num_hidden_layers"});
  defaults.names.hidden = fields.FirstOf({"hidden_size", "n_embed"});
  defaults.names.heads = fields.FirstOf({"n_head", "num_attention_heads"});
  defaults.names.kv_heads = defaults.names.head_dim = defaults.names.intermediate = "";
  defaults.names.eps = "layer_norm_epsilon";
  defaults.names.positions = "seq_length";
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "apply_residual_connection_post_layernorm", false));
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  BlockTraits& block = common.block;
  UseFused(AttentionTraits::Fused::kPerHead, "self_attention", ".dense", &block.attention);
  block.attention.rope_table = -1;
  block.attention.alibi = AlibiSlopes(block.attention.num_heads);
  block.mlp.up = "mlp.dense_h_to_4h";
  block.mlp.down = "mlp.dense_4h_to_h";
  block.mlp.activation = ops::Activation::kGeluTanh;
  ModelConfig& model = common.model;
  model.layers = "transformer.h.";
  model.ends.embedding = "transformer.word_embeddings";
  model.ends.embedding_norm = "transformer.word_embeddings_layernorm";
  model.ends.final_norm = "transformer.ln_f";
  model.names = {{"transformer.", "lm_head"}, {"", "lm_head"}};
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParseFalcon(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 65024;
  defaults.norm_eps = 1e-5;
  defaults.tied = true;
  defaults.four_times = true;
  defaults.names.layers = fields.FirstOf({"num_hidden_layers", "n_layer"});
  defaults.names.heads = fields.FirstOf({"num_attention_heads", "n_head"});
  defaults.names.head_dim = "";
  defaults.names.intermediate = "ffn_hidden_size";
  defaults.names.eps = "layer_norm_epsilon";
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "alibi", false));
  UQ_ASSIGN_OR_RETURN(const bool grouped, fields.Boolean("new_decoder_architecture", false));
  UQ_ASSIGN_OR_RETURN(const bool multi_query, fields.Boolean("multi_query", true));
  UQ_ASSIGN_OR_RETURN(const bool parallel, fields.Boolean("parallel_attn", true));
  // Only the grouped form has the field; else one key/value head, or one for each head.
  defaults.names.kv_heads = grouped ? fields.FirstOf({"num_kv_heads", "n_head_kv"}) : "";
  if (!grouped && multi_query) defaults.kv_heads = 1;
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields, defaults));
  BlockTraits& block = common.block;
  UQ_ASSIGN_OR_RETURN(block.mlp.bias, fields.Boolean("bias", false));
  block.attention.qkv_bias = block.attention.o_bias = block.mlp.bias;
  UseFused(grouped       ? AttentionTraits::Fused::kPerGroup
           : multi_query ? AttentionTraits::Fused::kInOrder
                         : AttentionTraits::Fused::kPerHead,
           "self_attention", ".dense", &block.attention);
  block.mlp.up = "mlp.dense_h_to_4h";
  block.mlp.down = "mlp.dense_4h_to_h";
  UQ_ASSIGN_OR_RETURN(block.mlp.activation, ReadActivation(fields, "activation", "gelu"));
  block.parallel = grouped || parallel;
  UQ_ASSIGN_OR_RETURN(const int64_t norms,
                      fields.Integer("num_ln_in_parallel_attn", grouped ? 2 : 1, 1, 2));
  if (grouped && norms == 2) {
    block.attention_input_norm = "ln_attn";
    block.mlp_input_norm = "ln_mlp";
  } else if (block.parallel) {
    block.mlp_input_norm = "";
  }
  ModelConfig& model = common.model;
  model.layers = "transformer.h.";
  model.ends.embedding = "transformer.word_embeddings";
  model.ends.final_norm = "transformer.ln_f";
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, block.attention.head_dim));
  model.ropes = {rope};
  return BuildLayers(std::move(common));
}

constexpr Family kFamilies[] = {
    {"bloom", "BloomForCausalLM", ParseBloom}, {"falcon", "FalconForCausalLM", ParseFalcon},
    {"gpt2", "GPT2LMHeadModel", ParseGpt2},    {"gpt_neox", "GPTNeoXForCausalLM", ParseGptNeoX},
    {"opt", "OPTForCausalLM", ParseOpt},
};

}  // namespace

absl::Span<const Family> gpt();
absl::Span<const Family> gpt() { return kFamilies; }

}  // namespace uniquanf::families
