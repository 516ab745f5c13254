// Work is cut into chunks of whole rows; inside a group everything runs in tiles (group_math.h).
#include <algorithm>
#include <cmath>

#include "worker/quant/adam.h"
#include "worker/quant/group_math.h"
#include "worker/quant/latent_quantizer_device.h"
#include "worker/quant/row_chunks.h"

namespace uniquanf::quant::cpu {
namespace {

// One group's scalars, at width n (group_math.h).
template <int n>
struct Group {
  float beta, delta;
  float threshold;  // min_i |α_i|
  float alpha[n];   // widened

  UQ_INLINE Group(const LatentState& s, int64_t group)
      : beta(s.beta.f32()[group]), delta(s.delta.f32()[group]) {
    WidenAlpha<n>(s.alpha.f32() + group * s.bits, s.bits, alpha);
    threshold = std::fabs(alpha[n - 1]);
    for (int i = n - s.bits; i < n - 1; ++i) threshold = std::min(threshold, std::fabs(alpha[i]));
  }
};

template <int n>
UQ_INLINE void ForwardGroup(LatentState* s, int64_t group, float* w_hat) {
  const Group<n> p(*s, group);
  const int64_t end = (group + 1) * s->group_size;
  for (int64_t k = group * s->group_size; k < end; k += kTile) {
    const int count = static_cast<int>(std::min<int64_t>(kTile, end - k));
    float buffer[kTile];
    uint32_t codes[kTile];
    NearestLevels<n>(p.alpha, s->bits, PadToLanes(s->latent.f32() + k, count, buffer),
                     static_cast<int>(RoundUpToLanes(count)), codes);
    uint8_t* __restrict out_codes = s->codes.u8() + k;
    for (int i = 0; i < count; ++i) out_codes[i] = static_cast<uint8_t>(codes[i]);
    float* __restrict out = w_hat + k;
    for (int i = 0; i < count; ++i) out[i] = (Level<n>(p.alpha, codes[i]) + p.beta) * p.delta;
  }
}

// Sums over a group.
template <int n>
struct GroupSums {
  LaneSum alpha[n];
  LaneSum beta;
};

// Calls on_tile(k, count, d) for each tile of the group, with the gradients of its latents.
template <int n, class OnTile>
UQ_INLINE void BackwardGroup(const LatentState& s, const float* upstream, int64_t group,
                             GroupSums<n>* sums, const OnTile& on_tile) {
  const Group<n> p(s, group);
  const int64_t end = (group + 1) * s.group_size;
  for (int64_t k = group * s.group_size; k < end; k += kTile) {
    const int count = static_cast<int>(std::min<int64_t>(kTile, end - k));
    const int padded = static_cast<int>(RoundUpToLanes(count));
    float u_buffer[kTile], upstream_buffer[kTile], scaled[kTile], d[kTile];
    uint8_t code_buffer[kTile];
    const float* u = PadToLanes(s.latent.f32() + k, count, u_buffer);
    const float* g = PadToLanes(upstream + k, count, upstream_buffer);  // 0 in the padding
    const uint8_t* codes = PadToLanes(s.codes.u8() + k, count, code_buffer);
    for (int i = 0; i < padded; ++i) {
      scaled[i] = p.delta * g[i];
      d[i] = std::fabs(u[i] - Level<n>(p.alpha, codes[i])) <= p.threshold ? scaled[i] : 0.0f;
    }
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) {
      sums->alpha[i].Add(
          padded, [&](int64_t j) UQ_INLINE_LAMBDA { return TimesSign<n>(scaled[j], codes[j], i); });
    }
    sums->beta.Add(padded, [&](int64_t j) UQ_INLINE_LAMBDA { return scaled[j]; });
    on_tile(k, count, d);
  }
}

template <int n>
UQ_INLINE void GradientsOfGroup(const LatentState& s, const float* upstream, int64_t group,
                                LatentGradients* gradients) {
  GroupSums<n> sums;
  BackwardGroup<n>(s, upstream, group, &sums,
                   [&](int64_t k, int count, const float* d)
                       UQ_INLINE_LAMBDA { std::copy_n(d, count, gradients->latent.f32() + k); });
  for (int i = 0; i < s.bits; ++i) {
    gradients->alpha.f32()[group * s.bits + i] = sums.alpha[n - s.bits + i].Total();
  }
  gradients->beta.f32()[group] = sums.beta.Total();
}

template <int n>
UQ_INLINE void UpdateGroup(const AdamStep& latent, const AdamStep& scale, const float* upstream,
                           int64_t group, LatentState* s, float* w_hat) {
  GroupSums<n> sums;
  BackwardGroup<n>(*s, upstream, group, &sums,
                   [&](int64_t begin, int count, const float* d) UQ_INLINE_LAMBDA {
                     float* __restrict u = s->latent.f32() + begin;
                     float* __restrict m = s->m_latent.f32() + begin;
                     float* __restrict v = s->v_latent.f32() + begin;
                     for (int k = 0; k < count; ++k) AdamUpdate(latent, d[k], &u[k], &m[k], &v[k]);
                   });
  for (int i = 0; i < s->bits; ++i) {
    const int64_t at = group * s->bits + i;
    AdamUpdate(scale, sums.alpha[n - s->bits + i].Total(), &s->alpha.f32()[at],
               &s->m_alpha.f32()[at], &s->v_alpha.f32()[at]);
  }
  AdamUpdate(scale, sums.beta.Total(), &s->beta.f32()[group], &s->m_beta.f32()[group],
             &s->v_beta.f32()[group]);
  ForwardGroup<n>(s, group, w_hat);
}

UQ_VECTOR_CLONES void ForwardGroups(LatentState* s, int64_t begin, int64_t end, float* w_hat) {
#define UQ_BODY(n) \
  for (int64_t group = begin; group < end; ++group) ForwardGroup<n>(s, group, w_hat)
  UQ_FOR_WIDTH(s->bits, UQ_BODY)
#undef UQ_BODY
}

UQ_VECTOR_CLONES void BackwardGroups(const LatentState& s, const float* upstream, int64_t begin,
                                     int64_t end, LatentGradients* gradients) {
#define UQ_BODY(n)                                  \
  for (int64_t group = begin; group < end; ++group) \
  GradientsOfGroup<n>(s, upstream, group, gradients)
  UQ_FOR_WIDTH(s.bits, UQ_BODY)
#undef UQ_BODY
}

UQ_VECTOR_CLONES void UpdateGroups(const AdamStep& latent, const AdamStep& scale,
                                   const float* upstream, int64_t begin, int64_t end,
                                   LatentState* s, float* w_hat) {
#define UQ_BODY(n)                                  \
  for (int64_t group = begin; group < end; ++group) \
  UpdateGroup<n>(latent, scale, upstream, group, s, w_hat)
  UQ_FOR_WIDTH(s->bits, UQ_BODY)
#undef UQ_BODY
}

}  // namespace

void ForwardLatents(Backend* backend, LatentState* state, Tensor* w_hat) {
  ForRowChunks(backend, *state,
               [&](int64_t begin, int64_t end) { ForwardGroups(state, begin, end, w_hat->f32()); });
}

void BackwardLatents(Backend* backend, const LatentState& state, const Tensor& upstream,
                     LatentGradients* gradients) {
  ForRowChunks(backend, state, [&](int64_t begin, int64_t end) {
    BackwardGroups(state, upstream.f32(), begin, end, gradients);
  });
}

void UpdateLatents(Backend* backend, const LatentStep& step, const Tensor& upstream,
                   LatentState* state, Tensor* w_hat) {
  const AdamStep latent =
      MakeAdamStep(step.latent_rate, step.bias_correction1, step.bias_correction2, kLatentBeta2);
  const AdamStep scale =
      MakeAdamStep(step.scale_rate, step.bias_correction1, step.bias_correction2, kLatentBeta2);
  ForRowChunks(backend, *state, [&](int64_t begin, int64_t end) {
    UpdateGroups(latent, scale, upstream.f32(), begin, end, state, w_hat->f32());
  });
}

}  // namespace uniquanf::quant::cpu
