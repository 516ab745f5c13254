// Activations other than SwiGLU, scaling, clipping, soft caps and gates; a thread an element.
#include "worker/backend/cuda_device.cuh"
#include "worker/ops/op_cuda.h"

namespace uniquanf::ops::cuda {
namespace {

using namespace uniquanf::cuda;  // NOLINT: kernels' helpers

constexpr int kThreads = 256;

template <typename Fn>
__global__ void __launch_bounds__(kThreads) ForEach(int64_t n, Fn fn) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) fn(i);
}

template <typename Fn>
void Launch(Backend* backend, int64_t n, const Fn& fn) {
  if (n == 0) return;
  CudaBackend* cuda = CudaBackend::From(backend);
  ForEach<<<static_cast<unsigned>(CeilDiv(n, int64_t{kThreads})), kThreads, 0, cuda->stream()>>>(
      n, fn);
  cuda->NoteLaunch();
}

__device__ inline float Sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

// Value and slope of f(x), as in op_cpu_activation.cc.
__device__ inline void Evaluate(Activation kind, float x, float* value, float* slope) {
  constexpr float kC = 0.7978845608028654f, kCubic = 0.044715f;
  switch (kind) {
    case Activation::kGeluTanh: {
      const float sigmoid = Sigmoid(2.f * kC * (x + kCubic * x * x * x));
      *value = x * sigmoid;
      *slope = sigmoid + x * sigmoid * (1.f - sigmoid) * 2.f * kC * (1.f + 3.f * kCubic * x * x);
      return;
    }
    case Activation::kGelu: {
      const float phi = 0.5f * (1.f + erff(x * 0.7071067811865476f));
      *value = x * phi;
      *slope = phi + x * 0.3989422804014327f * expf(-0.5f * x * x);
      return;
    }
    case Activation::kRelu:
      *value = fmaxf(x, 0.f);
      *slope = x > 0.f ? 1.f : 0.f;
      return;
    case Activation::kReluSquared: {
      const float positive = fmaxf(x, 0.f);
      *value = positive * positive;
      *slope = 2.f * positive;
      return;
    }
    case Activation::kIdentity:
      *value = x;
      *slope = 1.f;
      return;
    default: {
      const float sigmoid = Sigmoid(x);
      *value = x * sigmoid;
      *slope = sigmoid * (1.f + x * (1.f - sigmoid));
      return;
    }
  }
}

constexpr float kClamp = 7.f, kClampSlope = 1.702f;

template <typename Act>
struct ForwardFn {
  Activation kind;
  const Act *gate, *up;
  Act* y;
  __device__ void operator()(int64_t i) const {
    const float g = ToFloat(gate[i]), u = up == nullptr ? 1.f : ToFloat(up[i]);
    if (kind == Activation::kClampedSwiGlu) {
      const float low = fminf(g, kClamp), limited = fmaxf(fminf(u, kClamp), -kClamp);
      y[i] = FromFloat<Act>((limited + 1.f) * low * Sigmoid(kClampSlope * low));
      return;
    }
    float value, slope;
    Evaluate(kind, g, &value, &slope);
    y[i] = FromFloat<Act>(value * u);
  }
};

template <typename Act>
struct BackwardFn {
  Activation kind;
  const Act *dy, *gate, *up;
  Act *dgate, *dup;
  __device__ void operator()(int64_t i) const {
    const float d = ToFloat(dy[i]), g = ToFloat(gate[i]), u = up == nullptr ? 1.f : ToFloat(up[i]);
    if (kind == Activation::kClampedSwiGlu) {
      const float low = fminf(g, kClamp), limited = fmaxf(fminf(u, kClamp), -kClamp);
      const float sigmoid = Sigmoid(kClampSlope * low);
      const float slope = sigmoid * (1.f + kClampSlope * low * (1.f - sigmoid));
      dup[i] = FromFloat<Act>(fabsf(u) <= kClamp ? d * low * sigmoid : 0.f);
      dgate[i] = FromFloat<Act>(g <= kClamp ? d * (limited + 1.f) * slope : 0.f);
      return;
    }
    float value, slope;
    Evaluate(kind, g, &value, &slope);
    if (up != nullptr) dup[i] = FromFloat<Act>(d * value);
    dgate[i] = FromFloat<Act>(d * u * slope);
  }
};

template <typename Act>
struct AddScaledFn {
  const Act *a, *b;
  float factor;
  Act* out;
  __device__ void operator()(int64_t i) const {
    out[i] = FromFloat<Act>(ToFloat(a[i]) + factor * ToFloat(b[i]));
  }
};

template <typename Act>
struct ScaleFn {
  const Act* x;
  float factor;
  Act* out;
  __device__ void operator()(int64_t i) const { out[i] = FromFloat<Act>(ToFloat(x[i]) * factor); }
};

template <typename Act>
struct ScaleByFn {
  const Act* x;
  const float* factor;
  Act* out;
  __device__ void operator()(int64_t i) const { out[i] = FromFloat<Act>(ToFloat(x[i]) * *factor); }
};

__device__ inline float Softplus(float x) { return x > 20.f ? x : log1pf(expf(x)); }

// xIELU's four numbers, where they lie on the device.
struct XieluNumbers {
  const float *positive, *negative, *beta, *epsilon;
  explicit XieluNumbers(const XieluParameters& p)
      : positive(p.positive->f32()),
        negative(p.negative->f32()),
        beta(p.beta->f32()),
        epsilon(p.epsilon->f32()) {}
};

template <typename Act>
struct XieluFn {
  XieluNumbers numbers;
  const Act* x;
  Act* y;
  __device__ void operator()(int64_t i) const {
    const float v = ToFloat(x[i]), beta = *numbers.beta;
    const float value =
        v > 0.f ? Softplus(*numbers.positive) * v * v
                : (expm1f(fminf(v, *numbers.epsilon)) - v) * (beta + Softplus(*numbers.negative));
    y[i] = FromFloat<Act>(value + beta * v);
  }
};

template <typename Act>
struct XieluBackwardFn {
  XieluNumbers numbers;
  const Act *dy, *x;
  Act* dx;
  __device__ void operator()(int64_t i) const {
    const float v = ToFloat(x[i]), beta = *numbers.beta;
    const float slope = v > 0.f ? 2.f * Softplus(*numbers.positive) * v
                                : ((v < *numbers.epsilon ? expf(v) : 0.f) - 1.f) *
                                      (beta + Softplus(*numbers.negative));
    dx[i] = FromFloat<Act>(ToFloat(dy[i]) * (slope + beta));
  }
};

// An element of the receiving tensor, all of it or (kPart, kAdd) only the part.
template <typename Act>
struct CopyHeadsFn {
  HeadsShape from_heads, to_heads;
  int64_t width;
  CopyMode mode;
  const Act* from;
  Act* to;
  __device__ void operator()(int64_t index) const {
    const int64_t covered = mode == CopyMode::kClearRest ? to_heads.size : width;
    const int64_t i = index % covered - (mode == CopyMode::kClearRest ? to_heads.offset : 0);
    const int64_t head = index / covered % to_heads.count;
    const int64_t t = index / covered / to_heads.count;
    Act* target = to + (t * to_heads.count + head) * to_heads.size + to_heads.offset + i;
    if (i < 0 || i >= width) {
      *target = FromFloat<Act>(0.f);
      return;
    }
    const Act* source =
        from + (t * from_heads.count + (from_heads.count == 1 ? 0 : head)) * from_heads.size +
        from_heads.offset + i;
    float value = ToFloat(*source);
    if (to_heads.count == 1) {
      for (int s = 1; s < from_heads.count; ++s) value += ToFloat(source[s * from_heads.size]);
    }
    *target = FromFloat<Act>(mode == CopyMode::kAdd ? ToFloat(*target) + value : value);
  }
};

template <typename Act>
struct SoftCapFn {
  const Act* x;
  float cap;
  Act* out;
  __device__ void operator()(int64_t i) const {
    out[i] = FromFloat<Act>(cap * tanhf(ToFloat(x[i]) / cap));
  }
};

template <typename Act>
struct ClipFn {
  const Act* x;
  float limit;
  Act* out;
  __device__ void operator()(int64_t i) const {
    out[i] = FromFloat<Act>(fmaxf(fminf(ToFloat(x[i]), limit), -limit));
  }
};

template <typename Act>
struct ClipBackwardFn {
  const Act *dy, *x;
  float limit;
  Act* dx;
  __device__ void operator()(int64_t i) const {
    dx[i] = fabsf(ToFloat(x[i])) <= limit ? dy[i] : FromFloat<Act>(0.f);
  }
};

template <typename Act>
struct GateFn {
  const Act *x, *gate;
  int64_t per_gate;
  Act* y;
  __device__ void operator()(int64_t i) const {
    y[i] = FromFloat<Act>(ToFloat(x[i]) * Sigmoid(ToFloat(gate[i / per_gate])));
  }
};

// One warp a gate.
template <typename Act>
__global__ void __launch_bounds__(kThreads)
    GateBackwardKernel(const Act* dy, const Act* x, const Act* gate, int64_t num_gates,
                       int64_t per_gate, Act* dx, Act* dgate) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + (threadIdx.x >> 5);
  if (row >= num_gates) return;
  const float sigmoid = Sigmoid(ToFloat(gate[row]));
  float dot = 0;
  for (int64_t i = row * per_gate + (threadIdx.x & 31); i < (row + 1) * per_gate; i += 32) {
    const float d = ToFloat(dy[i]);
    dot += d * ToFloat(x[i]);
    dx[i] = FromFloat<Act>(d * sigmoid);
  }
  dot = WarpSum(dot);
  if ((threadIdx.x & 31) == 0) dgate[row] = FromFloat<Act>(dot * sigmoid * (1.f - sigmoid));
}

}  // namespace

void ActivationForward(Backend* backend, Activation kind, const Tensor& gate, const Tensor* up,
                       Tensor* y) {
  DispatchAct(gate.dtype(), [&](auto act) {
    using Act = decltype(act);
    Launch(backend, y->num_elements(),
           ForwardFn<Act>{kind, Data<Act>(gate), up == nullptr ? nullptr : Data<Act>(*up),
                          Data<Act>(y)});
  });
}

void ActivationBackward(Backend* backend, Activation kind, const Tensor& dy, const Tensor& gate,
                        const Tensor* up, Tensor* dgate, Tensor* dup) {
  DispatchAct(gate.dtype(), [&](auto act) {
    using Act = decltype(act);
    Launch(backend, dy.num_elements(),
           BackwardFn<Act>{kind, Data<Act>(dy), Data<Act>(gate),
                           up == nullptr ? nullptr : Data<Act>(*up), Data<Act>(dgate),
                           dup == nullptr ? nullptr : Data<Act>(dup)});
  });
}

void AddScaled(Backend* backend, const Tensor& a, const Tensor& b, float factor, Tensor* out) {
  DispatchAct(a.dtype(), [&](auto act) {
    using Act = decltype(act);
    Launch(backend, out->num_elements(),
           AddScaledFn<Act>{Data<Act>(a), Data<Act>(b), factor, Data<Act>(out)});
  });
}

void Scale(Backend* backend, const Tensor& x, float factor, Tensor* out) {
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    Launch(backend, out->num_elements(), ScaleFn<Act>{Data<Act>(x), factor, Data<Act>(out)});
  });
}

void ScaleBy(Backend* backend, const Tensor& x, const Tensor& factor, Tensor* out) {
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    Launch(backend, out->num_elements(),
           ScaleByFn<Act>{Data<Act>(x), factor.f32(), Data<Act>(out)});
  });
}

void XieluForward(Backend* backend, const XieluParameters& parameters, const Tensor& x, Tensor* y) {
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    Launch(backend, x.num_elements(),
           XieluFn<Act>{XieluNumbers(parameters), Data<Act>(x), Data<Act>(y)});
  });
}

void XieluBackward(Backend* backend, const XieluParameters& parameters, const Tensor& dy,
                   const Tensor& x, Tensor* dx) {
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    Launch(
        backend, x.num_elements(),
        XieluBackwardFn<Act>{XieluNumbers(parameters), Data<Act>(dy), Data<Act>(x), Data<Act>(dx)});
  });
}

void CopyHeads(Backend* backend, int64_t width, const HeadsShape& from_heads, const Tensor& from,
               CopyMode mode, const HeadsShape& to_heads, Tensor* to) {
  DispatchAct(from.dtype(), [&](auto act) {
    using Act = decltype(act);
    const int64_t heads = to->num_elements() / to_heads.size;
    Launch(backend, heads * (mode == CopyMode::kClearRest ? to_heads.size : width),
           CopyHeadsFn<Act>{from_heads, to_heads, width, mode, Data<Act>(from), Data<Act>(to)});
  });
}

void SoftCap(Backend* backend, const Tensor& x, float cap, Tensor* out) {
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    Launch(backend, out->num_elements(), SoftCapFn<Act>{Data<Act>(x), cap, Data<Act>(out)});
  });
}

void Clip(Backend* backend, const Tensor& x, float limit, Tensor* out) {
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    Launch(backend, out->num_elements(), ClipFn<Act>{Data<Act>(x), limit, Data<Act>(out)});
  });
}

void ClipBackward(Backend* backend, const Tensor& dy, const Tensor& x, float limit, Tensor* dx) {
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    Launch(backend, dx->num_elements(),
           ClipBackwardFn<Act>{Data<Act>(dy), Data<Act>(x), limit, Data<Act>(dx)});
  });
}

void SigmoidGateForward(Backend* backend, const Tensor& x, const Tensor& gate, Tensor* y) {
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    Launch(backend, y->num_elements(),
           GateFn<Act>{Data<Act>(x), Data<Act>(gate), x.num_elements() / gate.num_elements(),
                       Data<Act>(y)});
  });
}

void SigmoidGateBackward(Backend* backend, const Tensor& dy, const Tensor& x, const Tensor& gate,
                         Tensor* dx, Tensor* dgate) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t num_gates = gate.num_elements();
  const auto blocks = static_cast<unsigned>(CeilDiv(num_gates, int64_t{kThreads / 32}));
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    GateBackwardKernel<Act><<<blocks, kThreads, 0, cuda->stream()>>>(
        Data<Act>(dy), Data<Act>(x), Data<Act>(gate), num_gates, x.num_elements() / num_gates,
        Data<Act>(dx), Data<Act>(dgate));
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::ops::cuda
