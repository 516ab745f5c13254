// Causal attention through BLAS: panels of scores for a block of query positions and all the query
// heads that share a key/value head, so that a product has enough rows to be worth packing for.
// Scores beyond the block's causal and window bounds are never computed. The backward pass computes
// the probabilities again from the log-sum-exp (Dao et al., "FlashAttention", 2022, without its
// tiling over keys: a panel of rows fits a CPU's cache).
#include <cmath>
#include <cstring>
#include <limits>

#include "worker/backend/vector_math.h"
#include "worker/ops/op_cpu.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::ops::cpu {
namespace {

using FloatLanes = float __attribute__((vector_size(64)));
constexpr int64_t kLanes = 16;

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

inline __attribute__((always_inline)) FloatLanes LoadLanes(const float* x) {
  FloatLanes lanes;
  std::memcpy(&lanes, x, sizeof(lanes));
  return lanes;
}

// A row of a panel holds scores of keys [first, first + span); the query sees columns [low, high).
struct RowBounds {
  int64_t low, high;
};

// Turns scores into exp(score − max) on [low, high) and zero elsewhere on [0, width), width a
// multiple of kLanes; sets the maximum and the sum.
UQ_VECTOR_CLONES void ExponentiateRow(float* row, int64_t low, int64_t high, int64_t width,
                                      float* maximum, float* sum) {
  const int64_t begin = low / kLanes * kLanes, end = RoundUp(high, kLanes);
  for (int64_t i = 0; i < begin; ++i) row[i] = 0;
  for (int64_t i = begin; i < low; ++i) row[i] = -std::numeric_limits<float>::infinity();
  for (int64_t i = high; i < end; ++i) row[i] = -std::numeric_limits<float>::infinity();
  for (int64_t i = end; i < width; ++i) row[i] = 0;
  FloatLanes best = LoadLanes(row + begin);
  for (int64_t i = begin + kLanes; i < end; i += kLanes) {
    const FloatLanes lanes = LoadLanes(row + i);
    best = lanes > best ? lanes : best;
  }
  float top = best[0];
  for (int lane = 1; lane < kLanes; ++lane) top = best[lane] > top ? best[lane] : top;
  for (int64_t i = begin; i < end; ++i) row[i] = PortableExp(row[i] - top);
  FloatLanes total = {};
  for (int64_t i = begin; i < end; i += kLanes) total += LoadLanes(row + i);
  float scalar = 0;
  for (int lane = 0; lane < kLanes; ++lane) scalar += total[lane];
  *maximum = top;
  *sum = scalar;
}

// scores → probabilities exp(score − lse), and dp → dscores = p·(dp − delta)·scale; zero outside.
UQ_VECTOR_CLONES void GradientRow(float* scores, float* dp, int64_t low, int64_t high,
                                  int64_t width, float lse, float delta, float scale) {
  for (int64_t i = 0; i < low; ++i) scores[i] = dp[i] = 0;
  for (int64_t i = low; i < high; ++i) {
    const float p = PortableExp(scores[i] - lse);
    scores[i] = p;
    dp[i] = p * (dp[i] - delta) * scale;
  }
  for (int64_t i = high; i < width; ++i) scores[i] = dp[i] = 0;
}

UQ_VECTOR_CLONES float Dot(const float* a, const float* b, int64_t n) {
  double total = 0;
  int64_t i = 0;
  FloatLanes sum = {};
  for (; i + kLanes <= n; i += kLanes) sum += LoadLanes(a + i) * LoadLanes(b + i);
  for (int lane = 0; lane < kLanes; ++lane) total += sum[lane];
  for (; i < n; ++i) total += a[i] * b[i];
  return static_cast<float>(total);
}

UQ_VECTOR_CLONES void ScaleInto(const float* x, float factor, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * factor;
}

UQ_VECTOR_CLONES void AddInto(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] += x[i];
}

// How the work is cut; a function of the shape alone.
struct Plan {
  explicit Plan(const AttentionShape& shape) : shape(shape) {
    group = shape.num_heads / shape.num_kv_heads;
    block = std::clamp<int64_t>(192 / group, 16, 64);
    num_blocks = (shape.seq_len + block - 1) / block;
    // Backward: gradients of keys and values are summed over query blocks inside a segment, and
    // over segments afterwards; more segments keep more threads busy and take more memory.
    const int64_t wanted = std::max<int64_t>(256, (shape.seq_len + 7) / 8);
    blocks_per_segment = (wanted + block - 1) / block;
    num_segments = (num_blocks + blocks_per_segment - 1) / blocks_per_segment;
  }
  int64_t rows() const { return group * block; }
  int64_t widest() const {
    const int64_t span =
        shape.window > 0 ? std::min(shape.seq_len, shape.window + block) : shape.seq_len;
    return RoundUp(span, kLanes);
  }
  int64_t kv_width() const { return static_cast<int64_t>(shape.num_kv_heads) * shape.head_dim; }
  int64_t q_width() const { return static_cast<int64_t>(shape.num_heads) * shape.head_dim; }

  AttentionShape shape;
  int64_t group;  // query heads that share a key/value head
  int64_t block;  // query positions in a block
  int64_t num_blocks, blocks_per_segment, num_segments;
};

// One block of queries of one key/value head of one sequence.
struct Block {
  Block(const Plan& plan, int64_t sequence, int64_t kv_head, int64_t index)
      : plan(plan), sequence(sequence), kv_head(kv_head) {
    const AttentionShape& shape = plan.shape;
    query = index * plan.block;
    num_queries = std::min(plan.block, shape.seq_len - query);
    first_key = shape.window > 0 ? std::max<int64_t>(0, query - shape.window + 1) : 0;
    span = query + num_queries - first_key;
    width = RoundUp(span, kLanes);
  }
  int64_t num_rows() const { return plan.group * num_queries; }
  RowBounds bounds(int64_t i) const {
    const int64_t position = query + i;
    const int64_t window = plan.shape.window;
    const int64_t low = window > 0 ? std::max<int64_t>(0, position - window + 1) : 0;
    return {low - first_key, position + 1 - first_key};
  }
  // Index of query position i of head h of the group in [T, Hq·D] and in [batch, Hq, L].
  int64_t q_offset(int64_t h, int64_t i) const {
    return (sequence * plan.shape.seq_len + query + i) * plan.q_width() +
           (kv_head * plan.group + h) * plan.shape.head_dim;
  }
  int64_t lse_offset(int64_t h, int64_t i) const {
    return (sequence * plan.shape.num_heads + kv_head * plan.group + h) * plan.shape.seq_len +
           query + i;
  }
  int64_t kv_offset() const {
    return (sequence * plan.shape.seq_len + first_key) * plan.kv_width() +
           kv_head * plan.shape.head_dim;
  }
  // Rows (h, i) of a [T, Hq·D] tensor gathered into a dense [num_rows, D].
  void Pack(const float* source, float* packed) const {
    const int64_t d = plan.shape.head_dim;
    for (int64_t h = 0; h < plan.group; ++h) {
      for (int64_t i = 0; i < num_queries; ++i) {
        std::memcpy(packed + (h * num_queries + i) * d, source + q_offset(h, i), d * sizeof(float));
      }
    }
  }
  // panel[num_rows, span] = alpha · packed[num_rows, D] · keysᵀ, keys a [T, Hkv·D] tensor.
  GemmArgs TimesKeys(float alpha, const float* packed, const float* keys, float* panel) const {
    GemmArgs args;
    args.transpose_b = true;
    args.m = num_rows();
    args.n = span;
    args.k = plan.shape.head_dim;
    args.alpha = alpha;
    args.a = packed;
    args.lda = plan.shape.head_dim;
    args.b = keys + kv_offset();
    args.ldb = plan.kv_width();
    args.c = panel;
    args.ldc = width;
    return args;
  }
  // packed[num_rows, D] = panel[num_rows, span] · keys.
  GemmArgs PanelTimes(const float* panel, const float* keys, float* packed) const {
    GemmArgs args;
    args.m = num_rows();
    args.n = plan.shape.head_dim;
    args.k = span;
    args.a = panel;
    args.lda = width;
    args.b = keys + kv_offset();
    args.ldb = plan.kv_width();
    args.c = packed;
    args.ldc = plan.shape.head_dim;
    return args;
  }
  // target[span, D] += panelᵀ · packed; target's rows are `stride` apart.
  GemmArgs PanelTransposedTimes(const float* panel, const float* packed, float* target,
                                int64_t stride) const {
    GemmArgs args;
    args.transpose_a = true;
    args.m = span;
    args.n = plan.shape.head_dim;
    args.k = num_rows();
    args.a = panel;
    args.lda = width;
    args.b = packed;
    args.ldb = plan.shape.head_dim;
    args.beta = 1.0f;
    args.c = target;
    args.ldc = stride;
    return args;
  }

  const Plan& plan;
  int64_t sequence, kv_head;
  int64_t query, num_queries;      // query positions [query, query + num_queries)
  int64_t first_key, span, width;  // keys [first_key, first_key + span); panel row length
};

}  // namespace

void AttentionForward(Backend* backend, const AttentionShape& shape, const Tensor& q,
                      const Tensor& k, const Tensor& v, Tensor* out, Tensor* lse) {
  CpuBackend* cpu = CpuBackend::From(backend);
  const Plan plan(shape);
  const int64_t per_sequence = shape.num_kv_heads * plan.num_blocks;
  cpu->pool().ParallelFor(shape.batch * per_sequence, [&](int64_t chunk) {
    // Later blocks have more keys: they go first, so that threads finish together.
    const int64_t index = plan.num_blocks - 1 - chunk % per_sequence / shape.num_kv_heads;
    const Block block(plan, chunk / per_sequence, chunk % shape.num_kv_heads, index);
    const int64_t d = shape.head_dim;
    float* packed = ThreadScratch(plan.rows() * (d + plan.widest() + 1));
    float* panel = packed + plan.rows() * d;
    float* inverse_sums = panel + plan.rows() * plan.widest();
    block.Pack(q.f32(), packed);
    Sgemm(cpu, block.TimesKeys(shape.scale, packed, k.f32(), panel));
    for (int64_t h = 0; h < plan.group; ++h) {
      for (int64_t i = 0; i < block.num_queries; ++i) {
        const int64_t row = h * block.num_queries + i;
        const RowBounds bounds = block.bounds(i);
        float maximum, sum;
        ExponentiateRow(panel + row * block.width, bounds.low, bounds.high, block.width, &maximum,
                        &sum);
        inverse_sums[row] = 1.0f / sum;
        lse->f32()[block.lse_offset(h, i)] = maximum + PortableLog(sum);
      }
    }
    Sgemm(cpu, block.PanelTimes(panel, v.f32(), packed));
    for (int64_t h = 0; h < plan.group; ++h) {
      for (int64_t i = 0; i < block.num_queries; ++i) {
        const int64_t row = h * block.num_queries + i;
        ScaleInto(packed + row * d, inverse_sums[row], d, out->f32() + block.q_offset(h, i));
      }
    }
  });
}

size_t AttentionBackwardScratchBytes(const Backend& backend, const AttentionShape& shape) {
  const Plan plan(shape);
  if (plan.num_segments == 1) return 0;
  return static_cast<size_t>(2 * plan.num_segments * shape.batch * shape.seq_len *
                             plan.kv_width()) *
         sizeof(float);
}

void AttentionBackward(Backend* backend, const AttentionShape& shape, const Tensor& dout,
                       const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                       const Tensor& lse, Tensor* scratch, Tensor* dq, Tensor* dk, Tensor* dv) {
  CpuBackend* cpu = CpuBackend::From(backend);
  const Plan plan(shape);
  const int64_t d = shape.head_dim, kv_width = plan.kv_width();
  const int64_t kv_elements = shape.batch * shape.seq_len * kv_width;
  // Where segment s sums dk and dv: the result itself when there is one segment.
  auto key_sum = [&](int64_t s) {
    return plan.num_segments == 1 ? dk->f32()
                                  : reinterpret_cast<float*>(scratch->u8()) + 2 * s * kv_elements;
  };
  auto value_sum = [&](int64_t s) {
    return plan.num_segments == 1 ? dv->f32() : key_sum(s) + kv_elements;
  };

  const int64_t per_sequence = shape.num_kv_heads * plan.num_segments;
  cpu->pool().ParallelFor(shape.batch * per_sequence, [&](int64_t chunk) {
    const int64_t sequence = chunk / per_sequence;
    const int64_t kv_head = chunk % shape.num_kv_heads;
    const int64_t segment = plan.num_segments - 1 - chunk % per_sequence / shape.num_kv_heads;
    float* packed_q = ThreadScratch(plan.rows() * (3 * d + 2 * plan.widest()));
    float* packed_dout = packed_q + plan.rows() * d;
    float* packed_dq = packed_dout + plan.rows() * d;
    float* panel = packed_dq + plan.rows() * d;
    float* dpanel = panel + plan.rows() * plan.widest();
    float* dk_sum = key_sum(segment);
    float* dv_sum = value_sum(segment);
    for (int64_t j = 0; j < shape.seq_len; ++j) {
      const int64_t offset = (sequence * shape.seq_len + j) * kv_width + kv_head * d;
      std::memset(dk_sum + offset, 0, d * sizeof(float));
      std::memset(dv_sum + offset, 0, d * sizeof(float));
    }
    const int64_t end = std::min(plan.num_blocks, (segment + 1) * plan.blocks_per_segment);
    for (int64_t index = segment * plan.blocks_per_segment; index < end; ++index) {
      const Block block(plan, sequence, kv_head, index);
      block.Pack(q.f32(), packed_q);
      block.Pack(dout.f32(), packed_dout);
      Sgemm(cpu, block.TimesKeys(shape.scale, packed_q, k.f32(), panel));
      Sgemm(cpu, block.TimesKeys(1.0f, packed_dout, v.f32(), dpanel));
      for (int64_t h = 0; h < plan.group; ++h) {
        for (int64_t i = 0; i < block.num_queries; ++i) {
          const int64_t row = h * block.num_queries + i;
          const RowBounds bounds = block.bounds(i);
          const float delta = Dot(packed_dout + row * d, out.f32() + block.q_offset(h, i), d);
          GradientRow(panel + row * block.width, dpanel + row * block.width, bounds.low,
                      bounds.high, block.width, lse.f32()[block.lse_offset(h, i)], delta,
                      shape.scale);
        }
      }
      Sgemm(cpu,
            block.PanelTransposedTimes(panel, packed_dout, dv_sum + block.kv_offset(), kv_width));
      Sgemm(cpu,
            block.PanelTransposedTimes(dpanel, packed_q, dk_sum + block.kv_offset(), kv_width));
      Sgemm(cpu, block.PanelTimes(dpanel, k.f32(), packed_dq));
      for (int64_t h = 0; h < plan.group; ++h) {
        for (int64_t i = 0; i < block.num_queries; ++i) {
          std::memcpy(dq->f32() + block.q_offset(h, i), packed_dq + (h * block.num_queries + i) * d,
                      d * sizeof(float));
        }
      }
    }
  });
  if (plan.num_segments == 1) return;
  ParallelChunks(cpu, kv_elements, kElementChunk, [&](int64_t begin, int64_t end) {
    const size_t bytes = (end - begin) * sizeof(float);
    std::memcpy(dk->f32() + begin, key_sum(0) + begin, bytes);
    std::memcpy(dv->f32() + begin, value_sum(0) + begin, bytes);
    for (int64_t s = 1; s < plan.num_segments; ++s) {
      AddInto(key_sum(s) + begin, end - begin, dk->f32() + begin);
      AddInto(value_sum(s) + begin, end - begin, dv->f32() + begin);
    }
  });
}

}  // namespace uniquanf::ops::cpu
