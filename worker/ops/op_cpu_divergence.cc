// Distillation's loss at the head: sums of exponentials, and the Kullback-Leibler divergence with
// its gradient, over a chunk of the vocabulary.
#include <cmath>

#include "worker/backend/vector_math.h"
#include "worker/ops/op_cpu.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::ops::cpu {
namespace {

constexpr int64_t kPiece = 1024;
constexpr int kLanes = 8;

// tanh by the exponential, so that it vectorizes.
inline float Tanh(float x) { return 1.0f - 2.0f / (1.0f + PortableExp(2.0f * x)); }

// z of n logits, and dz/dlogit where `slope` is not null.
inline void Capped(const LogitShape& shape, const float* logits, int64_t n, float* z,
                   float* slope) {
  if (shape.softcap == 0) {
    for (int64_t i = 0; i < n; ++i) z[i] = shape.scale * logits[i];
    for (int64_t i = 0; slope != nullptr && i < n; ++i) slope[i] = shape.scale;
    return;
  }
  const float inside = shape.scale / shape.softcap;
  for (int64_t i = 0; i < n; ++i) z[i] = Tanh(inside * logits[i]);
  for (int64_t i = 0; slope != nullptr && i < n; ++i) slope[i] = shape.scale * (1 - z[i] * z[i]);
  for (int64_t i = 0; i < n; ++i) z[i] *= shape.softcap;
}

// Adds in double lanes, whose number is not the processor's.
inline double Sum(const float* x, int64_t n) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane];
  }
  for (; i < n; ++i) lanes[i % kLanes] += x[i];
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
         ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

inline float Max(const float* x, int64_t n, float largest) {
  for (int64_t i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

UQ_VECTOR_CLONES void RowSums(const LogitShape& shape, const float* logits, int64_t n, bool first,
                              float* sums) {
  float largest = first ? -INFINITY : sums[0];
  double total = first ? 0.0 : sums[1];
  float z[kPiece];
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t count = n - begin < kPiece ? n - begin : kPiece;
    Capped(shape, logits + begin, count, z, nullptr);
    const float now = Max(z, count, largest);
    if (now > largest) total *= PortableExp(largest - now);
    largest = now;
    for (int64_t i = 0; i < count; ++i) z[i] = PortableExp(z[i] - largest);
    total += Sum(z, count);
  }
  sums[0] = largest;
  sums[1] = static_cast<float>(total);
}

// The row's part of the divergence.
UQ_VECTOR_CLONES double RowDivergence(const LogitShape& shape, const float* target,
                                      const float* target_sums, const float* logits,
                                      const float* sums, float factor, int64_t n, float* dlogits) {
  const float target_norm = target_sums[0] + std::log(target_sums[1]);
  const float norm = sums[0] + std::log(sums[1]);
  double total = 0;
  float t[kPiece], z[kPiece], slope[kPiece], terms[kPiece];
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t count = n - begin < kPiece ? n - begin : kPiece;
    Capped(shape, target + begin, count, t, nullptr);
    Capped(shape, logits + begin, count, z, slope);
    float* out = dlogits + begin;
    for (int64_t i = 0; i < count; ++i) {
      const float log_p = t[i] - target_norm, log_q = z[i] - norm;
      const float p = PortableExp(log_p);
      terms[i] = p * (log_p - log_q);
      out[i] = factor * (PortableExp(log_q) - p) * slope[i];
    }
    total += Sum(terms, count);
  }
  return total;
}

}  // namespace

void LogitSums(Backend* backend, const LogitShape& shape, const Tensor& logits, bool first,
               Tensor* sums) {
  const int64_t width = logits.dim(1);
  ParallelChunks(CpuBackend::From(backend), logits.dim(0), RowChunk(width),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end; ++t) {
                     RowSums(shape, logits.f32() + t * width, width, first, sums->f32() + 2 * t);
                   }
                 });
}

void KlDivergence(Backend* backend, const LogitShape& shape, const Tensor& target,
                  const Tensor& target_sums, const Tensor& logits, const Tensor& sums, float factor,
                  bool first, Tensor* dlogits, Tensor* kl) {
  const int64_t width = logits.dim(1);
  ParallelChunks(
      CpuBackend::From(backend), logits.dim(0), RowChunk(width), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          const double part = RowDivergence(
              shape, target.f32() + t * width, target_sums.f32() + 2 * t, logits.f32() + t * width,
              sums.f32() + 2 * t, factor, width, dlogits->f32() + t * width);
          kl->f32()[t] = static_cast<float>(first ? part : kl->f32()[t] + part);
        }
      });
}

}  // namespace uniquanf::ops::cpu
