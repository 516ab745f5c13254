// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011). Element i of stream (seed, stream) does not depend on who computes it or in
// which order, so CPU threads and CUDA kernels draw the same numbers.
// Usable from CUDA device code: this header has no other dependency.
#ifndef UNIQUANF_COMMON_BASE_RANDOM_H_
#define UNIQUANF_COMMON_BASE_RANDOM_H_

#include <cstdint>

#if defined(__CUDACC__)
#define UQ_HOST_DEVICE __host__ __device__
#else
#define UQ_HOST_DEVICE
#endif

namespace uniquanf {

struct Philox4 {
  uint32_t v[4];
};

// The four 32-bit words at `counter` of the stream `stream` of `seed`.
UQ_HOST_DEVICE inline Philox4 PhiloxAt(uint64_t seed, uint64_t stream, uint64_t counter) {
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
  uint32_t c2 = static_cast<uint32_t>(stream), c3 = static_cast<uint32_t>(stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * c0;
    const uint64_t p1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// A 32-bit draw is below `BernoulliThreshold(p)` with probability p (p in [0, 1], exact at both
// ends because the comparison is made in 64 bits).
UQ_HOST_DEVICE inline uint64_t BernoulliThreshold(double p) {
  return static_cast<uint64_t>(p * 4294967296.0);
}

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_RANDOM_H_
