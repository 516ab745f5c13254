// The two CUDA implementations of attention: tensor-core kernels for bf16 and the usual head sizes,
// and plain ones for everything else. Internal to worker/ops; op_cuda_attention.cc chooses.
#ifndef UNIQUANF_WORKER_OPS_OP_CUDA_ATTENTION_H_
#define UNIQUANF_WORKER_OPS_OP_CUDA_ATTENTION_H_

#include <cuda_runtime_api.h>

#include "worker/backend/cuda_backend.h"
#include "worker/ops/op.h"

namespace uniquanf::ops::cuda {

// Largest head size of the plain kernels.
inline constexpr int kMaxHeadDim = 1024;

// Device pointers of act's type, laid out as in op.h; `delta` [batch, Hq, L] f32 is scratch for the
// row sums of dout·out; `dscores`, which may be null, for ScoreGradientBytes of scores' gradients.
struct AttentionPointers {
  const void *q, *k, *v;
  void* out;
  float* lse;
  const void* dout;
  float* delta;
  void* dscores;
  void *dq, *dk, *dv;
};

// Whether the tensor-core kernels can run: bf16, head size 32, 64, 80, 96, 128 or 256, and enough
// shared memory. `backward` asks for the backward pass.
bool TensorCoreAttentionFits(const CudaBackend& cuda, const AttentionShape& shape, DType act,
                             bool backward);
void TensorCoreAttentionForward(CudaBackend* cuda, const AttentionShape& shape,
                                const AttentionPointers& p);
void TensorCoreAttentionBackward(CudaBackend* cuda, const AttentionShape& shape,
                                 const AttentionPointers& p);

// Scratch with which the tensor-core backward pass computes the weights once instead of twice.
size_t ScoreGradientBytes(const AttentionShape& shape);

void PlainAttentionForward(CudaBackend* cuda, const AttentionShape& shape, DType act,
                           const AttentionPointers& p);
void PlainAttentionBackward(CudaBackend* cuda, const AttentionShape& shape, DType act,
                            const AttentionPointers& p);

}  // namespace uniquanf::ops::cuda

#endif  // UNIQUANF_WORKER_OPS_OP_CUDA_ATTENTION_H_
