// Checks and dispatch of attention.
#include "common/base/check.h"
#include "worker/ops/op.h"
#include "worker/ops/op_check.h"

namespace uniquanf::ops {
namespace {

void CheckHeads(const Backend* backend, const AttentionShape& shape, const Tensor& q,
                const Tensor& k, const Tensor& v) {
  UQ_CHECK(shape.batch > 0 && shape.seq_len > 0 && shape.head_dim > 0 && shape.window >= 0);
  UQ_CHECK(shape.num_kv_heads > 0 && shape.num_heads % shape.num_kv_heads == 0);
  const int64_t num_tokens = shape.batch * shape.seq_len;
  UQ_CHECK(q.num_elements() == num_tokens * shape.num_heads * shape.head_dim);
  UQ_CHECK(k.num_elements() == num_tokens * shape.num_kv_heads * shape.head_dim);
  UQ_CHECK(v.num_elements() == num_tokens * shape.num_kv_heads * shape.values());
  UQ_CHECK(shape.softcap >= 0);
  for (const Tensor* heads : {shape.sinks, shape.slopes}) {
    if (heads != nullptr) CheckFloats(backend, *heads, shape.num_heads);
  }
}

void CheckAttention(const Backend* backend, const AttentionShape& shape, const Tensor& q,
                    const Tensor& k, const Tensor& v, const Tensor& lse) {
  CheckHeads(backend, shape, q, k, v);
  CheckFloats(backend, lse, shape.batch * shape.seq_len * shape.num_heads);
}

}  // namespace

void AttentionForward(Backend* backend, const AttentionShape& shape, const Tensor& q,
                      const Tensor& k, const Tensor& v, Tensor* out, Tensor* lse) {
  CheckActivations(backend, {&q, &k, &v, out});
  CheckAttention(backend, shape, q, k, v, *lse);
  UQ_CHECK(out->num_elements() / shape.values() == q.num_elements() / shape.head_dim);
  UQ_DISPATCH(backend, AttentionForward(backend, shape, q, k, v, out, lse));
}

void AttentionStep(Backend* backend, const AttentionShape& shape, const Tensor& q, const Tensor& k,
                   const Tensor& v, const Tensor& position, Tensor* key_cache, Tensor* value_cache,
                   Tensor* out) {
  CheckActivations(backend, {&q, &k, &v, key_cache, value_cache, out});
  CheckActivation(backend, position, DType::kInt32);
  AttentionShape step = shape;
  step.seq_len = 1;
  CheckHeads(backend, step, q, k, v);
  UQ_CHECK(position.num_elements() == 1 && key_cache->shape().size() == 3);
  const int64_t capacity = key_cache->dim(1);
  UQ_CHECK(capacity > 0);
  UQ_CHECK(key_cache->num_elements() == k.num_elements() * capacity);
  UQ_CHECK(value_cache->num_elements() == v.num_elements() * capacity);
  UQ_CHECK(out->num_elements() / shape.values() == q.num_elements() / shape.head_dim);
  UQ_DISPATCH(backend,
              AttentionStep(backend, step, q, k, v, position, key_cache, value_cache, out));
}

size_t AttentionBackwardScratchBytes(const Backend& backend, const AttentionShape& shape) {
  return UQ_DISPATCH(&backend, AttentionBackwardScratchBytes(backend, shape));
}

void AttentionBackward(Backend* backend, const AttentionShape& shape, const Tensor& dout,
                       const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                       const Tensor& lse, Tensor* scratch, Tensor* dq, Tensor* dk, Tensor* dv) {
  CheckActivations(backend, {&dout, &q, &k, &v, &out, dq, dk, dv});
  CheckAttention(backend, shape, q, k, v, lse);
  UQ_CHECK(out.num_elements() / shape.values() == q.num_elements() / shape.head_dim);
  CheckSameSize({&q, dq});
  CheckSameSize({&out, &dout});
  CheckSameSize({&k, dk});
  CheckSameSize({&v, dv});
  const size_t needed = AttentionBackwardScratchBytes(*backend, shape);
  UQ_CHECK(needed == 0 || (scratch != nullptr && scratch->size_bytes() >= needed));
  UQ_DISPATCH(backend,
              AttentionBackward(backend, shape, dout, q, k, v, out, lse, scratch, dq, dk, dv));
}

}  // namespace uniquanf::ops
