// Numeric building blocks of a decoder block, on any device.
//
// The recipe: this header has no build flags; op.cc checks shapes and dispatches on the backend's
// kind and the element type; op_cpu_*.cc and op_cuda_*.cu compute. Every op has a scalar reference
// in tests/unit/worker/ops and one device-parameterised test suite.
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

// --- linear layers
// --------------------------------------------------------------------------------- y[T,N] = x[T,K]
// · w[N,K]ᵀ (+ bias[N] when not null). x, w, y: act.
void LinearForward(Backend* backend, const Tensor& x, const Tensor& w, const Tensor* bias,
                   Tensor* y);
// dx[T,K] = (or += when accumulate) dy[T,N] · w[N,K].
void LinearBackwardInput(Backend* backend, const Tensor& dy, const Tensor& w, bool accumulate,
                         Tensor* dx);
// dw[N,K] = (or += when accumulate) dy[T,N]ᵀ · x[T,K]. dw: act, or f32 for sums over micro-batches.
void LinearBackwardWeight(Backend* backend, const Tensor& dy, const Tensor& x, bool accumulate,
                          Tensor* dw);

// --- normalization
// --------------------------------------------------------------------------------- y = x · inv_rms
// · weight, inv_rms[r] = 1/√(mean(x[r]²) + eps), over rows of the last dimension: x, y [R, C] act;
// weight [C] f32; inv_rms [R] f32. Zhang & Sennrich 2019. Also used per head (C = D) for Qwen3's
// q/k norms: any tensor whose last dimension is C.
void RmsNormForward(Backend* backend, const Tensor& x, const Tensor& weight, float eps, Tensor* y,
                    Tensor* inv_rms);
// dx = (or += when accumulate) the gradient for x; weight is not trained. May not alias dy.
void RmsNormBackward(Backend* backend, const Tensor& dy, const Tensor& x, const Tensor& weight,
                     const Tensor& inv_rms, bool accumulate, Tensor* dx);
// sum = a + b and then RmsNormForward(sum). sum, a, b [R, C] act. One pass on CUDA.
void AddRmsNormForward(Backend* backend, const Tensor& a, const Tensor& b, const Tensor& weight,
                       float eps, Tensor* sum, Tensor* y, Tensor* inv_rms);

// --- rotary embedding
// ------------------------------------------------------------------------------ In place on x [T,
// heads · D]; position of row t is t mod L. cos, sin [L, D/2] f32 (attention scaling folded in).
// Rotates pairs (i, i + D/2) as Hugging Face Llama does; inverse = true applies the transpose (the
// backward pass).
void Rope(Backend* backend, const Tensor& cos, const Tensor& sin, int num_heads, bool inverse,
          Tensor* x);

// --- attention
// -------------------------------------------------------------------------------------
struct AttentionShape {
  int64_t batch = 1;     // sequences
  int64_t seq_len = 0;   // L; T = batch · L
  int num_heads = 0;     // Hq
  int num_kv_heads = 0;  // Hkv, divides Hq
  int head_dim = 0;      // D
  int64_t window =
      0;  // sliding window: key j is seen by query i iff i − window < j <= i; 0: all j <= i
  float scale = 0;  // usually 1/√D
};
// out[T, Hq·D] = causal softmax(scale · q·kᵀ)·v per head; q [T, Hq·D], k, v [T, Hkv·D]; act.
// lse [batch, Hq, L] f32: log-sum-exp of each row of scaled scores, kept for the backward pass.
void AttentionForward(Backend* backend, const AttentionShape& shape, const Tensor& q,
                      const Tensor& k, const Tensor& v, Tensor* out, Tensor* lse);
// Scratch the backward pass needs, in bytes (0 is allowed); allocated once by the caller.
size_t AttentionBackwardScratchBytes(const Backend& backend, const AttentionShape& shape);
// dq, dk, dv = gradients. `scratch` is a kUint8 tensor of at least the size above.
void AttentionBackward(Backend* backend, const AttentionShape& shape, const Tensor& dout,
                       const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                       const Tensor& lse, Tensor* scratch, Tensor* dq, Tensor* dk, Tensor* dv);

// --- elementwise
// ----------------------------------------------------------------------------------- y =
// silu(gate) · up; all [T, I] act.
void SwiGluForward(Backend* backend, const Tensor& gate, const Tensor& up, Tensor* y);
void SwiGluBackward(Backend* backend, const Tensor& dy, const Tensor& gate, const Tensor& up,
                    Tensor* dgate, Tensor* dup);
// out = a + b; out may alias a or b.
void Add(Backend* backend, const Tensor& a, const Tensor& b, Tensor* out);
// Gathers params->sequence_index[0..batch) rows of the caches and mixes them:
// out[b, l, h] = u < prob ? x_q : x_fp, u from PhiloxAt(seed, stream = draw, counter = element /
// 4), word element % 4, element counted inside out [batch·L, H]. x_q may be null (then out = x_fp).
// x_q, x_fp: [S, L, H] act.
void MixInputs(Backend* backend, const StepParams* params, uint64_t seed, double prob,
               const Tensor* x_q, const Tensor& x_fp, int batch, Tensor* out);
// dy = 2 (y − target)/(num_parts · num_elements) and *loss (f32, device, one element) =
// mean((y − target)²), where target = rows params->sequence_index[0..batch) of targets [S, L, H];
// y, dy [batch·L, H] act; num_parts micro-batches of this size make a step, whose loss is the mean
// of theirs. The sum is accumulated in fp64 or pairwise fp32. scratch: see MseLossScratchBytes.
size_t MseLossScratchBytes(const Backend& backend, int64_t num_elements);
void MseLoss(Backend* backend, const StepParams* params, const Tensor& y, const Tensor& targets,
             int batch, int num_parts, Tensor* scratch, Tensor* dy, Tensor* loss);

// --- language model ends
// --------------------------------------------------------------------------- out[T, H] act = rows
// ids[T] (i32, checked by the caller) of table [V, H] act.
void Embedding(Backend* backend, const Tensor& ids, const Tensor& table, Tensor* out);
// nll[T] f32 = logsumexp(logits[t]) − logits[t, targets[t]]; logits [T, V] act; targets [T] i32,
// a negative target gives nll 0.
void CrossEntropy(Backend* backend, const Tensor& logits, const Tensor& targets, Tensor* nll);
// Element type conversion f32 <-> bf16 (round to nearest even); same number of elements.
void Cast(Backend* backend, const Tensor& src, Tensor* dst);

}  // namespace uniquanf::ops

#endif  // UNIQUANF_WORKER_OPS_OP_H_
