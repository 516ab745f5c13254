// Elementary functions for hot loops on the CPU that give the same bits on every instruction set.
//
// They are made of IEEE add, subtract, multiply, divide and integer operations only, so a compiler
// vectorizes a loop over them and (contraction being off) every vector width computes the same
// result; the C library's versions differ between machines in the last bit. Thread-safe, no state.
//
// Use: write a plain loop in a function marked UQ_VECTOR_CLONES, in a file compiled with -O3 (GCC's
// -O2 does not vectorize loops of unknown length); see the COMPILE_OPTIONS in worker/ops.
#ifndef UNIQUANF_WORKER_BACKEND_VECTOR_MATH_H_
#define UNIQUANF_WORKER_BACKEND_VECTOR_MATH_H_

#include <bit>
#include <cstdint>
#include <limits>

// One copy of the function for each x86-64 level, chosen when the program is loaded. Sanitizers
// instrument the code that chooses, which then runs before they are set up: no clones there.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define UQ_VECTOR_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define UQ_VECTOR_CLONES
#endif

namespace uniquanf {

// e^x within 2 ulp; 0 below −87.33 (no subnormal results), infinity above 88.72, NaN for NaN.
// Cody & Waite's reduction x = n ln 2 + r, |r| <= ln 2 / 2, and Cephes' minimax polynomial for e^r.
inline float PortableExp(float x) {
  constexpr float kLowest = -87.3365f, kHighest = 88.7228f;
  constexpr float kRounder = 12582912.0f;  // 1.5 · 2^23: adding it leaves the nearest integer
  float clamped = x < kLowest ? kLowest : x;
  clamped = clamped > 89.0f ? 89.0f : clamped;
  const float shifted = clamped * 1.44269504088896341f + kRounder;
  const float n = shifted - kRounder;
  // 355/512 has 9 bits, so n · 355/512 is exact.
  const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float e_r = p * (r * r) + r + 1.0f;
  // 2^n in two factors: n = 128 is beyond one.
  const int32_t exponent =
      static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRounder));
  const int32_t half = exponent >> 1;
  const float scale1 = std::bit_cast<float>(static_cast<uint32_t>(half + 127) << 23);
  const float scale2 = std::bit_cast<float>(static_cast<uint32_t>(exponent - half + 127) << 23);
  float result = e_r * scale1 * scale2;
  result = x < kLowest ? 0.0f : result;
  return x > kHighest ? std::numeric_limits<float>::infinity() : result;
}

// Natural logarithm within 2 ulp for normal x > 0; −infinity for 0 and subnormal x, NaN for x < 0
// and NaN, infinity for infinity. Cephes' logf.
inline float PortableLog(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  // Mantissa m in [√½, √2) and exponent e with x = m · 2^e.
  const uint32_t offset = bits - 0x3F3504F3u;  // √½
  const int32_t exponent = static_cast<int32_t>(offset) >> 23;
  const float m = std::bit_cast<float>((offset & 0x007FFFFFu) + 0x3F3504F3u);
  const float r = m - 1.0f;
  const float e = static_cast<float>(exponent);
  const float z = r * r;
  float p = 7.0376836292e-2f;
  p = p * r - 1.1514610310e-1f;
  p = p * r + 1.1676998740e-1f;
  p = p * r - 1.2420140846e-1f;
  p = p * r + 1.4249322787e-1f;
  p = p * r - 1.6668057665e-1f;
  p = p * r + 2.0000714765e-1f;
  p = p * r - 2.4999993993e-1f;
  p = p * r + 3.3333331174e-1f;
  float y = p * r * z;
  y = y + e * -2.12194440e-4f;
  y = y - 0.5f * z;
  float result = (r + y) + e * 0.693359375f;
  result = x < std::numeric_limits<float>::min() ? -std::numeric_limits<float>::infinity() : result;
  result = x < 0.0f || x != x ? std::numeric_limits<float>::quiet_NaN() : result;
  return x == std::numeric_limits<float>::infinity() ? x : result;
}

// 1 / (1 + e^−x).
inline float PortableSigmoid(float x) { return 1.0f / (1.0f + PortableExp(-x)); }

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BACKEND_VECTOR_MATH_H_
