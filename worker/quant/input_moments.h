// Second moments of what linear layers multiply, Σ x xᵀ over the calibration: what a layer's output
// error is, for any change of its weights D [N, K]: Σ |D x|² = tr(D M Dᵀ). GPTQ calls it the
// Hessian.
//
// Thread safety: as Backend. Errors: allocation failures, device errors.
#ifndef UNIQUANF_WORKER_QUANT_INPUT_MOMENTS_H_
#define UNIQUANF_WORKER_QUANT_INPUT_MOMENTS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/backend/sequence_buffer.h"
#include "worker/block/block.h"

namespace uniquanf::quant {

// A = M + damping with its rows and columns in `order`, whose inverse is UᵀU; upper [K, K].
struct InverseFactor {
  std::vector<int64_t> order;  // the largest diagonal elements first
  std::vector<float> upper;
};

// Of the layers that share an input, on the host.
struct InputMoments {
  int64_t width = 0;          // K
  std::vector<float> matrix;  // [K, K], scaled so that its largest diagonal element is 1
  std::shared_ptr<const InverseFactor> factor;  // made when it is first needed

  std::vector<float> Diagonal() const;  // all ones where no token reached the layer
  // The moments of the inputs divided by scales [K].
  void DivideInputs(const std::vector<float>& scales);
};

// By linear layer, shared between those with the same input. Runs the block with `weights` over all
// sequences; sums are kept on the device in f32, and come to the host one after the other.
absl::StatusOr<std::vector<std::shared_ptr<InputMoments>>> MeasureInputMoments(
    Backend* backend, const BlockSpec& block, const RopeTables& rope, const BlockWeights& weights,
    const SequenceBuffer& inputs, const std::function<bool()>& cancelled);
// Device bytes that it takes at once, without the runner; and on the host, with a factor.
uint64_t InputMomentsBytes(const BlockSpec& block);
uint64_t InputMomentsHostBytes(const BlockSpec& block);

// Of a damped, permuted matrix (above), in double precision; damping is 1% of the mean diagonal, or
// more where that is too little. Inputs that are always 0 count as uncorrelated.
absl::StatusOr<InverseFactor> FactorInverse(const std::vector<float>& matrix, int64_t width);

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_INPUT_MOMENTS_H_
