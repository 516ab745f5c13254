// The arithmetic of the fused update's two passes (quantizer_cuda_update.cuh), for a few
// neighbouring weights and for a group's parameters.
#ifndef UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_PASSES_CUH_
#define UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_PASSES_CUH_

#include "worker/quant/quantizer_cuda_pieces.cuh"

namespace uniquanf::quant::cuda {

constexpr float kBeta1 = 0.9f, kBeta2 = 0.999f;
constexpr float kOneMinusBeta1 = static_cast<float>(1 - 0.9);
constexpr float kOneMinusBeta2 = static_cast<float>(1 - 0.999);
constexpr float kEpsilon = 1e-8f;

struct AdamStep {
  float step_size;                      // learning rate / bias_correction1
  float inverse_sqrt_bias_correction2;  // 1/√bias_correction2
  __device__ AdamStep(float learning_rate, const ops::StepParams& params)
      : step_size(learning_rate / params.bias_correction1),
        inverse_sqrt_bias_correction2(rsqrtf(params.bias_correction2)) {}
};

__device__ inline float ApproximateSqrt(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <bool kExact>
__device__ inline void AdamUpdate(const AdamStep& step, float gradient, float* p, float* m,
                                  float* v) {
  *m += kOneMinusBeta1 * (gradient - *m);
  *v = *v * kBeta2 + kOneMinusBeta2 * gradient * gradient;
  if constexpr (kExact) {
    *p -= step.step_size * *m / (sqrtf(*v) * step.inverse_sqrt_bias_correction2 + kEpsilon);
  } else {
    *p -= __fdividef(step.step_size * *m,
                     ApproximateSqrt(*v) * step.inverse_sqrt_bias_correction2 + kEpsilon);
  }
}

// A group's sums in one thread: n of ∂α, then Σ D, then Σ (D + G·ŵ).
template <int n>
struct Sums {
  float value[n + 2] = {};
};

// Gradients and Adam of a piece; leaves w·exp(−s2) after the step in *kept.
template <typename Act, typename Moment, int n, int V>
__device__ inline void FirstPass(const UpdateArgs<Act, Moment>& a, const GroupScalars<n>& group,
                                 const AdamStep& adam, uint32_t rounding_key, const float* levels,
                                 int64_t at, Piece<Act, Moment, n, V>* piece, Sums<n>* sums,
                                 float (&kept)[V]) {
  constexpr bool kExact = std::is_same_v<Act, float>;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const float w = piece->w[i];
    const float scaled = w * InverseWeightScale<kExact>(piece->s2[i]) * group.inverse_scale;
    const float level = levels[piece->code[i]];
    const float gradient = piece->upstream[i] * group.delta;
    const bool pass = fabsf(scaled + group.offset - level) <= group.threshold;
    const float passed = pass ? gradient : 0.f;
    const float d = -passed * scaled;
#pragma unroll
    for (int j = 0; j < n; ++j) sums->value[j] += FlipBySign<n>(passed, piece->code[i], j);
    sums->value[n] += d;
    sums->value[n + 1] += d + gradient * (level - group.offset);
    if (a.train_uniform) {
      AdamUpdate<kExact>(adam, d, &piece->s2[i], &piece->m[i], &piece->v[i]);
    }
    if constexpr (!UpdateArgs<Act, Moment>::kCompact)
      kept[i] = w * InverseWeightScale<kExact>(piece->s2[i]);
  }
  piece->RoundScales();
  if constexpr (UpdateArgs<Act, Moment>::kCompact) {
#pragma unroll
    for (int i = 0; i < V; ++i) kept[i] = piece->w[i] * InverseWeightScale<kExact>(piece->s2[i]);
  }
  if (a.train_uniform) piece->StoreState(a, rounding_key, at);
}

// Mapping and level of a piece with the group's new parameters. code: as Piece's.
template <typename Act, typename Moment, int n, int V>
__device__ inline void SecondPass(const UpdateArgs<Act, Moment>& a, const GroupScalars<n>& group,
                                  Mapping mapping, const float* levels, int64_t at,
                                  const float (&kept)[V], const uint32_t (&stored)[V]) {
  constexpr bool kCompact = UpdateArgs<Act, Moment>::kCompact;
  uint32_t code[V];
#pragma unroll
  for (int i = 0; i < V; ++i) code[i] = kCompact ? stored[i] & CodeMask(n) : stored[i];
  if (mapping != Mapping::kKeep) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float u = kept[i] * group.inverse_scale + group.offset;
      code[i] = mapping == Mapping::kLocal ? NearestNeighbour<n>(levels, u, code[i])
                                           : NearestLevel<n>(levels, u);
    }
    if constexpr (kCompact) {
      // Few codes change: a byte for each that does, instead of moving all of s2 again.
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const uint32_t byte = (stored[i] & ~CodeMask(n)) | code[i];
        if (byte != stored[i]) {
          *reinterpret_cast<uint8_t*>(a.s2 + at + i) = static_cast<uint8_t>(byte);
        }
      }
    } else {
      StoreCodes(a.codes + at, code);
    }
  }
  float w_hat[V];
#pragma unroll
  for (int i = 0; i < V; ++i) w_hat[i] = (levels[code[i]] - group.offset) * group.delta;
  if constexpr (V == 1) {
    a.w_hat[at] = FromFloat<Act>(w_hat[0]);
  } else {
    StoreVector(a.w_hat + at, w_hat);
  }
}

// Where parameter t of a group (α_0.., then s3, then log Δ) lies.
template <int n, typename Args>
__device__ inline Trained GroupParameter(const Args& a, int64_t group, int t) {
  if (t < n) {
    const int64_t at = group * n + t;
    return {a.alpha.p + at, a.alpha.m + at, a.alpha.v + at};
  }
  const Trained& array = t == n ? a.log_scale : a.log_delta;
  return {array.p + group, array.m + group, array.v + group};
}

// One group parameter's value and moments, loaded early so that its step does not wait for memory.
struct ParameterValue {
  float p = 0, m = 0, v = 0;
  __device__ void Load(const Trained& where) { p = *where.p, m = *where.m, v = *where.v; }
  // Adam's step for parameter t with its gradient.
  template <int n, typename Args>
  __device__ void Step(const Args& a, const AdamStep& uniform, int64_t group, int t,
                       float gradient) {
    if (t < n ? !a.train_binary : !a.train_uniform) return;
    const AdamStep binary(a.params->binary_learning_rate * a.learning_rate_scale, *a.params);
    AdamUpdate<true>(t < n ? binary : uniform, gradient, &p, &m, &v);
    const Trained where = GroupParameter<n>(a, group, t);
    *where.p = p;
    *where.m = m;
    *where.v = v;
  }
};

template <int n>
__device__ inline GroupScalars<n> ScalarsOf(const float* parameters, float zero_point,
                                            float shift) {
  return GroupScalars<n>(parameters, parameters[n + 1], parameters[n], zero_point, shift);
}

}  // namespace uniquanf::quant::cuda

#endif  // UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_PASSES_CUH_
