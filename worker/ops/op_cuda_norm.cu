// RMSNorm forward and backward (Zhang & Sennrich 2019), alone and fused with the residual sum.
// Short rows (a head) take a warp each, long ones a block; a row is read twice, from cache the
// second time.
#include "worker/backend/cuda_device.cuh"
#include "worker/ops/op_cuda.h"

namespace uniquanf::ops::cuda {
namespace {

using namespace uniquanf::cuda;  // NOLINT: kernels' helpers

constexpr int kThreads = 256;
constexpr int64_t kLongestWarpRow = 1024;

// The team of threads that shares a row: a block (kBlock) or a warp of it.
template <bool kBlock>
struct Team {
  int64_t row;
  int index, size;
  float* shared;
  __device__ explicit Team(float* shared_memory) : shared(shared_memory) {
    if constexpr (kBlock) {
      row = blockIdx.x;
      index = threadIdx.x;
      size = kThreads;
    } else {
      row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + (threadIdx.x >> 5);
      index = threadIdx.x & 31;
      size = 32;
    }
  }
  __device__ float Sum(float x) const {
    if constexpr (kBlock) return BlockSum(x, shared);
    return WarpSum(x);
  }
};

// b and sum may be null: then y = norm(a).
template <typename Act, bool kBlock, int V>
__global__ void __launch_bounds__(kThreads)
    RmsNormForwardKernel(const Act* a, const Act* b, const float* weight, float eps, int64_t rows,
                         int cols, Act* sum, Act* y, float* inv_rms) {
  __shared__ float shared[32];
  const Team<kBlock> team(shared);
  if (team.row >= rows) return;
  const int64_t base = team.row * cols;
  float squares = 0;
  for (int i = team.index * V; i < cols; i += team.size * V) {
    if constexpr (V > 1) {
      float x[V];
      LoadVector(a + base + i, x);
      if (b != nullptr) {
        float t[V];
        LoadVector(b + base + i, t);
#pragma unroll
        for (int j = 0; j < V; ++j) x[j] = ToFloat(FromFloat<Act>(x[j] + t[j]));
        StoreVector(sum + base + i, x);
      }
#pragma unroll
      for (int j = 0; j < V; ++j) squares += x[j] * x[j];
    } else {
      float x = ToFloat(a[base + i]);
      if (b != nullptr) {
        sum[base + i] = FromFloat<Act>(x + ToFloat(b[base + i]));
        x = ToFloat(sum[base + i]);
      }
      squares += x * x;
    }
  }
  const float inv = rsqrtf(team.Sum(squares) / static_cast<float>(cols) + eps);
  if (team.index == 0) inv_rms[team.row] = inv;
  const Act* source = b != nullptr ? sum : a;
  for (int i = team.index * V; i < cols; i += team.size * V) {
    if constexpr (V > 1) {
      float x[V], w[V];
      LoadVector(source + base + i, x);
      LoadVector(weight + i, w);
#pragma unroll
      for (int j = 0; j < V; ++j) x[j] *= inv * w[j];
      StoreVector(y + base + i, x);
    } else {
      y[base + i] = FromFloat<Act>(ToFloat(source[base + i]) * (inv * weight[i]));
    }
  }
}

// dx = inv·(dy·w − x·inv²·mean(dy·w·x)).
template <typename Act, bool kBlock, int V>
__global__ void __launch_bounds__(kThreads)
    RmsNormBackwardKernel(const Act* dy, const Act* x, const float* weight, const float* inv_rms,
                          int64_t rows, int cols, bool accumulate, Act* dx) {
  __shared__ float shared[32];
  const Team<kBlock> team(shared);
  if (team.row >= rows) return;
  const int64_t base = team.row * cols;
  float dot = 0;
  for (int i = team.index * V; i < cols; i += team.size * V) {
    if constexpr (V > 1) {
      float d[V], s[V], w[V];
      LoadVector(dy + base + i, d);
      LoadVector(x + base + i, s);
      LoadVector(weight + i, w);
#pragma unroll
      for (int j = 0; j < V; ++j) dot += d[j] * w[j] * s[j];
    } else {
      dot += ToFloat(dy[base + i]) * weight[i] * ToFloat(x[base + i]);
    }
  }
  const float inv = inv_rms[team.row];
  const float correction = team.Sum(dot) / static_cast<float>(cols) * inv * inv;
  for (int i = team.index * V; i < cols; i += team.size * V) {
    if constexpr (V > 1) {
      float d[V], s[V], w[V];
      LoadVector(dy + base + i, d);
      LoadVector(x + base + i, s);
      LoadVector(weight + i, w);
#pragma unroll
      for (int j = 0; j < V; ++j) d[j] = inv * (d[j] * w[j] - s[j] * correction);
      if (accumulate) {
        LoadVector(dx + base + i, s);
#pragma unroll
        for (int j = 0; j < V; ++j) d[j] += s[j];
      }
      StoreVector(dx + base + i, d);
    } else {
      const float d = inv * (ToFloat(dy[base + i]) * weight[i] - ToFloat(x[base + i]) * correction);
      dx[base + i] = FromFloat<Act>(accumulate ? d + ToFloat(dx[base + i]) : d);
    }
  }
}

// The general form: a warp or a block a row, x̂ = (x − mean)·inv; see op_cpu_norm.cc.
template <typename Act, bool kBlock>
__global__ void __launch_bounds__(kThreads)
    NormForwardKernel(NormShape shape, const Act* x, const float* weight, int weight_rows,
                      const float* bias, int bias_rows, int64_t rows, Act* y, float* stats) {
  __shared__ float shared[32];
  const Team<kBlock> team(shared);
  if (team.row >= rows) return;
  const int width = static_cast<int>(shape.width);
  const Act* row = x + team.row * width;
  float mean = 0;
  if (shape.center) {
    for (int i = team.index; i < width; i += team.size) mean += ToFloat(row[i]);
    mean = team.Sum(mean) / static_cast<float>(width);
  }
  float squares = 0;
  for (int i = team.index; i < width; i += team.size) {
    const float d = ToFloat(row[i]) - mean;
    squares += d * d;
  }
  const float inv = 1.f / sqrtf(team.Sum(squares) / static_cast<float>(width) + shape.eps);
  if (team.index == 0) {
    stats[2 * team.row] = mean;
    stats[2 * team.row + 1] = inv;
  }
  const float* w = weight == nullptr ? nullptr : weight + team.row % weight_rows * width;
  const float* b = bias == nullptr ? nullptr : bias + team.row % bias_rows * width;
  for (int i = team.index; i < width; i += team.size) {
    float value = (ToFloat(row[i]) - mean) * inv;
    if (w != nullptr) value *= w[i];
    if (b != nullptr) value += b[i];
    y[team.row * width + i] = FromFloat<Act>(value);
  }
}

template <typename Act, bool kBlock>
__global__ void __launch_bounds__(kThreads)
    NormBackwardKernel(NormShape shape, const Act* dy, const Act* x, const float* weight,
                       int weight_rows, const float* stats, int64_t rows, bool accumulate,
                       Act* dx) {
  __shared__ float shared[32];
  const Team<kBlock> team(shared);
  if (team.row >= rows) return;
  const int width = static_cast<int>(shape.width);
  const Act *row = x + team.row * width, *d = dy + team.row * width;
  const float mean = stats[2 * team.row], inv = stats[2 * team.row + 1];
  const float* w = weight == nullptr ? nullptr : weight + team.row % weight_rows * width;
  float sum = 0, dot = 0;
  for (int i = team.index; i < width; i += team.size) {
    const float g = ToFloat(d[i]) * (w == nullptr ? 1.f : w[i]);
    sum += g;
    dot += g * (ToFloat(row[i]) - mean) * inv;
  }
  sum = team.Sum(sum);
  dot = team.Sum(dot) / static_cast<float>(width);
  sum = shape.center ? sum / static_cast<float>(width) : 0.f;
  for (int i = team.index; i < width; i += team.size) {
    const float g = ToFloat(d[i]) * (w == nullptr ? 1.f : w[i]);
    const float value = inv * (g - sum - (ToFloat(row[i]) - mean) * inv * dot);
    Act* out = dx + team.row * width + i;
    *out = FromFloat<Act>(accumulate ? value + ToFloat(*out) : value);
  }
}

// 32 columns of the weight a block, their rows shared by 32 threads each.
constexpr int kSide = 32;
template <typename Act>
__global__ void __launch_bounds__(kSide* kSide)
    NormWeightKernel(int width, int size, const Act* dy, const Act* x, const float* stats,
                     bool has_mean, int64_t rows, bool accumulate, float* dweight) {
  __shared__ float sums[kSide][kSide + 1];
  const int i = blockIdx.x * kSide + threadIdx.x, weight_rows = size / width;
  float sum = 0;
  if (i < size) {
    const int64_t step = static_cast<int64_t>(weight_rows) * kSide;
    for (int64_t row = static_cast<int64_t>(weight_rows) * threadIdx.y; row < rows; row += step) {
      const int64_t r = row + i / width, at = row * width + i;
      const float mean = has_mean ? stats[2 * r] : 0.f;
      const float inv = has_mean ? stats[2 * r + 1] : stats[r];
      sum += ToFloat(dy[at]) * (ToFloat(x[at]) - mean) * inv;
    }
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || i >= size) return;
  sum = 0;
  for (int y = 0; y < kSide; ++y) sum += sums[y][threadIdx.x];
  dweight[i] = accumulate ? dweight[i] + sum : sum;
}

int WeightRows(const Tensor* weight, int64_t width) {
  return weight == nullptr ? 1 : static_cast<int>(weight->num_elements() / width);
}

// Calls launch(block_team, width, num_blocks) with compile-time constants in its first two.
template <typename Launch>
void DispatchRow(int64_t rows, int64_t cols, const Launch& launch) {
  const bool wide = cols % 8 == 0;
  if (cols > kLongestWarpRow) {
    const auto blocks = static_cast<unsigned>(rows);
    if (wide) {
      launch(std::true_type{}, std::integral_constant<int, 8>{}, blocks);
    } else {
      launch(std::true_type{}, std::integral_constant<int, 1>{}, blocks);
    }
  } else {
    const auto blocks = static_cast<unsigned>(CeilDiv(rows, kThreads / 32));
    if (wide) {
      launch(std::false_type{}, std::integral_constant<int, 8>{}, blocks);
    } else {
      launch(std::false_type{}, std::integral_constant<int, 1>{}, blocks);
    }
  }
}

void Forward(Backend* backend, const Tensor& a, const Tensor* b, const Tensor& weight, float eps,
             Tensor* sum, Tensor* y, Tensor* inv_rms) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t cols = weight.num_elements(), rows = a.num_elements() / cols;
  if (rows == 0) return;
  DispatchAct(a.dtype(), [&](auto act) {
    using Act = decltype(act);
    DispatchRow(rows, cols, [&](auto block, auto width, unsigned blocks) {
      RmsNormForwardKernel<Act, block.value, width.value><<<blocks, kThreads, 0, cuda->stream()>>>(
          Data<Act>(a), b == nullptr ? nullptr : Data<Act>(*b), weight.f32(), eps, rows,
          static_cast<int>(cols), sum == nullptr ? nullptr : Data<Act>(sum), Data<Act>(y),
          inv_rms->f32());
    });
  });
  cuda->NoteLaunch();
}

}  // namespace

void RmsNormForward(Backend* backend, const Tensor& x, const Tensor& weight, float eps, Tensor* y,
                    Tensor* inv_rms) {
  Forward(backend, x, nullptr, weight, eps, nullptr, y, inv_rms);
}

void AddRmsNormForward(Backend* backend, const Tensor& a, const Tensor& b, const Tensor& weight,
                       float eps, Tensor* sum, Tensor* y, Tensor* inv_rms) {
  Forward(backend, a, &b, weight, eps, sum, y, inv_rms);
}

void RmsNormBackward(Backend* backend, const Tensor& dy, const Tensor& x, const Tensor& weight,
                     const Tensor& inv_rms, bool accumulate, Tensor* dx) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t cols = weight.num_elements(), rows = x.num_elements() / cols;
  if (rows == 0) return;
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    DispatchRow(rows, cols, [&](auto block, auto width, unsigned blocks) {
      RmsNormBackwardKernel<Act, block.value, width.value><<<blocks, kThreads, 0, cuda->stream()>>>(
          Data<Act>(dy), Data<Act>(x), weight.f32(), inv_rms.f32(), rows, static_cast<int>(cols),
          accumulate, Data<Act>(dx));
    });
  });
  cuda->NoteLaunch();
}

void NormForward(Backend* backend, const NormShape& shape, const Tensor& x, const Tensor* weight,
                 const Tensor* bias, Tensor* y, Tensor* stats) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t rows = x.num_elements() / shape.width;
  if (rows == 0) return;
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    DispatchRow(rows, shape.width, [&](auto block, auto, unsigned blocks) {
      NormForwardKernel<Act, block.value><<<blocks, kThreads, 0, cuda->stream()>>>(
          shape, Data<Act>(x), weight == nullptr ? nullptr : weight->f32(),
          WeightRows(weight, shape.width), bias == nullptr ? nullptr : bias->f32(),
          WeightRows(bias, shape.width), rows, Data<Act>(y), stats->f32());
    });
  });
  cuda->NoteLaunch();
}

void NormBackward(Backend* backend, const NormShape& shape, const Tensor& dy, const Tensor& x,
                  const Tensor* weight, const Tensor& stats, bool accumulate, Tensor* dx) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t rows = x.num_elements() / shape.width;
  if (rows == 0) return;
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    DispatchRow(rows, shape.width, [&](auto block, auto, unsigned blocks) {
      NormBackwardKernel<Act, block.value><<<blocks, kThreads, 0, cuda->stream()>>>(
          shape, Data<Act>(dy), Data<Act>(x), weight == nullptr ? nullptr : weight->f32(),
          WeightRows(weight, shape.width), stats.f32(), rows, accumulate, Data<Act>(dx));
    });
  });
  cuda->NoteLaunch();
}

void NormBackwardWeight(Backend* backend, const NormShape& shape, const Tensor& dy, const Tensor& x,
                        const Tensor& stats, bool accumulate, Tensor* dweight) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t rows = x.num_elements() / shape.width;
  const auto size = static_cast<int>(dweight->num_elements());
  if (rows == 0) return;
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    NormWeightKernel<Act>
        <<<static_cast<unsigned>(CeilDiv(size, kSide)), dim3(kSide, kSide), 0, cuda->stream()>>>(
            static_cast<int>(shape.width), size, Data<Act>(dy), Data<Act>(x), stats.f32(),
            stats.num_elements() != rows, rows, accumulate, dweight->f32());
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::ops::cuda
