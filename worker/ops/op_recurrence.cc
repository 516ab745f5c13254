// Checks and dispatch of convolutions and recurrences.
#include "common/base/check.h"
#include "worker/ops/op.h"
#include "worker/ops/op_check.h"

namespace uniquanf::ops {
namespace {

void CheckConv(const Backend* backend, int64_t seq_len, const Tensor& x, const Tensor& weight,
               const Tensor* bias, const Tensor& y) {
  CheckActivations(backend, {&x, &y});
  CheckSameSize({&x, &y});
  const int64_t channels = LastDim(x);
  UQ_CHECK(weight.shape().size() == 2 && weight.dim(0) == channels && weight.dim(1) >= 1);
  CheckFloats(backend, weight, weight.num_elements());
  if (bias != nullptr) CheckFloats(backend, *bias, channels);
  UQ_CHECK(seq_len > 0 && x.num_elements() / channels % seq_len == 0);
}

void CheckRecurrence(const Backend* backend, const RecurrenceShape& shape, const Tensor& q,
                     const Tensor& k, const Tensor& v, const Tensor& a, const Tensor* b) {
  CheckActivations(backend, {&q, &k, &v, &a});
  UQ_CHECK(shape.batch > 0 && shape.seq_len > 0 && shape.key_dim > 0 && shape.value_dim > 0);
  UQ_CHECK(shape.num_key_heads > 0 && shape.num_heads % shape.num_key_heads == 0);
  const int64_t tokens = shape.batch * shape.seq_len;
  UQ_CHECK(q.num_elements() == tokens * shape.num_key_heads * shape.key_dim);
  UQ_CHECK(v.num_elements() == tokens * shape.num_heads * shape.value_dim);
  UQ_CHECK(a.num_elements() == tokens * shape.num_heads);
  CheckSameSize({&q, &k});
  UQ_CHECK((b != nullptr) == shape.delta);
  if (b != nullptr) {
    CheckActivations(backend, {&q, b});
    CheckSameSize({&a, b});
  }
  CheckFloats(backend, *shape.a_log, shape.num_heads);
  CheckFloats(backend, *shape.bias, shape.num_heads);
  if (shape.skip != nullptr) CheckFloats(backend, *shape.skip, shape.num_heads);
}

}  // namespace

void CausalConvForward(Backend* backend, int64_t seq_len, const Tensor& x, const Tensor& weight,
                       const Tensor* bias, Tensor* y) {
  CheckConv(backend, seq_len, x, weight, bias, *y);
  UQ_DISPATCH(backend, CausalConvForward(backend, seq_len, x, weight, bias, y));
}

void CausalConvStep(Backend* backend, const Tensor& x, const Tensor& weight, const Tensor* bias,
                    Tensor* state, Tensor* y) {
  CheckConv(backend, /*seq_len=*/1, x, weight, bias, *y);
  const int64_t kept = weight.dim(1) - 1;
  if (kept > 0) CheckActivations(backend, {&x, state});
  UQ_CHECK(state->num_elements() == x.num_elements() * kept);
  UQ_DISPATCH(backend, CausalConvStep(backend, x, weight, bias, state, y));
}

void CausalConvBackward(Backend* backend, int64_t seq_len, const Tensor& dy, const Tensor& weight,
                        bool accumulate, Tensor* dx) {
  CheckConv(backend, seq_len, dy, weight, nullptr, *dx);
  UQ_CHECK(dx->data() != dy.data());
  UQ_DISPATCH(backend, CausalConvBackward(backend, seq_len, dy, weight, accumulate, dx));
}

void RecurrenceForward(Backend* backend, const RecurrenceShape& shape, const Tensor& q,
                       const Tensor& k, const Tensor& v, const Tensor& a, const Tensor* b,
                       Tensor* out) {
  CheckRecurrence(backend, shape, q, k, v, a, b);
  CheckActivations(backend, {&v, out});
  CheckSameSize({&v, out});
  if (shape.states != nullptr) {
    CheckFloats(backend, *shape.states, shape.batch * shape.num_heads * shape.state());
  }
  UQ_DISPATCH(backend, RecurrenceForward(backend, shape, q, k, v, a, b, out));
}

size_t RecurrenceBackwardScratchBytes(const Backend& backend, const RecurrenceShape& shape) {
  return UQ_DISPATCH(&backend, RecurrenceBackwardScratchBytes(backend, shape));
}

void RecurrenceBackward(Backend* backend, const RecurrenceShape& shape, const Tensor& dout,
                        const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& a,
                        const Tensor* b, Tensor* scratch, Tensor* dq, Tensor* dk, Tensor* dv,
                        Tensor* da, Tensor* db) {
  CheckRecurrence(backend, shape, q, k, v, a, b);
  CheckActivations(backend, {&dout, dq, dk, dv, da});
  CheckSameSize({&v, &dout, dv});
  CheckSameSize({&q, dq, dk});
  CheckSameSize({&a, da});
  UQ_CHECK((db != nullptr) == shape.delta);
  if (db != nullptr) CheckSameSize({&a, db});
  UQ_CHECK(scratch->size_bytes() >= RecurrenceBackwardScratchBytes(*backend, shape));
  UQ_DISPATCH(backend,
              RecurrenceBackward(backend, shape, dout, q, k, v, a, b, scratch, dq, dk, dv, da, db));
}

}  // namespace uniquanf::ops
