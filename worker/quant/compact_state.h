// The optimizer's state in fewer bytes (QuantizationSpec::optimizer_state = bf16), defined once for
// all devices: the moments of s2 in bfloat16, and a weight's code in the lowest n bits of its s2.
// 8 bytes a weight where float32 and a byte for the code take 13.
//
// Moments are rounded at random, up with the probability of what is cut off, so that they keep
// their means: to the nearest, a second moment could only grow, since its decay of 0.1% a step is
// less than half a unit. The random bits are a hash of element, step and tensor: any order of work,
// and a run that was interrupted, gives the same bits. s2 is rounded to the nearest of its upper
// 32 − n bits, a resolution of 1e-7 at 0.1 with 4 bits.
//
// On the bits of floats, usable in CUDA device code: this header has no other dependency. An
// infinite moment stays infinite. What is no number may become one: sums over the group, which hold
// every gradient too, tell of it.
#ifndef UNIQUANF_WORKER_QUANT_COMPACT_STATE_H_
#define UNIQUANF_WORKER_QUANT_COMPACT_STATE_H_

#include <cstdint>

#if defined(__CUDACC__)
#define UQ_COMPACT __host__ __device__ __forceinline__
#else
#define UQ_COMPACT __attribute__((always_inline)) inline
#endif

namespace uniquanf::quant {

// Of all that follows: a job goes on only where its state means the same.
inline constexpr int kCompactStateVersion = 1;

// A hash of 32 bits (an invertible multiply-xorshift, "lowbias32" by C. Wellons).
UQ_COMPACT uint32_t MixBits(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  x ^= x >> 16;
  return x;
}
// Of one step on one tensor. step: ops::StepParams::draw.
UQ_COMPACT uint32_t RoundingKey(uint32_t tensor_seed, uint64_t step) {
  return MixBits(tensor_seed ^ MixBits(static_cast<uint32_t>(step) +
                                       static_cast<uint32_t>(step >> 32) * 0x9E3779B1u));
}
// Of four neighbouring elements, 4·index to 4·index + 3.
UQ_COMPACT uint32_t RoundingBlock(uint32_t key, uint64_t index) {
  return MixBits(key + static_cast<uint32_t>(index) * 0x9E3779B1u +
                 static_cast<uint32_t>(index >> 32) * 0x85EBCA6Bu);
}
// Its random words, of which the upper half is used: 2·(element % 4) for the first moment, and one
// more for the second. (An odd multiple of evenly spread
// numbers is evenly spread.)
UQ_COMPACT uint32_t RoundingWord(uint32_t block, uint32_t word) {
  return block * (0x2C1B3C6Du + 0x297A2D38u * word);
}

// A moment with its random word added: the upper half is the bfloat16.
UQ_COMPACT uint32_t AddRounding(uint32_t moment, uint32_t random) {
  return moment + (random >> 16);
}

// The bits of a stored s2 that are its code.
UQ_COMPACT uint32_t CodeMask(int bits) { return (1u << bits) - 1; }
// s2 with room for a code, as 0.
UQ_COMPACT uint32_t RoundScale(uint32_t scale, int bits) {
  return (scale + (1u << (bits - 1))) & ~CodeMask(bits);
}

}  // namespace uniquanf::quant

#undef UQ_COMPACT

#endif  // UNIQUANF_WORKER_QUANT_COMPACT_STATE_H_
