#include "common/base/check.h"
#include "common/base/random.h"
#include "worker/backend/vector_math.h"
#include "worker/ops/op_cpu.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::ops::cpu {
namespace {

UQ_VECTOR_CLONES void SwiGlu(const float* gate, const float* up, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] * PortableSigmoid(gate[i]) * up[i];
}

// silu'(g) = σ(g)·(1 + g·(1 − σ(g))).
UQ_VECTOR_CLONES void SwiGluGradient(const float* dy, const float* gate, const float* up, int64_t n,
                                     float* dgate, float* dup) {
  for (int64_t i = 0; i < n; ++i) {
    const float sigmoid = PortableSigmoid(gate[i]);
    const float g = dy[i];
    const float slope = sigmoid * (1.0f + gate[i] * (1.0f - sigmoid));
    dup[i] = g * (gate[i] * sigmoid);
    dgate[i] = g * up[i] * slope;
  }
}

UQ_VECTOR_CLONES void Sum(const float* a, const float* b, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
}

// One token: every head's pairs (i, i + half) turned by the angles of its position.
UQ_VECTOR_CLONES void Rotate(const float* cos, const float* sin, float sign, int num_heads,
                             int64_t half, float* x) {
  for (int head = 0; head < num_heads; ++head) {
    float* low = x + 2 * half * head;
    float* high = low + half;
#pragma GCC ivdep
    for (int64_t i = 0; i < half; ++i) {
      const float a = low[i], b = high[i];
      const float s = sin[i] * sign;
      low[i] = a * cos[i] - b * s;
      high[i] = b * cos[i] + a * s;
    }
  }
}

// out[i] = word i of the stream < threshold ? x_q[i] : x_fp[i]; `counter` is that of out[0].
UQ_VECTOR_CLONES void Mix(const float* x_q, const float* x_fp, uint64_t seed, uint64_t stream,
                          uint64_t counter, uint64_t threshold, int64_t num_quads, float* out) {
  for (int64_t quad = 0; quad < num_quads; ++quad) {
    const Philox4 draw = PhiloxAt(seed, stream, counter + quad);
    for (int word = 0; word < 4; ++word) {
      const int64_t i = 4 * quad + word;
      out[i] = draw.v[word] < threshold ? x_q[i] : x_fp[i];
    }
  }
}

}  // namespace

void SwiGluForward(Backend* backend, const Tensor& gate, const Tensor& up, Tensor* y) {
  ParallelChunks(CpuBackend::From(backend), y->num_elements(), kElementChunk,
                 [&](int64_t begin, int64_t end) {
                   SwiGlu(gate.f32() + begin, up.f32() + begin, end - begin, y->f32() + begin);
                 });
}

void SwiGluBackward(Backend* backend, const Tensor& dy, const Tensor& gate, const Tensor& up,
                    Tensor* dgate, Tensor* dup) {
  ParallelChunks(CpuBackend::From(backend), dy.num_elements(), kElementChunk,
                 [&](int64_t begin, int64_t end) {
                   SwiGluGradient(dy.f32() + begin, gate.f32() + begin, up.f32() + begin,
                                  end - begin, dgate->f32() + begin, dup->f32() + begin);
                 });
}

void Add(Backend* backend, const Tensor& a, const Tensor& b, Tensor* out) {
  ParallelChunks(CpuBackend::From(backend), out->num_elements(), kElementChunk,
                 [&](int64_t begin, int64_t end) {
                   Sum(a.f32() + begin, b.f32() + begin, end - begin, out->f32() + begin);
                 });
}

void Rope(Backend* backend, const Tensor& cos, const Tensor& sin, int num_heads, bool inverse,
          Tensor* x) {
  const int64_t seq_len = cos.dim(0), half = cos.dim(1);
  const int64_t width = 2 * half * num_heads;
  const float sign = inverse ? -1.0f : 1.0f;
  ParallelChunks(CpuBackend::From(backend), x->num_elements() / width, RowChunk(width),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end; ++t) {
                     const int64_t position = t % seq_len;
                     Rotate(cos.f32() + position * half, sin.f32() + position * half, sign,
                            num_heads, half, x->f32() + t * width);
                   }
                 });
}

void RopePart(Backend* backend, const Tensor& cos, const Tensor& sin, const RopeShape& shape,
              bool inverse, Tensor* x) {
  const int64_t seq_len = cos.dim(0), half = cos.dim(1);
  const int64_t width = int64_t{shape.num_heads} * shape.head_size;
  const int64_t step = shape.interleaved ? 2 : 1, other = shape.interleaved ? 1 : half;
  const float sign = inverse ? -1.0f : 1.0f;
  ParallelChunks(CpuBackend::From(backend), x->num_elements() / width, RowChunk(width),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end; ++t) {
                     const float* c = cos.f32() + t % seq_len * half;
                     const float* s = sin.f32() + t % seq_len * half;
                     for (int head = 0; head < shape.num_heads; ++head) {
                       float* part = x->f32() + t * width + head * shape.head_size + shape.offset;
                       for (int64_t i = 0; i < half; ++i) {
                         const float a = part[i * step], b = part[i * step + other];
                         part[i * step] = a * c[i] - b * s[i] * sign;
                         part[i * step + other] = b * c[i] + a * s[i] * sign;
                       }
                     }
                   }
                 });
}

void MixInputs(Backend* backend, const StepParams* params, uint64_t seed, double prob,
               const Tensor* x_q, const Tensor& x_fp, int batch, Tensor* out) {
  const int64_t sequence_elements = x_fp.dim(1) * x_fp.dim(2);
  const uint64_t threshold = x_q == nullptr ? 0 : BernoulliThreshold(prob);
  for (int b = 0; b < batch; ++b) {
    const int64_t sequence = params->sequence_index[b];
    UQ_CHECK(sequence >= 0 && sequence < x_fp.dim(0));
    const float* original = x_fp.f32() + sequence * sequence_elements;
    const float* quantized = x_q == nullptr ? original : x_q->f32() + sequence * sequence_elements;
    const int64_t first = b * sequence_elements;
    float* target = out->f32() + first;
    ParallelChunks(CpuBackend::From(backend), sequence_elements, kElementChunk,
                   [&](int64_t begin, int64_t end) {
                     // Elements are counted inside `out`; quads of a draw may straddle a sequence
                     // or a chunk.
                     auto mix_one = [&](int64_t i) {
                       const uint64_t element = first + i;
                       const uint32_t u = PhiloxAt(seed, params->draw, element / 4).v[element % 4];
                       target[i] = u < threshold ? quantized[i] : original[i];
                     };
                     int64_t i = begin;
                     while (i < end && (first + i) % 4 != 0) mix_one(i++);
                     const int64_t num_quads = (end - i) / 4;
                     Mix(quantized + i, original + i, seed, params->draw, (first + i) / 4,
                         threshold, num_quads, target + i);
                     for (i += 4 * num_quads; i < end; ++i) mix_one(i);
                   });
  }
}

}  // namespace uniquanf::ops::cpu
