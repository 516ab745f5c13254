#include "worker/quant/input_moments.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/parallel.h"
#include "common/base/status.h"
#include "worker/backend/vector_math.h"
#include "worker/block/fold_sites.h"
#include "worker/ops/op.h"

namespace uniquanf::quant {
namespace {

constexpr int64_t kPanel = 64;     // columns of the factor at once
constexpr int kDoubleLanes = 8;    // fixed, so that bits do not depend on the instruction set
constexpr double kDamping = 0.01;  // as in GPTQ, Frantar et al., ICLR 2023

UQ_VECTOR_CLONES double Dot(const double* a, const double* b, int64_t count) {
  double lanes[kDoubleLanes] = {};
  int64_t k = 0;
  for (; k + kDoubleLanes <= count; k += kDoubleLanes) {
    for (int lane = 0; lane < kDoubleLanes; ++lane) lanes[lane] += a[k + lane] * b[k + lane];
  }
  double sum = 0;
  for (; k < count; ++k) sum += a[k] * b[k];
  for (const double lane : lanes) sum += lane;
  return sum;
}

UQ_VECTOR_CLONES void SubtractMultiple(double factor, const double* x, int64_t count, double* y) {
  for (int64_t k = 0; k < count; ++k) y[k] -= factor * x[k];
}

// The lower factor over a's lower half; false where a is not positive definite.
bool Cholesky(int64_t n, std::vector<double>* matrix) {
  double* const a = matrix->data();
  for (int64_t begin = 0; begin < n; begin += kPanel) {
    const int64_t end = std::min(n, begin + kPanel);
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = begin; j < i; ++j) {
        a[i * n + j] = (a[i * n + j] - Dot(a + i * n, a + j * n, j)) / a[j * n + j];
      }
      const double pivot = a[i * n + i] - Dot(a + i * n, a + i * n, i);
      if (!(pivot > 0) || !std::isfinite(pivot)) return false;
      a[i * n + i] = std::sqrt(pivot);
    }
    ParallelRanges(n - end, 16, [&](int64_t first, int64_t last) {
      for (int64_t i = end + first; i < end + last; ++i) {
        for (int64_t j = begin; j < end; ++j) {
          a[i * n + j] = (a[i * n + j] - Dot(a + i * n, a + j * n, j)) / a[j * n + j];
        }
      }
    });
  }
  return true;
}

// The inverse of a lower factor.
std::vector<double> InvertLower(int64_t n, const std::vector<double>& lower) {
  std::vector<double> inverse(n * n);
  ParallelRanges(n, kPanel, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < n; ++i) {
      const int64_t last = std::min(i + 1, end);
      double* const row = inverse.data() + i * n;
      if (i < end) row[i] = 1;
      for (int64_t k = begin; k < i; ++k) {
        SubtractMultiple(lower[i * n + k], inverse.data() + k * n + begin,
                         std::min(k + 1, end) - begin, row + begin);
      }
      for (int64_t c = begin; c < last; ++c) row[c] /= lower[i * n + i];
    }
  });
  return inverse;
}

}  // namespace

std::vector<float> InputMoments::Diagonal() const {
  std::vector<float> diagonal(width);
  for (int64_t k = 0; k < width; ++k) diagonal[k] = matrix[k * width + k];
  if (std::all_of(diagonal.begin(), diagonal.end(), [](float value) { return value == 0; })) {
    std::fill(diagonal.begin(), diagonal.end(), 1.0f);
  }
  return diagonal;
}

void InputMoments::DivideInputs(const std::vector<float>& scales) {
  for (int64_t i = 0; i < width; ++i) {
    for (int64_t k = 0; k < width; ++k) matrix[i * width + k] /= scales[i] * scales[k];
  }
  factor.reset();
}

absl::StatusOr<std::vector<std::shared_ptr<InputMoments>>> MeasureInputMoments(
    Backend* backend, const BlockSpec& block, const RopeTables& rope, const BlockWeights& weights,
    const SequenceBuffer& inputs, const std::function<bool()>& cancelled) {
  const std::vector<int> shared = SharedInputs(block);
  std::vector<Tensor> sums(block.num_linears());
  for (int l = 0; l < block.num_linears(); ++l) {
    if (shared[l] != l) continue;
    const int64_t width = block.linear(l).num_inputs();
    UQ_ASSIGN_OR_RETURN(sums[l], Tensor::Allocate(backend, DType::kFloat32, {width, width}));
    UQ_RETURN_IF_ERROR(backend->FillZero(sums[l].data(), sums[l].size_bytes()));
  }
  const int64_t length = inputs.shape()[1], hidden = inputs.shape()[2];
  {
    UQ_ASSIGN_OR_RETURN(const std::unique_ptr<BlockRunner> runner,
                        BlockRunner::Create(backend, block, inputs.dtype(), /*batch=*/1, length,
                                            &rope, /*with_backward=*/false));
    runner->set_observer([&](int l, const Tensor& input) {
      if (shared[l] != l || input.dim(0) == 0) return;
      ops::LinearBackwardWeight(backend, input, input, /*accumulate=*/true, &sums[l]);
    });
    UQ_ASSIGN_OR_RETURN(Tensor x, Tensor::Allocate(backend, inputs.dtype(), {length, hidden}));
    UQ_ASSIGN_OR_RETURN(Tensor y, Tensor::Allocate(backend, inputs.dtype(), {length, hidden}));
    for (int64_t sequence = 0; sequence < inputs.shape()[0]; ++sequence) {
      if (cancelled && cancelled()) return absl::CancelledError("cancelled");
      UQ_RETURN_IF_ERROR(inputs.Load(sequence, 0, &x));
      runner->Forward(weights, x, &y);
    }
    UQ_RETURN_IF_ERROR(backend->Synchronize());
  }
  std::vector<std::shared_ptr<InputMoments>> moments(block.num_linears());
  for (int l = 0; l < block.num_linears(); ++l) {
    if (shared[l] != l) {
      moments[l] = moments[shared[l]];
      continue;
    }
    auto own = std::make_shared<InputMoments>();
    own->width = block.linear(l).num_inputs();
    UQ_ASSIGN_OR_RETURN(own->matrix, sums[l].ToFloats());
    sums[l] = Tensor();
    float largest = 0;
    for (int64_t k = 0; k < own->width; ++k) {
      largest = std::max(largest, own->matrix[k * own->width + k]);
    }
    if (!std::isfinite(largest)) {
      return MakeError(absl::StatusCode::kInternal, "LOSS_NOT_FINITE",
                       absl::StrCat("the inputs of ", block.linear(l).module,
                                    " are beyond the arithmetic's range"));
    }
    if (largest > 0) {
      for (float& value : own->matrix) value /= largest;
    }
    moments[l] = std::move(own);
  }
  return moments;
}

uint64_t InputMomentsBytes(const BlockSpec& block) {
  const std::vector<int> shared = SharedInputs(block);
  uint64_t bytes = 0;
  for (int l = 0; l < block.num_linears(); ++l) {
    const auto width = static_cast<uint64_t>(block.linear(l).num_inputs());
    if (shared[l] == l) bytes += width * width * sizeof(float);
  }
  return bytes;
}

uint64_t InputMomentsHostBytes(const BlockSpec& block) {
  uint64_t widest = 0;
  for (int l = 0; l < block.num_linears(); ++l) {
    widest = std::max(widest, static_cast<uint64_t>(block.linear(l).num_inputs()));
  }
  // All matrices, and of the widest its factor and what that is made in.
  return InputMomentsBytes(block) + widest * widest * (sizeof(float) + 2 * sizeof(double));
}

absl::StatusOr<InverseFactor> FactorInverse(const std::vector<float>& matrix, int64_t width) {
  const int64_t n = width;
  InverseFactor result;
  result.order.resize(n);
  std::iota(result.order.begin(), result.order.end(), 0);
  std::stable_sort(result.order.begin(), result.order.end(),
                   [&](int64_t a, int64_t b) { return matrix[a * n + a] > matrix[b * n + b]; });
  double mean = 0;
  for (int64_t k = 0; k < n; ++k) mean += matrix[k * n + k];
  mean = mean > 0 ? mean / static_cast<double>(n) : 1;
  for (double damping = kDamping; damping < 1e3; damping *= 10) {
    // A reversed matrix's lower factor is the upper factor of A = R Rᵀ, and U = R⁻¹.
    std::vector<double> reversed(n * n);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t from = result.order[n - 1 - i];
      for (int64_t j = 0; j <= i; ++j) {
        reversed[i * n + j] = matrix[from * n + result.order[n - 1 - j]];
      }
      if (reversed[i * n + i] == 0) reversed[i * n + i] = mean;
      reversed[i * n + i] += damping * mean;
    }
    if (!Cholesky(n, &reversed)) continue;
    const std::vector<double> inverse = InvertLower(n, reversed);
    result.upper.resize(n * n);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = i; j < n; ++j) {
        result.upper[i * n + j] = static_cast<float>(inverse[(n - 1 - i) * n + (n - 1 - j)]);
      }
    }
    return result;
  }
  return MakeError(absl::StatusCode::kInternal, "LOSS_NOT_FINITE",
                   "the moments of a layer's inputs have no inverse; check the calibration data");
}

}  // namespace uniquanf::quant
