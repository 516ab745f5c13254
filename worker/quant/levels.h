// The 2^n levels of one group: L(c) = Σ_i α_i σ_i(c), added from i = 0. Internal to worker/quant.
#ifndef UNIQUANF_WORKER_QUANT_LEVELS_H_
#define UNIQUANF_WORKER_QUANT_LEVELS_H_

#include "worker/quant/lanes.h"

namespace uniquanf::quant {

inline constexpr int kMaxLevels = 256;

UQ_INLINE void LevelTable(const float* alpha, int bits, float* levels) {
  for (int code = 0; code < (1 << bits); ++code) {
    float level = 0;
    for (int i = 0; i < bits; ++i) level += (code >> (bits - 1 - i)) & 1 ? -alpha[i] : alpha[i];
    levels[code] = level;
  }
}

// L(c) of sixteen codes, the same additions as LevelTable's.
UQ_INLINE FloatLanes LevelsOf(const float* alpha, int bits, IntLanes codes) {
  FloatLanes level = FlipBySign(Splat(alpha[0]), codes, 0, bits);
  for (int i = 1; i < bits; ++i) level += FlipBySign(Splat(alpha[i]), codes, i, bits);
  return level;
}

// The nearest of all levels, ties to the lower code.
UQ_INLINE IntLanes NearestLevel(const float* levels, int bits, FloatLanes u) {
  FloatLanes best = AbsLanes(u - levels[0]);
  IntLanes best_code = {};
  for (int code = 1; code < (1 << bits); ++code) {
    const FloatLanes distance = AbsLanes(u - levels[code]);
    const IntLanes closer = distance < best;
    best = closer ? distance : best;
    best_code = closer ? code + IntLanes{} : best_code;
  }
  return best_code;
}

// The nearest among {c−1, c, c+1} clipped to the code range, ties to the first.
UQ_INLINE IntLanes NearestNeighbour(const float* alpha, int bits, FloatLanes u, IntLanes codes) {
  const IntLanes first = codes > 0 ? codes - 1 : codes;
  const IntLanes last = codes < (1 << bits) - 1 ? codes + 1 : codes;
  IntLanes best_code = first;
  FloatLanes best = AbsLanes(u - LevelsOf(alpha, bits, first));
  FloatLanes distance = AbsLanes(u - LevelsOf(alpha, bits, codes));
  best_code = distance < best ? codes : best_code;
  best = distance < best ? distance : best;
  distance = AbsLanes(u - LevelsOf(alpha, bits, last));
  return distance < best ? last : best_code;
}

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_LEVELS_H_
