// Numeric building blocks of a decoder block, on any device.
//
// The recipe: an op is declared once, in op_functions.inc; op.cc checks shapes and dispatches on
// the backend's kind; op_cpu_*.cc and op_cuda_*.cu compute. This header has no build flags. Every
// op has a scalar reference in tests/unit/worker/ops and one device-parameterised test suite.
//
// Notation: T tokens = batch · L positions; H hidden; N outputs; K inputs; D head size; Hq query
// heads; Hkv key/value heads. All tensors are dense and row-major. "act" is the activation type:
// f32 on the CPU; f32 or bf16 on CUDA (bf16 ops read bf16, compute and accumulate in fp32, round
// once on writing). Norm weights, biases, rotary tables and statistics are f32 always.
// "=" overwrites, "+=" accumulates. Outputs must not alias inputs unless said so.
// All reductions are deterministic: no atomics, and an order that does not depend on thread count.
// Errors: wrong shapes, types or devices are bugs and CHECK-fail; device errors surface in
// Backend::Synchronize.
#ifndef UNIQUANF_WORKER_OPS_OP_H_
#define UNIQUANF_WORKER_OPS_OP_H_

#include <cstdint>

#include "worker/backend/backend.h"
#include "worker/backend/tensor.h"

namespace uniquanf::ops {

// Everything about one optimizer step that changes from step to step. Lives in device memory, so
// that a captured sequence can be replayed with new values (Backend::RunCaptured).
struct StepParams {
  int64_t sequence_index[64];  // rows of the activation caches used in this step; the first `batch`
  uint64_t draw;               // stream of the input-mixing draws: micro-batches counted from 0
  float uniform_learning_rate;  // after the schedule
  float binary_learning_rate;
  float bias_correction1;  // 1 − β1^(step+1)
  float bias_correction2;  // 1 − β2^(step+1)
  int32_t mapping;         // quant::Mapping of the *next* forward pass
};
inline constexpr int kMaxBatchSize = 64;

// Rows of `width` elements; center: layer norm, else RMS norm.
struct NormShape {
  bool center = false;
  int64_t width = 0;
  float eps = 0;
};

// Which part of each head is rotated: elements [offset, offset + width), width from the tables.
// Pairs are (i, i + width/2), or (2i, 2i + 1) when interleaved.
struct RopeShape {
  int num_heads = 0;
  int head_size = 0;
  int offset = 0;
  bool interleaved = false;
};

struct AttentionShape {
  int64_t batch = 1;     // sequences
  int64_t seq_len = 0;   // L; T = batch · L
  int num_heads = 0;     // Hq
  int num_kv_heads = 0;  // Hkv, divides Hq
  int head_dim = 0;      // D
  int64_t window =
      0;  // sliding window: key j is seen by query i iff i − window < j <= i; 0: all j <= i
  float scale = 0;    // usually 1/√D
  int value_dim = 0;  // Dv; 0: D
  float softcap = 0;  // c: scores are c·tanh(score / c); 0: none
  // One more score a row, without a value; [Hq] f32, null: none. Borrowed.
  const Tensor* sinks = nullptr;
  // ALiBi: slope · (j − i) is added to the score of query i and key j; [Hq] f32, null: none.
  const Tensor* slopes = nullptr;

  int values() const { return value_dim == 0 ? head_dim : value_dim; }
};

enum class Activation {
  kSilu,
  kGeluTanh,  // the tanh approximation
  kGelu,      // erf
  kRelu,
  kReluSquared,
  kIdentity,       // gated: the product
  kClampedSwiGlu,  // gpt-oss: gated only; y = (u' + 1)·g'·σ(1.702 g'), g' = min(g, 7), u' = ±7
};

// The four numbers of xIELU, [1] f32 each. Borrowed.
struct XieluParameters {
  const Tensor *positive, *negative, *beta, *epsilon;
};

// Heads in a row: `count` of them, `size` elements each, of which a part begins at `offset`.
struct HeadsShape {
  int count = 1;
  int64_t size = 0, offset = 0;
};
enum class CopyMode {
  kPart,       // overwrites the part and leaves the rest
  kClearRest,  // overwrites the part and clears the rest
  kAdd,        // adds to the part
};

// A linear recurrence over the tokens of a sequence, for each head with a state S [K, V]:
//   S ← α S;  u = β (v − Sᵀk) by the delta rule, else β v;  S ← S + k uᵀ;  out = Sᵀq + skip · v.
// Heads share q and k with num_heads / num_key_heads neighbours. α and β come of numbers a and b of
// each token and head:
//   delta:  α = exp(−exp(a_log) softplus(a + bias)), β = σ(b);
//   else:   d = softplus(a + bias) limited to [low, high], α = exp(−exp(a_log) d), β = d.
struct RecurrenceShape {
  int64_t batch = 1, seq_len = 0;  // T = batch · seq_len
  int num_heads = 0, num_key_heads = 0;
  int key_dim = 0, value_dim = 0;  // K, V
  bool delta = false;
  float low = 0, high = 3.4e38f;
  const Tensor *a_log = nullptr, *bias = nullptr;  // [num_heads] f32, borrowed
  const Tensor* skip = nullptr;                    // the same; null: none
  // Forward only: S before the first token and, when it returns, after the last, [batch, num_heads,
  // K, V] f32, borrowed; null: zeros before, and not kept.
  Tensor* states = nullptr;

  int64_t state() const { return static_cast<int64_t>(key_dim) * value_dim; }
};

// Scores are the softmax, or the sigmoid, of the logits.
struct RouterShape {
  int num_experts = 0;  // E
  int top_k = 0;
  bool sigmoid = false;
  bool normalize = false;  // weights are divided by their sum + epsilon
  float epsilon = 0;
  float scale = 1;  // weights are multiplied by this in the end
  // Only the top_groups best of num_groups groups of experts are chosen from. A group's score is
  // the sum of its two best, or the best.
  int num_groups = 1, top_groups = 1;
  bool group_by_best = false;
  // Instead: each choice is the best logit that is left, and its weight the softmax among those
  // logits l for which (best − l) / max(|l|, best) <= 2 · jitter. Not normalized.
  bool sparse_mixer = false;
  float jitter = 0;
  // Weights are multiplied by their experts' element in the end; [E] f32, null: not. Borrowed.
  const Tensor* scales = nullptr;
};

// What a model computes of the product of its head: z = scale · logit, or with a soft cap
// softcap · tanh(scale · logit / softcap).
struct LogitShape {
  float scale = 1, softcap = 0;
};

#include "worker/ops/op_functions.inc"

}  // namespace uniquanf::ops

#endif  // UNIQUANF_WORKER_OPS_OP_H_
