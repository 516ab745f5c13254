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
#include "worker/ops/op_cpu_attention.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::ops::cpu {
namespace {

using FloatLanes = float __attribute__((vector_size(64)));
constexpr int64_t kLanes = kScoreLanes;

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

inline __attribute__((always_inline)) FloatLanes LoadLanes(const float* x) {
  FloatLanes lanes;
  std::memcpy(&lanes, x, sizeof(lanes));
  return lanes;
}

}  // namespace

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

UQ_VECTOR_CLONES void CapRow(float* row, int64_t low, int64_t high, float cap, float slope,
                             int64_t last, float* slopes_of_cap) {
  if (cap > 0) {
    const float inverse = 1.0f / cap;
    for (int64_t i = low; i < high; ++i) {
      const float tanh = 2.0f * PortableSigmoid(2.0f * row[i] * inverse) - 1.0f;
      row[i] = cap * tanh;
      if (slopes_of_cap != nullptr) slopes_of_cap[i] = 1.0f - tanh * tanh;
    }
  }
  if (slope != 0) {
    for (int64_t i = low; i < high; ++i) row[i] += slope * static_cast<float>(i - last);
  }
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

float AddSink(float sink, float* maximum, float* sum) {
  const float top = std::max(*maximum, sink), shrink = PortableExp(*maximum - top);
  *sum = *sum * shrink + PortableExp(sink - top);
  *maximum = top;
  return shrink;
}

namespace {

// A row of a panel holds scores of keys [first, first + span); the query sees columns [low, high).
struct RowBounds {
  int64_t low, high;
};

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

UQ_VECTOR_CLONES void MultiplyInto(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] *= x[i];
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
  // Widths of rows of heads of `d` elements: keys' and queries', or values'.
  int64_t kv_width(int64_t d) const { return shape.num_kv_heads * d; }
  int64_t q_width(int64_t d) const { return shape.num_heads * d; }

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
  int64_t head(int64_t h) const { return kv_head * plan.group + h; }
  // Index of query position i of head h of the group in [T, Hq·d] and in [batch, Hq, L].
  int64_t q_offset(int64_t h, int64_t i, int64_t d) const {
    return (sequence * plan.shape.seq_len + query + i) * plan.q_width(d) + head(h) * d;
  }
  int64_t lse_offset(int64_t h, int64_t i) const {
    return (sequence * plan.shape.num_heads + kv_head * plan.group + h) * plan.shape.seq_len +
           query + i;
  }
  int64_t kv_offset(int64_t d) const {
    return (sequence * plan.shape.seq_len + first_key) * plan.kv_width(d) + kv_head * d;
  }
  // Rows (h, i) of a [T, Hq·d] tensor gathered into a dense [num_rows, d].
  void Pack(const float* source, int64_t d, float* packed) const {
    for (int64_t h = 0; h < plan.group; ++h) {
      for (int64_t i = 0; i < num_queries; ++i) {
        std::memcpy(packed + (h * num_queries + i) * d, source + q_offset(h, i, d),
                    d * sizeof(float));
      }
    }
  }
  // panel[num_rows, span] = alpha · packed[num_rows, d] · keysᵀ, keys a [T, Hkv·d] tensor.
  GemmArgs TimesKeys(float alpha, const float* packed, const float* keys, int64_t d,
                     float* panel) const {
    GemmArgs args;
    args.transpose_b = true;
    args.m = num_rows();
    args.n = span;
    args.k = d;
    args.alpha = alpha;
    args.a = packed;
    args.lda = d;
    args.b = keys + kv_offset(d);
    args.ldb = plan.kv_width(d);
    args.c = panel;
    args.ldc = width;
    return args;
  }
  // packed[num_rows, d] = panel[num_rows, span] · keys.
  GemmArgs PanelTimes(const float* panel, const float* keys, int64_t d, float* packed) const {
    GemmArgs args;
    args.m = num_rows();
    args.n = d;
    args.k = span;
    args.a = panel;
    args.lda = width;
    args.b = keys + kv_offset(d);
    args.ldb = plan.kv_width(d);
    args.c = packed;
    args.ldc = d;
    return args;
  }
  // target[span, d] += panelᵀ · packed; target is the sums' [T, Hkv·d] tensor.
  GemmArgs PanelTransposedTimes(const float* panel, const float* packed, int64_t d,
                                float* target) const {
    GemmArgs args;
    args.transpose_a = true;
    args.m = span;
    args.n = d;
    args.k = num_rows();
    args.a = panel;
    args.lda = width;
    args.b = packed;
    args.ldb = d;
    args.beta = 1.0f;
    args.c = target + kv_offset(d);
    args.ldc = plan.kv_width(d);
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
    const int64_t d = shape.head_dim, dv = shape.values();
    float* packed = ThreadScratch(plan.rows() * (std::max(d, dv) + plan.widest() + 1));
    float* panel = packed + plan.rows() * std::max(d, dv);
    float* inverse_sums = panel + plan.rows() * plan.widest();
    block.Pack(q.f32(), d, packed);
    Sgemm(cpu, block.TimesKeys(shape.scale, packed, k.f32(), d, panel));
    for (int64_t h = 0; h < plan.group; ++h) {
      for (int64_t i = 0; i < block.num_queries; ++i) {
        const int64_t row = h * block.num_queries + i;
        const RowBounds bounds = block.bounds(i);
        float maximum, sum;
        if (TransformsScores(shape)) {
          CapRow(panel + row * block.width, bounds.low, bounds.high, shape.softcap,
                 SlopeOf(shape, block.head(h)), bounds.high - 1, nullptr);
        }
        ExponentiateRow(panel + row * block.width, bounds.low, bounds.high, block.width, &maximum,
                        &sum);
        inverse_sums[row] = 1.0f / sum;
        if (shape.sinks != nullptr) {
          const float shrink = AddSink(shape.sinks->f32()[block.head(h)], &maximum, &sum);
          inverse_sums[row] = shrink / sum;
        }
        lse->f32()[block.lse_offset(h, i)] = maximum + PortableLog(sum);
      }
    }
    Sgemm(cpu, block.PanelTimes(panel, v.f32(), dv, packed));
    for (int64_t h = 0; h < plan.group; ++h) {
      for (int64_t i = 0; i < block.num_queries; ++i) {
        const int64_t row = h * block.num_queries + i;
        ScaleInto(packed + row * dv, inverse_sums[row], dv, out->f32() + block.q_offset(h, i, dv));
      }
    }
  });
}

size_t AttentionBackwardScratchBytes(const Backend& backend, const AttentionShape& shape) {
  const Plan plan(shape);
  if (plan.num_segments == 1) return 0;
  return static_cast<size_t>(plan.num_segments * shape.batch * shape.seq_len *
                             (plan.kv_width(shape.head_dim) + plan.kv_width(shape.values()))) *
         sizeof(float);
}

void AttentionBackward(Backend* backend, const AttentionShape& shape, const Tensor& dout,
                       const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                       const Tensor& lse, Tensor* scratch, Tensor* dq, Tensor* dk, Tensor* dv) {
  CpuBackend* cpu = CpuBackend::From(backend);
  const Plan plan(shape);
  const int64_t d = shape.head_dim, dvalue = shape.values();
  const int64_t num_tokens = shape.batch * shape.seq_len;
  const int64_t k_elements = num_tokens * plan.kv_width(d);
  const int64_t v_elements = num_tokens * plan.kv_width(dvalue);
  // Where segment s sums dk and dv: the result itself when there is one segment.
  auto key_sum = [&](int64_t s) {
    return plan.num_segments == 1
               ? dk->f32()
               : reinterpret_cast<float*>(scratch->u8()) + s * (k_elements + v_elements);
  };
  auto value_sum = [&](int64_t s) {
    return plan.num_segments == 1 ? dv->f32() : key_sum(s) + k_elements;
  };

  const int64_t per_sequence = shape.num_kv_heads * plan.num_segments;
  cpu->pool().ParallelFor(shape.batch * per_sequence, [&](int64_t chunk) {
    const int64_t sequence = chunk / per_sequence;
    const int64_t kv_head = chunk % shape.num_kv_heads;
    const int64_t segment = plan.num_segments - 1 - chunk % per_sequence / shape.num_kv_heads;
    float* packed_q = ThreadScratch(plan.rows() * (2 * d + dvalue + 2 * plan.widest()) +
                                    (shape.softcap > 0 ? plan.widest() : 0));
    float* packed_dout = packed_q + plan.rows() * d;
    float* packed_dq = packed_dout + plan.rows() * dvalue;
    float* panel = packed_dq + plan.rows() * d;
    float* dpanel = panel + plan.rows() * plan.widest();
    float* cap_slopes = shape.softcap > 0 ? dpanel + plan.rows() * plan.widest() : nullptr;
    float* dk_sum = key_sum(segment);
    float* dv_sum = value_sum(segment);
    for (int64_t j = 0; j < shape.seq_len; ++j) {
      const int64_t row = (sequence * shape.seq_len + j) * shape.num_kv_heads + kv_head;
      std::memset(dk_sum + row * d, 0, d * sizeof(float));
      std::memset(dv_sum + row * dvalue, 0, dvalue * sizeof(float));
    }
    const int64_t end = std::min(plan.num_blocks, (segment + 1) * plan.blocks_per_segment);
    for (int64_t index = segment * plan.blocks_per_segment; index < end; ++index) {
      const Block block(plan, sequence, kv_head, index);
      block.Pack(q.f32(), d, packed_q);
      block.Pack(dout.f32(), dvalue, packed_dout);
      Sgemm(cpu, block.TimesKeys(shape.scale, packed_q, k.f32(), d, panel));
      Sgemm(cpu, block.TimesKeys(1.0f, packed_dout, v.f32(), dvalue, dpanel));
      for (int64_t h = 0; h < plan.group; ++h) {
        for (int64_t i = 0; i < block.num_queries; ++i) {
          const int64_t row = h * block.num_queries + i;
          const RowBounds bounds = block.bounds(i);
          const float delta =
              Dot(packed_dout + row * dvalue, out.f32() + block.q_offset(h, i, dvalue), dvalue);
          if (TransformsScores(shape)) {
            CapRow(panel + row * block.width, bounds.low, bounds.high, shape.softcap,
                   SlopeOf(shape, block.head(h)), bounds.high - 1, cap_slopes);
          }
          GradientRow(panel + row * block.width, dpanel + row * block.width, bounds.low,
                      bounds.high, block.width, lse.f32()[block.lse_offset(h, i)], delta,
                      shape.scale);
          if (cap_slopes != nullptr) {
            MultiplyInto(cap_slopes + bounds.low, bounds.high - bounds.low,
                         dpanel + row * block.width + bounds.low);
          }
        }
      }
      Sgemm(cpu, block.PanelTransposedTimes(panel, packed_dout, dvalue, dv_sum));
      Sgemm(cpu, block.PanelTransposedTimes(dpanel, packed_q, d, dk_sum));
      Sgemm(cpu, block.PanelTimes(dpanel, k.f32(), d, packed_dq));
      for (int64_t h = 0; h < plan.group; ++h) {
        for (int64_t i = 0; i < block.num_queries; ++i) {
          std::memcpy(dq->f32() + block.q_offset(h, i, d),
                      packed_dq + (h * block.num_queries + i) * d, d * sizeof(float));
        }
      }
    }
  });
  if (plan.num_segments == 1) return;
  const auto add_up = [&](int64_t elements, const auto& sum_of, float* total) {
    ParallelChunks(cpu, elements, kElementChunk, [&](int64_t begin, int64_t end) {
      std::memcpy(total + begin, sum_of(0) + begin, (end - begin) * sizeof(float));
      for (int64_t s = 1; s < plan.num_segments; ++s) {
        AddInto(sum_of(s) + begin, end - begin, total + begin);
      }
    });
  };
  add_up(k_elements, key_sum, dk->f32());
  add_up(v_elements, value_sum, dv->f32());
}

}  // namespace uniquanf::ops::cpu
