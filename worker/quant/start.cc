#include "worker/quant/start.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/quant/reconstruct.h"
#include "worker/quant/start_device.h"

#ifdef UNIQUANF_HAVE_CUDA
#define UQ_DISPATCH(backend, call) ((backend).kind() == DeviceKind::kCuda ? cuda::call : cpu::call)
#else
#define UQ_DISPATCH(backend, call) (cpu::call)
#endif

namespace uniquanf::quant {

void ChooseStarts(Backend* backend, UniformStarts allowed, const Tensor& importance,
                  QuantizerState* state) {
  UQ_CHECK(importance.shape() == Shape{state->num_inputs()});
  if (allowed == UniformStarts::kNone) return;
  UQ_DISPATCH(*backend, ChooseStarts(backend, allowed, importance, state));
  UQ_DISPATCH(*backend, UpdateCodes(backend, state));
}

void AddSquares(Backend* backend, const Tensor& input, Tensor* sums) {
  UQ_CHECK(input.shape().size() == 2 && sums->shape() == Shape{input.dim(1)});
  if (input.dim(0) == 0) return;
  UQ_DISPATCH(*backend, AddSquares(backend, input, sums));
}

absl::StatusOr<Tensor> EqualImportance(Backend* backend, int64_t num_inputs) {
  const std::vector<float> ones(num_inputs, 1.0f);
  return Tensor::FromFloats(backend, DType::kFloat32, {num_inputs}, ones.data());
}

absl::StatusOr<std::vector<std::vector<float>>> MeasureSquares(Backend* backend,
                                                               const BlockSpec& block,
                                                               const RopeTables& rope,
                                                               const BlockWeights& weights,
                                                               const SequenceBuffer& inputs) {
  const int64_t length = inputs.shape()[1], hidden = inputs.shape()[2];
  std::vector<Tensor> sums;
  for (int l = 0; l < block.num_linears(); ++l) {
    UQ_ASSIGN_OR_RETURN(Tensor sum,
                        Tensor::Allocate(backend, DType::kFloat32, {block.linear(l).num_inputs()}));
    UQ_RETURN_IF_ERROR(backend->FillZero(sum.data(), sum.size_bytes()));
    sums.push_back(std::move(sum));
  }
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<BlockRunner> runner,
                      BlockRunner::Create(backend, block, inputs.dtype(), /*batch=*/1, length,
                                          &rope, /*with_backward=*/false));
  runner->set_observer([&](int l, const Tensor& input) { AddSquares(backend, input, &sums[l]); });
  UQ_ASSIGN_OR_RETURN(Tensor x, Tensor::Allocate(backend, inputs.dtype(), {length, hidden}));
  UQ_ASSIGN_OR_RETURN(Tensor y, Tensor::Allocate(backend, inputs.dtype(), {length, hidden}));
  const int64_t num_sequences = std::min(inputs.shape()[0], kMaxEvaluationSequences);
  for (int64_t sequence = 0; sequence < num_sequences; ++sequence) {
    UQ_RETURN_IF_ERROR(inputs.Load(sequence, 0, &x));
    runner->Forward(weights, x, &y);
  }
  std::vector<std::vector<float>> squares;
  for (const Tensor& sum : sums) {
    UQ_ASSIGN_OR_RETURN(squares.emplace_back(), sum.ToFloats());
  }
  return squares;
}

absl::StatusOr<std::vector<Tensor>> MeasureImportance(Backend* backend, const BlockSpec& block,
                                                      const RopeTables& rope,
                                                      const BlockWeights& weights,
                                                      const SequenceBuffer& inputs) {
  UQ_ASSIGN_OR_RETURN(std::vector<std::vector<float>> squares,
                      MeasureSquares(backend, block, rope, weights, inputs));
  std::vector<Tensor> importance;
  for (std::vector<float>& values : squares) {
    const float largest = *std::max_element(values.begin(), values.end());
    if (largest > 0 && std::isfinite(largest)) {
      for (float& value : values) value /= largest;
    } else {
      std::fill(values.begin(), values.end(), 1.0f);
    }
    const auto width = static_cast<int64_t>(values.size());
    UQ_ASSIGN_OR_RETURN(importance.emplace_back(),
                        Tensor::FromFloats(backend, DType::kFloat32, {width}, values.data()));
  }
  return importance;
}

float LearningRateScale(int bits) { return std::ldexp(1.0f, -2 * std::clamp(bits - 4, 0, 2)); }

}  // namespace uniquanf::quant
