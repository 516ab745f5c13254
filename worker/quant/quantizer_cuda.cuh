// What the quantizer's CUDA kernels share. A *team* of threads works on one group: a block for long
// groups, a warp or part of it for short ones. Groups are contiguous in memory ([N, Gr, g] is
// [N, K]), so kernels see a flat array of groups.
#ifndef UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_CUH_
#define UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_CUH_

#include <cmath>
#include <type_traits>

#include "worker/backend/cuda_device.cuh"
#include "worker/quant/compact_state.h"
#include "worker/quant/quantizer_cuda.h"

namespace uniquanf::quant::cuda {

using namespace uniquanf::cuda;  // NOLINT: kernels' helpers

// Calls fn(std::integral_constant<int, n>{}) for the run-time number of bits.
template <typename Fn>
void DispatchBits(int bits, const Fn& fn) {
  switch (bits) {
    case 2:
      return fn(std::integral_constant<int, 2>{});
    case 3:
      return fn(std::integral_constant<int, 3>{});
    case 4:
      return fn(std::integral_constant<int, 4>{});
    case 5:
      return fn(std::integral_constant<int, 5>{});
    case 6:
      return fn(std::integral_constant<int, 6>{});
    case 7:
      return fn(std::integral_constant<int, 7>{});
    case 8:
      return fn(std::integral_constant<int, 8>{});
    default:
      UQ_CHECK(false);
  }
}

// x where bit i (most significant first, of n) of the code is 0, −x where it is 1.
template <int n>
__device__ inline float FlipBySign(float x, uint32_t code, int i) {
  return __uint_as_float(__float_as_uint(x) ^ ((code << (32 - n + i)) & 0x80000000u));
}
// L(c), added from i = 0 as the CPU does.
template <int n>
__device__ inline float LevelOf(const float* alpha, uint32_t code) {
  float level = FlipBySign<n>(alpha[0], code, 0);
#pragma unroll
  for (int i = 1; i < n; ++i) level += FlipBySign<n>(alpha[i], code, i);
  return level;
}
// The nearest of all levels, ties to the lower code. `levels` is 16-byte aligned shared memory.
template <int n>
__device__ inline uint32_t NearestLevel(const float* levels, float u) {
  float best = INFINITY;
  uint32_t best_code = 0;
#pragma unroll 1
  for (int c = 0; c < (1 << n); c += 4) {
    const float4 l = *reinterpret_cast<const float4*>(levels + c);
    float d = fabsf(u - l.x);
    if (d < best) best = d, best_code = c;
    d = fabsf(u - l.y);
    if (d < best) best = d, best_code = c + 1;
    d = fabsf(u - l.z);
    if (d < best) best = d, best_code = c + 2;
    d = fabsf(u - l.w);
    if (d < best) best = d, best_code = c + 3;
  }
  return best_code;
}
// The nearest among {c−1, c, c+1} clipped to the code range, ties to the first.
template <int n>
__device__ inline uint32_t NearestNeighbour(const float* levels, float u, uint32_t code) {
  const uint32_t first = code > 0 ? code - 1 : code;
  const uint32_t last = code < (1u << n) - 1 ? code + 1 : code;
  float best = fabsf(u - levels[first]);
  uint32_t best_code = first;
  float d = fabsf(u - levels[code]);
  if (d < best) best = d, best_code = code;
  d = fabsf(u - levels[last]);
  return d < best ? last : best_code;
}

// exp and 1/exp of log-scales, clamped so that neither a factor nor the product of the two can
// overflow (the CPU clamps the sum instead, which differs only for a diverged optimization).
// kExact: to the last place or so (fp32 mode), else by the special function unit.
template <bool kExact>
__device__ inline float ExpOf(float x) {
  x = fminf(fmaxf(x, -87.3f), 88.3f);
  return kExact ? expf(x) : __expf(x);
}
template <bool kExact>
__device__ inline float InverseWeightScale(float s2) {
  s2 = fminf(fmaxf(s2, -30.f), 30.f);
  return kExact ? expf(-s2) : __expf(-s2);
}
__device__ inline float InverseGroupScale(float log_delta_plus_s3) {
  return expf(-fminf(fmaxf(log_delta_plus_s3, -57.f), 88.f));
}

// One group's scalars.
template <int n>
struct GroupScalars {
  float inverse_scale;  // 1 / exp(log Δ + s3)
  float offset;         // z_U − z_B − (2^n − 1)/2: u = w·exp(−s2)·inverse_scale + offset
  float delta;          // exp(log Δ)
  float threshold;      // min_i |α_i|
  __device__ GroupScalars(const float* alpha, float log_delta, float log_scale, float zero_point,
                          float shift) {
    inverse_scale = InverseGroupScale(log_delta + log_scale);
    offset = zero_point - shift - 0.5f * ((1 << n) - 1);
    delta = ExpOf<true>(log_delta);
    threshold = fabsf(alpha[0]);
#pragma unroll
    for (int i = 1; i < n; ++i) threshold = fminf(threshold, fabsf(alpha[i]));
  }
};

// s2 and codes [N, K] wherever the codes lie.
struct CodedScales {
  float* s2;
  uint8_t* codes;  // null: in the lowest bits of s2

  template <int n>
  __device__ uint32_t Code(int64_t at) const {
    return codes != nullptr ? codes[at] : __float_as_uint(s2[at]) & CodeMask(n);
  }
  template <int n>
  __device__ float Scale(int64_t at) const {
    return codes != nullptr ? s2[at] : __uint_as_float(__float_as_uint(s2[at]) & ~CodeMask(n));
  }
  template <int n>
  __device__ void StoreCode(int64_t at, uint32_t code) const {
    if (codes != nullptr) {
      codes[at] = static_cast<uint8_t>(code);
    } else {
      s2[at] = __uint_as_float((__float_as_uint(s2[at]) & ~CodeMask(n)) | code);
    }
  }
};
// The state is changed only by StoreCode.
inline CodedScales CodedScalesOf(const QuantizerState& s) {
  return {const_cast<float*>(s.log_scale_weight.f32()),
          s.packs_codes() ? nullptr : const_cast<uint8_t*>(s.codes.u8())};
}

inline CodedScales CodedScalesOf(const StoredCodes& s) {
  Tensor* const codes = const_cast<Tensor*>(s.codes);
  if (codes->dtype() == DType::kUint8) return {nullptr, codes->u8()};
  return {codes->f32(), nullptr};
}

inline int64_t NumGroups(const QuantizerState& s) { return s.num_outputs() * s.groups_per_row(); }

}  // namespace uniquanf::quant::cuda

#endif  // UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_CUH_
