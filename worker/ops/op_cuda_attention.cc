// Attention on CUDA: chooses between the tensor-core and the plain kernels.
#include "worker/ops/op_cuda_attention.h"
#include "common/base/check.h"
#include "worker/ops/op_cuda.h"

namespace uniquanf::ops::cuda {

void AttentionForward(Backend* backend, const AttentionShape& shape, const Tensor& q,
                      const Tensor& k, const Tensor& v, Tensor* out, Tensor* lse) {
  CudaBackend* cuda = CudaBackend::From(backend);
  if (q.num_elements() == 0) return;
  AttentionPointers p{};
  p.q = q.data();
  p.k = k.data();
  p.v = v.data();
  p.out = out->data();
  p.lse = lse->f32();
  if (TensorCoreAttentionFits(*cuda, shape, q.dtype(), /*backward=*/false)) {
    TensorCoreAttentionForward(cuda, shape, p);
  } else {
    UQ_CHECK(shape.head_dim <= kMaxHeadDim && shape.values() <= kMaxHeadDim);
    PlainAttentionForward(cuda, shape, q.dtype(), p);
  }
}

namespace {

// It grows with L²: long sequences do without.
constexpr size_t kMostScoreGradientBytes = size_t{512} << 20;

size_t DeltaBytes(const AttentionShape& shape) {
  const size_t bytes =
      static_cast<size_t>(shape.batch) * shape.num_heads * shape.seq_len * sizeof(float);
  return (bytes + 255) / 256 * 256;
}

}  // namespace

size_t AttentionBackwardScratchBytes(const Backend& backend, const AttentionShape& shape) {
  const size_t scores =
      TensorCoreAttentionFits(CudaBackend::From(backend), shape, DType::kBfloat16, true)
          ? ScoreGradientBytes(shape)
          : 0;
  return DeltaBytes(shape) + (scores <= kMostScoreGradientBytes ? scores : 0);
}

void AttentionBackward(Backend* backend, const AttentionShape& shape, const Tensor& dout,
                       const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                       const Tensor& lse, Tensor* scratch, Tensor* dq, Tensor* dk, Tensor* dv) {
  CudaBackend* cuda = CudaBackend::From(backend);
  if (q.num_elements() == 0) return;
  AttentionPointers p{};
  p.q = q.data();
  p.k = k.data();
  p.v = v.data();
  p.out = const_cast<void*>(out.data());
  p.lse = const_cast<float*>(lse.f32());
  p.dout = dout.data();
  p.delta = static_cast<float*>(scratch->data());
  if (scratch->size_bytes() >= DeltaBytes(shape) + ScoreGradientBytes(shape)) {
    p.dscores = static_cast<char*>(scratch->data()) + DeltaBytes(shape);
  }
  p.dq = dq->data();
  p.dk = dk->data();
  p.dv = dv->data();
  if (TensorCoreAttentionFits(*cuda, shape, q.dtype(), /*backward=*/true)) {
    TensorCoreAttentionBackward(cuda, shape, p);
  } else {
    UQ_CHECK(shape.head_dim <= kMaxHeadDim && shape.values() <= kMaxHeadDim);
    PlainAttentionBackward(cuda, shape, q.dtype(), p);
  }
}

}  // namespace uniquanf::ops::cuda
