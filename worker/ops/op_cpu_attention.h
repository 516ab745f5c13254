// Rows of attention scores on the CPU. Internal to worker/ops: whole sequences and single tokens
// share them. Free functions, any thread; the same bits on every instruction set.
#ifndef UNIQUANF_WORKER_OPS_OP_CPU_ATTENTION_H_
#define UNIQUANF_WORKER_OPS_OP_CPU_ATTENTION_H_

#include <cstdint>

#include "worker/ops/op.h"

namespace uniquanf::ops::cpu {

// Floats in a vector; rows of scores are a multiple of it long.
inline constexpr int64_t kScoreLanes = 16;

// Turns scores into exp(score − max) on [low, high) and zero elsewhere on [0, width), width a
// multiple of kScoreLanes; sets the maximum and the sum.
void ExponentiateRow(float* row, int64_t low, int64_t high, int64_t width, float* maximum,
                     float* sum);
// Raw scores → capped and biased ones on [low, high). The bias of column i is slope·(i − last),
// last the query's own column. With `slopes_of_cap` also the derivative of the cap.
void CapRow(float* row, int64_t low, int64_t high, float cap, float slope, int64_t last,
            float* slopes_of_cap);
// One more score without a value joins a row's maximum and sum: the factor by which the row's
// exponentials are to be multiplied besides 1/sum.
float AddSink(float sink, float* maximum, float* sum);
float Dot(const float* a, const float* b, int64_t n);

// Whether scores are more than scaled products.
inline bool TransformsScores(const AttentionShape& shape) {
  return shape.softcap > 0 || shape.slopes != nullptr;
}
inline float SlopeOf(const AttentionShape& shape, int64_t head) {
  return shape.slopes == nullptr ? 0.0f : shape.slopes->f32()[head];
}

}  // namespace uniquanf::ops::cpu

#endif  // UNIQUANF_WORKER_OPS_OP_CPU_ATTENTION_H_
