// A start that is never worse than rounding to nearest, whatever the method: for each group, of the
// method's own initialization and of uniform grids over a clipped range (a uniform grid is a point
// of every method's format) the one with the least error weighted by the layer's input,
//   Σ_k x̄_k² (w_k − ŵ_k)²,  x̄_k² the mean square of input k over calibration data,
// which is what an error of weight k costs in the layer's output when inputs are uncorrelated (as
// in AWQ, Lin et al., MLSys 2024, and in OBQ's diagonal).
//
// Same recipe as quantizer.h: start_cpu.cc and start_cuda.cu compute. Sums have a fixed order.
// Thread safety: as Backend. Errors: bugs CHECK-fail; allocation failures are returned.
#ifndef UNIQUANF_WORKER_QUANT_START_H_
#define UNIQUANF_WORKER_QUANT_START_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/backend/sequence_buffer.h"
#include "worker/block/block.h"
#include "worker/quant/quantizer.h"

namespace uniquanf::quant {

// Where a method may start beside its own initialization.
enum class UniformStarts {
  kNone,
  kWholeZeroPoints,  // grids that hold an exact zero
  kAll,
};

// The grids: the group's min-max range times each of these, each with the zero point rounded to a
// whole code (then zero weights stay zero) and as it is. The first, rounded, is round to nearest.
inline constexpr float kClips[] = {1.0f, 0.95f, 0.9f, 0.85f, 0.8f, 0.7f, 0.6f};
inline constexpr int kNumClips = 7;

// Replaces a group's initialization by the best grid where that is better; `state` is initialized.
// importance [K] f32: x̄_k² up to a common factor, all at least 0. Codes are the direct mapping's.
void ChooseStarts(Backend* backend, UniformStarts allowed, const Tensor& importance,
                  QuantizerState* state);

// sums [K] f32 += Σ_t input[t, k]²; input [T, K] act.
void AddSquares(Backend* backend, const Tensor& input, Tensor* sums);

// By linear layer Σ x² of each input over the first min(S, kMaxEvaluationSequences) sequences of
// `inputs`, [S, L, H] act; the block runs with `weights`.
absl::StatusOr<std::vector<std::vector<float>>> MeasureSquares(Backend* backend,
                                                               const BlockSpec& block,
                                                               const RopeTables& rope,
                                                               const BlockWeights& weights,
                                                               const SequenceBuffer& inputs);

// For each linear layer of the block the mean squares of its inputs over the first
// min(S, kMaxEvaluationSequences) sequences of `inputs`, [S, L, H] act, scaled so that the largest
// is 1; ones where no token reached the layer (an expert). Runs the block with `weights`.
absl::StatusOr<std::vector<Tensor>> MeasureImportance(Backend* backend, const BlockSpec& block,
                                                      const RopeTables& rope,
                                                      const BlockWeights& weights,
                                                      const SequenceBuffer& inputs);
// [K] ones: an error is as bad at every weight.
absl::StatusOr<Tensor> EqualImportance(Backend* backend, int64_t num_inputs);

// By what learning rates are multiplied at this many bits: above 4, levels are so dense that the
// paper's rates, made for 2 to 4 bits, step over several of them at once.
float LearningRateScale(int bits);

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_START_H_
