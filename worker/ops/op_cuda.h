// The CUDA implementations of worker/ops/op.h: same signatures, shapes already checked by op.cc.
// Defined in op_cuda*.cu; referred to only in builds with UNIQUANF_HAVE_CUDA.
#ifndef UNIQUANF_WORKER_OPS_OP_CUDA_H_
#define UNIQUANF_WORKER_OPS_OP_CUDA_H_

#include "worker/ops/op.h"

namespace uniquanf::ops::cuda {
#include "worker/ops/op_functions.inc"
}  // namespace uniquanf::ops::cuda

#endif  // UNIQUANF_WORKER_OPS_OP_CUDA_H_
