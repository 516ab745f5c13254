// Sixteen floats at a time, portably (GNU vector extensions: one AVX-512, two AVX2 or four SSE
// registers). A sum over a group always runs in sixteen lanes that are added as a fixed tree, so
// its bits depend neither on the instruction set nor on threads. Internal to worker/quant.
//
// UQ_MULTIVERSION makes a function be compiled for several instruction sets, chosen at load time;
// everything it calls must be UQ_INLINE to be compiled along.
#ifndef UNIQUANF_WORKER_QUANT_LANES_H_
#define UNIQUANF_WORKER_QUANT_LANES_H_

#include <cstdint>
#include <cstring>

#define UQ_INLINE __attribute__((always_inline)) inline
#define UQ_INLINE_LAMBDA __attribute__((always_inline))
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define UQ_MULTIVERSION \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
// The sanitizers' runtimes are not ready when the resolvers of multiversioned functions run.
#define UQ_MULTIVERSION
#endif

namespace uniquanf::quant {

inline constexpr int kLanes = 16;
typedef float FloatLanes __attribute__((vector_size(64)));
typedef int32_t IntLanes __attribute__((vector_size(64)));
typedef uint32_t UnsignedLanes __attribute__((vector_size(64)));
typedef uint8_t ByteLanes __attribute__((vector_size(16)));

UQ_INLINE FloatLanes LoadLanes(const float* p) {
  FloatLanes v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
UQ_INLINE void StoreLanes(float* p, FloatLanes v) { std::memcpy(p, &v, sizeof(v)); }
UQ_INLINE FloatLanes Splat(float value) { return value - FloatLanes{}; }
UQ_INLINE FloatLanes AbsLanes(FloatLanes v) {
  return (FloatLanes)((IntLanes)v & 0x7FFFFFFF);  // NOLINT: reinterprets the bits
}
UQ_INLINE IntLanes LoadCodes(const uint8_t* p) {
  ByteLanes v;
  std::memcpy(&v, p, sizeof(v));
  return __builtin_convertvector(v, IntLanes);
}
UQ_INLINE void StoreCodes(uint8_t* p, IntLanes codes) {
  const ByteLanes v = __builtin_convertvector(codes, ByteLanes);
  std::memcpy(p, &v, sizeof(v));
}
UQ_INLINE float SumLanes(FloatLanes v) {
  float s[kLanes];
  StoreLanes(s, v);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) s[i] += s[i + width];
  }
  return s[0];
}
// x where bit i (most significant first, of `bits`) of the code is 0, −x where it is 1.
UQ_INLINE FloatLanes FlipBySign(FloatLanes x, IntLanes codes, int i, int bits) {
  // The bit moves to the sign's place.
  const IntLanes sign = (codes << (32 - bits + i)) & INT32_MIN;
  return (FloatLanes)((IntLanes)x ^ sign);  // NOLINT: reinterprets the bits
}
constexpr int64_t RoundUpToLanes(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_LANES_H_
