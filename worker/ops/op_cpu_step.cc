// Attention of one token a sequence over a cache: a row of scores for each query head.
#include <algorithm>
#include <cstring>

#include "worker/backend/vector_math.h"
#include "worker/ops/op_cpu.h"
#include "worker/ops/op_cpu_attention.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::ops::cpu {
namespace {

UQ_VECTOR_CLONES void AddScaledInto(const float* x, float factor, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] += x[i] * factor;
}

}  // namespace

void AttentionStep(Backend* backend, const AttentionShape& shape, const Tensor& q, const Tensor& k,
                   const Tensor& v, const Tensor& position, Tensor* key_cache, Tensor* value_cache,
                   Tensor* out) {
  CpuBackend* cpu = CpuBackend::From(backend);
  const int64_t d = shape.head_dim, dv = shape.values(), capacity = key_cache->dim(1);
  const int64_t last = position.i32()[0];
  const int64_t first = shape.window > 0 ? std::max<int64_t>(0, last - shape.window + 1) : 0;
  const int64_t count = last - first + 1;
  const int64_t width = (count + kScoreLanes - 1) / kScoreLanes * kScoreLanes;
  const int64_t heads = shape.num_kv_heads, group = shape.num_heads / heads;
  cpu->pool().ParallelFor(shape.batch * heads, [&](int64_t chunk) {
    const int64_t sequence = chunk / heads, head = chunk % heads;
    // Row j of this head.
    const auto row = [&](Tensor* cache, int64_t j, int64_t size) {
      return cache->f32() + ((sequence * capacity + j % capacity) * heads + head) * size;
    };
    std::memcpy(row(key_cache, last, d), k.f32() + chunk * d, d * sizeof(float));
    std::memcpy(row(value_cache, last, dv), v.f32() + chunk * dv, dv * sizeof(float));
    float* scores = ThreadScratch(group * width);
    const float* queries = q.f32() + chunk * group * d;
    float* outputs = out->f32() + chunk * group * dv;
    for (int64_t i = 0; i < count; ++i) {
      const float* key = row(key_cache, first + i, d);
      for (int64_t h = 0; h < group; ++h) {
        scores[h * width + i] = shape.scale * Dot(queries + h * d, key, d);
      }
    }
    for (int64_t h = 0; h < group; ++h) {
      const int64_t query_head = head * group + h;
      float* of_head = scores + h * width;
      if (TransformsScores(shape)) {
        CapRow(of_head, 0, count, shape.softcap, SlopeOf(shape, query_head), count - 1, nullptr);
      }
      float maximum = 0, sum = 0, factor = 1;
      ExponentiateRow(of_head, 0, count, width, &maximum, &sum);
      if (shape.sinks != nullptr) factor = AddSink(shape.sinks->f32()[query_head], &maximum, &sum);
      factor /= sum;
      for (int64_t i = 0; i < count; ++i) of_head[i] *= factor;
    }
    std::memset(outputs, 0, group * dv * sizeof(float));
    for (int64_t i = 0; i < count; ++i) {
      const float* value = row(value_cache, first + i, dv);
      for (int64_t h = 0; h < group; ++h) {
        AddScaledInto(value, scores[h * width + i], dv, outputs + h * dv);
      }
    }
  });
}

}  // namespace uniquanf::ops::cpu
