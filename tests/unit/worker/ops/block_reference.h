// A decoder block's forward pass in double precision, from the references of its parts. For tests.
#ifndef UNIQUANF_TESTS_UNIT_WORKER_OPS_BLOCK_REFERENCE_H_
#define UNIQUANF_TESTS_UNIT_WORKER_OPS_BLOCK_REFERENCE_H_

#include <vector>

#include "tests/unit/worker/ops/reference.h"
#include "worker/block/block_traits.h"

namespace uniquanf::reference {

// A block's tensors by their index in its spec.
using BlockValues = std::vector<Vector>;

// y[T, H] of x[T, H] of a Llama-like block, written from the traits and the tensors' names alone,
// not from the spec's nodes; cos, sin [L, D/2].
Vector BlockForward(const BlockTraits& traits, const BlockValues& weights, const Vector& x,
                    const Vector& cos, const Vector& sin, int64_t batch, int64_t seq_len);

}  // namespace uniquanf::reference

#endif  // UNIQUANF_TESTS_UNIT_WORKER_OPS_BLOCK_REFERENCE_H_
