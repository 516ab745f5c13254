// GPTQ (Frantar et al., ICLR 2023): columns are rounded one after the other, those with the largest
// inputs first, and what each loses in the layer's output is made up for by those that follow.
// Grids are found before, from the weights as they were, their ranges clipped where that loses
// less; so groups stay where they are stored whatever the order. The factor is computed on the host
// in double precision, from moments that were summed on the device.
#include <algorithm>
#include <utility>
#include <vector>

#include "common/base/parallel.h"
#include "common/base/status.h"
#include "worker/backend/vector_math.h"
#include "worker/quant/method.h"
#include "worker/quant/uniform_grids.h"

namespace uniquanf::quant {
namespace {

constexpr int64_t kBlock = 128;      // columns whose errors are spread together
constexpr int64_t kSpread = 1024;    // columns that they are spread over at once
constexpr int64_t kRowsAtOnce = 16;  // rows that a thread has at once

UQ_VECTOR_CLONES void SubtractMultiple(float factor, const float* __restrict x, int64_t count,
                                       float* __restrict y) {
  for (int64_t k = 0; k < count; ++k) y[k] -= factor * x[k];
}

// Rows [begin, end), in the factor's order.
void SolveRows(const InverseFactor& factor, const std::vector<UniformGrid>& grids, int bits,
               int64_t group_size, int64_t width, int64_t begin, int64_t end,
               const std::vector<float>& weights, std::vector<uint8_t>* codes) {
  const float last_code = static_cast<float>((1 << bits) - 1);
  const int64_t num_rows = end - begin;
  std::vector<float> w(num_rows * width), errors(num_rows * kBlock);
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int64_t k = 0; k < width; ++k) {
      w[row * width + k] = weights[(begin + row) * width + factor.order[k]];
    }
  }
  for (int64_t first = 0; first < width; first += kBlock) {
    const int64_t last = std::min(width, first + kBlock);
    for (int64_t row = 0; row < num_rows; ++row) {
      float* const own = w.data() + row * width;
      for (int64_t k = first; k < last; ++k) {
        const int64_t at = (begin + row) * width + factor.order[k];
        const UniformGrid& grid = grids[at / group_size];
        const float code = grid.Code(own[k], last_code);
        (*codes)[at] = static_cast<uint8_t>(code);
        const float* const u = factor.upper.data() + k * width;
        const float error = (own[k] - grid.Value(code)) / u[k];
        errors[row * kBlock + k - first] = error;
        SubtractMultiple(error, u + k + 1, last - k - 1, own + k + 1);
      }
    }
    for (int64_t to = last; to < width; to += kSpread) {
      const int64_t count = std::min(kSpread, width - to);
      for (int64_t row = 0; row < num_rows; ++row) {
        for (int64_t k = first; k < last; ++k) {
          SubtractMultiple(errors[row * kBlock + k - first], factor.upper.data() + k * width + to,
                           count, w.data() + row * width + to);
        }
      }
    }
  }
}

absl::Status SolveGptq(Levels levels, InputMoments* moments, QuantizerState* state) {
  if (moments->factor == nullptr) {
    UQ_ASSIGN_OR_RETURN(InverseFactor factor, FactorInverse(moments->matrix, moments->width));
    moments->factor = std::make_shared<const InverseFactor>(std::move(factor));
  }
  UQ_ASSIGN_OR_RETURN(const std::vector<float> weights, state->weight.ToFloats());
  const std::vector<UniformGrid> grids =
      FindGrids(weights, state->num_inputs(), state->bits, state->group_size, levels,
                /*search=*/true, moments->Diagonal());
  std::vector<uint8_t> codes(weights.size());
  ParallelRanges(state->num_outputs(), kRowsAtOnce, [&](int64_t begin, int64_t end) {
    SolveRows(*moments->factor, grids, state->bits, state->group_size, state->num_inputs(), begin,
              end, weights, &codes);
  });
  return SetGrids(grids, weights, std::move(codes), state);
}

}  // namespace

namespace methods {

absl::Span<const Method> gptq() {
  static constexpr Method kRows[] = {
      {QuantizationMethod::kGptq,
       {.uniform = true, .binary = false},
       nullptr,
       UniformStarts::kNone,
       SolveGptq},
  };
  return kRows;
}

}  // namespace methods
}  // namespace uniquanf::quant
