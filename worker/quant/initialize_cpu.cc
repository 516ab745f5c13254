// Initialization of a group's Δ, z_U, α and z_B (worker/quant/README.md, "Initialization"; Park et
// al. section 3.3; the alternating update is that of Xu et al., ICLR 2018, with conjugate
// gradients).
#include <algorithm>
#include <cmath>
#include <vector>

#include "worker/backend/cpu_backend.h"
#include "worker/quant/group_math.h"
#include "worker/quant/quantizer_cpu.h"

namespace uniquanf::quant::cpu {
namespace {

constexpr float kErrorPower = 2.4f;
constexpr float kConjugateGradientEpsilon = 1e-6f;

// What one thread needs for a group of g weights; every array is padded to whole lanes, and the
// padding of weights, residuals and signs is zero, so that it adds nothing to any sum.
struct Workspace {
  explicit Workspace(int64_t g, int num_bits)
      : group_size(g), padded(RoundUpToLanes(g)), bits(num_bits) {
    weights.resize(padded);
    x.resize(padded);
    residual.resize(padded);
    signs.resize(padded * bits);
  }
  int64_t group_size, padded;
  int bits;
  std::vector<float> weights, x, residual;
  std::vector<float> signs;  // [bits, padded]: b_i, which are −1, 0 or +1
};

struct Fit {
  float alpha[kMaxBits] = {};
  float shift = 0;
};

// r = x; for each i: b_i = sign(r), α_i = mean |r|, r −= α_i b_i.
UQ_INLINE void GreedyStart(Workspace* ws, Fit* fit) {
  std::copy(ws->x.begin(), ws->x.end(), ws->residual.begin());
  float* __restrict r = ws->residual.data();
  for (int i = 0; i < ws->bits; ++i) {
    LaneSum sum;
    sum.Add(ws->padded, [&](int64_t k) UQ_INLINE_LAMBDA { return std::fabs(r[k]); });
    const float alpha = sum.Total() * (1.0f / static_cast<float>(ws->group_size));
    fit->alpha[i] = alpha;
    float* __restrict signs = &ws->signs[i * ws->padded];
    for (int64_t k = 0; k < ws->padded; ++k) {
      signs[k] = r[k] > 0 ? 1.0f : (r[k] < 0 ? -1.0f : 0.0f);
      r[k] -= alpha * signs[k];
    }
  }
}

// n conjugate-gradient steps on (BᵀB) α = Bᵀ(x − z), started at α.
UQ_INLINE void LeastSquares(const Workspace& ws, Fit* fit) {
  const int n = ws.bits;
  float gram[kMaxBits][kMaxBits], target[kMaxBits];
  for (int i = 0; i < n; ++i) {
    const float* bi = &ws.signs[i * ws.padded];
    for (int j = 0; j <= i; ++j) {
      const float* bj = &ws.signs[j * ws.padded];
      LaneSum sum;
      sum.Add(ws.padded, [&](int64_t k) UQ_INLINE_LAMBDA { return bi[k] * bj[k]; });
      gram[i][j] = gram[j][i] = sum.Total();
    }
    LaneSum sum;
    const float* x = ws.x.data();
    sum.Add(ws.padded, [&](int64_t k) UQ_INLINE_LAMBDA { return bi[k] * (x[k] - fit->shift); });
    target[i] = sum.Total();
  }
  float r[kMaxBits], p[kMaxBits], ap[kMaxBits];
  const auto multiply = [&](const float* v, float* out) {
    for (int i = 0; i < n; ++i) {
      out[i] = 0;
      for (int j = 0; j < n; ++j) out[i] += gram[i][j] * v[j];
    }
  };
  const auto dot = [n](const float* a, const float* b) {
    float sum = 0;
    for (int i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
  };
  multiply(fit->alpha, ap);
  for (int i = 0; i < n; ++i) p[i] = r[i] = target[i] - ap[i];
  float rr = dot(r, r);
  for (int step = 0; step < n; ++step) {
    multiply(p, ap);
    const float length = rr / (dot(p, ap) + kConjugateGradientEpsilon);
    for (int i = 0; i < n; ++i) {
      fit->alpha[i] += length * p[i];
      r[i] -= length * ap[i];
    }
    const float next_rr = dot(r, r);
    const float beta = next_rr / (rr + kConjugateGradientEpsilon);
    for (int i = 0; i < n; ++i) p[i] = r[i] + beta * p[i];
    rr = next_rr;
  }
}

// Codes of the nearest levels of x − z, kept as signs; fits z anew when asked to.
template <int n>
UQ_INLINE void AssignNearest(bool fit_shift, Workspace* ws, Fit* fit) {
  float alpha[n];
  WidenAlpha<n>(fit->alpha, ws->bits, alpha);
  LaneSum sum;
  for (int64_t begin = 0; begin < ws->padded; begin += kTile) {
    const int padded = static_cast<int>(std::min<int64_t>(kTile, ws->padded - begin));
    // Beyond the group's end the signs stay zero.
    const int count = static_cast<int>(std::min<int64_t>(padded, ws->group_size - begin));
    const float* x = &ws->x[begin];
    float u[kTile], misfit[kTile] = {};
    uint32_t codes[kTile];
    for (int k = 0; k < padded; ++k) u[k] = x[k] - fit->shift;
    NearestLevels<n>(alpha, ws->bits, u, padded, codes);
    for (int i = 0; i < ws->bits; ++i) {
      float* __restrict signs = &ws->signs[i * ws->padded + begin];
      for (int k = 0; k < count; ++k) {
        signs[k] = TimesSign<n>(1.0f, codes[k], n - ws->bits + i);
      }
    }
    if (!fit_shift) continue;
    for (int k = 0; k < count; ++k) misfit[k] = x[k] - Level<n>(alpha, codes[k]);
    sum.Add(padded, [&](int64_t k) UQ_INLINE_LAMBDA { return misfit[k]; });
  }
  if (fit_shift) fit->shift = sum.Total() * (1.0f / static_cast<float>(ws->group_size));
}

// α ← |α|, descending; an insertion sort, being for at most eight.
void SortByMagnitude(int bits, float* alpha) {
  for (int i = 0; i < bits; ++i) {
    const float value = std::fabs(alpha[i]);
    int j = i;
    for (; j > 0 && alpha[j - 1] < value; --j) alpha[j] = alpha[j - 1];
    alpha[j] = value;
  }
}

// Approximates ws->x by Σ α_i b_i (+ z).
template <int n>
UQ_INLINE void AlternatingUpdate(int rounds, bool fit_shift, Workspace* ws, Fit* fit) {
  *fit = Fit();
  GreedyStart(ws, fit);
  for (int round = 0; round < rounds; ++round) {
    LeastSquares(*ws, fit);
    SortByMagnitude(ws->bits, fit->alpha);
    AssignNearest<n>(fit_shift, ws, fit);
  }
}

struct Range {
  float min, max, largest;  // largest = max |w|
};

Range FindRange(const Workspace& ws) {
  Range range = {ws.weights[0], ws.weights[0], 0};
  for (int64_t k = 0; k < ws.group_size; ++k) {
    range.min = std::min(range.min, ws.weights[k]);
    range.max = std::max(range.max, ws.weights[k]);
  }
  range.largest = std::max(std::fabs(range.min), std::fabs(range.max));
  return range;
}

// x = w/Δ + z_U − (2^n − 1)/2, its padding zero.
UQ_INLINE void TransformGroup(float delta, float zero_point, Workspace* ws) {
  const float half_range = static_cast<float>((1 << ws->bits) - 1) / 2;
  const float* __restrict w = ws->weights.data();
  float* __restrict x = ws->x.data();
  for (int64_t k = 0; k < ws->group_size; ++k) x[k] = w[k] / delta + zero_point - half_range;
}

// Σ (|w − ŵ|/Δ0)^2.4 with ŵ from the current signs. Dividing by Δ0 changes no comparison inside a
// group, and keeps the power inside fp32's range.
UQ_INLINE float ReconstructionError(const Fit& fit, float delta, float zero_point, float delta0,
                                    const Workspace& ws) {
  const float half_range = static_cast<float>((1 << ws.bits) - 1) / 2;
  LaneSum sum;
  for (int64_t begin = 0; begin < ws.group_size; begin += kTile) {
    const int count = static_cast<int>(std::min<int64_t>(kTile, ws.group_size - begin));
    float terms[kTile] = {}, level[kTile] = {};
    for (int i = 0; i < ws.bits; ++i) {
      const float* signs = &ws.signs[i * ws.padded + begin];
      for (int k = 0; k < count; ++k) level[k] += fit.alpha[i] * signs[k];
    }
    const float* w = &ws.weights[begin];
    for (int k = 0; k < count; ++k) {
      const float w_hat = (level[k] + fit.shift + half_range - zero_point) * delta;
      const float error = std::fabs(w[k] - w_hat) / delta0;
      // The smallest normal number stands for zero: its logarithm is finite, its power is zero.
      terms[k] = PortableExp(kErrorPower * PortableLog(std::max(error, 1.17549435e-38f)));
    }
    sum.Add(RoundUpToLanes(count), [&](int64_t k) UQ_INLINE_LAMBDA { return terms[k]; });
  }
  return sum.Total();
}

// The levels −(2^n − 1)/2 + c for code c.
void SetUniformLevels(int bits, float* alpha) {
  for (int i = 0; i < bits; ++i) alpha[i] = -std::ldexp(0.5f, bits - 1 - i);
}

enum class Method { kUnified, kUniform, kAlternating };

// The code that stands for zero. Uniform quantization rounds it, so that a zero weight stays zero;
// the unified method keeps the exact number.
float ZeroPoint(Method method, const Range& range, float delta) {
  const float zero_point = -range.min / delta;
  return method == Method::kUniform ? std::nearbyint(zero_point) : zero_point;
}

template <int n>
UQ_INLINE void InitializeGroup(Method method, const InitOptions& options, int64_t group,
                               Workspace* ws, QuantizerState* s) {
  std::copy_n(s->weight.f32() + group * s->group_size, s->group_size, ws->weights.begin());
  const Range range = FindRange(*ws);
  const float delta0 = MinMaxDelta(range.min, range.max, s->bits);
  float delta = delta0, zero_point = ZeroPoint(method, range, delta0);
  Fit fit;
  const auto approximate = [&](float candidate_delta, float candidate_zero_point) UQ_INLINE_LAMBDA {
    TransformGroup(candidate_delta, candidate_zero_point, ws);
    if (method == Method::kUniform) {
      SetUniformLevels(s->bits, fit.alpha);
      AssignNearest<n>(/*fit_shift=*/false, ws, &fit);
      return;
    }
    const bool fit_shift = method == Method::kAlternating || options.grid_steps == 0;
    AlternatingUpdate<n>(options.alternating_rounds, fit_shift, ws, &fit);
  };
  if (method == Method::kAlternating) {
    delta = std::max(delta0, range.largest * 0x1p-20f);
    zero_point = static_cast<float>((1 << s->bits) - 1) / 2;
  } else if (options.grid_steps > 1) {
    float least_error = INFINITY;
    for (int i = 1; i <= options.grid_steps; ++i) {
      // The ratio is rounded first, as in the authors' implementation.
      const float candidate =
          delta0 * static_cast<float>(static_cast<double>(i) / options.grid_steps);
      const float candidate_zero_point = ZeroPoint(method, range, candidate);
      approximate(candidate, candidate_zero_point);
      const float error = ReconstructionError(fit, candidate, candidate_zero_point, delta0, *ws);
      if (error < least_error) {
        least_error = error;
        delta = candidate;
        zero_point = candidate_zero_point;
      }
    }
  }
  approximate(delta, zero_point);
  s->log_delta.f32()[group] = static_cast<float>(std::log(static_cast<double>(delta)));
  s->zero_point.f32()[group] = zero_point;
  s->shift.f32()[group] = fit.shift;
  std::copy_n(fit.alpha, s->bits, s->alpha.f32() + group * s->bits);
}

UQ_VECTOR_CLONES void InitializeGroups(Method method, const InitOptions& options, int64_t begin,
                                       int64_t end, QuantizerState* s) {
  Workspace workspace(s->group_size, s->bits);
#define UQ_BODY(n)                                             \
  for (int64_t group = begin; group < end; ++group) {          \
    InitializeGroup<n>(method, options, group, &workspace, s); \
  }
  UQ_FOR_WIDTH(s->bits, UQ_BODY)
#undef UQ_BODY
}

void Initialize(Backend* backend, Method method, const InitOptions& options, QuantizerState* s) {
  const int64_t num_groups = s->num_outputs() * s->groups_per_row();
  const int64_t groups_per_chunk = std::max<int64_t>(1, 8192 / s->group_size);
  const int64_t num_chunks = (num_groups + groups_per_chunk - 1) / groups_per_chunk;
  CpuBackend::From(backend)->pool().ParallelFor(num_chunks, [&](int64_t chunk) {
    InitializeGroups(method, options, chunk * groups_per_chunk,
                     std::min(num_groups, (chunk + 1) * groups_per_chunk), s);
  });
  for (Tensor* zero : {&s->log_scale_group, &s->log_scale_weight}) {
    std::fill_n(zero->f32(), zero->num_elements(), 0.0f);
  }
  cpu::Forward(backend, Mapping::kDirect, s, nullptr);
}

}  // namespace

// Multiplying by the rounded reciprocal, as PyTorch divides by a scalar on a GPU, decides on which
// side of a tie the middle of the range falls.
float MinMaxDelta(float min, float max, int bits) {
  const float inverse_num_steps = 1.0f / static_cast<float>((1 << bits) - 1);
  float delta = (max - min) * inverse_num_steps;
  // The difference of two huge weights overflows although the step does not.
  if (!std::isfinite(delta)) delta = max * inverse_num_steps - min * inverse_num_steps;
  const float largest = std::max(std::fabs(min), std::fabs(max));
  return std::max({delta, kMinDelta, largest * kMinDeltaPerMagnitude});
}

void InitializeUnified(Backend* backend, const InitOptions& options, QuantizerState* state) {
  Initialize(backend, Method::kUnified, options, state);
}

void InitializeUniform(Backend* backend, const InitOptions& options, QuantizerState* state) {
  Initialize(backend, Method::kUniform, options, state);
}

void InitializeAlternating(Backend* backend, const InitOptions& options, QuantizerState* state) {
  Initialize(backend, Method::kAlternating, options, state);
}

}  // namespace uniquanf::quant::cpu
