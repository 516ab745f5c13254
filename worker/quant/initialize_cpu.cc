// Initialization of a group's Δ, z_U, α and z_B (ALGORITHM: "Unified initialization"; Park et al.
// section 3.3; the alternating update is that of Xu et al., ICLR 2018, with conjugate gradients).
#include <algorithm>
#include <cmath>
#include <vector>

#include "worker/backend/cpu_backend.h"
#include "worker/quant/float_math.h"
#include "worker/quant/lanes.h"
#include "worker/quant/levels.h"
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

UQ_INLINE FloatLanes PaddingMask(const Workspace& ws, int64_t k, FloatLanes v) {
  if (k + kLanes <= ws.group_size) return v;
  for (int i = 0; i < kLanes; ++i) v[i] = k + i < ws.group_size ? v[i] : 0.0f;
  return v;
}

// r = x; for each i: b_i = sign(r), α_i = mean |r|, r −= α_i b_i.
UQ_INLINE void GreedyStart(Workspace* ws, Fit* fit) {
  std::copy(ws->x.begin(), ws->x.end(), ws->residual.begin());
  for (int i = 0; i < ws->bits; ++i) {
    FloatLanes sum = {};
    for (int64_t k = 0; k < ws->padded; k += kLanes) sum += AbsLanes(LoadLanes(&ws->residual[k]));
    const float alpha = SumLanes(sum) / static_cast<float>(ws->group_size);
    fit->alpha[i] = alpha;
    float* signs = &ws->signs[i * ws->padded];
    for (int64_t k = 0; k < ws->padded; k += kLanes) {
      const FloatLanes r = LoadLanes(&ws->residual[k]);
      const FloatLanes zero = {};
      const FloatLanes sign = r > zero ? zero + 1.0f : (r < zero ? zero - 1.0f : zero);
      StoreLanes(signs + k, sign);
      StoreLanes(&ws->residual[k], r - alpha * sign);
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
      FloatLanes sum = {};
      for (int64_t k = 0; k < ws.padded; k += kLanes) sum += LoadLanes(bi + k) * LoadLanes(bj + k);
      gram[i][j] = gram[j][i] = SumLanes(sum);
    }
    FloatLanes sum = {};
    for (int64_t k = 0; k < ws.padded; k += kLanes) {
      sum += LoadLanes(bi + k) * (LoadLanes(&ws.x[k]) - fit->shift);
    }
    target[i] = SumLanes(sum);
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
UQ_INLINE void AssignNearest(bool fit_shift, Workspace* ws, Fit* fit) {
  float levels[kMaxLevels];
  LevelTable(fit->alpha, ws->bits, levels);
  FloatLanes sum = {};
  for (int64_t k = 0; k < ws->padded; k += kLanes) {
    const FloatLanes x = LoadLanes(&ws->x[k]);
    const IntLanes code = NearestLevel(levels, ws->bits, x - fit->shift);
    for (int i = 0; i < ws->bits; ++i) {
      StoreLanes(&ws->signs[i * ws->padded + k],
                 PaddingMask(*ws, k, FlipBySign(Splat(1.0f), code, i, ws->bits)));
    }
    if (fit_shift) sum += PaddingMask(*ws, k, x - LevelsOf(fit->alpha, ws->bits, code));
  }
  if (fit_shift) fit->shift = SumLanes(sum) / static_cast<float>(ws->group_size);
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
UQ_INLINE void AlternatingUpdate(int rounds, bool fit_shift, Workspace* ws, Fit* fit) {
  *fit = Fit();
  GreedyStart(ws, fit);
  for (int round = 0; round < rounds; ++round) {
    LeastSquares(*ws, fit);
    SortByMagnitude(ws->bits, fit->alpha);
    AssignNearest(fit_shift, ws, fit);
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

// Δ0, the step of min-max quantization.
float MinMaxDelta(const Range& range, int bits) {
  const float num_steps = static_cast<float>((1 << bits) - 1);
  float delta = (range.max - range.min) / num_steps;
  // The difference of two huge weights overflows although the step does not.
  if (!std::isfinite(delta)) delta = range.max / num_steps - range.min / num_steps;
  return std::max({delta, kMinDelta, range.largest * kMinDeltaPerMagnitude});
}

// x = w/Δ + z_U − (2^n − 1)/2, its padding zero.
UQ_INLINE void TransformGroup(float delta, float zero_point, Workspace* ws) {
  const float half_range = static_cast<float>((1 << ws->bits) - 1) / 2;
  for (int64_t k = 0; k < ws->padded; k += kLanes) {
    const FloatLanes x = LoadLanes(&ws->weights[k]) / delta + zero_point - half_range;
    StoreLanes(&ws->x[k], PaddingMask(*ws, k, x));
  }
}

// Σ (|w − ŵ|/Δ0)^2.4 with ŵ from the current signs. Dividing by Δ0 changes no comparison inside a
// group, and keeps the power inside fp32's range.
UQ_INLINE float ReconstructionError(const Fit& fit, float delta, float zero_point, float delta0,
                                    const Workspace& ws) {
  const float half_range = static_cast<float>((1 << ws.bits) - 1) / 2;
  FloatLanes sum = {};
  for (int64_t k = 0; k < ws.padded; k += kLanes) {
    FloatLanes level = {};
    for (int i = 0; i < ws.bits; ++i) {
      level += fit.alpha[i] * LoadLanes(&ws.signs[i * ws.padded + k]);
    }
    const FloatLanes w_hat = (level + fit.shift + half_range - zero_point) * delta;
    const FloatLanes error = AbsLanes(LoadLanes(&ws.weights[k]) - w_hat) / delta0;
    // The smallest normal number stands for zero: its power is zero, and its logarithm is finite.
    const FloatLanes positive = error > 1.17549435e-38f ? error : Splat(1.17549435e-38f);
    sum += PaddingMask(ws, k, ExpF32(kErrorPower * LogF32(positive)));
  }
  return SumLanes(sum);
}

// The levels −(2^n − 1)/2 + c for code c.
void SetUniformLevels(int bits, float* alpha) {
  for (int i = 0; i < bits; ++i) alpha[i] = -std::ldexp(0.5f, bits - 1 - i);
}

enum class Method { kUnified, kUniform, kAlternating };

UQ_MULTIVERSION void InitializeGroup(Method method, const InitOptions& options, int64_t group,
                                     Workspace* ws, QuantizerState* s) {
  std::copy_n(s->weight.f32() + group * s->group_size, s->group_size, ws->weights.begin());
  const Range range = FindRange(*ws);
  const float delta0 = MinMaxDelta(range, s->bits);
  float delta = delta0, zero_point = -range.min / delta0;
  Fit fit;
  const auto approximate = [&](float candidate_delta, float candidate_zero_point) UQ_INLINE_LAMBDA {
    TransformGroup(candidate_delta, candidate_zero_point, ws);
    if (method == Method::kUniform) {
      SetUniformLevels(s->bits, fit.alpha);
      AssignNearest(/*fit_shift=*/false, ws, &fit);
      return;
    }
    const bool fit_shift = method == Method::kAlternating || options.grid_steps == 0;
    AlternatingUpdate(options.alternating_rounds, fit_shift, ws, &fit);
  };
  if (method == Method::kAlternating) {
    delta = std::max(delta0, range.largest * 0x1p-20f);
    zero_point = static_cast<float>((1 << s->bits) - 1) / 2;
  } else if (options.grid_steps > 1) {
    float least_error = INFINITY;
    for (int i = 1; i <= options.grid_steps; ++i) {
      const float candidate =
          delta0 * static_cast<float>(i) / static_cast<float>(options.grid_steps);
      const float candidate_zero_point = -range.min / candidate;
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

void Initialize(Backend* backend, Method method, const InitOptions& options, QuantizerState* s) {
  const int64_t num_groups = s->num_outputs() * s->groups_per_row();
  const int64_t groups_per_chunk = std::max<int64_t>(1, 8192 / s->group_size);
  const int64_t num_chunks = (num_groups + groups_per_chunk - 1) / groups_per_chunk;
  CpuBackend::From(backend)->pool().ParallelFor(num_chunks, [&](int64_t chunk) {
    Workspace workspace(s->group_size, s->bits);
    const int64_t end = std::min(num_groups, (chunk + 1) * groups_per_chunk);
    for (int64_t group = chunk * groups_per_chunk; group < end; ++group) {
      InitializeGroup(method, options, group, &workspace, s);
    }
  });
  for (Tensor* zero : {&s->log_scale_group, &s->log_scale_weight}) {
    std::fill_n(zero->f32(), zero->num_elements(), 0.0f);
  }
  cpu::Forward(backend, Mapping::kDirect, s, nullptr);
}

}  // namespace

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
