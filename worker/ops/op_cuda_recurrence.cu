// Convolutions and linear recurrences on CUDA. A block goes through the tokens of one head of one
// sequence with the state in shared memory, a thread a column of it; sums over columns are taken a
// warp a row. Sums over the heads that share keys are taken at the end, in the order of heads.
#include "worker/backend/cuda_device.cuh"
#include "worker/ops/op_cuda.h"

namespace uniquanf::ops::cuda {
namespace {

using namespace uniquanf::cuda;  // NOLINT: kernels' helpers

constexpr int kThreads = 256;
constexpr int64_t kSegment = 32;  // tokens

template <typename Act>
__global__ void __launch_bounds__(kThreads)
    ConvForwardKernel(const Act* x, const float* weight, const float* bias, int64_t elements,
                      int64_t channels, int64_t taps, int64_t seq_len, Act* y) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= elements) return;
  const int64_t c = at % channels, position = at / channels % seq_len;
  float sum = bias == nullptr ? 0.f : bias[c];
  for (int64_t j = 0; j < taps; ++j) {
    const int64_t back = taps - 1 - j;
    if (back <= position) sum += weight[c * taps + j] * ToFloat(x[at - back * channels]);
  }
  y[at] = FromFloat<Act>(sum);
}

template <typename Act>
__global__ void __launch_bounds__(kThreads)
    ConvBackwardKernel(const Act* dy, const float* weight, int64_t elements, int64_t channels,
                       int64_t taps, int64_t seq_len, bool accumulate, Act* dx) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= elements) return;
  const int64_t c = at % channels, position = at / channels % seq_len;
  float sum = accumulate ? ToFloat(dx[at]) : 0.f;
  for (int64_t j = 0; j < taps; ++j) {
    const int64_t ahead = taps - 1 - j;
    if (position + ahead < seq_len) {
      sum += weight[c * taps + j] * ToFloat(dy[at + ahead * channels]);
    }
  }
  dx[at] = FromFloat<Act>(sum);
}

struct Layout {
  int64_t seq_len;
  int num_heads, num_key_heads, keys, values;
  bool delta;
  float low, high;
  const float *a_log, *bias, *skip;

  __device__ int64_t GateAt(int64_t sequence, int64_t t, int head) const {
    return (sequence * seq_len + t) * num_heads + head;
  }
  __device__ int64_t KeyAt(int64_t sequence, int64_t t, int head) const {
    return ((sequence * seq_len + t) * num_key_heads + head / (num_heads / num_key_heads)) * keys;
  }
};

Layout LayoutOf(const RecurrenceShape& shape) {
  return {shape.seq_len,
          shape.num_heads,
          shape.num_key_heads,
          shape.key_dim,
          shape.value_dim,
          shape.delta,
          shape.low,
          shape.high,
          shape.a_log->f32(),
          shape.bias->f32(),
          shape.skip == nullptr ? nullptr : shape.skip->f32()};
}

struct Gates {
  float alpha, beta, rate, step_slope;
};
__device__ Gates GatesOf(const Layout& s, int head, float a, float b) {
  Gates gates;
  gates.rate = expf(s.a_log[head]);
  const float x = a + s.bias[head], raw = x > 20.f ? x : log1pf(expf(x));
  const float step = s.delta ? raw : fminf(fmaxf(raw, s.low), s.high);
  gates.step_slope = step == raw ? 1.f / (1.f + expf(-x)) : 0.f;
  gates.alpha = expf(-gates.rate * step);
  gates.beta = s.delta ? 1.f / (1.f + expf(-b)) : step;
  return gates;
}

// Column j of the state: S ← α S; returns u.
__device__ float Decay(const Layout& s, const Gates& gates, const float* key, float value, int j,
                       float* state, float* read) {
  *read = 0;
  for (int i = 0; i < s.keys; ++i) {
    const float decayed = state[i * s.values + j] * gates.alpha;
    state[i * s.values + j] = decayed;
    *read += key[i] * decayed;
  }
  if (!s.delta) *read = 0;
  return gates.beta * (value - *read);
}

template <typename Act>
__global__ void RecurrenceForwardKernel(Layout s, const Act* q, const Act* k, const Act* v,
                                        const Act* a, const Act* b, float* states, Act* out) {
  extern __shared__ float memory[];
  float *state = memory, *key = state + s.keys * s.values, *query = key + s.keys;
  const int head = blockIdx.x % s.num_heads, j = threadIdx.x;
  const int64_t sequence = blockIdx.x / s.num_heads;
  const int size = s.keys * s.values;
  if (states != nullptr) states += static_cast<int64_t>(blockIdx.x) * size;
  for (int i = j; i < size; i += blockDim.x) state[i] = states == nullptr ? 0.f : states[i];
  for (int64_t t = 0; t < s.seq_len; ++t) {
    const int64_t gate_at = s.GateAt(sequence, t, head), key_at = s.KeyAt(sequence, t, head);
    __syncthreads();
    for (int i = j; i < s.keys; i += blockDim.x) {
      key[i] = ToFloat(k[key_at + i]);
      query[i] = ToFloat(q[key_at + i]);
    }
    __syncthreads();
    if (j >= s.values) continue;
    const Gates gates =
        GatesOf(s, head, ToFloat(a[gate_at]), b == nullptr ? 0.f : ToFloat(b[gate_at]));
    const float value = ToFloat(v[gate_at * s.values + j]);
    float read;
    const float u = Decay(s, gates, key, value, j, state, &read);
    float sum = s.skip == nullptr ? 0.f : s.skip[head] * value;
    for (int i = 0; i < s.keys; ++i) {
      const float written = state[i * s.values + j] + key[i] * u;
      state[i * s.values + j] = written;
      sum += query[i] * written;
    }
    out[gate_at * s.values + j] = FromFloat<Act>(sum);
  }
  if (states == nullptr) return;
  __syncthreads();
  for (int i = j; i < size; i += blockDim.x) states[i] = state[i];
}

// `starts` and `states` are this head's scratch; dq and dk [T, heads, K] f32 are not summed yet.
template <typename Act>
__global__ void RecurrenceBackwardKernel(Layout s, const Act* dout, const Act* q, const Act* k,
                                         const Act* v, const Act* a, const Act* b, float* scratch,
                                         float* dq, float* dk, Act* dv, Act* da, Act* db) {
  extern __shared__ float memory[];
  __shared__ float sums[32];
  const int size = s.keys * s.values, j = threadIdx.x;
  float *state = memory, *dstate = state + size, *key = dstate + size, *query = key + s.keys;
  float *us = query + s.keys, *dys = us + s.values, *dus = dys + s.values;
  const int head = blockIdx.x % s.num_heads;
  const int64_t sequence = blockIdx.x / s.num_heads;
  const int64_t num_segments = (s.seq_len + kSegment - 1) / kSegment;
  float* starts = scratch + blockIdx.x * (num_segments + kSegment) * size;
  float* states = starts + num_segments * size;
  const auto load = [&](int64_t t) {
    const int64_t key_at = s.KeyAt(sequence, t, head);
    __syncthreads();
    for (int i = j; i < s.keys; i += blockDim.x) {
      key[i] = ToFloat(k[key_at + i]);
      query[i] = ToFloat(q[key_at + i]);
    }
    __syncthreads();
  };
  const auto gates_at = [&](int64_t t) {
    const int64_t at = s.GateAt(sequence, t, head);
    return GatesOf(s, head, ToFloat(a[at]), b == nullptr ? 0.f : ToFloat(b[at]));
  };
  // A token's step of the forward pass, in this thread's column.
  const auto step = [&](int64_t t) {
    load(t);
    if (j >= s.values) return;
    float read;
    const float value = ToFloat(v[s.GateAt(sequence, t, head) * s.values + j]);
    const float u = Decay(s, gates_at(t), key, value, j, state, &read);
    for (int i = 0; i < s.keys; ++i) state[i * s.values + j] += key[i] * u;
  };
  const auto copy = [&](const float* from, float* to) {
    if (j >= s.values) return;
    for (int i = 0; i < s.keys; ++i) to[i * s.values + j] = from[i * s.values + j];
  };
  for (int i = j; i < size; i += blockDim.x) state[i] = dstate[i] = 0;
  __syncthreads();
  for (int64_t t = 0; t < s.seq_len; ++t) {
    if (t % kSegment == 0) copy(state, starts + t / kSegment * size);
    step(t);
  }
  for (int64_t segment = num_segments - 1; segment >= 0; --segment) {
    const int64_t begin = segment * kSegment;
    const int64_t end = begin + kSegment < s.seq_len ? begin + kSegment : s.seq_len;
    copy(starts + segment * size, state);
    for (int64_t t = begin; t < end; ++t) {
      copy(state, states + (t - begin) * size);
      step(t);
    }
    for (int64_t t = end - 1; t >= begin; --t) {
      const Gates gates = gates_at(t);
      const float* before = states + (t - begin) * size;
      const int64_t gate_at = s.GateAt(sequence, t, head);
      load(t);
      float dbeta = 0, dalpha = 0;
      if (j < s.values) {
        copy(before, state);
        float read;
        const float value = ToFloat(v[gate_at * s.values + j]);
        const float u = Decay(s, gates, key, value, j, state, &read);
        const float dy = ToFloat(dout[gate_at * s.values + j]);
        float du = 0;
        for (int i = 0; i < s.keys; ++i) {
          const float d = dstate[i * s.values + j] + query[i] * dy;
          dstate[i * s.values + j] = d;
          du += key[i] * d;
        }
        dbeta = du * (value - read);
        du *= gates.beta;
        us[j] = u;
        dys[j] = dy;
        dus[j] = du;
        dv[gate_at * s.values + j] =
            FromFloat<Act>(du + (s.skip == nullptr ? 0.f : s.skip[head] * dy));
      }
      __syncthreads();
      for (int i = j >> 5; i < s.keys; i += static_cast<int>(blockDim.x >> 5)) {
        float query_sum = 0, key_sum = 0;
        for (int c = j & 31; c < s.values; c += 32) {
          const float old = state[i * s.values + c];
          query_sum += (old + key[i] * us[c]) * dys[c];
          key_sum += dstate[i * s.values + c] * us[c];
          if (s.delta) key_sum -= old * dus[c];
        }
        query_sum = WarpSum(query_sum);
        key_sum = WarpSum(key_sum);
        if ((j & 31) == 0) {
          dq[gate_at * s.keys + i] = query_sum;
          dk[gate_at * s.keys + i] = key_sum;
        }
      }
      __syncthreads();
      if (j < s.values) {
        for (int i = 0; i < s.keys; ++i) {
          float d = dstate[i * s.values + j];
          if (s.delta) d -= key[i] * dus[j];
          dalpha += d * before[i * s.values + j];
          dstate[i * s.values + j] = d * gates.alpha;
        }
      }
      dalpha = BlockSum(dalpha, sums);
      __syncthreads();
      dbeta = BlockSum(dbeta, sums);
      if (j != 0) continue;
      const float dstep = -gates.rate * dalpha * gates.alpha + (s.delta ? 0.f : dbeta);
      da[gate_at] = FromFloat<Act>(dstep * gates.step_slope);
      if (db != nullptr) db[gate_at] = FromFloat<Act>(dbeta * gates.beta * (1.f - gates.beta));
    }
  }
}

// Sums of the heads that share a key head.
template <typename Act>
__global__ void __launch_bounds__(kThreads)
    SumHeadsKernel(const float* by_head, int64_t elements, int group, int64_t keys, Act* sums) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= elements) return;
  const int64_t row = at / keys, i = at % keys;
  float sum = 0;
  for (int g = 0; g < group; ++g) sum += by_head[(row * group + g) * keys + i];
  sums[at] = FromFloat<Act>(sum);
}

unsigned Blocks(int64_t elements) {
  return static_cast<unsigned>(CeilDiv(elements, int64_t{kThreads}));
}
unsigned ColumnThreads(const RecurrenceShape& shape) {
  return static_cast<unsigned>((shape.value_dim + 31) / 32 * 32);
}
int64_t StateFloats(const RecurrenceShape& shape) {
  const int64_t segments = (shape.seq_len + kSegment - 1) / kSegment;
  return shape.batch * shape.num_heads * (segments + kSegment) * shape.state();
}
int64_t KeyFloats(const RecurrenceShape& shape) {
  return shape.batch * shape.seq_len * shape.num_heads * shape.key_dim;
}

}  // namespace

void CausalConvForward(Backend* backend, int64_t seq_len, const Tensor& x, const Tensor& weight,
                       const Tensor* bias, Tensor* y) {
  CudaBackend* cuda = CudaBackend::From(backend);
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    ConvForwardKernel<Act><<<Blocks(x.num_elements()), kThreads, 0, cuda->stream()>>>(
        Data<Act>(x), weight.f32(), bias == nullptr ? nullptr : bias->f32(), x.num_elements(),
        weight.dim(0), weight.dim(1), seq_len, Data<Act>(y));
  });
  cuda->NoteLaunch();
}

void CausalConvBackward(Backend* backend, int64_t seq_len, const Tensor& dy, const Tensor& weight,
                        bool accumulate, Tensor* dx) {
  CudaBackend* cuda = CudaBackend::From(backend);
  DispatchAct(dy.dtype(), [&](auto act) {
    using Act = decltype(act);
    ConvBackwardKernel<Act><<<Blocks(dy.num_elements()), kThreads, 0, cuda->stream()>>>(
        Data<Act>(dy), weight.f32(), dy.num_elements(), weight.dim(0), weight.dim(1), seq_len,
        accumulate, Data<Act>(dx));
  });
  cuda->NoteLaunch();
}

void RecurrenceForward(Backend* backend, const RecurrenceShape& shape, const Tensor& q,
                       const Tensor& k, const Tensor& v, const Tensor& a, const Tensor* b,
                       Tensor* out) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int bytes = static_cast<int>((shape.state() + 2 * shape.key_dim) * sizeof(float));
  DispatchAct(v.dtype(), [&](auto act) {
    using Act = decltype(act);
    cuda->Note(cudaFuncSetAttribute(&RecurrenceForwardKernel<Act>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    RecurrenceForwardKernel<Act><<<static_cast<unsigned>(shape.batch * shape.num_heads),
                                   ColumnThreads(shape), bytes, cuda->stream()>>>(
        LayoutOf(shape), Data<Act>(q), Data<Act>(k), Data<Act>(v), Data<Act>(a),
        b == nullptr ? nullptr : Data<Act>(*b),
        shape.states == nullptr ? nullptr : shape.states->f32(), Data<Act>(out));
  });
  cuda->NoteLaunch();
}

size_t RecurrenceBackwardScratchBytes(const Backend& backend, const RecurrenceShape& shape) {
  return static_cast<size_t>(StateFloats(shape) + 2 * KeyFloats(shape)) * sizeof(float);
}

void RecurrenceBackward(Backend* backend, const RecurrenceShape& shape, const Tensor& dout,
                        const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& a,
                        const Tensor* b, Tensor* scratch, Tensor* dq, Tensor* dk, Tensor* dv,
                        Tensor* da, Tensor* db) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int bytes = static_cast<int>((2 * shape.state() + 2 * shape.key_dim + 3 * shape.value_dim) *
                                     sizeof(float));
  float* states = reinterpret_cast<float*>(scratch->u8());
  float *dq_heads = states + StateFloats(shape), *dk_heads = dq_heads + KeyFloats(shape);
  DispatchAct(v.dtype(), [&](auto act) {
    using Act = decltype(act);
    cuda->Note(cudaFuncSetAttribute(&RecurrenceBackwardKernel<Act>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    RecurrenceBackwardKernel<Act><<<static_cast<unsigned>(shape.batch * shape.num_heads),
                                    ColumnThreads(shape), bytes, cuda->stream()>>>(
        LayoutOf(shape), Data<Act>(dout), Data<Act>(q), Data<Act>(k), Data<Act>(v), Data<Act>(a),
        b == nullptr ? nullptr : Data<Act>(*b), states, dq_heads, dk_heads, Data<Act>(dv),
        Data<Act>(da), db == nullptr ? nullptr : Data<Act>(db));
    cuda->NoteLaunch();
    const int group = shape.num_heads / shape.num_key_heads;
    for (const auto& [by_head, sums] : {std::pair<float*, Tensor*>{dq_heads, dq}, {dk_heads, dk}}) {
      SumHeadsKernel<Act><<<Blocks(sums->num_elements()), kThreads, 0, cuda->stream()>>>(
          by_head, sums->num_elements(), group, shape.key_dim, Data<Act>(sums));
      cuda->NoteLaunch();
    }
  });
}

}  // namespace uniquanf::ops::cuda
