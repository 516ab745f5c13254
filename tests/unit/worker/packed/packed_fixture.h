// Random packed layers and what they should give, computed in float64 from FORMAT.md's definition.
#ifndef UNIQUANF_TESTS_UNIT_WORKER_PACKED_PACKED_FIXTURE_H_
#define UNIQUANF_TESTS_UNIT_WORKER_PACKED_PACKED_FIXTURE_H_

#include <cstdint>
#include <vector>

#include "common/artifact/layout.h"
#include "worker/backend/tensor.h"

namespace uniquanf::packed {

struct Shape4 {
  int bits;
  int64_t num_outputs, num_inputs, group_size;
};

PackedLinear RandomLayer(const Shape4& shape, uint64_t seed);
// Exact in bf16, so that f32 and bf16 devices see the same numbers.
std::vector<float> RandomInputs(int64_t count, uint64_t seed);

struct Expected {
  std::vector<double> y;          // [T, N]
  std::vector<double> magnitude;  // Σ_k |x_k|·(Σ_i |α_i| + |β|): what rounding errors scale with
};
// x [T, K]; the first `bits` planes with alpha [G, bits, N] and beta [G, N] of fp16.
Expected Reference(const PackedLinear& layer, int bits, const std::vector<uint16_t>& alpha,
                   const std::vector<uint16_t>& beta, const std::vector<float>& x);

// The first element of y whose error is beyond what the element type and f32 sums of K terms allow,
// or −1. NaN is beyond.
int64_t FirstWrong(const std::vector<float>& y, const Expected& expected, DType dtype,
                   int64_t num_inputs);

}  // namespace uniquanf::packed

#endif  // UNIQUANF_TESTS_UNIT_WORKER_PACKED_PACKED_FIXTURE_H_
