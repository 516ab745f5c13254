// A decoder block's forward pass in double precision, from the references of its parts. For tests.
#ifndef UNIQUANF_TESTS_UNIT_WORKER_OPS_BLOCK_REFERENCE_H_
#define UNIQUANF_TESTS_UNIT_WORKER_OPS_BLOCK_REFERENCE_H_

#include <array>

#include "tests/unit/worker/ops/reference.h"
#include "worker/block/block.h"

namespace uniquanf::reference {

struct BlockValues {
  std::array<Vector, kNumLinears> linear, bias;
  Vector input_norm, post_norm, q_norm, k_norm;
};

// y[T, H] of x[T, H]; cos, sin [L, D/2].
Vector BlockForward(const BlockConfig& config, const BlockValues& weights, const Vector& x,
                    const Vector& cos, const Vector& sin, int64_t batch, int64_t seq_len);

}  // namespace uniquanf::reference

#endif  // UNIQUANF_TESTS_UNIT_WORKER_OPS_BLOCK_REFERENCE_H_
