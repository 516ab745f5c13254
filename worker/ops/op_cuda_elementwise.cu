// Elementwise ops, rotary embedding, input mixing, embedding and casts. Each reads its inputs and
// writes its output once, eight elements a thread where rows allow it.
#include "common/base/random.h"
#include "worker/backend/cuda_device.cuh"
#include "worker/ops/op_cuda.h"

namespace uniquanf::ops::cuda {
namespace {

using namespace uniquanf::cuda;  // NOLINT: kernels' helpers

constexpr int kThreads = 256;
constexpr int kWidth = 8;

// Calls fn(first, count) for pieces of up to kWidth elements that cover [0, n).
template <typename Fn>
__global__ void __launch_bounds__(kThreads) ForEachPiece(int64_t n, Fn fn) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (first < n) fn(first, n - first < kWidth ? static_cast<int>(n - first) : kWidth);
}

template <typename Act>
__device__ void LoadPiece(const Act* p, int count, float (&x)[kWidth]) {
  if (count == kWidth) {
    LoadVector(p, x);
    return;
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) x[i] = i < count ? ToFloat(p[i]) : 0.f;
}
template <typename Act>
__device__ void StorePiece(Act* p, int count, const float (&x)[kWidth]) {
  if (count == kWidth) {
    StoreVector(p, x);
    return;
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    if (i < count) p[i] = FromFloat<Act>(x[i]);
  }
}

template <typename Fn>
void LaunchPieces(Backend* backend, int64_t n, const Fn& fn) {
  if (n == 0) return;
  CudaBackend* cuda = CudaBackend::From(backend);
  const auto blocks = static_cast<unsigned>(CeilDiv(n, int64_t{kThreads} * kWidth));
  ForEachPiece<<<blocks, kThreads, 0, cuda->stream()>>>(n, fn);
  cuda->NoteLaunch();
}

template <typename Act>
struct SwiGluForwardFn {
  const Act *gate, *up;
  Act* y;
  __device__ void operator()(int64_t first, int count) const {
    float g[kWidth], u[kWidth];
    LoadPiece(gate + first, count, g);
    LoadPiece(up + first, count, u);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) g[i] = g[i] / (1.f + __expf(-g[i])) * u[i];
    StorePiece(y + first, count, g);
  }
};

template <typename Act>
struct SwiGluBackwardFn {
  const Act *dy, *gate, *up;
  Act *dgate, *dup;
  __device__ void operator()(int64_t first, int count) const {
    float d[kWidth], g[kWidth], u[kWidth];
    LoadPiece(dy + first, count, d);
    LoadPiece(gate + first, count, g);
    LoadPiece(up + first, count, u);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float sigmoid = 1.f / (1.f + __expf(-g[i]));
      const float silu = g[i] * sigmoid;
      g[i] = d[i] * u[i] * (sigmoid + silu * (1.f - sigmoid));
      u[i] = d[i] * silu;
    }
    StorePiece(dgate + first, count, g);
    StorePiece(dup + first, count, u);
  }
};

template <typename Act>
struct AddFn {
  const Act *a, *b;
  Act* out;
  __device__ void operator()(int64_t first, int count) const {
    float x[kWidth], y[kWidth];
    LoadPiece(a + first, count, x);
    LoadPiece(b + first, count, y);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) x[i] += y[i];
    StorePiece(out + first, count, x);
  }
};

template <typename Src, typename Dst>
struct CastFn {
  const Src* src;
  Dst* dst;
  __device__ void operator()(int64_t first, int count) const {
    float x[kWidth];
    LoadPiece(src + first, count, x);
    StorePiece(dst + first, count, x);
  }
};

// y[t, n] = bias[n], the start of a product that accumulates.
template <typename Act>
__global__ void BroadcastRows(const float* bias, int64_t cols, int64_t n, Act* y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) y[i] = FromFloat<Act>(bias[i % cols]);
}

// One piece may cross from one sequence into the next when L·H is not a multiple of kWidth; then
// `aligned` is false and elements are gathered one by one.
template <typename Act>
struct MixInputsFn {
  const StepParams* params;
  uint64_t seed, threshold;
  const Act *x_q, *x_fp;
  int64_t row;  // L·H
  bool aligned;
  Act* out;
  __device__ void operator()(int64_t first, int count) const {
    float fp[kWidth], q[kWidth];
    if (aligned) {
      const int64_t batch = first / row;
      const int64_t at = params->sequence_index[batch] * row + (first - batch * row);
      LoadPiece(x_fp + at, count, fp);
      if (x_q != nullptr) LoadPiece(x_q + at, count, q);
    } else {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const int64_t element = first + (i < count ? i : 0);
        const int64_t batch = element / row;
        const int64_t at = params->sequence_index[batch] * row + (element - batch * row);
        fp[i] = ToFloat(x_fp[at]);
        if (x_q != nullptr) q[i] = ToFloat(x_q[at]);
      }
    }
    if (x_q != nullptr) {
      const uint64_t stream = params->draw;
#pragma unroll
      for (int word = 0; word < kWidth / 4; ++word) {
        const Philox4 draw = PhiloxAt(seed, stream, static_cast<uint64_t>(first) / 4 + word);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (draw.v[i] < threshold) fp[4 * word + i] = q[4 * word + i];
        }
      }
    }
    StorePiece(out + first, count, fp);
  }
};

// One thread rotates kPairs neighbouring pairs (i, i + D/2) of one head.
template <typename Act, int kPairs>
__global__ void __launch_bounds__(kThreads)
    RopeKernel(const float* cos, const float* sin, int64_t num_pieces, int64_t seq_len,
               int num_heads, int half, float sign, Act* x) {
  const int64_t piece = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (piece >= num_pieces) return;
  const int pieces_per_head = half / kPairs;
  const int64_t head_row = piece / pieces_per_head;
  const int i = static_cast<int>(piece - head_row * pieces_per_head) * kPairs;
  const int64_t position = head_row / num_heads % seq_len;
  Act* lo = x + head_row * 2 * half + i;
  Act* hi = lo + half;
  const float* c = cos + position * half + i;
  const float* s = sin + position * half + i;
  if constexpr (kPairs == 8) {
    float a[8], b[8], cs[8], sn[8];
    LoadVector(lo, a);
    LoadVector(hi, b);
    LoadVector(c, cs);
    LoadVector(s, sn);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float first = a[j] * cs[j] - sign * b[j] * sn[j];
      b[j] = b[j] * cs[j] + sign * a[j] * sn[j];
      a[j] = first;
    }
    StoreVector(lo, a);
    StoreVector(hi, b);
  } else {
    const float a = ToFloat(*lo), b = ToFloat(*hi);
    *lo = FromFloat<Act>(a * *c - sign * b * *s);
    *hi = FromFloat<Act>(b * *c + sign * a * *s);
  }
}

// A part of each head, in either pairing; a thread a pair.
template <typename Act>
__global__ void __launch_bounds__(kThreads)
    RopePartKernel(const float* cos, const float* sin, int64_t num_pairs, int64_t seq_len,
                   RopeShape shape, int half, float sign, Act* x) {
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pair >= num_pairs) return;
  const int64_t head_row = pair / half;
  const int i = static_cast<int>(pair - head_row * half);
  const int64_t at = head_row / shape.num_heads % seq_len * half + i;
  Act* part = x + head_row * shape.head_size + shape.offset;
  Act* lo = part + (shape.interleaved ? 2 * i : i);
  Act* hi = lo + (shape.interleaved ? 1 : half);
  const float a = ToFloat(*lo), b = ToFloat(*hi), c = cos[at], s = sign * sin[at];
  *lo = FromFloat<Act>(a * c - b * s);
  *hi = FromFloat<Act>(b * c + a * s);
}

template <typename Act>
__global__ void EmbeddingKernel(const int32_t* ids, const Act* table, int64_t hidden, Act* out) {
  const Act* row = table + static_cast<int64_t>(ids[blockIdx.x]) * hidden;
  for (int64_t i = threadIdx.x; i < hidden; i += blockDim.x) {
    out[static_cast<int64_t>(blockIdx.x) * hidden + i] = row[i];
  }
}

}  // namespace

void SwiGluForward(Backend* backend, const Tensor& gate, const Tensor& up, Tensor* y) {
  DispatchAct(gate.dtype(), [&](auto act) {
    using Act = decltype(act);
    LaunchPieces(backend, gate.num_elements(),
                 SwiGluForwardFn<Act>{Data<Act>(gate), Data<Act>(up), Data<Act>(y)});
  });
}

void SwiGluBackward(Backend* backend, const Tensor& dy, const Tensor& gate, const Tensor& up,
                    Tensor* dgate, Tensor* dup) {
  DispatchAct(gate.dtype(), [&](auto act) {
    using Act = decltype(act);
    LaunchPieces(backend, gate.num_elements(),
                 SwiGluBackwardFn<Act>{Data<Act>(dy), Data<Act>(gate), Data<Act>(up),
                                       Data<Act>(dgate), Data<Act>(dup)});
  });
}

void Add(Backend* backend, const Tensor& a, const Tensor& b, Tensor* out) {
  DispatchAct(a.dtype(), [&](auto act) {
    using Act = decltype(act);
    LaunchPieces(backend, a.num_elements(), AddFn<Act>{Data<Act>(a), Data<Act>(b), Data<Act>(out)});
  });
}

void Cast(Backend* backend, const Tensor& src, Tensor* dst) {
  DispatchAct(src.dtype(), [&](auto from) {
    DispatchAct(dst->dtype(), [&](auto to) {
      using Src = decltype(from);
      using Dst = decltype(to);
      LaunchPieces(backend, src.num_elements(), CastFn<Src, Dst>{Data<Src>(src), Data<Dst>(dst)});
    });
  });
}

// Declared in op_cuda_linear.cc.
void FillRows(Backend* backend, const Tensor& bias, Tensor* y) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t n = y->num_elements();
  DispatchAct(y->dtype(), [&](auto act) {
    using Act = decltype(act);
    BroadcastRows<<<static_cast<unsigned>(CeilDiv(n, kThreads)), kThreads, 0, cuda->stream()>>>(
        bias.f32(), bias.num_elements(), n, Data<Act>(y));
  });
  cuda->NoteLaunch();
}

void MixInputs(Backend* backend, const StepParams* params, uint64_t seed, double prob,
               const Tensor* x_q, const Tensor& x_fp, int batch, Tensor* out) {
  DispatchAct(x_fp.dtype(), [&](auto act) {
    using Act = decltype(act);
    const int64_t row = x_fp.num_elements() / x_fp.dim(0);
    LaunchPieces(backend, row * batch,
                 MixInputsFn<Act>{params, seed, BernoulliThreshold(prob),
                                  x_q == nullptr ? nullptr : Data<Act>(*x_q), Data<Act>(x_fp), row,
                                  row % kWidth == 0, Data<Act>(out)});
  });
}

void Rope(Backend* backend, const Tensor& cos, const Tensor& sin, int num_heads, bool inverse,
          Tensor* x) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int half = static_cast<int>(cos.dim(1));
  const int64_t seq_len = cos.dim(0);
  const int64_t num_pairs = x->num_elements() / 2;
  const float sign = inverse ? -1.f : 1.f;
  if (num_pairs == 0) return;
  DispatchAct(x->dtype(), [&](auto act) {
    using Act = decltype(act);
    const int width = half % 8 == 0 ? 8 : 1;
    const int64_t pieces = num_pairs / width;
    const auto blocks = static_cast<unsigned>(CeilDiv(pieces, kThreads));
    auto kernel = width == 8 ? &RopeKernel<Act, 8> : &RopeKernel<Act, 1>;
    kernel<<<blocks, kThreads, 0, cuda->stream()>>>(cos.f32(), sin.f32(), pieces, seq_len,
                                                    num_heads, half, sign, Data<Act>(x));
  });
  cuda->NoteLaunch();
}

void RopePart(Backend* backend, const Tensor& cos, const Tensor& sin, const RopeShape& shape,
              bool inverse, Tensor* x) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int half = static_cast<int>(cos.dim(1));
  const int64_t num_pairs = x->num_elements() / shape.head_size * half;
  if (num_pairs == 0) return;
  const auto blocks = static_cast<unsigned>(CeilDiv(num_pairs, int64_t{kThreads}));
  DispatchAct(x->dtype(), [&](auto act) {
    using Act = decltype(act);
    RopePartKernel<Act>
        <<<blocks, kThreads, 0, cuda->stream()>>>(cos.f32(), sin.f32(), num_pairs, cos.dim(0),
                                                  shape, half, inverse ? -1.f : 1.f, Data<Act>(x));
  });
  cuda->NoteLaunch();
}

void Embedding(Backend* backend, const Tensor& ids, const Tensor& table, Tensor* out) {
  CudaBackend* cuda = CudaBackend::From(backend);
  if (ids.num_elements() == 0) return;
  DispatchAct(table.dtype(), [&](auto act) {
    using Act = decltype(act);
    EmbeddingKernel<<<static_cast<unsigned>(ids.num_elements()), kThreads, 0, cuda->stream()>>>(
        ids.i32(), Data<Act>(table), table.dim(1), Data<Act>(out));
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::ops::cuda
