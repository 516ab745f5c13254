// One decoder block of a Llama-like transformer: forward and backward, written once over
// worker/ops.
//
//   h  = x + o_proj(attention(rope(qk_norm(q_proj(n1)), ...)))      n1 = rms_norm(x, input_norm)
//   y  = h + down_proj(silu(gate_proj(n2)) · up_proj(n2))           n2 = rms_norm(h, post_norm)
//
// A BlockConfig describes the family's differences as data (biases, q/k norms, window): there is
// one copy of the code. Source: Hugging Face modeling_llama / mistral / qwen2 / qwen3. Thread
// safety: as Backend. Shapes in worker/ops/op.h's notation.
#ifndef UNIQUANF_WORKER_BLOCK_BLOCK_H_
#define UNIQUANF_WORKER_BLOCK_BLOCK_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/backend/backend.h"
#include "worker/backend/tensor.h"
#include "worker/ops/op.h"

namespace uniquanf {

// The block's linear layers, in the order in which they are initialized, listed and stored.
enum class Linear { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr int kNumLinears = 7;
inline constexpr std::array<Linear, kNumLinears> kAllLinears = {
    Linear::kQ, Linear::kK, Linear::kV, Linear::kO, Linear::kGate, Linear::kUp, Linear::kDown};
// "self_attn.q_proj", ..., "mlp.down_proj": the module's name inside its layer.
const char* LinearName(Linear linear);

struct BlockConfig {
  int64_t hidden_size = 0;        // H
  int64_t intermediate_size = 0;  // I
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  float rms_norm_eps = 1e-5f;
  int64_t window = 0;     // sliding window of this layer; 0: none
  bool qk_norm = false;   // Qwen3: RMSNorm over each head of q and k, before rotary
  bool qkv_bias = false;  // Qwen2; Llama with attention_bias
  bool o_bias = false;    // Llama with attention_bias
  bool mlp_bias = false;

  // {N outputs, K inputs} of a linear layer.
  std::pair<int64_t, int64_t> LinearShape(Linear linear) const;
  bool HasBias(Linear linear) const;
};

// Weights of one block on a device. Linear weights are act; norms and biases f32.
struct BlockWeights {
  std::array<Tensor, kNumLinears> linear;  // [N, K]
  std::array<Tensor, kNumLinears> bias;    // [N], empty where the family has none
  Tensor input_norm, post_norm;            // [H]
  Tensor q_norm, k_norm;                   // [D], empty unless qk_norm
};

// Gradients of the linear weights, [N, K] each; act, or f32 where they are summed over calls.
using BlockGradients = std::array<Tensor, kNumLinears>;

// Rotary tables [L, D/2] f32, made by worker/model from the model's config.
struct RopeTables {
  Tensor cos, sin;
};

// Activations and scratch for `batch` sequences of `seq_len` tokens; made once, used every step.
class BlockRunner {
 public:
  // `rope` is borrowed. with_backward = false allocates much less.
  static absl::StatusOr<std::unique_ptr<BlockRunner>> Create(Backend* backend,
                                                             const BlockConfig& config, DType act,
                                                             int64_t batch, int64_t seq_len,
                                                             const RopeTables* rope,
                                                             bool with_backward);
  virtual ~BlockRunner() = default;

  // y[T, H] from x[T, H]; keeps what Backward needs (x is borrowed until then).
  virtual void Forward(const BlockWeights& weights, const Tensor& x, Tensor* y) = 0;
  // From dy[T, H] of the last Forward: gradients of the linear layers. The gradient for x is
  // computed only when dx is not null: nothing trained lies before it. `on_gradient(l)` is called
  // as soon as the gradient of linear layer l has been issued (so that its update can be issued
  // too): weights.linear[l] is not read after that and may change; may be null. An empty
  // (*gradients)[l] is not computed, and on_gradient(l) is not called. With `accumulate` the
  // gradients are added to what they hold. Uses up what Forward kept. REQUIRES: with_backward;
  // Forward was called with the same weights.
  virtual void Backward(const BlockWeights& weights, const Tensor& dy, bool accumulate,
                        BlockGradients* gradients, Tensor* dx,
                        const std::function<void(Linear)>& on_gradient) = 0;
};

// Device bytes a BlockRunner allocates; for planning.
uint64_t BlockRunnerBytes(const Backend& backend, const BlockConfig& config, DType act,
                          int64_t batch, int64_t seq_len, bool with_backward);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BLOCK_BLOCK_H_
