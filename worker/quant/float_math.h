// exp and log in fp32 as plain arithmetic, so that loops over them vectorize and give the same bits
// on every instruction set (contraction into FMA is off for the whole project).
// Polynomials of S. Moshier's Cephes library (expf, logf); about 1 ulp. Thread-safe, no state.
#ifndef UNIQUANF_WORKER_QUANT_FLOAT_MATH_H_
#define UNIQUANF_WORKER_QUANT_FLOAT_MATH_H_

#include <bit>
#include <cstdint>

#include "worker/quant/lanes.h"

namespace uniquanf::quant {
namespace internal {

// F is float or a vector of floats; U the unsigned integers of the same width.
template <class U, class F>
UQ_INLINE F Exp(F x) {
  x = x < -87.3f ? F{} - 87.3f : x;
  x = x > 88.3f ? F{} + 88.3f : x;
  // Adding 1.5·2^23 rounds to the nearest integer, which then stands in the low mantissa bits.
  const float rounder = 12582912.0f;
  const F shifted = x * 1.44269504088896341f + rounder;
  const U exponent = std::bit_cast<U>(shifted) - std::bit_cast<uint32_t>(rounder);
  const F whole = shifted - rounder;
  F r = x - whole * 0.693359375f;
  r = r - whole * -2.12194440e-4f;
  F y = 1.9875691500e-4f * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + r + 1.0f;
  return std::bit_cast<F>(std::bit_cast<U>(y) + (exponent << 23));
}

// I are the signed integers of the same width.
template <class I, class F>
UQ_INLINE F Log(F x) {
  // Splits x = m · 2^e with m in [sqrt(1/2), sqrt(2)).
  const I rebased = std::bit_cast<I>(x) - 0x3F3504F3;
  const F e = __builtin_convertvector(rebased >> 23, F);
  const F m = std::bit_cast<F>((rebased & 0x007FFFFF) + 0x3F3504F3) - 1.0f;
  const F z = m * m;
  F y = 7.0376836292e-2f * m - 1.1514610310e-1f;
  y = y * m + 1.1676998740e-1f;
  y = y * m - 1.2420140846e-1f;
  y = y * m + 1.4249322787e-1f;
  y = y * m - 1.6668057665e-1f;
  y = y * m + 2.0000714765e-1f;
  y = y * m - 2.4999993993e-1f;
  y = y * m + 3.3333331174e-1f;
  y = y * m * z;
  y = y + e * -2.12194440e-4f;
  y = y - 0.5f * z;
  return m + y + e * 0.693359375f;
}

}  // namespace internal

// e^x with x clamped to [-87.3, 88.3]: the result is always a normal, finite, positive number, so
// that a diverging log-scale can never turn weights into infinities by a division. NaN gives NaN.
UQ_INLINE float ExpF32(float x) { return internal::Exp<uint32_t>(x); }
UQ_INLINE FloatLanes ExpF32(FloatLanes x) { return internal::Exp<UnsignedLanes>(x); }

// Natural logarithm. REQUIRES: x is a normal, finite, positive number.
UQ_INLINE FloatLanes LogF32(FloatLanes x) { return internal::Log<IntLanes>(x); }

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_FLOAT_MATH_H_
