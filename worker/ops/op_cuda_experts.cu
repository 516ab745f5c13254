// Routing of tokens to experts and the permutation around the experts' products. Routing takes a
// thread a token (its work is small beside the experts'), the permutation a block a row.
#include "worker/backend/cuda_device.cuh"
#include "worker/ops/op_cuda.h"

namespace uniquanf::ops::cuda {
namespace {

using namespace uniquanf::cuda;  // NOLINT: kernels' helpers

constexpr int kThreads = 128;
constexpr int kMaxChosen = 64;  // of top_k and top_groups

struct Softmax {
  float maximum, inverse_sum;
};

template <typename Act>
__device__ Softmax SoftmaxOf(const Act* logits, int n) {
  float maximum = -INFINITY, sum = 0;
  for (int e = 0; e < n; ++e) maximum = fmaxf(maximum, ToFloat(logits[e]));
  for (int e = 0; e < n; ++e) sum += expf(ToFloat(logits[e]) - maximum);
  return {maximum, 1.f / sum};
}

template <typename Act>
__device__ float ScoreOf(const RouterShape& shape, const Softmax& softmax, const Act* logits,
                         int e) {
  const float x = ToFloat(logits[e]);
  return shape.sigmoid ? 1.f / (1.f + expf(-x)) : expf(x - softmax.maximum) * softmax.inverse_sum;
}

__device__ bool Contains(const int* chosen, int count, int value) {
  for (int j = 0; j < count; ++j) {
    if (chosen[j] == value) return true;
  }
  return false;
}

// The sparse mixer's choice after those in chosen[0, count): the best logit that is left, and the
// sum of exp(l − best) over the logits that are close enough to it.
struct MixerChoice {
  int best = -1;
  float top = 0, sum = 0;
};

template <typename Act>
__device__ float MixerTerm(const RouterShape& shape, const Act* logits, const int* chosen,
                           int count, float top, int e) {
  const float l = ToFloat(logits[e]);
  const bool far = (top - l) / fmaxf(fabsf(l), top) > 2.f * shape.jitter;
  return far || Contains(chosen, count, e) ? 0.f : expf(l - top);
}

template <typename Act>
__device__ MixerChoice NextMixerChoice(const RouterShape& shape, const Act* logits,
                                       const int* chosen, int count) {
  MixerChoice choice;
  for (int e = 0; e < shape.num_experts; ++e) {
    if (Contains(chosen, count, e)) continue;
    if (choice.best >= 0 && ToFloat(logits[e]) <= choice.top) continue;
    choice.best = e;
    choice.top = ToFloat(logits[e]);
  }
  for (int e = 0; e < shape.num_experts; ++e) {
    choice.sum += MixerTerm(shape, logits, chosen, count, choice.top, e);
  }
  return choice;
}

// `scales` is shape.scales on the device.
template <typename Act>
__global__ void __launch_bounds__(kThreads)
    RouteForwardKernel(RouterShape shape, const Act* all_logits, const float* correction,
                       const float* scales, int64_t num_tokens, int32_t* experts, float* weights) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (t >= num_tokens) return;
  if (shape.sparse_mixer) {
    int picked[kMaxChosen];
    for (int j = 0; j < shape.top_k; ++j) {
      const MixerChoice choice =
          NextMixerChoice(shape, all_logits + t * shape.num_experts, picked, j);
      picked[j] = choice.best;
      experts[t * shape.top_k + j] = choice.best;
      weights[t * shape.top_k + j] =
          shape.scale / choice.sum * (scales == nullptr ? 1.f : scales[choice.best]);
    }
    return;
  }
  const int n = shape.num_experts, k = shape.top_k, size = n / shape.num_groups;
  const Act* logits = all_logits + t * n;
  const Softmax softmax = shape.sigmoid ? Softmax{} : SoftmaxOf(logits, n);
  const auto choice = [&](int e) {
    return ScoreOf(shape, softmax, logits, e) + (correction == nullptr ? 0.f : correction[e]);
  };
  int groups[kMaxChosen];
  const bool limited = shape.top_groups < shape.num_groups;
  for (int j = 0; limited && j < shape.top_groups; ++j) {
    float best = -INFINITY;
    groups[j] = -1;
    for (int g = 0; g < shape.num_groups; ++g) {
      if (Contains(groups, j, g)) continue;
      float first = -INFINITY, second = -INFINITY;
      for (int e = g * size; e < (g + 1) * size; ++e) {
        const float score = choice(e);
        second = fmaxf(second, fminf(first, score));
        first = fmaxf(first, score);
      }
      const float score = shape.group_by_best ? first : first + second;
      if (groups[j] < 0 || score > best) {
        best = score;
        groups[j] = g;
      }
    }
  }
  int chosen[kMaxChosen];
  float sum = 0;
  for (int j = 0; j < k; ++j) {
    float best = -INFINITY;
    chosen[j] = -1;
    for (int e = 0; e < n; ++e) {
      if (Contains(chosen, j, e)) continue;
      if (limited && !Contains(groups, shape.top_groups, e / size)) continue;
      const float score = choice(e);
      if (chosen[j] < 0 || score > best) {
        best = score;
        chosen[j] = e;
      }
    }
    sum += ScoreOf(shape, softmax, logits, chosen[j]);
  }
  const float factor = shape.normalize ? shape.scale / (sum + shape.epsilon) : shape.scale;
  for (int j = 0; j < k; ++j) {
    experts[t * k + j] = chosen[j];
    weights[t * k + j] = ScoreOf(shape, softmax, logits, chosen[j]) * factor *
                         (scales == nullptr ? 1.f : scales[chosen[j]]);
  }
}

template <typename Act>
__global__ void __launch_bounds__(kThreads)
    RouteBackwardKernel(RouterShape shape, const Act* all_logits, const int32_t* experts,
                        const float* dweights, const float* scales, int64_t num_tokens,
                        Act* dlogits) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (t >= num_tokens) return;
  const int n = shape.num_experts, k = shape.top_k;
  const Act* logits = all_logits + t * n;
  const auto dweight = [&](int j) {
    return dweights[t * k + j] * (scales == nullptr ? 1.f : scales[experts[t * k + j]]);
  };
  if (shape.sparse_mixer) {
    for (int e = 0; e < n; ++e) {
      float d = 0;
      for (int j = 0; j < k; ++j) {
        const MixerChoice choice = NextMixerChoice(shape, logits, experts + t * k, j);
        const float p = MixerTerm(shape, logits, experts + t * k, j, choice.top, e) / choice.sum;
        d += shape.scale * dweight(j) / choice.sum * ((e == choice.best ? 1.f : 0.f) - p);
      }
      dlogits[t * n + e] = FromFloat<Act>(d);
    }
    return;
  }
  const Softmax softmax = shape.sigmoid ? Softmax{} : SoftmaxOf(logits, n);
  float sum = shape.epsilon, dot = 0;
  for (int j = 0; j < k; ++j) {
    const float score = ScoreOf(shape, softmax, logits, experts[t * k + j]);
    sum += score;
    dot += dweight(j) * score;
  }
  const auto dscore = [&](int j) {
    const float d = dweight(j);
    return shape.scale * (shape.normalize ? d / sum - dot / (sum * sum) : d);
  };
  float mean = 0;
  for (int j = 0; j < k; ++j) {
    mean += dscore(j) * ScoreOf(shape, softmax, logits, experts[t * k + j]);
  }
  for (int e = 0; e < n; ++e) {
    float d = 0;
    for (int j = 0; j < k; ++j) {
      if (experts[t * k + j] == e) d = dscore(j);
    }
    const float score = ScoreOf(shape, softmax, logits, e);
    dlogits[t * n + e] =
        FromFloat<Act>(shape.sigmoid ? d * score * (1.f - score) : score * (d - mean));
  }
}

template <typename Act>
__global__ void __launch_bounds__(kThreads)
    GatherKernel(const Act* x, const int32_t* rows, int64_t width, Act* out) {
  const int64_t from = rows[blockIdx.x];
  Act* to = out + static_cast<int64_t>(blockIdx.x) * width;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    to[i] = from < 0 ? FromFloat<Act>(0.f) : x[from * width + i];
  }
}

template <typename Act>
__global__ void __launch_bounds__(kThreads)
    CombineKernel(const Act* rows, const int32_t* positions, const float* weights, int k,
                  int64_t width, bool accumulate, Act* y) {
  const int64_t t = blockIdx.x;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    float sum = accumulate ? ToFloat(y[t * width + i]) : 0.f;
    for (int j = 0; j < k; ++j) {
      const float w = weights == nullptr ? 1.f : weights[t * k + j];
      sum += w * ToFloat(rows[positions[t * k + j] * width + i]);
    }
    y[t * width + i] = FromFloat<Act>(sum);
  }
}

template <typename Act>
__global__ void __launch_bounds__(kThreads)
    CombineBackwardKernel(const Act* dy, const Act* rows, const int32_t* positions,
                          const float* weights, int k, int64_t width, Act* drows, float* dweights) {
  __shared__ float shared[32];
  const int64_t t = blockIdx.x / k, at = positions[blockIdx.x];
  const float w = weights[blockIdx.x];
  float dot = 0;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    const float d = ToFloat(dy[t * width + i]);
    dot += d * ToFloat(rows[at * width + i]);
    drows[at * width + i] = FromFloat<Act>(w * d);
  }
  dot = BlockSum(dot, shared);
  if (threadIdx.x == 0) dweights[blockIdx.x] = dot;
}

const float* ScalesOf(const RouterShape& shape) {
  return shape.scales == nullptr ? nullptr : shape.scales->f32();
}

unsigned TokenBlocks(int64_t num_tokens) {
  return static_cast<unsigned>(CeilDiv(num_tokens, int64_t{kThreads}));
}

}  // namespace

void RouteForward(Backend* backend, const RouterShape& shape, const Tensor& logits,
                  const Tensor* correction, Tensor* experts, Tensor* weights) {
  UQ_CHECK(shape.top_k <= kMaxChosen && shape.top_groups <= kMaxChosen);
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t num_tokens = logits.num_elements() / shape.num_experts;
  DispatchAct(logits.dtype(), [&](auto act) {
    using Act = decltype(act);
    RouteForwardKernel<Act><<<TokenBlocks(num_tokens), kThreads, 0, cuda->stream()>>>(
        shape, Data<Act>(logits), correction == nullptr ? nullptr : correction->f32(),
        ScalesOf(shape), num_tokens, experts->i32(), weights->f32());
  });
  cuda->NoteLaunch();
}

void RouteBackward(Backend* backend, const RouterShape& shape, const Tensor& logits,
                   const Tensor& experts, const Tensor& dweights, Tensor* dlogits) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t num_tokens = logits.num_elements() / shape.num_experts;
  DispatchAct(logits.dtype(), [&](auto act) {
    using Act = decltype(act);
    RouteBackwardKernel<Act><<<TokenBlocks(num_tokens), kThreads, 0, cuda->stream()>>>(
        shape, Data<Act>(logits), experts.i32(), dweights.f32(), ScalesOf(shape), num_tokens,
        Data<Act>(dlogits));
  });
  cuda->NoteLaunch();
}

void GatherRows(Backend* backend, const Tensor& x, const Tensor& rows, Tensor* out) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const auto blocks = static_cast<unsigned>(rows.num_elements());
  if (blocks == 0) return;
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    GatherKernel<Act><<<blocks, kThreads, 0, cuda->stream()>>>(Data<Act>(x), rows.i32(),
                                                               out->shape().back(), Data<Act>(out));
  });
  cuda->NoteLaunch();
}

void CombineRows(Backend* backend, const Tensor& rows, const Tensor& positions,
                 const Tensor* weights, bool accumulate, Tensor* y) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t width = y->shape().back(), num_tokens = y->num_elements() / width;
  DispatchAct(rows.dtype(), [&](auto act) {
    using Act = decltype(act);
    CombineKernel<Act><<<static_cast<unsigned>(num_tokens), kThreads, 0, cuda->stream()>>>(
        Data<Act>(rows), positions.i32(), weights == nullptr ? nullptr : weights->f32(),
        static_cast<int>(positions.num_elements() / num_tokens), width, accumulate, Data<Act>(y));
  });
  cuda->NoteLaunch();
}

void CombineRowsBackward(Backend* backend, const Tensor& dy, const Tensor& rows,
                         const Tensor& positions, const Tensor& weights, Tensor* drows,
                         Tensor* dweights) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t width = dy.shape().back(), num_tokens = dy.num_elements() / width;
  DispatchAct(rows.dtype(), [&](auto act) {
    using Act = decltype(act);
    CombineBackwardKernel<Act>
        <<<static_cast<unsigned>(positions.num_elements()), kThreads, 0, cuda->stream()>>>(
            Data<Act>(dy), Data<Act>(rows), positions.i32(), weights.f32(),
            static_cast<int>(positions.num_elements() / num_tokens), width, Data<Act>(drows),
            dweights->f32());
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::ops::cuda
