// Forward, backward and the fused optimizer step. Work is cut into chunks of whole rows; inside a
// group everything runs sixteen weights at a time (lanes.h).
#include "worker/quant/quantizer_cpu.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "worker/backend/cpu_backend.h"
#include "worker/quant/float_math.h"
#include "worker/quant/lanes.h"
#include "worker/quant/levels.h"

namespace uniquanf::quant::cpu {
namespace {

// Adam (Kingma & Ba 2015) with PyTorch's defaults and order of operations.
constexpr float kBeta1 = 0.9f, kBeta2 = 0.999f;
constexpr float kOneMinusBeta1 = static_cast<float>(1 - 0.9);
constexpr float kOneMinusBeta2 = static_cast<float>(1 - 0.999);
constexpr float kEpsilon = 1e-8f;

struct AdamStep {
  float step_size;  // learning rate / bias_correction1
  float sqrt_bias_correction2;
};

AdamStep MakeAdamStep(float learning_rate, const ops::StepParams& params) {
  return {learning_rate / params.bias_correction1, std::sqrt(params.bias_correction2)};
}

UQ_INLINE float Sqrt(float x) { return __builtin_sqrtf(x); }
UQ_INLINE FloatLanes Sqrt(FloatLanes x) {
  float s[kLanes];
  StoreLanes(s, x);
  for (int i = 0; i < kLanes; ++i) s[i] = __builtin_sqrtf(s[i]);
  return LoadLanes(s);
}

// F is float or FloatLanes.
template <class F>
UQ_INLINE void AdamUpdate(const AdamStep& step, F gradient, F* p, F* m, F* v) {
  *m = *m + kOneMinusBeta1 * (gradient - *m);
  *v = *v * kBeta2 + kOneMinusBeta2 * gradient * gradient;
  *p = *p - step.step_size * *m / (Sqrt(*v) / step.sqrt_bias_correction2 + kEpsilon);
}

// One group's scalars.
struct GroupParams {
  float log_delta, log_scale, zero_point, shift, half_range;
  const float* alpha;
  float delta;      // exp(log Δ)
  float threshold;  // min_i |α_i|
};

UQ_INLINE GroupParams LoadGroup(const QuantizerState& s, int64_t group) {
  GroupParams p;
  p.log_delta = s.log_delta.f32()[group];
  p.log_scale = s.log_scale_group.f32()[group];
  p.zero_point = s.zero_point.f32()[group];
  p.shift = s.shift.f32()[group];
  p.half_range = static_cast<float>((1 << s.bits) - 1) / 2;
  p.alpha = s.alpha.f32() + group * s.bits;
  p.delta = ExpF32(p.log_delta);
  p.threshold = std::fabs(p.alpha[0]);
  for (int i = 1; i < s.bits; ++i) p.threshold = std::min(p.threshold, std::fabs(p.alpha[i]));
  return p;
}

// The affine transform: returns w / exp(log Δ + s2 + s3) and sets u.
UQ_INLINE FloatLanes Transform(const GroupParams& p, FloatLanes w, FloatLanes s2, FloatLanes* u) {
  const FloatLanes scaled = w / ExpF32(p.log_delta + s2 + p.log_scale);
  *u = scaled + p.zero_point - p.shift - p.half_range;
  return scaled;
}

UQ_INLINE FloatLanes Dequantize(const GroupParams& p, FloatLanes level) {
  return (level + p.shift + p.half_range - p.zero_point) * p.delta;
}

// Loads the first `count` of sixteen elements, the others as zeros, and the reverse.
UQ_INLINE FloatLanes LoadSome(const float* p, int count) {
  if (count == kLanes) return LoadLanes(p);
  float padded[kLanes] = {};
  std::memcpy(padded, p, count * sizeof(float));
  return LoadLanes(padded);
}
UQ_INLINE void StoreSome(float* p, FloatLanes v, int count) {
  if (count == kLanes) return StoreLanes(p, v);
  float padded[kLanes];
  StoreLanes(padded, v);
  std::memcpy(p, padded, count * sizeof(float));
}
UQ_INLINE IntLanes LoadSomeCodes(const uint8_t* p, int count) {
  if (count == kLanes) return LoadCodes(p);
  uint8_t padded[kLanes] = {};
  std::memcpy(padded, p, count);
  return LoadCodes(padded);
}
UQ_INLINE void StoreSomeCodes(uint8_t* p, IntLanes codes, int count) {
  if (count == kLanes) return StoreCodes(p, codes);
  uint8_t padded[kLanes];
  StoreCodes(padded, codes);
  std::memcpy(p, padded, count);
}

// Sums over a group.
struct GroupSums {
  FloatLanes alpha[kMaxBits] = {};
  FloatLanes log_scale = {};  // Σ D
  FloatLanes log_delta = {};  // Σ (D + G·ŵ)
};

// Backward of sixteen weights: adds to the sums, returns D, the gradient for s2.
template <int n>
UQ_INLINE FloatLanes BackwardLanes(const GroupParams& p, FloatLanes w, FloatLanes s2,
                                   IntLanes codes, FloatLanes upstream, GroupSums* sums) {
  FloatLanes u;
  const FloatLanes scaled = Transform(p, w, s2, &u);
  const FloatLanes level = LevelsOf(p.alpha, n, codes);
  const IntLanes kept = AbsLanes(u - level) <= p.threshold;
  const FloatLanes passed = kept ? p.delta * upstream : FloatLanes{};
  for (int i = 0; i < n; ++i) sums->alpha[i] += FlipBySign(passed, codes, i, n);
  const FloatLanes d = -passed * scaled;
  sums->log_scale += d;
  sums->log_delta += d + upstream * Dequantize(p, level);
  return d;
}

template <int n>
UQ_INLINE void ForwardGroup(const QuantizerState& s, Mapping mapping, const GroupParams& p,
                            int64_t begin, uint8_t* all_codes, float* all_w_hat) {
  const float* weight = s.weight.f32() + begin;
  const float* log_scale_weight = s.log_scale_weight.f32() + begin;
  uint8_t* codes = all_codes + begin;
  float* w_hat = all_w_hat == nullptr ? nullptr : all_w_hat + begin;
  float levels[1 << n];
  if (mapping == Mapping::kDirect) LevelTable(p.alpha, n, levels);
  for (int64_t k = 0; k < s.group_size; k += kLanes) {
    const int count = static_cast<int>(std::min<int64_t>(kLanes, s.group_size - k));
    IntLanes code = LoadSomeCodes(codes + k, count);
    if (mapping != Mapping::kKeep) {
      FloatLanes u;
      Transform(p, LoadSome(weight + k, count), LoadSome(log_scale_weight + k, count), &u);
      code = mapping == Mapping::kDirect ? NearestLevel(levels, n, u)
                                         : NearestNeighbour(p.alpha, n, u, code);
      StoreSomeCodes(codes + k, code, count);
    }
    if (w_hat != nullptr) {
      StoreSome(w_hat + k, Dequantize(p, LevelsOf(p.alpha, n, code)), count);
    }
  }
}

template <int n>
UQ_INLINE void BackwardGroup(const QuantizerState& s, const float* upstream, int64_t group,
                             Gradients* gradients) {
  const GroupParams p = LoadGroup(s, group);
  const int64_t begin = group * s.group_size;
  GroupSums sums;
  for (int64_t k = begin; k < begin + s.group_size; k += kLanes) {
    const int count = static_cast<int>(std::min<int64_t>(kLanes, begin + s.group_size - k));
    const FloatLanes d = BackwardLanes<n>(
        p, LoadSome(s.weight.f32() + k, count), LoadSome(s.log_scale_weight.f32() + k, count),
        LoadSomeCodes(s.codes.u8() + k, count), LoadSome(upstream + k, count), &sums);
    StoreSome(gradients->log_scale_weight.f32() + k, d, count);
  }
  for (int i = 0; i < n; ++i) gradients->alpha.f32()[group * n + i] = SumLanes(sums.alpha[i]);
  gradients->log_scale_group.f32()[group] = SumLanes(sums.log_scale);
  gradients->log_delta.f32()[group] = SumLanes(sums.log_delta);
}

template <int n>
UQ_INLINE void UpdateGroup(const ops::StepParams& params, const AdamStep& uniform,
                           const AdamStep& binary, const float* upstream, int64_t group,
                           QuantizerState* s, float* w_hat) {
  const int64_t begin = group * s->group_size;
  GroupSums sums;
  {
    const GroupParams p = LoadGroup(*s, group);
    float* s2_all = s->log_scale_weight.f32();
    float* m_all = s->m_log_scale_weight.f32();
    float* v_all = s->v_log_scale_weight.f32();
    for (int64_t k = begin; k < begin + s->group_size; k += kLanes) {
      const int count = static_cast<int>(std::min<int64_t>(kLanes, begin + s->group_size - k));
      FloatLanes s2 = LoadSome(s2_all + k, count);
      const FloatLanes d = BackwardLanes<n>(p, LoadSome(s->weight.f32() + k, count), s2,
                                            LoadSomeCodes(s->codes.u8() + k, count),
                                            LoadSome(upstream + k, count), &sums);
      if (!s->trained.uniform) continue;
      FloatLanes m = LoadSome(m_all + k, count), v = LoadSome(v_all + k, count);
      AdamUpdate(uniform, d, &s2, &m, &v);
      StoreSome(s2_all + k, s2, count);
      StoreSome(m_all + k, m, count);
      StoreSome(v_all + k, v, count);
    }
  }
  if (s->trained.uniform) {
    AdamUpdate(uniform, SumLanes(sums.log_scale), &s->log_scale_group.f32()[group],
               &s->m_log_scale_group.f32()[group], &s->v_log_scale_group.f32()[group]);
    AdamUpdate(uniform, SumLanes(sums.log_delta), &s->log_delta.f32()[group],
               &s->m_log_delta.f32()[group], &s->v_log_delta.f32()[group]);
  }
  if (s->trained.binary) {
    for (int64_t i = group * n; i < (group + 1) * n; ++i) {
      AdamUpdate(binary, SumLanes(sums.alpha[i - group * n]), &s->alpha.f32()[i],
                 &s->m_alpha.f32()[i], &s->v_alpha.f32()[i]);
    }
  }
  ForwardGroup<n>(*s, static_cast<Mapping>(params.mapping), LoadGroup(*s, group), begin,
                  s->codes.u8(), w_hat);
}

// Calls body<n>() for the run-time number of bits.
#define UQ_FOR_BITS(bits, body) \
  switch (bits) {               \
    case 2:                     \
      body(2);                  \
      break;                    \
    case 3:                     \
      body(3);                  \
      break;                    \
    case 4:                     \
      body(4);                  \
      break;                    \
    case 5:                     \
      body(5);                  \
      break;                    \
    case 6:                     \
      body(6);                  \
      break;                    \
    case 7:                     \
      body(7);                  \
      break;                    \
    case 8:                     \
      body(8);                  \
      break;                    \
  }

UQ_MULTIVERSION void ForwardGroups(QuantizerState* s, Mapping mapping, int64_t begin, int64_t end,
                                   float* w_hat) {
#define UQ_BODY(n)                                                                           \
  for (int64_t group = begin; group < end; ++group) {                                        \
    ForwardGroup<n>(*s, mapping, LoadGroup(*s, group), group * s->group_size, s->codes.u8(), \
                    w_hat);                                                                  \
  }
  UQ_FOR_BITS(s->bits, UQ_BODY)
#undef UQ_BODY
}

UQ_MULTIVERSION void BackwardGroups(const QuantizerState& s, const float* upstream, int64_t begin,
                                    int64_t end, Gradients* gradients) {
#define UQ_BODY(n)                                    \
  for (int64_t group = begin; group < end; ++group) { \
    BackwardGroup<n>(s, upstream, group, gradients);  \
  }
  UQ_FOR_BITS(s.bits, UQ_BODY)
#undef UQ_BODY
}

UQ_MULTIVERSION void UpdateGroups(const ops::StepParams& params, const AdamStep& uniform,
                                  const AdamStep& binary, const float* upstream, int64_t begin,
                                  int64_t end, QuantizerState* s, float* w_hat) {
#define UQ_BODY(n)                                                      \
  for (int64_t group = begin; group < end; ++group) {                   \
    UpdateGroup<n>(params, uniform, binary, upstream, group, s, w_hat); \
  }
  UQ_FOR_BITS(s->bits, UQ_BODY)
#undef UQ_BODY
}

// Calls fn(begin, end) for ranges of groups of whole rows, about 16k weights each.
template <class Fn>
void ForRowChunks(Backend* backend, const QuantizerState& s, const Fn& fn) {
  const int64_t rows_per_chunk = std::max<int64_t>(1, 16384 / s.num_inputs());
  const int64_t num_chunks = (s.num_outputs() + rows_per_chunk - 1) / rows_per_chunk;
  CpuBackend::From(backend)->pool().ParallelFor(num_chunks, [&](int64_t chunk) {
    const int64_t end_row = std::min(s.num_outputs(), (chunk + 1) * rows_per_chunk);
    fn(chunk * rows_per_chunk * s.groups_per_row(), end_row * s.groups_per_row());
  });
}

}  // namespace

uint64_t ScratchBytes(int64_t num_outputs, int64_t num_inputs, int bits, int64_t group_size) {
  return 0;
}

void Forward(Backend* backend, Mapping mapping, QuantizerState* state, Tensor* w_hat) {
  float* out = w_hat == nullptr ? nullptr : w_hat->f32();
  ForRowChunks(backend, *state,
               [&](int64_t begin, int64_t end) { ForwardGroups(state, mapping, begin, end, out); });
}

void Backward(Backend* backend, const QuantizerState& state, const Tensor& upstream,
              Gradients* gradients) {
  ForRowChunks(backend, state, [&](int64_t begin, int64_t end) {
    BackwardGroups(state, upstream.f32(), begin, end, gradients);
  });
}

void UpdateAndForward(Backend* backend, const ops::StepParams* params, const Tensor& upstream,
                      QuantizerState* state, Tensor* w_hat) {
  const AdamStep uniform = MakeAdamStep(params->uniform_learning_rate, *params);
  const AdamStep binary = MakeAdamStep(params->binary_learning_rate, *params);
  ForRowChunks(backend, *state, [&](int64_t begin, int64_t end) {
    UpdateGroups(*params, uniform, binary, upstream.f32(), begin, end, state, w_hat->f32());
  });
}

}  // namespace uniquanf::quant::cpu
