// How the fused update (quantizer_cuda_update.cu) moves a few neighbouring weights with all that
// belongs to them between memory and registers.
#ifndef UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_PIECES_CUH_
#define UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_PIECES_CUH_

#include "worker/quant/quantizer_cuda.cuh"

namespace uniquanf::quant::cuda {

// A parameter with its moments.
struct Trained {
  float *p, *m, *v;
};

template <typename Act>
struct UpdateArgs {
  const ops::StepParams* params;
  const Act *upstream, *weight;
  Trained s2, log_delta, log_scale, alpha;
  const float *zero_point, *shift;
  uint8_t* codes;
  Act* w_hat;
  int64_t num_groups;
  int group_size;
  bool train_uniform, train_binary;
  float learning_rate_scale;
};

// Four neighbouring activations as they lie in memory.
template <typename Act>
struct RawFour;
template <>
struct RawFour<float> {
  float4 x;
  __device__ void Unpack(float (&to)[4]) const {
    to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
  }
};
template <>
struct RawFour<__nv_bfloat16> {
  uint2 x;
  __device__ void Unpack(float (&to)[4]) const { UnpackBf16(x.x, to), UnpackBf16(x.y, to + 2); }
};

// V neighbouring weights of a group.
template <typename Act, int V>
struct Piece {
  float w[V], upstream[V], s2[V], m[V], v[V];
  uint32_t code[V];

  __device__ void StoreState(const UpdateArgs<Act>& a, int64_t at) const {
    if constexpr (V == 1) {
      a.s2.p[at] = s2[0];
      a.s2.m[at] = m[0];
      a.s2.v[at] = v[0];
    } else {
      __stcs(reinterpret_cast<float4*>(a.s2.p + at), make_float4(s2[0], s2[1], s2[2], s2[3]));
      __stcs(reinterpret_cast<float4*>(a.s2.m + at), make_float4(m[0], m[1], m[2], m[3]));
      __stcs(reinterpret_cast<float4*>(a.s2.v + at), make_float4(v[0], v[1], v[2], v[3]));
    }
  }
};

// A piece on its way: loaded, not yet looked at, in as few registers as it takes.
template <typename Act, int V>
struct RawPiece {
  Act w, upstream;
  float s2, m, v;
  uint8_t code;
  __device__ void Load(const UpdateArgs<Act>& a, int64_t at) {
    w = a.weight[at], upstream = a.upstream[at];
    s2 = a.s2.p[at], m = a.s2.m[at], v = a.s2.v[at];
    code = a.codes[at];
  }
  __device__ void Unpack(Piece<Act, V>* piece) const {
    piece->w[0] = ToFloat(w), piece->upstream[0] = ToFloat(upstream);
    piece->s2[0] = s2, piece->m[0] = m, piece->v[0] = v;
    piece->code[0] = code;
  }
};
template <typename Act>
struct RawPiece<Act, 4> {
  RawFour<Act> w, upstream;
  float4 s2, m, v;
  uint32_t codes;
  __device__ void Load(const UpdateArgs<Act>& a, int64_t at) {
    using Raw = RawFour<Act>;
    w = *reinterpret_cast<const Raw*>(a.weight + at);
    upstream = *reinterpret_cast<const Raw*>(a.upstream + at);
    // Touched once a step: not worth a place in the caches.
    s2 = __ldcs(reinterpret_cast<const float4*>(a.s2.p + at));
    m = __ldcs(reinterpret_cast<const float4*>(a.s2.m + at));
    v = __ldcs(reinterpret_cast<const float4*>(a.s2.v + at));
    codes = *reinterpret_cast<const uint32_t*>(a.codes + at);
  }
  __device__ void Unpack(Piece<Act, 4>* piece) const {
    w.Unpack(piece->w);
    upstream.Unpack(piece->upstream);
    piece->s2[0] = s2.x, piece->s2[1] = s2.y, piece->s2[2] = s2.z, piece->s2[3] = s2.w;
    piece->m[0] = m.x, piece->m[1] = m.y, piece->m[2] = m.z, piece->m[3] = m.w;
    piece->v[0] = v.x, piece->v[1] = v.y, piece->v[2] = v.z, piece->v[3] = v.w;
#pragma unroll
    for (int i = 0; i < 4; ++i) piece->code[i] = (codes >> (8 * i)) & 0xff;
  }
};

template <int V>
__device__ inline uint32_t PackCodes(const uint32_t (&code)[V]) {
  uint32_t word = code[0];
#pragma unroll
  for (int i = 1; i < V; ++i) word |= code[i] << (8 * i);
  return word;
}
template <int V>
__device__ inline void StoreCodes(uint8_t* codes, const uint32_t (&code)[V]) {
  if constexpr (V == 1) {
    *codes = static_cast<uint8_t>(code[0]);
  } else {
    *reinterpret_cast<uint32_t*>(codes) = PackCodes(code);
  }
}

}  // namespace uniquanf::quant::cuda

#endif  // UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_PIECES_CUH_
