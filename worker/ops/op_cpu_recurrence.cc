// Convolutions and linear recurrences: a loop over the tokens of each sequence and head. The
// backward pass keeps the state before each segment of tokens, computes a segment's states again
// and goes through it in reverse.
#include <cmath>
#include <cstring>

#include "worker/backend/vector_math.h"
#include "worker/ops/op_cpu.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::ops::cpu {
namespace {

constexpr int64_t kSegment = 32;  // tokens

float Softplus(float x) { return x > 20.0f ? x : PortableLog(1.0f + PortableExp(x)); }

// What the numbers of a token and head say.
struct Gates {
  float alpha, beta;
  float rate;        // exp(a_log)
  float step_slope;  // d step / d a
};
Gates GatesOf(const RecurrenceShape& shape, int head, float a, float b) {
  Gates gates;
  gates.rate = PortableExp(shape.a_log->f32()[head]);
  const float x = a + shape.bias->f32()[head], raw = Softplus(x);
  const float step = shape.delta ? raw : std::min(std::max(raw, shape.low), shape.high);
  gates.step_slope = step == raw ? PortableSigmoid(x) : 0.0f;
  gates.alpha = PortableExp(-gates.rate * step);
  gates.beta = shape.delta ? PortableSigmoid(b) : step;
  return gates;
}

// One head of one sequence.
class Head {
 public:
  Head(const RecurrenceShape& shape, int64_t sequence, int head, const Tensor& q, const Tensor& k,
       const Tensor& v, const Tensor& a, const Tensor* b)
      : shape_(shape),
        head_(head),
        keys_(shape.key_dim),
        values_(shape.value_dim),
        first_(sequence * shape.seq_len),
        q_(q.f32()),
        k_(k.f32()),
        v_(v.f32()),
        a_(a.f32()),
        b_(b == nullptr ? nullptr : b->f32()),
        skip_(shape.skip == nullptr ? 0.0f : shape.skip->f32()[head]) {}

  int64_t key_at(int64_t t) const {
    const int group = shape_.num_heads / shape_.num_key_heads;
    return ((first_ + t) * shape_.num_key_heads + head_ / group) * keys_;
  }
  int64_t value_at(int64_t t) const { return ((first_ + t) * shape_.num_heads + head_) * values_; }
  int64_t gate_at(int64_t t) const { return (first_ + t) * shape_.num_heads + head_; }
  Gates gates(int64_t t) const {
    return GatesOf(shape_, head_, a_[gate_at(t)], b_ == nullptr ? 0.0f : b_[gate_at(t)]);
  }
  const float* q(int64_t t) const { return q_ + key_at(t); }
  const float* k(int64_t t) const { return k_ + key_at(t); }
  const float* v(int64_t t) const { return v_ + value_at(t); }
  float skip() const { return skip_; }

  // S ← α S, and what is added: u [V]. `read` [V] gets Sᵀk under the delta rule, else zeros.
  void Decay(int64_t t, const Gates& gates, float* state, float* read, float* u) const {
    for (int64_t i = 0; i < keys_ * values_; ++i) state[i] *= gates.alpha;
    std::memset(read, 0, values_ * sizeof(float));
    if (shape_.delta) {
      for (int64_t i = 0; i < keys_; ++i) {
        const float key = k(t)[i];
        for (int64_t j = 0; j < values_; ++j) read[j] += key * state[i * values_ + j];
      }
    }
    for (int64_t j = 0; j < values_; ++j) u[j] = gates.beta * (v(t)[j] - read[j]);
  }
  // S ← S + k uᵀ.
  void Write(int64_t t, const float* u, float* state) const {
    for (int64_t i = 0; i < keys_; ++i) {
      const float key = k(t)[i];
      for (int64_t j = 0; j < values_; ++j) state[i * values_ + j] += key * u[j];
    }
  }

 private:
  const RecurrenceShape& shape_;
  const int head_;
  const int64_t keys_, values_, first_;
  const float *q_, *k_, *v_, *a_, *b_;
  const float skip_;
};

}  // namespace

void CausalConvForward(Backend* backend, int64_t seq_len, const Tensor& x, const Tensor& weight,
                       const Tensor* bias, Tensor* y) {
  const int64_t channels = weight.dim(0), taps = weight.dim(1);
  ParallelChunks(CpuBackend::From(backend), x.num_elements() / channels, RowChunk(channels * taps),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end; ++t) {
                     float* out = y->f32() + t * channels;
                     for (int64_t c = 0; c < channels; ++c)
                       out[c] = bias == nullptr ? 0 : bias->f32()[c];
                     for (int64_t j = std::max<int64_t>(0, taps - 1 - t % seq_len); j < taps; ++j) {
                       const float* in = x.f32() + (t + 1 - taps + j) * channels;
                       for (int64_t c = 0; c < channels; ++c)
                         out[c] += weight.f32()[c * taps + j] * in[c];
                     }
                   }
                 });
}

void CausalConvStep(Backend* backend, const Tensor& x, const Tensor& weight, const Tensor* bias,
                    Tensor* state, Tensor* y) {
  const int64_t channels = weight.dim(0), taps = weight.dim(1), kept = taps - 1;
  ParallelChunks(CpuBackend::From(backend), x.num_elements() / channels, RowChunk(channels * taps),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t s = begin; s < end; ++s) {
                     const float* in = x.f32() + s * channels;
                     float* out = y->f32() + s * channels;
                     float* before = kept == 0 ? nullptr : state->f32() + s * kept * channels;
                     for (int64_t c = 0; c < channels; ++c)
                       out[c] = bias == nullptr ? 0 : bias->f32()[c];
                     for (int64_t j = 0; j < taps; ++j) {
                       const float* row = j < kept ? before + j * channels : in;
                       for (int64_t c = 0; c < channels; ++c)
                         out[c] += weight.f32()[c * taps + j] * row[c];
                     }
                     if (kept == 0) continue;
                     std::memmove(before, before + channels, (kept - 1) * channels * sizeof(float));
                     std::memcpy(before + (kept - 1) * channels, in, channels * sizeof(float));
                   }
                 });
}

void CausalConvBackward(Backend* backend, int64_t seq_len, const Tensor& dy, const Tensor& weight,
                        bool accumulate, Tensor* dx) {
  const int64_t channels = weight.dim(0), taps = weight.dim(1);
  ParallelChunks(CpuBackend::From(backend), dy.num_elements() / channels, RowChunk(channels * taps),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end; ++t) {
                     float* out = dx->f32() + t * channels;
                     if (!accumulate) std::memset(out, 0, channels * sizeof(float));
                     const int64_t left = seq_len - 1 - t % seq_len;  // tokens after this one
                     for (int64_t j = std::max<int64_t>(0, taps - 1 - left); j < taps; ++j) {
                       const float* in = dy.f32() + (t + taps - 1 - j) * channels;
                       for (int64_t c = 0; c < channels; ++c)
                         out[c] += weight.f32()[c * taps + j] * in[c];
                     }
                   }
                 });
}

void RecurrenceForward(Backend* backend, const RecurrenceShape& shape, const Tensor& q,
                       const Tensor& k, const Tensor& v, const Tensor& a, const Tensor* b,
                       Tensor* out) {
  CpuBackend* cpu = CpuBackend::From(backend);
  const int64_t keys = shape.key_dim, values = shape.value_dim;
  cpu->pool().ParallelFor(shape.batch * shape.num_heads, [&](int64_t chunk) {
    const Head head(shape, chunk / shape.num_heads, static_cast<int>(chunk % shape.num_heads), q, k,
                    v, a, b);
    float* read = ThreadScratch(shape.state() + 2 * values);
    float *u = read + values, *state = u + values;
    if (shape.states != nullptr) {
      state = shape.states->f32() + chunk * shape.state();
    } else {
      std::memset(state, 0, shape.state() * sizeof(float));
    }
    for (int64_t t = 0; t < shape.seq_len; ++t) {
      head.Decay(t, head.gates(t), state, read, u);
      head.Write(t, u, state);
      float* y = out->f32() + head.value_at(t);
      for (int64_t j = 0; j < values; ++j) y[j] = head.skip() * head.v(t)[j];
      for (int64_t i = 0; i < keys; ++i) {
        const float query = head.q(t)[i];
        for (int64_t j = 0; j < values; ++j) y[j] += query * state[i * values + j];
      }
    }
  });
}

size_t RecurrenceBackwardScratchBytes(const Backend& backend, const RecurrenceShape& shape) {
  return 0;  // a thread's own scratch does
}

void RecurrenceBackward(Backend* backend, const RecurrenceShape& shape, const Tensor& dout,
                        const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& a,
                        const Tensor* b, Tensor* scratch, Tensor* dq, Tensor* dk, Tensor* dv,
                        Tensor* da, Tensor* db) {
  CpuBackend* cpu = CpuBackend::From(backend);
  const int64_t keys = shape.key_dim, values = shape.value_dim, size = shape.state();
  const int64_t num_segments = (shape.seq_len + kSegment - 1) / kSegment;
  const int group = shape.num_heads / shape.num_key_heads;
  cpu->pool().ParallelFor(shape.batch * shape.num_key_heads, [&](int64_t chunk) {
    const int64_t sequence = chunk / shape.num_key_heads;
    const int key_head = static_cast<int>(chunk % shape.num_key_heads);
    float* starts = ThreadScratch((num_segments + kSegment + 2) * size + 3 * values);
    float* states = starts + num_segments * size;  // before each token of a segment
    float *state = states + kSegment * size, *dstate = state + size;
    float *read = dstate + size, *u = read + values, *du = u + values;
    for (int h = key_head * group; h < (key_head + 1) * group; ++h) {
      const Head head(shape, sequence, h, q, k, v, a, b);
      std::memset(state, 0, size * sizeof(float));
      for (int64_t t = 0; t < shape.seq_len; ++t) {
        if (t % kSegment == 0) {
          std::memcpy(starts + t / kSegment * size, state, size * sizeof(float));
        }
        head.Decay(t, head.gates(t), state, read, u);
        head.Write(t, u, state);
      }
      std::memset(dstate, 0, size * sizeof(float));
      for (int64_t segment = num_segments - 1; segment >= 0; --segment) {
        const int64_t begin = segment * kSegment;
        const int64_t end = std::min(shape.seq_len, begin + kSegment);
        std::memcpy(state, starts + segment * size, size * sizeof(float));
        for (int64_t t = begin; t < end; ++t) {
          std::memcpy(states + (t - begin) * size, state, size * sizeof(float));
          head.Decay(t, head.gates(t), state, read, u);
          head.Write(t, u, state);
        }
        for (int64_t t = end - 1; t >= begin; --t) {
          const Gates gates = head.gates(t);
          const float* before = states + (t - begin) * size;
          std::memcpy(state, before, size * sizeof(float));
          head.Decay(t, gates, state, read, u);  // the state without the token's own part
          const float* dy = dout.f32() + head.value_at(t);
          float* dquery = dq->f32() + head.key_at(t);
          float* dkey = dk->f32() + head.key_at(t);
          float* dvalue = dv->f32() + head.value_at(t);
          if (h == key_head * group) {
            std::memset(dquery, 0, keys * sizeof(float));
            std::memset(dkey, 0, keys * sizeof(float));
          }
          std::memset(du, 0, values * sizeof(float));
          for (int64_t i = 0; i < keys; ++i) {
            const float query = head.q(t)[i], key = head.k(t)[i];
            float* row = dstate + i * values;
            const float* old = state + i * values;
            float dq_sum = 0, dk_sum = 0;
            for (int64_t j = 0; j < values; ++j) {
              row[j] += query * dy[j];
              du[j] += key * row[j];
              dq_sum += (old[j] + key * u[j]) * dy[j];
              dk_sum += row[j] * u[j];
            }
            dquery[i] += dq_sum;
            dkey[i] += dk_sum;
          }
          float dbeta = 0, dalpha = 0;
          for (int64_t j = 0; j < values; ++j) {
            dbeta += du[j] * (head.v(t)[j] - read[j]);
            du[j] *= gates.beta;
            dvalue[j] = du[j] + head.skip() * dy[j];
          }
          for (int64_t i = 0; i < keys; ++i) {
            const float key = head.k(t)[i];
            float* row = dstate + i * values;
            const float *old = state + i * values, *first = before + i * values;
            float dk_sum = 0;
            for (int64_t j = 0; j < values; ++j) {
              if (shape.delta) {
                dk_sum -= old[j] * du[j];
                row[j] -= key * du[j];
              }
              dalpha += row[j] * first[j];
              row[j] *= gates.alpha;
            }
            dkey[i] += dk_sum;
          }
          float dstep = -gates.rate * dalpha * gates.alpha;
          if (shape.delta) {
            db->f32()[head.gate_at(t)] = dbeta * gates.beta * (1.0f - gates.beta);
          } else {
            dstep += dbeta;
          }
          da->f32()[head.gate_at(t)] = dstep * gates.step_slope;
        }
      }
    }
  });
}

}  // namespace uniquanf::ops::cpu
