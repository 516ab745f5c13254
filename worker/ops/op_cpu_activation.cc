// Activations other than SwiGLU, scaling, clipping, soft caps and gates: elementwise loops.
#include <cmath>

#include "worker/backend/vector_math.h"
#include "worker/ops/op_cpu.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::ops::cpu {
namespace {

// tanh through the sigmoid, which has the same bits on every machine.
inline float Tanh(float x) { return 2.0f * PortableSigmoid(2.0f * x) - 1.0f; }

constexpr float kGeluC = 0.7978845608028654f, kGeluCubic = 0.044715f;  // √(2/π)

// Value and slope of an activation f(x).
template <Activation kKind>
inline __attribute__((always_inline)) void Evaluate(float x, float* value, float* slope) {
  if constexpr (kKind == Activation::kSilu) {
    const float sigmoid = PortableSigmoid(x);
    *value = x * sigmoid;
    *slope = sigmoid * (1.0f + x * (1.0f - sigmoid));
  } else if constexpr (kKind == Activation::kGeluTanh) {
    // 0.5·x·(1 + tanh u) = x·σ(2u).
    const float u = kGeluC * (x + kGeluCubic * x * x * x);
    const float sigmoid = PortableSigmoid(2.0f * u);
    *value = x * sigmoid;
    *slope = sigmoid +
             x * sigmoid * (1.0f - sigmoid) * 2.0f * kGeluC * (1.0f + 3.0f * kGeluCubic * x * x);
  } else if constexpr (kKind == Activation::kGelu) {
    const float phi = 0.5f * (1.0f + std::erf(x * 0.7071067811865476f));
    *value = x * phi;
    *slope = phi + x * 0.3989422804014327f * PortableExp(-0.5f * x * x);
  } else if constexpr (kKind == Activation::kRelu) {
    *value = x > 0 ? x : 0.0f;
    *slope = x > 0 ? 1.0f : 0.0f;
  } else if constexpr (kKind == Activation::kReluSquared) {
    const float positive = x > 0 ? x : 0.0f;
    *value = positive * positive;
    *slope = 2.0f * positive;
  } else if constexpr (kKind == Activation::kIdentity) {
    *value = x;
    *slope = 1.0f;
  }
}

// gpt-oss: g' = min(g, 7), u' = clamp(u, ±7); y = (u' + 1)·g'·σ(1.702 g').
constexpr float kClamp = 7.0f, kClampSlope = 1.702f;

template <Activation kKind>
void ForwardLoop(const float* gate, const float* up, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) {
    float value, slope;
    if constexpr (kKind == Activation::kClampedSwiGlu) {
      const float g = gate[i] < kClamp ? gate[i] : kClamp;
      const float high = up[i] < kClamp ? up[i] : kClamp, u = high > -kClamp ? high : -kClamp;
      value = (u + 1.0f) * g * PortableSigmoid(kClampSlope * g);
      y[i] = value;
    } else {
      Evaluate<kKind>(gate[i], &value, &slope);
      y[i] = up == nullptr ? value : value * up[i];
    }
  }
}

template <Activation kKind>
void BackwardLoop(const float* dy, const float* gate, const float* up, int64_t n, float* dgate,
                  float* dup) {
  for (int64_t i = 0; i < n; ++i) {
    float value, slope;
    const float d = dy[i];
    if constexpr (kKind == Activation::kClampedSwiGlu) {
      const float g = gate[i] < kClamp ? gate[i] : kClamp;
      const float high = up[i] < kClamp ? up[i] : kClamp, u = high > -kClamp ? high : -kClamp;
      const float sigmoid = PortableSigmoid(kClampSlope * g);
      slope = sigmoid * (1.0f + kClampSlope * g * (1.0f - sigmoid));
      const bool inside = up[i] <= kClamp && up[i] >= -kClamp;
      dup[i] = inside ? d * g * sigmoid : 0.0f;
      dgate[i] = gate[i] <= kClamp ? d * (u + 1.0f) * slope : 0.0f;
    } else {
      Evaluate<kKind>(gate[i], &value, &slope);
      if (up == nullptr) {
        dgate[i] = d * slope;
      } else {
        const float u = up[i];
        dup[i] = d * value;
        dgate[i] = d * u * slope;
      }
    }
  }
}

// Calls fn with the activation as a compile-time constant.
template <typename Fn>
void Dispatch(Activation kind, const Fn& fn) {
  switch (kind) {
    case Activation::kSilu:
      return fn(std::integral_constant<Activation, Activation::kSilu>{});
    case Activation::kGeluTanh:
      return fn(std::integral_constant<Activation, Activation::kGeluTanh>{});
    case Activation::kGelu:
      return fn(std::integral_constant<Activation, Activation::kGelu>{});
    case Activation::kRelu:
      return fn(std::integral_constant<Activation, Activation::kRelu>{});
    case Activation::kReluSquared:
      return fn(std::integral_constant<Activation, Activation::kReluSquared>{});
    case Activation::kIdentity:
      return fn(std::integral_constant<Activation, Activation::kIdentity>{});
    case Activation::kClampedSwiGlu:
      return fn(std::integral_constant<Activation, Activation::kClampedSwiGlu>{});
  }
}

// out[i] = fn(i) over all elements, in chunks.
template <typename Fn>
void ForEach(Backend* backend, int64_t n, const Fn& fn) {
  ParallelChunks(CpuBackend::From(backend), n, kElementChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) fn(i);
  });
}

}  // namespace

void ActivationForward(Backend* backend, Activation kind, const Tensor& gate, const Tensor* up,
                       Tensor* y) {
  Dispatch(kind, [&](auto constant) {
    ParallelChunks(CpuBackend::From(backend), y->num_elements(), kElementChunk,
                   [&](int64_t begin, int64_t end) {
                     ForwardLoop<constant.value>(gate.f32() + begin,
                                                 up == nullptr ? nullptr : up->f32() + begin,
                                                 end - begin, y->f32() + begin);
                   });
  });
}

void ActivationBackward(Backend* backend, Activation kind, const Tensor& dy, const Tensor& gate,
                        const Tensor* up, Tensor* dgate, Tensor* dup) {
  Dispatch(kind, [&](auto constant) {
    ParallelChunks(CpuBackend::From(backend), dy.num_elements(), kElementChunk,
                   [&](int64_t begin, int64_t end) {
                     BackwardLoop<constant.value>(dy.f32() + begin, gate.f32() + begin,
                                                  up == nullptr ? nullptr : up->f32() + begin,
                                                  end - begin, dgate->f32() + begin,
                                                  up == nullptr ? nullptr : dup->f32() + begin);
                   });
  });
}

void AddScaled(Backend* backend, const Tensor& a, const Tensor& b, float factor, Tensor* out) {
  const float *x = a.f32(), *y = b.f32();
  float* to = out->f32();
  ForEach(backend, out->num_elements(), [=](int64_t i) { to[i] = x[i] + factor * y[i]; });
}

void Scale(Backend* backend, const Tensor& x, float factor, Tensor* out) {
  const float* from = x.f32();
  float* to = out->f32();
  ForEach(backend, out->num_elements(), [=](int64_t i) { to[i] = from[i] * factor; });
}

void SoftCap(Backend* backend, const Tensor& x, float cap, Tensor* out) {
  const float *from = x.f32(), inverse = 1.0f / cap;
  float* to = out->f32();
  ForEach(backend, out->num_elements(), [=](int64_t i) { to[i] = cap * Tanh(from[i] * inverse); });
}

void Clip(Backend* backend, const Tensor& x, float limit, Tensor* out) {
  const float* from = x.f32();
  float* to = out->f32();
  ForEach(backend, out->num_elements(), [=](int64_t i) {
    const float high = from[i] < limit ? from[i] : limit;
    to[i] = high > -limit ? high : -limit;
  });
}

void ClipBackward(Backend* backend, const Tensor& dy, const Tensor& x, float limit, Tensor* dx) {
  const float *d = dy.f32(), *from = x.f32();
  float* to = dx->f32();
  ForEach(backend, dx->num_elements(),
          [=](int64_t i) { to[i] = from[i] >= -limit && from[i] <= limit ? d[i] : 0.0f; });
}

void SigmoidGateForward(Backend* backend, const Tensor& x, const Tensor& gate, Tensor* y) {
  const int64_t per_gate = x.num_elements() / gate.num_elements();
  const float *from = x.f32(), *g = gate.f32();
  float* to = y->f32();
  ForEach(backend, gate.num_elements(), [=](int64_t r) {
    const float sigmoid = PortableSigmoid(g[r]);
    for (int64_t i = r * per_gate; i < (r + 1) * per_gate; ++i) to[i] = from[i] * sigmoid;
  });
}

void SigmoidGateBackward(Backend* backend, const Tensor& dy, const Tensor& x, const Tensor& gate,
                         Tensor* dx, Tensor* dgate) {
  const int64_t per_gate = x.num_elements() / gate.num_elements();
  const float *d = dy.f32(), *from = x.f32(), *g = gate.f32();
  float *to = dx->f32(), *dg = dgate->f32();
  ForEach(backend, gate.num_elements(), [=](int64_t r) {
    const float sigmoid = PortableSigmoid(g[r]);
    double dot = 0;
    for (int64_t i = r * per_gate; i < (r + 1) * per_gate; ++i) {
      dot += static_cast<double>(d[i]) * from[i];
      to[i] = d[i] * sigmoid;
    }
    dg[r] = static_cast<float>(dot) * sigmoid * (1.0f - sigmoid);
  });
}

}  // namespace uniquanf::ops::cpu
