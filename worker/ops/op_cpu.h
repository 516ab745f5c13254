// The CPU's implementations of worker/ops/op.h: same signatures, shapes already checked by op.cc.
//
// Matrix products go through single-threaded OpenBLAS in pieces of fixed size, the rest are plain
// loops over chunks of fixed size; so the bits do not depend on the number of threads.
#ifndef UNIQUANF_WORKER_OPS_OP_CPU_H_
#define UNIQUANF_WORKER_OPS_OP_CPU_H_

#include "worker/ops/op.h"

namespace uniquanf::ops::cpu {
#include "worker/ops/op_functions.inc"
}  // namespace uniquanf::ops::cpu

#endif  // UNIQUANF_WORKER_OPS_OP_CPU_H_
