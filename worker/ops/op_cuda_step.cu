// One new token a sequence on CUDA: attention over a cache, and convolutions.
//
// Attention: a block for each sequence and query head, whose warps take every kWarps-th key with a
// running softmax each; the warps' sums are added in their order. The position lies in device
// memory, so that a recorded step can be replayed.
#include "worker/backend/cuda_device.cuh"
#include "worker/ops/op_cuda.h"
#include "worker/ops/op_cuda_attention.h"

namespace uniquanf::ops::cuda {
namespace {

using namespace uniquanf::cuda;  // NOLINT: kernels' helpers

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kConvThreads = 256;

// Rows k, v [B, width] to row position mod capacity of the caches [B, capacity, width].
template <typename Act>
__global__ void __launch_bounds__(kConvThreads)
    AppendKernel(const Act* row, const int32_t* position, int64_t elements, int64_t width,
                 int64_t capacity, Act* cache) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kConvThreads + threadIdx.x;
  if (at >= elements) return;
  cache[(at / width * capacity + *position % capacity) * width + at % width] = row[at];
}

struct StepLayout {
  int64_t window, capacity;
  int num_heads, num_kv_heads, head_dim, value_dim;
  float scale, softcap;
  const float *sinks, *slopes;
};

// kMax covers 32·kMax elements of a head: lane l holds l, l + 32, ...
template <typename Act, int kMax>
__global__ void __launch_bounds__(kThreads)
    AttentionStepKernel(StepLayout s, const Act* q, const int32_t* position, const Act* keys,
                        const Act* values, Act* out) {
  extern __shared__ float sums[];  // [kWarps, value_dim]
  __shared__ float maxima[kWarps], totals[kWarps];
  const int head = blockIdx.x, kv_head = head / (s.num_heads / s.num_kv_heads);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int64_t sequence = blockIdx.y, last = *position;
  const int64_t first = s.window > 0 && last >= s.window ? last - s.window + 1 : 0;
  float query[kMax], sum[kMax] = {};
  const Act* query_row = q + (sequence * s.num_heads + head) * s.head_dim;
#pragma unroll
  for (int i = 0; i < kMax; ++i) {
    const int d = i * 32 + lane;
    query[i] = d < s.head_dim ? ToFloat(query_row[d]) : 0.f;
  }
  float max = -INFINITY, total = 0;
  for (int64_t j = first + warp; j <= last; j += kWarps) {
    const int64_t row = (sequence * s.capacity + j % s.capacity) * s.num_kv_heads + kv_head;
    const Act *key = keys + row * s.head_dim, *value = values + row * s.value_dim;
    float product = 0;
#pragma unroll
    for (int i = 0; i < kMax; ++i) {
      const int d = i * 32 + lane;
      if (d < s.head_dim) product += query[i] * ToFloat(key[d]);
    }
    float score = s.scale * WarpSum(product);
    if (s.softcap > 0) score = s.softcap * tanhf(score / s.softcap);
    if (s.slopes != nullptr) score -= s.slopes[head] * static_cast<float>(last - j);
    if (score > max) {
      const float shrink = expf(max - score);
      total *= shrink;
#pragma unroll
      for (int i = 0; i < kMax; ++i) sum[i] *= shrink;
      max = score;
    }
    const float weight = expf(score - max);
    total += weight;
#pragma unroll
    for (int i = 0; i < kMax; ++i) {
      const int d = i * 32 + lane;
      if (d < s.value_dim) sum[i] += weight * ToFloat(value[d]);
    }
  }
#pragma unroll
  for (int i = 0; i < kMax; ++i) {
    const int d = i * 32 + lane;
    if (d < s.value_dim) sums[warp * s.value_dim + d] = sum[i];
  }
  if (lane == 0) {
    maxima[warp] = max;
    totals[warp] = total;
  }
  __syncthreads();
  float top = s.sinks == nullptr ? -INFINITY : s.sinks[head];
  for (int w = 0; w < kWarps; ++w) top = fmaxf(top, maxima[w]);
  float all = s.sinks == nullptr ? 0.f : expf(s.sinks[head] - top);
  for (int w = 0; w < kWarps; ++w) all += totals[w] * expf(maxima[w] - top);
  for (int d = threadIdx.x; d < s.value_dim; d += kThreads) {
    float combined = 0;
    for (int w = 0; w < kWarps; ++w) combined += sums[w * s.value_dim + d] * expf(maxima[w] - top);
    out[(sequence * s.num_heads + head) * s.value_dim + d] = FromFloat<Act>(combined / all);
  }
}

template <typename Act>
__global__ void __launch_bounds__(kConvThreads)
    ConvStepKernel(const Act* x, const float* weight, const float* bias, int64_t elements,
                   int64_t channels, int64_t taps, Act* state, Act* y) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kConvThreads + threadIdx.x;
  if (at >= elements) return;
  const int64_t c = at % channels;
  Act* before = state + at / channels * (taps - 1) * channels + c;
  float sum = bias == nullptr ? 0.f : bias[c];
  for (int64_t j = 0; j + 1 < taps; ++j) {
    sum += weight[c * taps + j] * ToFloat(before[j * channels]);
    before[j * channels] = j + 2 < taps ? before[(j + 1) * channels] : x[at];
  }
  y[at] = FromFloat<Act>(sum + weight[c * taps + taps - 1] * ToFloat(x[at]));
}

unsigned Blocks(int64_t elements) {
  return static_cast<unsigned>(CeilDiv(elements, int64_t{kConvThreads}));
}

}  // namespace

void AttentionStep(Backend* backend, const AttentionShape& shape, const Tensor& q, const Tensor& k,
                   const Tensor& v, const Tensor& position, Tensor* key_cache, Tensor* value_cache,
                   Tensor* out) {
  CudaBackend* cuda = CudaBackend::From(backend);
  UQ_CHECK(shape.head_dim <= kMaxHeadDim && shape.values() <= kMaxHeadDim);
  const int64_t capacity = key_cache->dim(1);
  const StepLayout layout = {shape.window,
                             capacity,
                             shape.num_heads,
                             shape.num_kv_heads,
                             shape.head_dim,
                             shape.values(),
                             shape.scale,
                             shape.softcap,
                             shape.sinks == nullptr ? nullptr : shape.sinks->f32(),
                             shape.slopes == nullptr ? nullptr : shape.slopes->f32()};
  DispatchAct(q.dtype(), [&](auto act) {
    using Act = decltype(act);
    for (const auto& [row, cache] : {std::pair{&k, key_cache}, std::pair{&v, value_cache}}) {
      AppendKernel<Act><<<Blocks(row->num_elements()), kConvThreads, 0, cuda->stream()>>>(
          Data<Act>(*row), position.i32(), row->num_elements(), row->num_elements() / shape.batch,
          capacity, Data<Act>(cache));
      cuda->NoteLaunch();
    }
    const auto launch = [&](auto per_lane) {
      const size_t bytes = sizeof(float) * kWarps * shape.values();
      AttentionStepKernel<Act, per_lane.value>
          <<<dim3(shape.num_heads, static_cast<unsigned>(shape.batch)), kThreads, bytes,
             cuda->stream()>>>(layout, Data<Act>(q), position.i32(), Data<Act>(*key_cache),
                               Data<Act>(*value_cache), Data<Act>(out));
    };
    const int widest = shape.head_dim > shape.values() ? shape.head_dim : shape.values();
    if (widest <= 128) return launch(std::integral_constant<int, 4>{});
    if (widest <= 256) return launch(std::integral_constant<int, 8>{});
    launch(std::integral_constant<int, kMaxHeadDim / 32>{});
  });
  cuda->NoteLaunch();
}

void CausalConvStep(Backend* backend, const Tensor& x, const Tensor& weight, const Tensor* bias,
                    Tensor* state, Tensor* y) {
  CudaBackend* cuda = CudaBackend::From(backend);
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    ConvStepKernel<Act><<<Blocks(x.num_elements()), kConvThreads, 0, cuda->stream()>>>(
        Data<Act>(x), weight.f32(), bias == nullptr ? nullptr : bias->f32(), x.num_elements(),
        weight.dim(0), weight.dim(1), Data<Act>(state), Data<Act>(y));
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::ops::cuda
