// Device code shared by the kernels of worker/ops and worker/quant: element types, wide loads and
// stores, reductions in a fixed order.
#ifndef UNIQUANF_WORKER_BACKEND_CUDA_DEVICE_CUH_
#define UNIQUANF_WORKER_BACKEND_CUDA_DEVICE_CUH_

#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>

#include "common/base/check.h"
#include "worker/backend/cuda_backend.h"
#include "worker/backend/tensor.h"

namespace uniquanf::cuda {

inline constexpr unsigned kFullMask = 0xffffffffu;

__device__ inline float ToFloat(float x) { return x; }
__device__ inline float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename Act>
__device__ inline Act FromFloat(float x);
template <>
__device__ inline float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// V consecutive elements as floats; the address must be a multiple of V elements. V·sizeof(Act) is
// moved in pieces of up to 16 bytes.
template <int V>
__device__ inline void LoadVector(const float* p, float (&x)[V]) {
  static_assert(V % 4 == 0);
#pragma unroll
  for (int i = 0; i < V / 4; ++i) {
    const float4 t = reinterpret_cast<const float4*>(p)[i];
    x[4 * i] = t.x, x[4 * i + 1] = t.y, x[4 * i + 2] = t.z, x[4 * i + 3] = t.w;
  }
}
__device__ inline void UnpackBf16(uint32_t word, float* x) {
  x[0] = __uint_as_float(word << 16);
  x[1] = __uint_as_float(word & 0xffff0000u);
}
__device__ inline uint32_t PackBf16(float lo, float hi) {
  const __nv_bfloat162 t = __floats2bfloat162_rn(lo, hi);
  return *reinterpret_cast<const uint32_t*>(&t);
}
template <int V>
__device__ inline void LoadVector(const __nv_bfloat16* p, float (&x)[V]) {
  static_assert(V == 4 || V == 8);
  if constexpr (V == 8) {
    const uint4 t = *reinterpret_cast<const uint4*>(p);
    UnpackBf16(t.x, x), UnpackBf16(t.y, x + 2), UnpackBf16(t.z, x + 4), UnpackBf16(t.w, x + 6);
  } else {
    const uint2 t = *reinterpret_cast<const uint2*>(p);
    UnpackBf16(t.x, x), UnpackBf16(t.y, x + 2);
  }
}
template <int V>
__device__ inline void StoreVector(float* p, const float (&x)[V]) {
#pragma unroll
  for (int i = 0; i < V / 4; ++i) {
    reinterpret_cast<float4*>(p)[i] =
        make_float4(x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]);
  }
}
template <int V>
__device__ inline void StoreVector(__nv_bfloat16* p, const float (&x)[V]) {
  if constexpr (V == 8) {
    *reinterpret_cast<uint4*>(p) = make_uint4(PackBf16(x[0], x[1]), PackBf16(x[2], x[3]),
                                              PackBf16(x[4], x[5]), PackBf16(x[6], x[7]));
  } else {
    *reinterpret_cast<uint2*>(p) = make_uint2(PackBf16(x[0], x[1]), PackBf16(x[2], x[3]));
  }
}

__device__ inline float WarpSum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(kFullMask, x, offset);
  return x;
}
__device__ inline float WarpMax(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    x = fmaxf(x, __shfl_xor_sync(kFullMask, x, offset));
  }
  return x;
}
// The sum over a block of at most 1024 threads (a multiple of 32), in every thread. `shared` holds
// 32 floats and may be reused after the next barrier.
__device__ inline float BlockSum(float x, float* shared) {
  x = WarpSum(x);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  __syncthreads();
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  x = lane < (blockDim.x >> 5) ? shared[lane] : 0.f;
  return WarpSum(x);
}
__device__ inline float BlockMax(float x, float* shared) {
  x = WarpMax(x);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  __syncthreads();
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  x = lane < (blockDim.x >> 5) ? shared[lane] : -INFINITY;
  return WarpMax(x);
}

template <typename Act>
Act* Data(Tensor* t) {
  return static_cast<Act*>(t->data());
}
template <typename Act>
const Act* Data(const Tensor& t) {
  return static_cast<const Act*>(t.data());
}

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Calls fn(Act{}) with the C++ type of `dtype` (f32 or bf16).
template <typename Fn>
void DispatchAct(DType dtype, const Fn& fn) {
  if (dtype == DType::kBfloat16) {
    fn(__nv_bfloat16{});
  } else {
    UQ_CHECK(dtype == DType::kFloat32);
    fn(float{});
  }
}

}  // namespace uniquanf::cuda

#endif  // UNIQUANF_WORKER_BACKEND_CUDA_DEVICE_CUH_
