// How the fused update (quantizer_cuda_update.cuh) moves a few neighbouring weights with all that
// belongs to them between memory and registers. Moment is the type of the moments of s2; with
// bfloat16 the codes lie in the lowest bits of s2 (compact_state.h).
#ifndef UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_PIECES_CUH_
#define UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_PIECES_CUH_

#include "worker/quant/compact_state.h"
#include "worker/quant/quantizer_cuda.cuh"

namespace uniquanf::quant::cuda {

// A parameter with its moments.
struct Trained {
  float *p, *m, *v;
};

template <typename Act, typename Moment>
struct UpdateArgs {
  static constexpr bool kCompact = std::is_same_v<Moment, __nv_bfloat16>;
  const ops::StepParams* params;
  const Act *upstream, *weight;
  float* s2;
  Moment *m, *v;
  Trained log_delta, log_scale, alpha;
  const float *zero_point, *shift;
  uint8_t* codes;
  Act* w_hat;
  int64_t num_groups;
  int group_size;
  bool train_uniform, train_binary;
  float learning_rate_scale;
  uint32_t rounding_seed;
};

// Four neighbouring activations or moments as they lie in memory.
template <typename T>
struct RawFour;
template <>
struct RawFour<float> {
  float4 x;
  __device__ void Unpack(float (&to)[4]) const {
    to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
  }
  // Touched once a step: not worth a place in the caches.
  __device__ void LoadOnce(const float* p) { x = __ldcs(reinterpret_cast<const float4*>(p)); }
};
template <>
struct RawFour<__nv_bfloat16> {
  uint2 x;
  __device__ void Unpack(float (&to)[4]) const { UnpackBf16(x.x, to), UnpackBf16(x.y, to + 2); }
  __device__ void LoadOnce(const __nv_bfloat16* p) {
    x = __ldcs(reinterpret_cast<const uint2*>(p));
  }
};

// The bfloat16s in the upper halves of two words.
__device__ inline uint32_t UpperHalves(uint32_t lo, uint32_t hi) {
  return __byte_perm(lo, hi, 0x7632);
}

// V neighbouring weights of a group. code: with kCompact the lowest byte of the stored s2, whose
// lowest n bits are the code.
template <typename Act, typename Moment, int n, int V>
struct Piece {
  using Args = UpdateArgs<Act, Moment>;
  float w[V], upstream[V], s2[V], m[V], v[V];
  uint32_t code[V];

  // s2 as it will be stored.
  __device__ void RoundScales() {
    if constexpr (Args::kCompact) {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const uint32_t bits = RoundScale(__float_as_uint(s2[i]), n);
        code[i] = (bits & (0xffu & ~CodeMask(n))) | code[i];
        s2[i] = __uint_as_float(bits);
      }
    }
  }
  __device__ void StoreState(const Args& a, uint32_t rounding_key, int64_t at) const {
    if constexpr (Args::kCompact) {
      StoreCompact(a, RoundingBlock(rounding_key, static_cast<uint64_t>(at) / 4), at);
    } else if constexpr (V == 1) {
      a.s2[at] = s2[0];
      a.m[at] = m[0];
      a.v[at] = v[0];
    } else {
      __stcs(reinterpret_cast<float4*>(a.s2 + at), make_float4(s2[0], s2[1], s2[2], s2[3]));
      __stcs(reinterpret_cast<float4*>(a.m + at), make_float4(m[0], m[1], m[2], m[3]));
      __stcs(reinterpret_cast<float4*>(a.v + at), make_float4(v[0], v[1], v[2], v[3]));
    }
  }

 private:
  __device__ void StoreCompact(const Args& a, uint32_t block, int64_t at) const {
    const uint32_t first = V == 1 ? 2 * static_cast<uint32_t>(at & 3) : 0;
    uint32_t scale[V], first_moment[V], second_moment[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      scale[i] = __float_as_uint(s2[i]) | (code[i] & CodeMask(n));
      first_moment[i] = AddRounding(__float_as_uint(m[i]), RoundingWord(block, first + 2 * i));
      second_moment[i] = AddRounding(__float_as_uint(v[i]), RoundingWord(block, first + 2 * i + 1));
    }
    auto* s2_bits = reinterpret_cast<uint32_t*>(a.s2 + at);
    if constexpr (V == 1) {
      *s2_bits = scale[0];
      reinterpret_cast<uint16_t*>(a.m)[at] = static_cast<uint16_t>(first_moment[0] >> 16);
      reinterpret_cast<uint16_t*>(a.v)[at] = static_cast<uint16_t>(second_moment[0] >> 16);
    } else {
      // Not __stcs: a code that changes is written to its byte while the sector is in the cache.
      *reinterpret_cast<uint4*>(s2_bits) = make_uint4(scale[0], scale[1], scale[2], scale[3]);
      __stcs(reinterpret_cast<uint2*>(a.m + at),
             make_uint2(UpperHalves(first_moment[0], first_moment[1]),
                        UpperHalves(first_moment[2], first_moment[3])));
      __stcs(reinterpret_cast<uint2*>(a.v + at),
             make_uint2(UpperHalves(second_moment[0], second_moment[1]),
                        UpperHalves(second_moment[2], second_moment[3])));
    }
  }
};

// Of a stored s2 that holds its code.
template <int n>
__device__ inline void SplitScale(float stored, float* s2, uint32_t* code) {
  const uint32_t bits = __float_as_uint(stored);
  *code = bits & CodeMask(n);
  *s2 = __uint_as_float(bits & ~CodeMask(n));
}

// A piece on its way: loaded, not yet looked at, in as few registers as it takes.
template <typename Act, typename Moment, int n, int V>
struct RawPiece {
  Act w, upstream;
  float s2;
  Moment m, v;
  uint8_t code;
  __device__ void Load(const UpdateArgs<Act, Moment>& a, int64_t at) {
    w = a.weight[at], upstream = a.upstream[at];
    s2 = a.s2[at], m = a.m[at], v = a.v[at];
    if constexpr (!UpdateArgs<Act, Moment>::kCompact) code = a.codes[at];
  }
  __device__ void Unpack(Piece<Act, Moment, n, V>* piece) const {
    piece->w[0] = ToFloat(w), piece->upstream[0] = ToFloat(upstream);
    piece->s2[0] = s2, piece->m[0] = ToFloat(m), piece->v[0] = ToFloat(v);
    if constexpr (UpdateArgs<Act, Moment>::kCompact) {
      SplitScale<n>(s2, &piece->s2[0], &piece->code[0]);
    } else {
      piece->code[0] = code;
    }
  }
};
template <typename Act, typename Moment, int n>
struct RawPiece<Act, Moment, n, 4> {
  RawFour<Act> w, upstream;
  RawFour<float> s2;
  RawFour<Moment> m, v;
  uint32_t codes;
  __device__ void Load(const UpdateArgs<Act, Moment>& a, int64_t at) {
    using Raw = RawFour<Act>;
    w = *reinterpret_cast<const Raw*>(a.weight + at);
    upstream = *reinterpret_cast<const Raw*>(a.upstream + at);
    s2.LoadOnce(a.s2 + at);
    m.LoadOnce(a.m + at);
    v.LoadOnce(a.v + at);
    if constexpr (!UpdateArgs<Act, Moment>::kCompact) {
      codes = *reinterpret_cast<const uint32_t*>(a.codes + at);
    }
  }
  __device__ void Unpack(Piece<Act, Moment, n, 4>* piece) const {
    w.Unpack(piece->w);
    upstream.Unpack(piece->upstream);
    s2.Unpack(piece->s2);
    m.Unpack(piece->m);
    v.Unpack(piece->v);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (UpdateArgs<Act, Moment>::kCompact) {
        SplitScale<n>(piece->s2[i], &piece->s2[i], &piece->code[i]);
      } else {
        piece->code[i] = (codes >> (8 * i)) & 0xff;
      }
    }
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
