// A decoder block described by orthogonal traits, as families differ in them, and the one function
// that turns traits into a BlockSpec. Defaults are Llama's: a family sets what it does otherwise.
//
// Plain values, thread-safe. Names are those of modules inside a layer ("self_attn.q_proj"): the
// tensors are MODULE.weight and MODULE.bias. An empty name: the block has no such thing.
#ifndef UNIQUANF_WORKER_BLOCK_BLOCK_TRAITS_H_
#define UNIQUANF_WORKER_BLOCK_BLOCK_TRAITS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "worker/block/block_spec.h"

namespace uniquanf {

struct NormTraits {
  bool center = false;  // layer norm, else RMS norm
  bool weight = true, bias = false;
  float added = 0;  // 1: it scales by 1 + w
  float eps = 1e-5f;
};

// Latent attention: keys and values are expanded from a compressed row, beside which every token
// has one rotated part of a key that all heads share. AttentionTraits::head_dim is then the size of
// a whole key, value_dim that of a value.
struct LatentTraits {
  int kv_rank = 0;   // 0: plain attention
  int q_rank = 0;    // 0: queries are a linear layer, AttentionTraits::q
  int rope_dim = 0;  // the last elements of a query or key, which are rotated
  float norm_eps = 1e-6f;
  std::string q_a = "self_attn.q_a_proj", q_a_norm = "self_attn.q_a_layernorm";
  std::string q_b = "self_attn.q_b_proj";
  std::string kv_a = "self_attn.kv_a_proj_with_mqa", kv_a_norm = "self_attn.kv_a_layernorm";
  std::string kv_b = "self_attn.kv_b_proj";
};

struct AttentionTraits {
  int num_heads = 0;     // 0: no attention
  int num_kv_heads = 0;  // divides num_heads
  int head_dim = 0;
  int value_dim = 0;  // of a value; 0: head_dim
  // An empty v: values are the keys, before their norm and rotation.
  std::string q = "self_attn.q_proj", k = "self_attn.k_proj", v = "self_attn.v_proj";
  std::string o = "self_attn.o_proj";
  bool qkv_bias = false, o_bias = false;
  // q, k and v stored as one module, the rows [q; k; v] for all heads, for each key/value head
  // [q …; k; v], or for each head [q; k; v].
  enum class Fused { kNone, kInOrder, kPerGroup, kPerHead };
  Fused fused = Fused::kNone;
  std::string fused_module;
  bool transposed = false;  // matrices are stored [K, N]
  float clip = 0;           // q, k and v are limited to ±clip, after their norms; 0: not
  // Norms of q and k: over each head with one weight [D], over each head with a weight of its own
  // [heads, D], or over the whole projection [heads · D].
  enum class HeadNorm { kNone, kShared, kPerHead, kProjection };
  HeadNorm head_norm = HeadNorm::kNone;
  NormTraits head_norm_kind;
  std::string q_norm = "self_attn.q_norm", k_norm = "self_attn.k_norm";
  bool norm_after_rope = false;
  bool value_norm = false;  // values too, over each head and without a weight
  float value_scale = 1;    // of the values
  float in_factor = 1, key_factor = 1, out_factor = 1;  // of its input, the keys, its output
  bool output_gate = false;  // q's rows are [q; gate] for each head; σ(gate) multiplies the output
  int rope_table = 0;        // index of the model's rotary tables; −1: no rotary embedding
  bool rope_interleaved = false;
  int64_t window = 0;        // sliding window of this layer; 0: none
  float scale = 0;           // of the scores; 0: 1/√D
  float softcap = 0;         // of the scores; 0: none
  std::string sinks;         // "self_attn.sinks": the tensor [heads], not a module
  std::vector<float> alibi;  // slopes by head
  LatentTraits latent;
};

// A mixer without attention, instead of it or beside it: the gated delta rule, a state space (Mamba
// 2), or a gated convolution. Queries and keys of a state space are what it calls C and B.
struct RecurrentTraits {
  enum class Kind { kNone, kDelta, kStateSpace, kConvolution };
  Kind kind = Kind::kNone;
  std::string module;  // "linear_attn"; its parts are in_proj…, conv1d, A_log, dt_bias, norm, …
  int num_heads = 0, num_key_heads = 0;
  int key_dim = 0, value_dim = 0;
  int taps = 4;            // of the convolution
  bool conv_bias = false;  // of the convolution
  bool bias = false;       // of the projections
  // kDelta: in_proj_qkvz and in_proj_ba, by key head; else in_proj_qkv, in_proj_z, in_proj_b and
  // in_proj_a, in order.
  bool joined = true;
  bool gated_norm = true;         // a norm of the output: of each value head (kDelta) or of groups
  bool norm_before_gate = false;  // the gate multiplies what the norm gives
  NormTraits norm;
  int norm_groups = 1;
  float low = 0, high = 3.4e38f;  // of a state space's steps
  // Of what goes in and comes out, and of the projection's parts gate, x, B, C and steps.
  float in_factor = 1, out_factor = 1;
  float factors[5] = {1, 1, 1, 1, 1};
};

struct MlpTraits {
  int64_t size = 0;  // I; 0: no dense MLP, and none at all without experts
  ops::Activation activation = ops::Activation::kSilu;
  std::string xielu;  // module with the parameters of xIELU, which is then the activation
  // Without a gate the activation is taken of `up`.
  bool gated = true;
  std::string gate = "mlp.gate_proj", up = "mlp.up_proj", down = "mlp.down_proj";
  bool bias = false;
  float gate_factor = 1, out_factor = 1;  // of the gate before its activation, of the output
  // gate and up stored as one module, the rows [gate; up].
  std::string fused_module;
  bool fused_up_first = false;  // [up; gate]
  bool transposed = false;      // matrices are stored [K, N]
};

// A sparse mixture instead of the dense MLP.
struct ExpertsTraits {
  ops::RouterShape router;  // num_experts 0: no mixture
  int64_t size = 0;         // I of an expert
  ops::Activation activation = ops::Activation::kSilu;
  std::string router_module = "mlp.gate";
  bool router_bias = false;
  std::string correction;          // a tensor [E], "mlp.gate.e_score_correction_bias"
  bool correction_is_row = false;  // stored as [1, E]
  std::string expert_scale;        // a tensor [E]: the chosen weights are multiplied by it
  // The router reads the residual through an RMS norm with this tensor [H] for a weight, times
  // router_input_factor; empty: it reads what the experts read.
  std::string router_norm_scale;
  float router_input_factor = 1;
  // Experts beside a dense MLP: norms of what they read of the residual and of both outputs.
  std::string input_norm, output_norm, dense_output_norm;
  // Module of expert e: experts + "e" + gate ("mlp.experts." "3" ".gate_proj").
  std::string experts = "mlp.experts.";
  std::string gate = ".gate_proj", up = ".up_proj", down = ".down_proj";
  bool gated = true;  // without a gate the activation is taken of `up`
  bool bias = false;
  bool scale_input = false;  // the router's weight multiplies an expert's input, not its output
  // Stored as one tensor for all experts, [E, 2I, H] (gate rows first, or every other row when
  // interleaved) and [E, H, I], or transposed [E, H, 2I] and [E, I, H].
  std::string stacked_gate_up, stacked_down;  // tensors; biases: + "_bias"
  bool stacked_transposed = false, stacked_interleaved = false;
  // An MLP that every token goes through, added; its output times σ(x · shared_gate).
  MlpTraits shared;
  std::string shared_gate;
  bool average_shared = false;  // the mean of both, not the sum
};

struct BlockTraits {
  int64_t hidden_size = 0;  // H
  NormTraits norm;
  std::string attention_input_norm = "input_layernorm";
  std::string attention_output_norm;
  std::string mlp_input_norm = "post_attention_layernorm";
  std::string mlp_output_norm;
  // Attention and MLP both read the block's input, the MLP through mlp_input_norm or, where there
  // is none, through attention's norm; both are added to it.
  bool parallel = false;
  float residual_factor = 1;  // of what attention and MLP add
  std::string output_scale;   // a tensor [1]: the block's output is multiplied by it
  AttentionTraits attention;
  RecurrentTraits recurrent;
  MlpTraits mlp;
  ExpertsTraits experts;
};

// REQUIRES: sizes are positive and fit each other.
BlockSpec BuildBlock(const BlockTraits& traits);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BLOCK_BLOCK_TRAITS_H_
