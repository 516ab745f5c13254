// The language model's ends: embedding, cross entropy, casts.
#include <cmath>
#include <cstring>

#include "common/base/check.h"
#include "common/safetensors/float_conversion.h"
#include "worker/backend/vector_math.h"
#include "worker/ops/op_cpu.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::ops::cpu {
namespace {

using FloatLanes = float __attribute__((vector_size(64)));
constexpr int64_t kLanes = 16;

// log Σ exp(x_i). Terms are summed 16 lanes wide in fp32 over 1024 elements, then in fp64.
UQ_VECTOR_CLONES double LogSumExp(const float* x, int64_t n) {
  FloatLanes best = FloatLanes{} + x[0];
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    FloatLanes lanes;
    std::memcpy(&lanes, x + i, sizeof(lanes));
    best = lanes > best ? lanes : best;
  }
  float maximum = best[0];
  for (int lane = 1; lane < kLanes; ++lane) maximum = std::max(maximum, best[lane]);
  for (; i < n; ++i) maximum = std::max(maximum, x[i]);
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += 1024) {
    const int64_t end = std::min(n, begin + 1024);
    float terms[1024];
    for (int64_t j = begin; j < end; ++j) terms[j - begin] = PortableExp(x[j] - maximum);
    FloatLanes sum = {};
    int64_t j = 0;
    for (; j + kLanes <= end - begin; j += kLanes) {
      FloatLanes lanes;
      std::memcpy(&lanes, terms + j, sizeof(lanes));
      sum += lanes;
    }
    for (int lane = 0; lane < kLanes; ++lane) total += sum[lane];
    for (; j < end - begin; ++j) total += terms[j];
  }
  return maximum + std::log(total);
}

}  // namespace

void Embedding(Backend* backend, const Tensor& ids, const Tensor& table, Tensor* out) {
  const int64_t width = table.dim(1);
  ParallelChunks(CpuBackend::From(backend), ids.num_elements(), RowChunk(width),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end; ++t) {
                     const int64_t id = ids.i32()[t];
                     UQ_CHECK(id >= 0 && id < table.dim(0));
                     if (table.dtype() == DType::kBfloat16) {
                       const auto* row = static_cast<const uint16_t*>(table.data()) + id * width;
                       for (int64_t i = 0; i < width; ++i) {
                         out->f32()[t * width + i] = Bfloat16ToFloat(row[i]);
                       }
                       continue;
                     }
                     std::memcpy(out->f32() + t * width, table.f32() + id * width,
                                 width * sizeof(float));
                   }
                 });
}

void CrossEntropy(Backend* backend, const Tensor& logits, const Tensor& targets, Tensor* nll) {
  const int64_t vocab_size = logits.dim(logits.shape().size() - 1);
  ParallelChunks(CpuBackend::From(backend), targets.num_elements(), RowChunk(vocab_size),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end; ++t) {
                     const int64_t target = targets.i32()[t];
                     UQ_CHECK(target < vocab_size);
                     const float* row = logits.f32() + t * vocab_size;
                     nll->f32()[t] =
                         target < 0 ? 0.0f
                                    : static_cast<float>(LogSumExp(row, vocab_size) - row[target]);
                   }
                 });
}

void Cast(Backend* backend, const Tensor& src, Tensor* dst) {
  const bool from_bf16 = src.dtype() == DType::kBfloat16,
             to_bf16 = dst->dtype() == DType::kBfloat16;
  ParallelChunks(CpuBackend::From(backend), src.num_elements(), kElementChunk,
                 [&](int64_t begin, int64_t end) {
                   if (from_bf16 == to_bf16) {
                     const size_t bytes = DTypeBytes(src.dtype());
                     std::memcpy(static_cast<char*>(dst->data()) + begin * bytes,
                                 static_cast<const char*>(src.data()) + begin * bytes,
                                 (end - begin) * bytes);
                   } else if (to_bf16) {
                     uint16_t* out = static_cast<uint16_t*>(dst->data());
                     for (int64_t i = begin; i < end; ++i) out[i] = FloatToBfloat16(src.f32()[i]);
                   } else {
                     const uint16_t* in = static_cast<const uint16_t*>(src.data());
                     for (int64_t i = begin; i < end; ++i) dst->f32()[i] = Bfloat16ToFloat(in[i]);
                   }
                 });
}

}  // namespace uniquanf::ops::cpu
