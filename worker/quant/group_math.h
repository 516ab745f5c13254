// Arithmetic of one weight and of sums over a group, on the CPU. Internal to worker/quant.
//
// Everything is written for one weight and inlined into loops over a *tile*: up to kTile weights of
// one group, padded to a multiple of kLanes, so that the compiler vectorizes them. Sums over a
// group always run in kLanes lanes that are added as a fixed tree: their bits depend neither on the
// instruction set nor on the number of threads. Thread-safe, no state.
#ifndef UNIQUANF_WORKER_QUANT_GROUP_MATH_H_
#define UNIQUANF_WORKER_QUANT_GROUP_MATH_H_

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "worker/backend/vector_math.h"

#define UQ_INLINE __attribute__((always_inline)) inline
#define UQ_INLINE_LAMBDA __attribute__((always_inline))

namespace uniquanf::quant {

inline constexpr int kLanes = 16;
inline constexpr int kTile = 256;

constexpr int64_t RoundUpToLanes(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// e^x of a log-scale, clamped to [-87, 88]: always finite and positive, so that a diverging scale
// never turns weights into infinities or 0/0. NaN gives NaN.
UQ_INLINE float ExpScale(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  return PortableExp(x);
}

// The functions below are compiled for a *width* n of 2, 3, 4 or 8 bits. Five to seven bits run at
// width 8: α is then preceded by zeros, and since the codes' upper bits are 0, L(c) keeps its bits.
constexpr int WidthForBits(int bits) { return bits <= 4 ? bits : 8; }

// The α of a group at width n.
template <int n>
UQ_INLINE void WidenAlpha(const float* alpha, int bits, float* widened) {
  std::fill_n(widened, n - bits, 0.0f);
  std::copy_n(alpha, bits, widened + n - bits);
}

// x where bit i of the code (most significant first, of n) is 0, else −x: σ_i(c)·x.
template <int n>
UQ_INLINE float TimesSign(float x, uint32_t code, int i) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(x) ^ ((code << (32 - n + i)) & 0x80000000u));
}

// L(c) = Σ_i α_i σ_i(c), added from i = 0.
template <int n>
UQ_INLINE float Level(const float* alpha, uint32_t code) {
  float level = TimesSign<n>(alpha[0], code, 0);
#pragma GCC unroll 8
  for (int i = 1; i < n; ++i) level += TimesSign<n>(alpha[i], code, i);
  return level;
}

// The nearest of all levels to each of u[0..count), ties to the lower code; count is a multiple of
// kLanes, at most kTile.
template <int n>
UQ_INLINE void NearestLevels(const float* alpha, int bits, const float* u, int count,
                             uint32_t* codes) {
  const int num_levels = 1 << (n <= 4 ? n : bits);
  float levels[1 << n];
  levels[0] = Level<n>(alpha, 0);
  for (int code = 1; code < num_levels; ++code) levels[code] = Level<n>(alpha, code);
  if constexpr (n <= 4) {  // all levels in registers
    for (int k = 0; k < count; ++k) {
      float best = std::fabs(u[k] - levels[0]);
      uint32_t best_code = 0;
#pragma GCC unroll 16
      for (int code = 1; code < (1 << n); ++code) {
        const float distance = std::fabs(u[k] - levels[code]);
        best_code = distance < best ? code : best_code;
        best = distance < best ? distance : best;
      }
      codes[k] = best_code;
    }
  } else {
    float best[kTile];
    for (int k = 0; k < count; ++k) {
      best[k] = std::fabs(u[k] - levels[0]);
      codes[k] = 0;
    }
    for (int code = 1; code < num_levels; code += 3) {
      const int second = std::min(code + 1, num_levels - 1),
                third = std::min(code + 2, num_levels - 1);
      for (int k = 0; k < count; ++k) {
        float least = best[k];
        uint32_t least_code = codes[k];
        const float d1 = std::fabs(u[k] - levels[code]);
        least_code = d1 < least ? code : least_code;
        least = d1 < least ? d1 : least;
        const float d2 = std::fabs(u[k] - levels[second]);
        least_code = d2 < least ? second : least_code;
        least = d2 < least ? d2 : least;
        const float d3 = std::fabs(u[k] - levels[third]);
        least_code = d3 < least ? third : least_code;
        best[k] = d3 < least ? d3 : least;
        codes[k] = least_code;
      }
    }
  }
}

// The nearest among {c−1, c, c+1} clipped to the code range, ties to the first.
template <int n>
UQ_INLINE uint32_t NearestNeighbour(const float* alpha, uint32_t last_code, float u,
                                    uint32_t code) {
  const uint32_t first = code - (code > 0 ? 1 : 0);
  const uint32_t last = code + (code < last_code ? 1 : 0);
  float best = std::fabs(u - Level<n>(alpha, first));
  const float at_code = std::fabs(u - Level<n>(alpha, code));
  const float at_last = std::fabs(u - Level<n>(alpha, last));
  uint32_t best_code = at_code < best ? code : first;
  best = at_code < best ? at_code : best;
  return at_last < best ? last : best_code;
}

// A sum over a group in kLanes lanes.
struct LaneSum {
  float lanes[kLanes] = {};
  // Adds term(k) for k in [0, count); count is a multiple of kLanes.
  template <class Term>
  UQ_INLINE void Add(int64_t count, const Term& term) {
    float sum[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) sum[lane] = lanes[lane];
    for (int64_t k = 0; k < count; k += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) sum[lane] += term(k + lane);
    }
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = sum[lane];
  }
  float Total() const {
    float sum[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) sum[lane] = lanes[lane];
    for (int width = kLanes / 2; width > 0; width /= 2) {
      for (int lane = 0; lane < width; ++lane) sum[lane] += sum[lane + width];
    }
    return sum[0];
  }
};

// The first `count` elements at `source`, followed by zeros up to whole lanes: `source` itself
// where nothing has to be added, else a copy in `buffer` (at least kTile elements).
template <class T>
UQ_INLINE const T* PadToLanes(const T* source, int count, T* buffer) {
  if (count % kLanes == 0) return source;
  std::memcpy(buffer, source, count * sizeof(T));
  std::fill(buffer + count, buffer + RoundUpToLanes(count), T{});
  return buffer;
}

}  // namespace uniquanf::quant

// Calls BODY(n) with the width as a constant.
#define UQ_FOR_WIDTH(bits, BODY)                   \
  switch (::uniquanf::quant::WidthForBits(bits)) { \
    case 2:                                        \
      BODY(2);                                     \
      break;                                       \
    case 3:                                        \
      BODY(3);                                     \
      break;                                       \
    case 4:                                        \
      BODY(4);                                     \
      break;                                       \
    case 8:                                        \
      BODY(8);                                     \
      break;                                       \
  }

#endif  // UNIQUANF_WORKER_QUANT_GROUP_MATH_H_
