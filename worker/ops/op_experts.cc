// Checks and dispatch of the ops around experts.
#include "common/base/check.h"
#include "worker/ops/op.h"
#include "worker/ops/op_check.h"

namespace uniquanf::ops {

void RouteForward(Backend* backend, const RouterShape& shape, const Tensor& logits,
                  const Tensor* correction, Tensor* experts, Tensor* weights) {
  CheckActivations(backend, {&logits});
  const int64_t num_tokens = logits.num_elements() / shape.num_experts;
  UQ_CHECK(LastDim(logits) == shape.num_experts && shape.top_k >= 1);
  UQ_CHECK(shape.num_groups >= 1 && shape.num_experts % shape.num_groups == 0);
  UQ_CHECK(shape.top_groups >= 1 && shape.top_groups <= shape.num_groups);
  UQ_CHECK(shape.top_k <= shape.num_experts / shape.num_groups * shape.top_groups);
  for (const Tensor* numbers : {correction, shape.scales}) {
    if (numbers != nullptr) CheckFloats(backend, *numbers, shape.num_experts);
  }
  UQ_CHECK(!shape.sparse_mixer || (!shape.normalize && correction == nullptr));
  CheckActivation(backend, *experts, DType::kInt32);
  UQ_CHECK(experts->num_elements() == num_tokens * shape.top_k);
  CheckFloats(backend, *weights, num_tokens * shape.top_k);
  UQ_DISPATCH(backend, RouteForward(backend, shape, logits, correction, experts, weights));
}

void RouteBackward(Backend* backend, const RouterShape& shape, const Tensor& logits,
                   const Tensor& experts, const Tensor& dweights, Tensor* dlogits) {
  CheckActivations(backend, {&logits, dlogits});
  CheckSameSize({&logits, dlogits});
  const int64_t chosen = logits.num_elements() / shape.num_experts * shape.top_k;
  CheckActivation(backend, experts, DType::kInt32);
  UQ_CHECK(experts.num_elements() == chosen);
  CheckFloats(backend, dweights, chosen);
  UQ_DISPATCH(backend, RouteBackward(backend, shape, logits, experts, dweights, dlogits));
}

void GatherRows(Backend* backend, const Tensor& x, const Tensor& rows, Tensor* out) {
  CheckActivations(backend, {&x, out});
  CheckActivation(backend, rows, DType::kInt32);
  UQ_CHECK(LastDim(x) == LastDim(*out));
  UQ_CHECK(out->num_elements() == rows.num_elements() * LastDim(x));
  UQ_DISPATCH(backend, GatherRows(backend, x, rows, out));
}

void CombineRows(Backend* backend, const Tensor& rows, const Tensor& positions,
                 const Tensor* weights, bool accumulate, Tensor* y) {
  CheckActivations(backend, {&rows, y});
  CheckActivation(backend, positions, DType::kInt32);
  UQ_CHECK(LastDim(rows) == LastDim(*y));
  UQ_CHECK(positions.num_elements() % (y->num_elements() / LastDim(*y)) == 0);
  if (weights != nullptr) CheckFloats(backend, *weights, positions.num_elements());
  UQ_DISPATCH(backend, CombineRows(backend, rows, positions, weights, accumulate, y));
}

void CombineRowsBackward(Backend* backend, const Tensor& dy, const Tensor& rows,
                         const Tensor& positions, const Tensor& weights, Tensor* drows,
                         Tensor* dweights) {
  CheckActivations(backend, {&dy, &rows, drows});
  CheckSameSize({&rows, drows});
  CheckActivation(backend, positions, DType::kInt32);
  UQ_CHECK(LastDim(rows) == LastDim(dy));
  UQ_CHECK(positions.num_elements() % (dy.num_elements() / LastDim(dy)) == 0);
  CheckFloats(backend, weights, positions.num_elements());
  CheckFloats(backend, *dweights, positions.num_elements());
  UQ_DISPATCH(backend, CombineRowsBackward(backend, dy, rows, positions, weights, drows, dweights));
}

}  // namespace uniquanf::ops
