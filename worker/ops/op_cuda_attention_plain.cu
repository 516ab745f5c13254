// Attention without tensor cores, for fp32 and unusual head sizes: a warp per row, nothing of size
// L² in memory, sums in a fixed order.
#include "worker/backend/cuda_device.cuh"
#include "worker/ops/op_cuda_attention.h"

namespace uniquanf::ops::cuda {
namespace {

using namespace uniquanf::cuda;  // NOLINT: kernels' helpers

constexpr int kThreads = 128;
constexpr int kRows = kThreads / 32;

struct Layout {
  int64_t seq_len, window;
  int num_heads, num_kv_heads, head_dim, value_dim;
  float scale, softcap;
  const float *sinks, *slopes;
  // The score of a query's product with the key `distance` before it, and the derivative of its
  // cap.
  __device__ float Score(float product, int head, int64_t distance, float* slope) const {
    float score = scale * product;
    *slope = 1.f;
    if (softcap > 0) {
      const float t = tanhf(score / softcap);
      *slope = 1.f - t * t;
      score = softcap * t;
    }
    return slopes == nullptr ? score : score - slopes[head] * static_cast<float>(distance);
  }
  // Where rows of `d` elements of a query head, and of a key/value head, begin.
  __device__ int64_t QueryRow(int64_t batch, int64_t i, int head, int d) const {
    return ((batch * seq_len + i) * num_heads + head) * d;
  }
  __device__ int64_t KeyRow(int64_t batch, int64_t j, int head, int d) const {
    return ((batch * seq_len + j) * num_kv_heads + head) * d;
  }
  // First key that query i sees, and one past the last query that sees key j.
  __device__ int64_t FirstKey(int64_t i) const {
    return window > 0 && i >= window ? i - window + 1 : 0;
  }
  __device__ int64_t EndQuery(int64_t j) const {
    return window > 0 && j + window < seq_len ? j + window : seq_len;
  }
};

// One row of a head's elements spread over a warp: lane l holds l, l + 32, ...; kMax covers
// 32·kMax elements.
template <int kMax>
struct Row {
  float x[kMax] = {};
  template <typename Act>
  __device__ void Load(const Act* p, int head_dim) {
#pragma unroll
    for (int i = 0; i < kMax; ++i) {
      const int d = i * 32 + (threadIdx.x & 31);
      x[i] = d < head_dim ? ToFloat(p[d]) : 0.f;
    }
  }
  template <typename Act>
  __device__ void Store(Act* p, int head_dim) const {
#pragma unroll
    for (int i = 0; i < kMax; ++i) {
      const int d = i * 32 + (threadIdx.x & 31);
      if (d < head_dim) p[d] = FromFloat<Act>(x[i]);
    }
  }
  __device__ float Dot(const Row& other) const {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kMax; ++i) sum += x[i] * other.x[i];
    return WarpSum(sum);
  }
  __device__ void AddScaled(float factor, const Row& other) {
#pragma unroll
    for (int i = 0; i < kMax; ++i) x[i] += factor * other.x[i];
  }
  __device__ void Scale(float factor) {
#pragma unroll
    for (int i = 0; i < kMax; ++i) x[i] *= factor;
  }
};

template <typename Act, int kMax>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(Layout s, const Act* q, const Act* k, const Act* v, Act* out, float* lse) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kRows + (threadIdx.x >> 5);
  const int head = blockIdx.y, kv_head = head / (s.num_heads / s.num_kv_heads);
  const int64_t batch = blockIdx.z;
  if (i >= s.seq_len) return;
  Row<kMax> query, key, sum;
  query.Load(q + s.QueryRow(batch, i, head, s.head_dim), s.head_dim);
  float max = -INFINITY, total = 0, slope;
  for (int64_t j = s.FirstKey(i); j <= i; ++j) {
    key.Load(k + s.KeyRow(batch, j, kv_head, s.head_dim), s.head_dim);
    const float score = s.Score(query.Dot(key), head, i - j, &slope);
    if (score > max) {
      const float shrink = expf(max - score);
      total *= shrink;
      sum.Scale(shrink);
      max = score;
    }
    const float weight = expf(score - max);
    total += weight;
    key.Load(v + s.KeyRow(batch, j, kv_head, s.value_dim), s.value_dim);
    sum.AddScaled(weight, key);
  }
  if (s.sinks != nullptr) {
    const float sink = s.sinks[head], top = fmaxf(max, sink), shrink = expf(max - top);
    sum.Scale(shrink);
    total = total * shrink + expf(sink - top);
    max = top;
  }
  sum.Scale(1.f / total);
  sum.Store(out + s.QueryRow(batch, i, head, s.value_dim), s.value_dim);
  if ((threadIdx.x & 31) == 0) {
    lse[(batch * s.num_heads + head) * s.seq_len + i] = max + logf(total);
  }
}

// dq and delta = Σ p·dp of each row. That is also Σ dout·out, but `out` was rounded to Act, and dq
// is a difference of sums that can be nearly equal: both are kept in f32, and subtracted at the
// end.
template <typename Act, int kMax>
__global__ void __launch_bounds__(kThreads)
    BackwardQueryKernel(Layout s, const Act* q, const Act* k, const Act* v, const Act* dout,
                        const float* lse, float* delta, Act* dq) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kRows + (threadIdx.x >> 5);
  const int head = blockIdx.y, kv_head = head / (s.num_heads / s.num_kv_heads);
  const int64_t batch = blockIdx.z;
  if (i >= s.seq_len) return;
  Row<kMax> query, d, key, sum, key_sum;
  const int64_t at = s.QueryRow(batch, i, head, s.head_dim);
  query.Load(q + at, s.head_dim);
  d.Load(dout + s.QueryRow(batch, i, head, s.value_dim), s.value_dim);
  const int64_t row = (batch * s.num_heads + head) * s.seq_len + i;
  const float row_lse = lse[row];
  float row_delta = 0;
  for (int64_t j = s.FirstKey(i); j <= i; ++j) {
    key.Load(v + s.KeyRow(batch, j, kv_head, s.value_dim), s.value_dim);
    const float dp = d.Dot(key);
    key.Load(k + s.KeyRow(batch, j, kv_head, s.head_dim), s.head_dim);
    float slope;
    const float p = expf(s.Score(query.Dot(key), head, i - j, &slope) - row_lse);
    row_delta += p * dp;
    sum.AddScaled(p * dp * (slope * s.scale), key);
    key_sum.AddScaled(p * (slope * s.scale), key);
  }
  if ((threadIdx.x & 31) == 0) delta[row] = row_delta;
  sum.AddScaled(-row_delta, key_sum);
  sum.Store(dq + at, s.head_dim);
}

template <typename Act, int kMax>
__global__ void __launch_bounds__(kThreads)
    BackwardKeyKernel(Layout s, const Act* q, const Act* k, const Act* v, const Act* dout,
                      const float* lse, const float* delta, Act* dk, Act* dv) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kRows + (threadIdx.x >> 5);
  const int kv_head = blockIdx.y, heads_per_key = s.num_heads / s.num_kv_heads;
  const int64_t batch = blockIdx.z;
  if (j >= s.seq_len) return;
  Row<kMax> key, value, query, d, key_sum, value_sum;
  const int64_t at = s.KeyRow(batch, j, kv_head, s.head_dim);
  const int64_t value_at = s.KeyRow(batch, j, kv_head, s.value_dim);
  key.Load(k + at, s.head_dim);
  value.Load(v + value_at, s.value_dim);
  for (int head = kv_head * heads_per_key; head < (kv_head + 1) * heads_per_key; ++head) {
    for (int64_t i = j; i < s.EndQuery(j); ++i) {
      const int64_t row = (batch * s.num_heads + head) * s.seq_len + i;
      query.Load(q + s.QueryRow(batch, i, head, s.head_dim), s.head_dim);
      d.Load(dout + s.QueryRow(batch, i, head, s.value_dim), s.value_dim);
      float slope;
      const float p = expf(s.Score(query.Dot(key), head, i - j, &slope) - lse[row]);
      key_sum.AddScaled(p * (d.Dot(value) - delta[row]) * (slope * s.scale), query);
      value_sum.AddScaled(p, d);
    }
  }
  key_sum.Store(dk + at, s.head_dim);
  value_sum.Store(dv + value_at, s.value_dim);
}

Layout LayoutOf(const AttentionShape& shape) {
  return {shape.seq_len,
          shape.window,
          shape.num_heads,
          shape.num_kv_heads,
          shape.head_dim,
          shape.values(),
          shape.scale,
          shape.softcap,
          shape.sinks == nullptr ? nullptr : shape.sinks->f32(),
          shape.slopes == nullptr ? nullptr : shape.slopes->f32()};
}

// Calls fn with the number of elements a lane holds.
template <typename Fn>
void DispatchHeadDim(const AttentionShape& shape, const Fn& fn) {
  const int head_dim = shape.head_dim > shape.values() ? shape.head_dim : shape.values();
  if (head_dim <= 128) return fn(std::integral_constant<int, 4>{});
  if (head_dim <= 256) return fn(std::integral_constant<int, 8>{});
  return fn(std::integral_constant<int, kMaxHeadDim / 32>{});
}

dim3 Grid(const AttentionShape& shape, int heads) {
  return dim3(static_cast<unsigned>(CeilDiv(shape.seq_len, kRows)), heads,
              static_cast<unsigned>(shape.batch));
}

}  // namespace

void PlainAttentionForward(CudaBackend* cuda, const AttentionShape& shape, DType dtype,
                           const AttentionPointers& p) {
  DispatchAct(dtype, [&](auto act) {
    using Act = decltype(act);
    DispatchHeadDim(shape, [&](auto per_lane) {
      ForwardKernel<Act, per_lane.value>
          <<<Grid(shape, shape.num_heads), kThreads, 0, cuda->stream()>>>(
              LayoutOf(shape), static_cast<const Act*>(p.q), static_cast<const Act*>(p.k),
              static_cast<const Act*>(p.v), static_cast<Act*>(p.out), p.lse);
    });
  });
  cuda->NoteLaunch();
}

void PlainAttentionBackward(CudaBackend* cuda, const AttentionShape& shape, DType dtype,
                            const AttentionPointers& p) {
  DispatchAct(dtype, [&](auto act) {
    using Act = decltype(act);
    const auto *q = static_cast<const Act*>(p.q), *k = static_cast<const Act*>(p.k),
               *v = static_cast<const Act*>(p.v), *dout = static_cast<const Act*>(p.dout);
    DispatchHeadDim(shape, [&](auto per_lane) {
      BackwardQueryKernel<Act, per_lane.value>
          <<<Grid(shape, shape.num_heads), kThreads, 0, cuda->stream()>>>(
              LayoutOf(shape), q, k, v, dout, p.lse, p.delta, static_cast<Act*>(p.dq));
      cuda->NoteLaunch();
      BackwardKeyKernel<Act, per_lane.value>
          <<<Grid(shape, shape.num_kv_heads), kThreads, 0, cuda->stream()>>>(
              LayoutOf(shape), q, k, v, dout, p.lse, p.delta, static_cast<Act*>(p.dk),
              static_cast<Act*>(p.dv));
    });
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::ops::cuda
