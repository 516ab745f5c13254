// Forward, backward and the fused optimizer step. Work is cut into chunks of whole rows; inside a
// group everything runs in tiles (group_math.h).
#include "worker/quant/quantizer_cpu.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "worker/backend/cpu_backend.h"
#include "worker/quant/adam.h"
#include "worker/quant/code_tile.h"
#include "worker/quant/group_math.h"
#include "worker/quant/row_chunks.h"

namespace uniquanf::quant::cpu {
namespace {

constexpr double kBeta2 = 0.999;  // PyTorch's default

// The same for weights [begin, begin + count) of a state that packs its codes. Only what is stored
// is rounded: the step uses the moments as they are computed.
UQ_INLINE void UpdateCompactTile(const AdamStep& step, uint32_t key, const float* __restrict d,
                                 int64_t begin, int count, QuantizerState* s) {
  auto* __restrict s2 = static_cast<uint32_t*>(s->log_scale_weight.data()) + begin;
  auto* __restrict first = static_cast<uint16_t*>(s->m_log_scale_weight.data()) + begin;
  auto* __restrict second = static_cast<uint16_t*>(s->v_log_scale_weight.data()) + begin;
  const uint32_t mask = CodeMask(s->bits);
  for (int k = 0; k < count; ++k) {
    const uint64_t element = static_cast<uint64_t>(begin + k);
    const uint32_t block = RoundingBlock(key, element / 4);
    const uint32_t word = 2 * static_cast<uint32_t>(element % 4);
    float parameter = std::bit_cast<float>(s2[k] & ~mask);
    float m = std::bit_cast<float>(static_cast<uint32_t>(first[k]) << 16);
    float v = std::bit_cast<float>(static_cast<uint32_t>(second[k]) << 16);
    AdamUpdate(step, d[k], &parameter, &m, &v);
    first[k] = static_cast<uint16_t>(
        AddRounding(std::bit_cast<uint32_t>(m), RoundingWord(block, word)) >> 16);
    second[k] = static_cast<uint16_t>(
        AddRounding(std::bit_cast<uint32_t>(v), RoundingWord(block, word + 1)) >> 16);
    s2[k] = RoundScale(std::bit_cast<uint32_t>(parameter), s->bits) | (s2[k] & mask);
  }
}

// One group's scalars, at width n (group_math.h).
template <int n>
struct Group {
  float log_delta, log_scale, zero_point, shift, half_range;
  float delta;      // exp(log Δ)
  float threshold;  // min_i |α_i|
  float alpha[n];   // widened
  int bits;

  UQ_INLINE Group(const QuantizerState& s, int64_t group)
      : log_delta(s.log_delta.f32()[group]),
        log_scale(s.log_scale_group.f32()[group]),
        zero_point(s.zero_point.f32()[group]),
        shift(s.shift.f32()[group]),
        half_range(static_cast<float>((1 << s.bits) - 1) / 2),
        delta(ExpScale(log_delta)),
        bits(s.bits) {
    WidenAlpha<n>(s.alpha.f32() + group * bits, bits, alpha);
    threshold = std::fabs(alpha[n - 1]);
    for (int i = n - bits; i < n - 1; ++i) threshold = std::min(threshold, std::fabs(alpha[i]));
  }

  // w / exp(log Δ + s2 + s3), which is w̃ − z_U.
  UQ_INLINE float Scaled(float w, float s2) const {
    return w / ExpScale(log_delta + s2 + log_scale);
  }
  UQ_INLINE float U(float scaled) const { return scaled + zero_point - shift - half_range; }
  UQ_INLINE float Dequantize(uint32_t code) const {
    return (Level<n>(alpha, code) + shift + half_range - zero_point) * delta;
  }
};

// Sums over a group.
template <int n>
struct GroupSums {
  LaneSum alpha[n];
  LaneSum log_scale;  // Σ D
  LaneSum log_delta;  // Σ (D + G·ŵ)
};

// Backward of a tile (padded inputs, `padded` weights): adds to the sums and writes D, the gradient
// for s2. Padding has G = 0 and adds zeros.
template <int n>
UQ_INLINE void BackwardTile(const Group<n>& p, const float* __restrict w,
                            const float* __restrict s2, const uint8_t* __restrict codes,
                            const float* __restrict upstream, int padded, float* __restrict d,
                            GroupSums<n>* sums) {
  float passed[kTile], log_delta_terms[kTile];
  for (int k = 0; k < padded; ++k) {
    const float scaled = p.Scaled(w[k], s2[k]);
    const float level = Level<n>(p.alpha, codes[k]);
    const bool kept = std::fabs(p.U(scaled) - level) <= p.threshold;
    passed[k] = kept ? p.delta * upstream[k] : 0.0f;
    d[k] = -passed[k] * scaled;
    log_delta_terms[k] = d[k] + upstream[k] * p.Dequantize(codes[k]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) {
    sums->alpha[i].Add(
        padded, [&](int64_t k) UQ_INLINE_LAMBDA { return TimesSign<n>(passed[k], codes[k], i); });
  }
  sums->log_scale.Add(padded, [&](int64_t k) UQ_INLINE_LAMBDA { return d[k]; });
  sums->log_delta.Add(padded, [&](int64_t k) UQ_INLINE_LAMBDA { return log_delta_terms[k]; });
}

template <int n>
UQ_INLINE void ForwardTile(const Group<n>& p, Mapping mapping, int64_t begin, int count,
                           QuantizerState* s, float* __restrict w_hat) {
  const int padded = static_cast<int>(RoundUpToLanes(count));
  CodeTile tile;
  tile.Load(*s, begin, count);
  uint32_t new_codes[kTile];
  if (mapping == Mapping::kKeep) {
    for (int k = 0; k < padded; ++k) new_codes[k] = tile.codes[k];
  } else {
    float w_buffer[kTile], u[kTile];
    const float* w_padded = PadToLanes(s->weight.f32() + begin, count, w_buffer);
    for (int k = 0; k < padded; ++k) u[k] = p.U(p.Scaled(w_padded[k], tile.s2[k]));
    if (mapping == Mapping::kDirect) {
      NearestLevels<n>(p.alpha, p.bits, u, padded, new_codes);
    } else {
      const uint32_t last_code = (1u << p.bits) - 1;
      for (int k = 0; k < padded; ++k) {
        new_codes[k] = NearestNeighbour<n>(p.alpha, last_code, u[k], tile.codes[k]);
      }
    }
    StoreCodes(new_codes, begin, count, s);
  }
  if (w_hat == nullptr) return;
  for (int k = 0; k < count; ++k) w_hat[k] = p.Dequantize(new_codes[k]);
}

template <int n>
UQ_INLINE void ForwardGroup(QuantizerState* s, Mapping mapping, int64_t group, float* w_hat) {
  const Group<n> p(*s, group);
  const int64_t end = (group + 1) * s->group_size;
  for (int64_t k = group * s->group_size; k < end; k += kTile) {
    ForwardTile<n>(p, mapping, k, static_cast<int>(std::min<int64_t>(kTile, end - k)), s,
                   w_hat == nullptr ? nullptr : w_hat + k);
  }
}

// Calls on_tile(k, count, d) for each tile of the group after its backward.
template <int n, class OnTile>
UQ_INLINE void BackwardGroup(const QuantizerState& s, const float* upstream, int64_t group,
                             GroupSums<n>* sums, const OnTile& on_tile) {
  const Group<n> p(s, group);
  const int64_t end = (group + 1) * s.group_size;
  for (int64_t k = group * s.group_size; k < end; k += kTile) {
    const int count = static_cast<int>(std::min<int64_t>(kTile, end - k));
    float w_buffer[kTile], upstream_buffer[kTile], d[kTile];
    CodeTile tile;
    tile.Load(s, k, count);
    BackwardTile<n>(p, PadToLanes(s.weight.f32() + k, count, w_buffer), tile.s2, tile.codes,
                    PadToLanes(upstream + k, count, upstream_buffer),
                    static_cast<int>(RoundUpToLanes(count)), d, sums);
    on_tile(k, count, d);
  }
}

template <int n>
UQ_INLINE void GradientsOfGroup(const QuantizerState& s, const float* upstream, int64_t group,
                                Gradients* gradients) {
  GroupSums<n> sums;
  BackwardGroup<n>(s, upstream, group, &sums,
                   [&](int64_t k, int count, const float* d) UQ_INLINE_LAMBDA {
                     std::copy_n(d, count, gradients->log_scale_weight.f32() + k);
                   });
  for (int i = 0; i < s.bits; ++i) {
    gradients->alpha.f32()[group * s.bits + i] = sums.alpha[n - s.bits + i].Total();
  }
  gradients->log_scale_group.f32()[group] = sums.log_scale.Total();
  gradients->log_delta.f32()[group] = sums.log_delta.Total();
}

template <int n>
UQ_INLINE void UpdateGroup(Mapping mapping, const AdamStep& uniform, const AdamStep& binary,
                           uint32_t rounding_key, const float* upstream, int64_t group,
                           QuantizerState* s, float* w_hat) {
  GroupSums<n> sums;
  BackwardGroup<n>(*s, upstream, group, &sums,
                   [&](int64_t begin, int count, const float* d) UQ_INLINE_LAMBDA {
                     if (!s->trained.uniform) return;
                     if (s->packs_codes()) {
                       UpdateCompactTile(uniform, rounding_key, d, begin, count, s);
                       return;
                     }
                     float* __restrict s2 = s->log_scale_weight.f32() + begin;
                     float* __restrict m = s->m_log_scale_weight.f32() + begin;
                     float* __restrict v = s->v_log_scale_weight.f32() + begin;
                     for (int k = 0; k < count; ++k)
                       AdamUpdate(uniform, d[k], &s2[k], &m[k], &v[k]);
                   });
  if (s->trained.uniform) {
    AdamUpdate(uniform, sums.log_scale.Total(), &s->log_scale_group.f32()[group],
               &s->m_log_scale_group.f32()[group], &s->v_log_scale_group.f32()[group]);
    AdamUpdate(uniform, sums.log_delta.Total(), &s->log_delta.f32()[group],
               &s->m_log_delta.f32()[group], &s->v_log_delta.f32()[group]);
  }
  if (s->trained.binary) {
    for (int i = 0; i < s->bits; ++i) {
      const int64_t at = group * s->bits + i;
      AdamUpdate(binary, sums.alpha[n - s->bits + i].Total(), &s->alpha.f32()[at],
                 &s->m_alpha.f32()[at], &s->v_alpha.f32()[at]);
    }
  }
  ForwardGroup<n>(s, mapping, group, w_hat);
}

UQ_VECTOR_CLONES void ForwardGroups(QuantizerState* s, Mapping mapping, int64_t begin, int64_t end,
                                    float* w_hat) {
#define UQ_BODY(n) \
  for (int64_t group = begin; group < end; ++group) ForwardGroup<n>(s, mapping, group, w_hat)
  UQ_FOR_WIDTH(s->bits, UQ_BODY)
#undef UQ_BODY
}

UQ_VECTOR_CLONES void BackwardGroups(const QuantizerState& s, const float* upstream, int64_t begin,
                                     int64_t end, Gradients* gradients) {
#define UQ_BODY(n)                                  \
  for (int64_t group = begin; group < end; ++group) \
  GradientsOfGroup<n>(s, upstream, group, gradients)
  UQ_FOR_WIDTH(s.bits, UQ_BODY)
#undef UQ_BODY
}

UQ_VECTOR_CLONES void UpdateGroups(Mapping mapping, const AdamStep& uniform, const AdamStep& binary,
                                   uint32_t rounding_key, const float* upstream, int64_t begin,
                                   int64_t end, QuantizerState* s, float* w_hat) {
#define UQ_BODY(n)                                                                     \
  for (int64_t group = begin; group < end; ++group) {                                  \
    UpdateGroup<n>(mapping, uniform, binary, rounding_key, upstream, group, s, w_hat); \
  }
  UQ_FOR_WIDTH(s->bits, UQ_BODY)
#undef UQ_BODY
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
  const AdamStep uniform = MakeAdamStep(params->uniform_learning_rate * state->learning_rate_scale,
                                        params->bias_correction1, params->bias_correction2, kBeta2);
  const AdamStep binary = MakeAdamStep(params->binary_learning_rate * state->learning_rate_scale,
                                       params->bias_correction1, params->bias_correction2, kBeta2);
  const uint32_t rounding_key = RoundingKey(state->rounding_seed, params->draw);
  ForRowChunks(backend, *state, [&](int64_t begin, int64_t end) {
    UpdateGroups(static_cast<Mapping>(params->mapping), uniform, binary, rounding_key,
                 upstream.f32(), begin, end, state, w_hat->f32());
  });
}

void UnpackCodes(Backend* backend, const QuantizerState& state, Tensor* codes) {
  const int64_t g = state.group_size;
  ForRowChunks(backend, state, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin * g; k < end * g; ++k) codes->u8()[k] = CodeAt(state, k);
  });
}

void WriteStored(Backend* backend, const StoredCodes& stored, const Tensor& alpha,
                 const Tensor& beta, Tensor* out) {
  const int n = stored.bits;
  const int64_t g = stored.group_size;
  ForRowChunks(backend, stored, [&](int64_t begin, int64_t end) {
    float table[1 << kMaxBits];
    for (int64_t group = begin; group < end; ++group) {
      const float* scales = alpha.f32() + group * n;
      const auto weight_of = [&](int code) {
        float sum = 0;
        for (int i = 0; i < n; ++i) {
          const float term = (code >> (n - 1 - i)) & 1 ? -scales[i] : scales[i];
          sum = i == 0 ? term : sum + term;
        }
        return sum + beta.f32()[group];
      };
      float* to = out->f32() + group * g;
      if (g < (1 << n)) {  // a table would take longer than the weights
        for (int64_t k = 0; k < g; ++k) to[k] = weight_of(CodeAt(stored, group * g + k));
        continue;
      }
      for (int code = 0; code < (1 << n); ++code) table[code] = weight_of(code);
      for (int64_t k = 0; k < g; ++k) to[k] = table[CodeAt(stored, group * g + k)];
    }
  });
}

}  // namespace uniquanf::quant::cpu
