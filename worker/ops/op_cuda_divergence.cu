// Distillation's loss at the head, a block a row; see op_cpu_divergence.cc.
#include "worker/backend/cuda_device.cuh"
#include "worker/ops/op_cuda.h"

namespace uniquanf::ops::cuda {
namespace {

using namespace uniquanf::cuda;  // NOLINT: kernels' helpers

constexpr int kThreads = 256;

__device__ inline float Capped(LogitShape shape, float logit, float* slope) {
  if (shape.softcap == 0) {
    *slope = shape.scale;
    return shape.scale * logit;
  }
  const float t = tanhf(shape.scale / shape.softcap * logit);
  *slope = shape.scale * (1 - t * t);
  return shape.softcap * t;
}

__global__ void __launch_bounds__(kThreads)
    LogitSumsKernel(LogitShape shape, const float* logits, int64_t width, bool first, float* sums) {
  __shared__ float shared[32];
  const float* row = logits + blockIdx.x * width;
  float* out = sums + 2 * static_cast<int64_t>(blockIdx.x);
  const float largest_before = first ? -INFINITY : out[0];
  const float sum_before = first ? 0.f : out[1];
  float slope, largest = largest_before;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    largest = fmaxf(largest, Capped(shape, row[i], &slope));
  }
  largest = BlockMax(largest, shared);
  float sum = 0;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    sum += expf(Capped(shape, row[i], &slope) - largest);
  }
  sum = BlockSum(sum, shared);
  if (threadIdx.x != 0) return;
  out[0] = largest;
  out[1] = sum + (first ? 0.f : sum_before * expf(largest_before - largest));
}

template <typename Act>
__global__ void __launch_bounds__(kThreads)
    KlDivergenceKernel(LogitShape shape, const float* target, const float* target_sums,
                       const float* logits, const float* sums, float factor, int64_t width,
                       bool first, Act* dlogits, float* kl) {
  __shared__ float shared[32];
  const int64_t t = blockIdx.x, base = t * width;
  const float target_norm = target_sums[2 * t] + logf(target_sums[2 * t + 1]);
  const float norm = sums[2 * t] + logf(sums[2 * t + 1]);
  float sum = 0, slope;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    const float log_p = Capped(shape, target[base + i], &slope) - target_norm;
    const float log_q = Capped(shape, logits[base + i], &slope) - norm;
    const float p = expf(log_p);
    sum += p * (log_p - log_q);
    dlogits[base + i] = FromFloat<Act>(factor * (expf(log_q) - p) * slope);
  }
  sum = BlockSum(sum, shared);
  if (threadIdx.x == 0) kl[t] = first ? sum : kl[t] + sum;
}

}  // namespace

void LogitSums(Backend* backend, const LogitShape& shape, const Tensor& logits, bool first,
               Tensor* sums) {
  CudaBackend* cuda = CudaBackend::From(backend);
  if (logits.num_elements() == 0) return;
  LogitSumsKernel<<<static_cast<unsigned>(logits.dim(0)), kThreads, 0, cuda->stream()>>>(
      shape, logits.f32(), logits.dim(1), first, sums->f32());
  cuda->NoteLaunch();
}

void KlDivergence(Backend* backend, const LogitShape& shape, const Tensor& target,
                  const Tensor& target_sums, const Tensor& logits, const Tensor& sums, float factor,
                  bool first, Tensor* dlogits, Tensor* kl) {
  CudaBackend* cuda = CudaBackend::From(backend);
  if (logits.num_elements() == 0) return;
  DispatchAct(dlogits->dtype(), [&](auto act) {
    using Act = decltype(act);
    KlDivergenceKernel<Act><<<static_cast<unsigned>(logits.dim(0)), kThreads, 0, cuda->stream()>>>(
        shape, target.f32(), target_sums.f32(), logits.f32(), sums.f32(), factor, logits.dim(1),
        first, Data<Act>(dlogits), kl->f32());
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::ops::cuda
