// Families whose code is published with their checkpoints: InternLM2, Baichuan, EXAONE 3, Qwen 1,
// ChatGLM3 and the first GLM-4. Llama's block under other names, mostly with fused matrices.
#include <utility>

#include "common/base/status.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

absl::StatusOr<ModelConfig> Finish(const Fields& fields, const FamilyDefaults& defaults,
                                   CommonFields common) {
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope,
                      ReadRope(fields, defaults, common.block.attention.head_dim));
  common.model.ropes = {rope};
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParseInternLm2(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 103168;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  BlockTraits& block = common.block;
  block.attention_input_norm = "attention_norm";
  block.mlp_input_norm = "ffn_norm";
  AttentionTraits& attention = block.attention;
  attention.fused = AttentionTraits::Fused::kPerGroup;
  attention.fused_module = "attention.wqkv";
  attention.q = "attention.q_proj";
  attention.k = "attention.k_proj";
  attention.v = "attention.v_proj";
  attention.o = "attention.wo";
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("bias", true));
  attention.o_bias = attention.qkv_bias;
  block.mlp.gate = "feed_forward.w1";
  block.mlp.up = "feed_forward.w3";
  block.mlp.down = "feed_forward.w2";
  common.model.ends.embedding = "model.tok_embeddings";
  common.model.ends.head = "output";
  return Finish(fields, defaults, std::move(common));
}

// The second generation divides the head's rows by their lengths.
absl::StatusOr<ModelConfig> ParseBaichuan(const Fields& fields) {
  constexpr int64_t kFirstVocab = 64000, kAlibiHidden = 5120;
  FamilyDefaults defaults;
  defaults.vocab_size = 125696;
  defaults.names.positions = fields.FirstOf({"max_position_embeddings", "model_max_length"});
  defaults.max_positions = 4096;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  if (common.model.hidden_size == kAlibiHidden) {
    return ConfigError("hidden_size = 5120: the 13B model's ALiBi is not supported");
  }
  common.block.attention.fused = AttentionTraits::Fused::kInOrder;
  common.block.attention.fused_module = "self_attn.W_pack";
  common.model.ends.head_rows_normalized = common.model.vocab_size > kFirstVocab;
  return Finish(fields, defaults, std::move(common));
}

absl::StatusOr<ModelConfig> ParseExaone(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 102400;
  defaults.norm_eps = 1e-5;
  defaults.names.layers = fields.FirstOf({"num_layers", "num_hidden_layers"});
  defaults.names.eps = "layer_norm_epsilon";
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  BlockTraits& block = common.block;
  UQ_ASSIGN_OR_RETURN(block.mlp.activation, ReadActivation(fields, "activation_function", "silu"));
  block.attention_input_norm = "ln_1";
  block.mlp_input_norm = "ln_2";
  block.attention.q = "attn.attention.q_proj";
  block.attention.k = "attn.attention.k_proj";
  block.attention.v = "attn.attention.v_proj";
  block.attention.o = "attn.attention.out_proj";
  block.mlp.gate = "mlp.c_fc_0";
  block.mlp.up = "mlp.c_fc_1";
  block.mlp.down = "mlp.c_proj";
  common.model.layers = "transformer.h.";
  common.model.ends.embedding = "transformer.wte";
  common.model.ends.final_norm = "transformer.ln_f";
  return Finish(fields, defaults, std::move(common));
}

// Beyond seq_length the published code changes bases and scales; w2 is the gate.
absl::StatusOr<ModelConfig> ParseQwen(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 151936;
  defaults.max_positions = 8192;
  defaults.names.kv_heads = "";
  defaults.names.head_dim = "kv_channels";
  defaults.names.eps = "layer_norm_epsilon";
  defaults.names.positions = "seq_length";
  defaults.names.theta = "rotary_emb_base";
  UQ_ASSIGN_OR_RETURN(const double rotated, fields.Number("rotary_pct", 1.0, 0.0, 1.0));
  if (rotated != 1) return ConfigError("rotary_pct other than 1 is not supported");
  UQ_RETURN_IF_ERROR(ExpectFlag(fields, "no_bias", true));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  BlockTraits& block = common.block;
  block.attention_input_norm = "ln_1";
  block.mlp_input_norm = "ln_2";
  AttentionTraits& attention = block.attention;
  attention.fused = AttentionTraits::Fused::kInOrder;
  attention.fused_module = "attn.c_attn";
  attention.q = "attn.q_proj";
  attention.k = "attn.k_proj";
  attention.v = "attn.v_proj";
  attention.o = "attn.c_proj";
  attention.qkv_bias = true;
  if (block.mlp.size % 2 != 0) return ConfigError("intermediate_size must be even");
  block.mlp.size /= 2;
  block.mlp.gate = "mlp.w2";
  block.mlp.up = "mlp.w1";
  block.mlp.down = "mlp.c_proj";
  common.model.layers = "transformer.h.";
  common.model.ends.embedding = "transformer.wte";
  common.model.ends.final_norm = "transformer.ln_f";
  return Finish(fields, defaults, std::move(common));
}

absl::StatusOr<ModelConfig> ParseChatGlm(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.norm_eps = 1e-5;
  defaults.max_positions = 2048;
  defaults.rotated = 0.5;
  defaults.names.layers = "num_layers";
  defaults.names.head_dim = "kv_channels";
  defaults.names.intermediate = "ffn_hidden_size";
  defaults.names.eps = "layernorm_epsilon";
  defaults.names.vocab = "padded_vocab_size";
  defaults.names.positions = "seq_length";
  UQ_ASSIGN_OR_RETURN(const bool grouped, fields.Boolean("multi_query_attention", false));
  defaults.names.kv_heads = grouped ? "multi_query_group_num" : "";
  for (const char* flag : {"rmsnorm", "post_layer_norm"}) {
    UQ_RETURN_IF_ERROR(ExpectFlag(fields, flag, true));
  }
  for (const char* flag : {"add_bias_linear", "apply_residual_connection_post_layernorm"}) {
    UQ_RETURN_IF_ERROR(ExpectFlag(fields, flag, false));
  }
  UQ_ASSIGN_OR_RETURN(const double ratio, fields.Number("rope_ratio", 1.0, 1e-3, 1e9));
  defaults.theta *= ratio;
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  AttentionTraits& attention = common.block.attention;
  attention.fused = AttentionTraits::Fused::kInOrder;
  attention.fused_module = "self_attention.query_key_value";
  attention.q = "self_attention.q_proj";
  attention.k = "self_attention.k_proj";
  attention.v = "self_attention.v_proj";
  attention.o = "self_attention.dense";
  attention.rope_interleaved = true;
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("add_qkv_bias", false));
  common.block.mlp.fused_module = "mlp.dense_h_to_4h";
  common.block.mlp.down = "mlp.dense_4h_to_h";
  common.model.layers = "transformer.encoder.layers.";
  common.model.ends.embedding = "transformer.embedding.word_embeddings";
  common.model.ends.final_norm = "transformer.encoder.final_layernorm";
  common.model.ends.head = "transformer.output_layer";
  return Finish(fields, defaults, std::move(common));
}

constexpr Family kFamilies[] = {
    {"baichuan", "BaichuanForCausalLM", ParseBaichuan},
    {"baichuan", "BaiChuanForCausalLM", ParseBaichuan},
    {"chatglm", "ChatGLMModel", ParseChatGlm},
    {"chatglm", "ChatGLMForConditionalGeneration", ParseChatGlm},
    {"exaone", "ExaoneForCausalLM", ParseExaone},
    {"internlm2", "InternLM2ForCausalLM", ParseInternLm2},
    {"qwen", "QWenLMHeadModel", ParseQwen},
};

}  // namespace

absl::Span<const Family> published_code();
absl::Span<const Family> published_code() { return kFamilies; }

}  // namespace uniquanf::families
