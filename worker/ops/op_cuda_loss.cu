// Losses: the block's mean squared error with its gradient, and per-token cross entropy. Both
// reduce in a fixed order.
#include "worker/backend/cuda_device.cuh"
#include "worker/ops/op_cuda.h"

namespace uniquanf::ops::cuda {
namespace {

using namespace uniquanf::cuda;  // NOLINT: kernels' helpers

constexpr int kThreads = 256;
constexpr int kWidth = 8;
// Depends on the number of elements alone, so that sums do not depend on the device.
constexpr int64_t kMaxPartials = 1024;

int64_t NumPartials(int64_t num_elements) {
  return std::max<int64_t>(
      1, std::min(kMaxPartials, CeilDiv(num_elements, int64_t{kThreads} * kWidth)));
}

__device__ double BlockSumDouble(double x, double* shared) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(kFullMask, x, offset);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  x = lane < (blockDim.x >> 5) ? shared[lane] : 0.0;
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(kFullMask, x, offset);
  return x;
}

// row = L·H; kAligned: row is a multiple of kWidth, so pieces stay inside a sequence.
template <typename Act, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    MseKernel(const StepParams* params, const Act* y, const Act* targets, int64_t row, int64_t n,
              float scale, Act* dy, double* partials) {
  __shared__ double shared[32];
  double sum = 0;
  constexpr int kStep = kAligned ? kWidth : 1;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads * kStep;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kStep; i < n;
       i += stride) {
    const int64_t batch = i / row;
    const int64_t at = params->sequence_index[batch] * row + (i - batch * row);
    if constexpr (kAligned) {
      float a[kWidth], t[kWidth], squares = 0;
      LoadVector(y + i, a);
      LoadVector(targets + at, t);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const float d = a[j] - t[j];
        squares += d * d;
        a[j] = d * scale;
      }
      StoreVector(dy + i, a);
      sum += squares;
    } else {
      const float d = ToFloat(y[i]) - ToFloat(targets[at]);
      sum += static_cast<double>(d) * d;
      dy[i] = FromFloat<Act>(d * scale);
    }
  }
  sum = BlockSumDouble(sum, shared);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    MseFinish(const double* partials, int count, double n, float* loss) {
  __shared__ double shared[32];
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += kThreads) sum += partials[i];
  sum = BlockSumDouble(sum, shared);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum / n);
}

template <typename Act>
__global__ void __launch_bounds__(kThreads)
    CrossEntropyKernel(const Act* logits, const int32_t* targets, int64_t vocabulary, float* nll) {
  __shared__ float shared[32];
  const int64_t row = blockIdx.x;
  const Act* x = logits + row * vocabulary;
  const int32_t target = targets[row];
  if (target < 0) {
    if (threadIdx.x == 0) nll[row] = 0;
    return;
  }
  float max = -INFINITY;
  for (int64_t i = threadIdx.x; i < vocabulary; i += kThreads) max = fmaxf(max, ToFloat(x[i]));
  max = BlockMax(max, shared);
  float sum = 0;
  for (int64_t i = threadIdx.x; i < vocabulary; i += kThreads) sum += expf(ToFloat(x[i]) - max);
  sum = BlockSum(sum, shared);
  if (threadIdx.x == 0) nll[row] = logf(sum) + max - ToFloat(x[target]);
}

}  // namespace

size_t MseLossScratchBytes(const Backend& backend, int64_t num_elements) {
  return NumPartials(num_elements) * sizeof(double);
}

void MseLoss(Backend* backend, const StepParams* params, const Tensor& y, const Tensor& targets,
             int batch, int num_parts, Tensor* scratch, Tensor* dy, Tensor* loss) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t row = targets.num_elements() / targets.dim(0), n = row * batch;
  const int64_t count = NumPartials(n);
  auto* partials = static_cast<double*>(scratch->data());
  const auto scale = static_cast<float>(2.0 / (num_parts * static_cast<double>(n)));
  DispatchAct(y.dtype(), [&](auto act) {
    using Act = decltype(act);
    auto kernel = row % kWidth == 0 ? &MseKernel<Act, true> : &MseKernel<Act, false>;
    kernel<<<static_cast<unsigned>(count), kThreads, 0, cuda->stream()>>>(
        params, Data<Act>(y), Data<Act>(targets), row, n, scale, Data<Act>(dy), partials);
  });
  cuda->NoteLaunch();
  MseFinish<<<1, kThreads, 0, cuda->stream()>>>(partials, static_cast<int>(count),
                                                static_cast<double>(n), loss->f32());
  cuda->NoteLaunch();
}

void CrossEntropy(Backend* backend, const Tensor& logits, const Tensor& targets, Tensor* nll) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t rows = targets.num_elements();
  if (rows == 0) return;
  DispatchAct(logits.dtype(), [&](auto act) {
    using Act = decltype(act);
    CrossEntropyKernel<<<static_cast<unsigned>(rows), kThreads, 0, cuda->stream()>>>(
        Data<Act>(logits), targets.i32(), logits.num_elements() / rows, nll->f32());
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::ops::cuda
