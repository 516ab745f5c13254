#include <cmath>
#include <cstring>

#include "worker/backend/vector_math.h"
#include "worker/ops/op_cpu.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::ops::cpu {
namespace {

// Sums run in eight double lanes joined in a fixed order, whatever the machine's vectors hold.
using FloatLanes = float __attribute__((vector_size(32)));
using DoubleLanes = double __attribute__((vector_size(64)));
constexpr int64_t kLanes = 8;

inline __attribute__((always_inline)) DoubleLanes LoadLanes(const float* x) {
  FloatLanes lanes;
  std::memcpy(&lanes, x, sizeof(lanes));
  return __builtin_convertvector(lanes, DoubleLanes);
}

// Σ a_i·b_i·c_i; b or c may be null (ones).
inline __attribute__((always_inline)) double SumOfProducts(const float* a, const float* b,
                                                           const float* c, int64_t n) {
  DoubleLanes lanes = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    DoubleLanes term = LoadLanes(a + i) * LoadLanes(b + i);
    if (c != nullptr) term *= LoadLanes(c + i);
    lanes += term;
  }
  for (; i < n; ++i) {
    double term = static_cast<double>(a[i]) * b[i];
    if (c != nullptr) term *= c[i];
    lanes[i % kLanes] += term;
  }
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
         ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

UQ_VECTOR_CLONES void ForwardRows(const float* x, const float* weight, float eps, int64_t width,
                                  int64_t num_rows, float* y, float* inv_rms) {
  for (int64_t r = 0; r < num_rows; ++r) {
    const float* row = x + r * width;
    const double mean = SumOfProducts(row, row, nullptr, width) / static_cast<double>(width);
    const float inverse = static_cast<float>(1.0 / std::sqrt(mean + eps));
    inv_rms[r] = inverse;
    float* out = y + r * width;
    for (int64_t i = 0; i < width; ++i) out[i] = row[i] * inverse * weight[i];
  }
}

UQ_VECTOR_CLONES void AddRows(const float* a, const float* b, int64_t n, float* sum) {
  for (int64_t i = 0; i < n; ++i) sum[i] = a[i] + b[i];
}

// With g = dy·weight and ρ = inv_rms: dx = ρ·g − x·ρ³·mean(g·x).
template <bool kAccumulate>
inline __attribute__((always_inline)) void BackwardRowsImpl(const float* dy, const float* x,
                                                            const float* weight,
                                                            const float* inv_rms, int64_t width,
                                                            int64_t num_rows, float* dx) {
  for (int64_t r = 0; r < num_rows; ++r) {
    const float* g = dy + r * width;
    const float* row = x + r * width;
    float* out = dx + r * width;
    const double dot = SumOfProducts(g, weight, row, width);
    const double inverse = inv_rms[r];
    const float scale = inv_rms[r];
    const float shrink =
        static_cast<float>(inverse * inverse * inverse * dot / static_cast<double>(width));
    for (int64_t i = 0; i < width; ++i) {
      const float value = g[i] * weight[i] * scale - row[i] * shrink;
      out[i] = kAccumulate ? out[i] + value : value;
    }
  }
}

UQ_VECTOR_CLONES void BackwardRows(const float* dy, const float* x, const float* weight,
                                   const float* inv_rms, int64_t width, int64_t num_rows,
                                   float* dx) {
  BackwardRowsImpl<false>(dy, x, weight, inv_rms, width, num_rows, dx);
}
UQ_VECTOR_CLONES void BackwardRowsAccumulate(const float* dy, const float* x, const float* weight,
                                             const float* inv_rms, int64_t width, int64_t num_rows,
                                             float* dx) {
  BackwardRowsImpl<true>(dy, x, weight, inv_rms, width, num_rows, dx);
}

}  // namespace

void RmsNormForward(Backend* backend, const Tensor& x, const Tensor& weight, float eps, Tensor* y,
                    Tensor* inv_rms) {
  const int64_t width = weight.num_elements();
  const int64_t num_rows = x.num_elements() / width;
  ParallelChunks(CpuBackend::From(backend), num_rows, RowChunk(width),
                 [&](int64_t begin, int64_t end) {
                   ForwardRows(x.f32() + begin * width, weight.f32(), eps, width, end - begin,
                               y->f32() + begin * width, inv_rms->f32() + begin);
                 });
}

void AddRmsNormForward(Backend* backend, const Tensor& a, const Tensor& b, const Tensor& weight,
                       float eps, Tensor* sum, Tensor* y, Tensor* inv_rms) {
  const int64_t width = weight.num_elements();
  const int64_t num_rows = a.num_elements() / width;
  ParallelChunks(
      CpuBackend::From(backend), num_rows, RowChunk(width), [&](int64_t begin, int64_t end) {
        const int64_t offset = begin * width;
        AddRows(a.f32() + offset, b.f32() + offset, (end - begin) * width, sum->f32() + offset);
        ForwardRows(sum->f32() + offset, weight.f32(), eps, width, end - begin, y->f32() + offset,
                    inv_rms->f32() + begin);
      });
}

void RmsNormBackward(Backend* backend, const Tensor& dy, const Tensor& x, const Tensor& weight,
                     const Tensor& inv_rms, bool accumulate, Tensor* dx) {
  const int64_t width = weight.num_elements();
  const int64_t num_rows = x.num_elements() / width;
  auto* rows = accumulate ? &BackwardRowsAccumulate : &BackwardRows;
  ParallelChunks(CpuBackend::From(backend), num_rows, RowChunk(width),
                 [&](int64_t begin, int64_t end) {
                   const int64_t offset = begin * width;
                   rows(dy.f32() + offset, x.f32() + offset, weight.f32(), inv_rms.f32() + begin,
                        width, end - begin, dx->f32() + offset);
                 });
}

void NormForward(Backend* backend, const NormShape& shape, const Tensor& x, const Tensor* weight,
                 const Tensor* bias, Tensor* y, Tensor* stats) {
  const int64_t width = shape.width, num_rows = x.num_elements() / width;
  const int64_t weight_rows = weight == nullptr ? 1 : weight->num_elements() / width;
  const int64_t bias_rows = bias == nullptr ? 1 : bias->num_elements() / width;
  ParallelChunks(
      CpuBackend::From(backend), num_rows, RowChunk(width), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const float* row = x.f32() + r * width;
          float* out = y->f32() + r * width;
          double mean = 0;
          if (shape.center) {
            for (int64_t i = 0; i < width; ++i) mean += row[i];
            mean /= static_cast<double>(width);
          }
          double squares = 0;
          for (int64_t i = 0; i < width; ++i) squares += (row[i] - mean) * (row[i] - mean);
          const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(width) + shape.eps);
          stats->f32()[2 * r] = static_cast<float>(mean);
          stats->f32()[2 * r + 1] = static_cast<float>(inverse);
          const float* w = weight == nullptr ? nullptr : weight->f32() + r % weight_rows * width;
          const float* b = bias == nullptr ? nullptr : bias->f32() + r % bias_rows * width;
          for (int64_t i = 0; i < width; ++i) {
            float value = static_cast<float>((row[i] - mean) * inverse);
            if (w != nullptr) value *= w[i];
            out[i] = b == nullptr ? value : value + b[i];
          }
        }
      });
}

// With x̂ = (x − mean)·inv and g = dy·weight: dx = inv·(g − mean(g) − x̂·mean(g·x̂)), without mean(g)
// where nothing is centred.
void NormBackward(Backend* backend, const NormShape& shape, const Tensor& dy, const Tensor& x,
                  const Tensor* weight, const Tensor& stats, bool accumulate, Tensor* dx) {
  const int64_t width = shape.width, num_rows = x.num_elements() / width;
  const int64_t weight_rows = weight == nullptr ? 1 : weight->num_elements() / width;
  ParallelChunks(
      CpuBackend::From(backend), num_rows, RowChunk(width), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const float *row = x.f32() + r * width, *d = dy.f32() + r * width;
          const float* w = weight == nullptr ? nullptr : weight->f32() + r % weight_rows * width;
          float* out = dx->f32() + r * width;
          const double mean = stats.f32()[2 * r], inverse = stats.f32()[2 * r + 1];
          double sum = 0, dot = 0;
          for (int64_t i = 0; i < width; ++i) {
            const double g = w == nullptr ? d[i] : static_cast<double>(d[i]) * w[i];
            sum += g;
            dot += g * (row[i] - mean) * inverse;
          }
          sum = shape.center ? sum / static_cast<double>(width) : 0;
          dot /= static_cast<double>(width);
          for (int64_t i = 0; i < width; ++i) {
            const double g = w == nullptr ? d[i] : static_cast<double>(d[i]) * w[i];
            const auto value =
                static_cast<float>(inverse * (g - sum - (row[i] - mean) * inverse * dot));
            out[i] = accumulate ? out[i] + value : value;
          }
        }
      });
}

// Columns in pieces, each over all rows in their order.
void NormBackwardWeight(Backend* backend, const NormShape& shape, const Tensor& dy, const Tensor& x,
                        const Tensor& stats, bool accumulate, Tensor* dweight) {
  constexpr int64_t kColumns = 64;
  const int64_t width = shape.width, num_rows = x.num_elements() / width;
  const int64_t size = dweight->num_elements(), weight_rows = size / width;
  const bool has_mean = stats.num_elements() != num_rows;
  ParallelChunks(CpuBackend::From(backend), size, kColumns, [&](int64_t begin, int64_t end) {
    double sums[kColumns] = {};
    for (int64_t row = 0; row < num_rows; row += weight_rows) {  // a weight's rows lie as x's do
      for (int64_t i = begin; i < end; ++i) {
        const int64_t r = row + i / width, at = row * width + i;
        const double mean = has_mean ? stats.f32()[2 * r] : 0.0;
        const double inverse = has_mean ? stats.f32()[2 * r + 1] : stats.f32()[r];
        sums[i - begin] += dy.f32()[at] * (x.f32()[at] - mean) * inverse;
      }
    }
    for (int64_t i = begin; i < end; ++i) {
      const auto sum = static_cast<float>(sums[i - begin]);
      dweight->f32()[i] = accumulate ? dweight->f32()[i] + sum : sum;
    }
  });
}

}  // namespace uniquanf::ops::cpu
