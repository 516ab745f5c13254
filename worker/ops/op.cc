#include "worker/ops/op.h"

#include <initializer_list>

#include "common/base/check.h"
#include "worker/ops/op_cpu.h"
#if defined(UNIQUANF_HAVE_CUDA)
#include "worker/ops/op_cuda.h"
#endif

namespace uniquanf::ops {
namespace {

int64_t LastDim(const Tensor& tensor) { return tensor.shape().empty() ? 1 : tensor.shape().back(); }

void CheckActivation(const Backend* backend, const Tensor& tensor, DType dtype) {
  UQ_CHECK(!tensor.empty());
  UQ_CHECK(tensor.backend() == backend);
  UQ_CHECK(tensor.dtype() == dtype);
}

// All tensors are on `backend` and of one activation type that it supports.
void CheckActivations(const Backend* backend, std::initializer_list<const Tensor*> tensors) {
  const DType dtype = (*tensors.begin())->dtype();
  UQ_CHECK(dtype == DType::kFloat32 ||
           (dtype == DType::kBfloat16 && backend->kind() == DeviceKind::kCuda));
  for (const Tensor* tensor : tensors) CheckActivation(backend, *tensor, dtype);
}

void CheckFloats(const Backend* backend, const Tensor& tensor, int64_t num_elements) {
  CheckActivation(backend, tensor, DType::kFloat32);
  UQ_CHECK(tensor.num_elements() == num_elements);
}

void CheckSameSize(std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* tensor : tensors) {
    UQ_CHECK(tensor->num_elements() == (*tensors.begin())->num_elements());
  }
}

// Rows of width weight.num_elements(), each inside the last dimension of x.
void CheckNorm(const Backend* backend, const Tensor& x, const Tensor& weight,
               const Tensor& inv_rms) {
  const int64_t width = weight.num_elements();
  UQ_CHECK(width > 0 && LastDim(x) % width == 0);
  CheckFloats(backend, weight, width);
  CheckFloats(backend, inv_rms, x.num_elements() / width);
}

void CheckAttention(const Backend* backend, const AttentionShape& shape, const Tensor& q,
                    const Tensor& k, const Tensor& v, const Tensor& lse) {
  UQ_CHECK(shape.batch > 0 && shape.seq_len > 0 && shape.head_dim > 0 && shape.window >= 0);
  UQ_CHECK(shape.num_kv_heads > 0 && shape.num_heads % shape.num_kv_heads == 0);
  const int64_t num_tokens = shape.batch * shape.seq_len;
  UQ_CHECK(q.num_elements() == num_tokens * shape.num_heads * shape.head_dim);
  UQ_CHECK(k.num_elements() == num_tokens * shape.num_kv_heads * shape.head_dim);
  UQ_CHECK(v.num_elements() == k.num_elements());
  CheckFloats(backend, lse, num_tokens * shape.num_heads);
}

}  // namespace

#if defined(UNIQUANF_HAVE_CUDA)
#define UQ_DISPATCH(backend, call) ((backend)->kind() == DeviceKind::kCuda ? cuda::call : cpu::call)
#else
#define UQ_DISPATCH(backend, call) cpu::call
#endif

void LinearForward(Backend* backend, const Tensor& x, const Tensor& w, const Tensor* bias,
                   Tensor* y) {
  CheckActivations(backend, {&x, &w, y});
  UQ_CHECK(w.shape().size() == 2 && LastDim(x) == w.dim(1) && LastDim(*y) == w.dim(0));
  UQ_CHECK(x.num_elements() / w.dim(1) == y->num_elements() / w.dim(0));
  if (bias != nullptr) CheckFloats(backend, *bias, w.dim(0));
  UQ_DISPATCH(backend, LinearForward(backend, x, w, bias, y));
}

void LinearBackwardInput(Backend* backend, const Tensor& dy, const Tensor& w, bool accumulate,
                         Tensor* dx) {
  CheckActivations(backend, {&dy, &w, dx});
  UQ_CHECK(w.shape().size() == 2 && LastDim(*dx) == w.dim(1) && LastDim(dy) == w.dim(0));
  UQ_CHECK(dx->num_elements() / w.dim(1) == dy.num_elements() / w.dim(0));
  UQ_DISPATCH(backend, LinearBackwardInput(backend, dy, w, accumulate, dx));
}

void LinearBackwardWeight(Backend* backend, const Tensor& dy, const Tensor& x, bool accumulate,
                          Tensor* dw) {
  CheckActivations(backend, {&dy, &x});
  CheckActivation(backend, *dw, dw->dtype() == DType::kFloat32 ? DType::kFloat32 : dy.dtype());
  UQ_CHECK(dw->shape().size() == 2 && LastDim(x) == dw->dim(1) && LastDim(dy) == dw->dim(0));
  UQ_CHECK(x.num_elements() / dw->dim(1) == dy.num_elements() / dw->dim(0));
  UQ_DISPATCH(backend, LinearBackwardWeight(backend, dy, x, accumulate, dw));
}

void RmsNormForward(Backend* backend, const Tensor& x, const Tensor& weight, float eps, Tensor* y,
                    Tensor* inv_rms) {
  CheckActivations(backend, {&x, y});
  CheckSameSize({&x, y});
  CheckNorm(backend, x, weight, *inv_rms);
  UQ_DISPATCH(backend, RmsNormForward(backend, x, weight, eps, y, inv_rms));
}

void RmsNormBackward(Backend* backend, const Tensor& dy, const Tensor& x, const Tensor& weight,
                     const Tensor& inv_rms, bool accumulate, Tensor* dx) {
  CheckActivations(backend, {&dy, &x, dx});
  CheckSameSize({&dy, &x, dx});
  CheckNorm(backend, x, weight, inv_rms);
  UQ_CHECK(dx->data() != dy.data());
  UQ_DISPATCH(backend, RmsNormBackward(backend, dy, x, weight, inv_rms, accumulate, dx));
}

void AddRmsNormForward(Backend* backend, const Tensor& a, const Tensor& b, const Tensor& weight,
                       float eps, Tensor* sum, Tensor* y, Tensor* inv_rms) {
  CheckActivations(backend, {&a, &b, sum, y});
  CheckSameSize({&a, &b, sum, y});
  CheckNorm(backend, a, weight, *inv_rms);
  UQ_DISPATCH(backend, AddRmsNormForward(backend, a, b, weight, eps, sum, y, inv_rms));
}

void Rope(Backend* backend, const Tensor& cos, const Tensor& sin, int num_heads, bool inverse,
          Tensor* x) {
  CheckActivations(backend, {x});
  UQ_CHECK(cos.shape().size() == 2 && cos.shape() == sin.shape());
  CheckFloats(backend, cos, cos.num_elements());
  CheckFloats(backend, sin, cos.num_elements());
  const int64_t width = 2 * cos.dim(1) * num_heads;
  UQ_CHECK(LastDim(*x) == width && x->num_elements() / width % cos.dim(0) == 0);
  UQ_DISPATCH(backend, Rope(backend, cos, sin, num_heads, inverse, x));
}

void AttentionForward(Backend* backend, const AttentionShape& shape, const Tensor& q,
                      const Tensor& k, const Tensor& v, Tensor* out, Tensor* lse) {
  CheckActivations(backend, {&q, &k, &v, out});
  CheckAttention(backend, shape, q, k, v, *lse);
  CheckSameSize({&q, out});
  UQ_DISPATCH(backend, AttentionForward(backend, shape, q, k, v, out, lse));
}

size_t AttentionBackwardScratchBytes(const Backend& backend, const AttentionShape& shape) {
  return UQ_DISPATCH(&backend, AttentionBackwardScratchBytes(backend, shape));
}

void AttentionBackward(Backend* backend, const AttentionShape& shape, const Tensor& dout,
                       const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                       const Tensor& lse, Tensor* scratch, Tensor* dq, Tensor* dk, Tensor* dv) {
  CheckActivations(backend, {&dout, &q, &k, &v, &out, dq, dk, dv});
  CheckAttention(backend, shape, q, k, v, lse);
  CheckSameSize({&q, &out, &dout, dq});
  CheckSameSize({&k, dk, dv});
  const size_t needed = AttentionBackwardScratchBytes(*backend, shape);
  UQ_CHECK(needed == 0 || (scratch != nullptr && scratch->size_bytes() >= needed));
  UQ_DISPATCH(backend,
              AttentionBackward(backend, shape, dout, q, k, v, out, lse, scratch, dq, dk, dv));
}

void SwiGluForward(Backend* backend, const Tensor& gate, const Tensor& up, Tensor* y) {
  CheckActivations(backend, {&gate, &up, y});
  CheckSameSize({&gate, &up, y});
  UQ_DISPATCH(backend, SwiGluForward(backend, gate, up, y));
}

void SwiGluBackward(Backend* backend, const Tensor& dy, const Tensor& gate, const Tensor& up,
                    Tensor* dgate, Tensor* dup) {
  CheckActivations(backend, {&dy, &gate, &up, dgate, dup});
  CheckSameSize({&dy, &gate, &up, dgate, dup});
  UQ_DISPATCH(backend, SwiGluBackward(backend, dy, gate, up, dgate, dup));
}

void Add(Backend* backend, const Tensor& a, const Tensor& b, Tensor* out) {
  CheckActivations(backend, {&a, &b, out});
  CheckSameSize({&a, &b, out});
  UQ_DISPATCH(backend, Add(backend, a, b, out));
}

void MixInputs(Backend* backend, const StepParams* params, uint64_t seed, double prob,
               const Tensor* x_q, const Tensor& x_fp, int batch, Tensor* out) {
  CheckActivations(backend, {&x_fp, out});
  UQ_CHECK(x_fp.shape().size() == 3 && batch > 0 && batch <= kMaxBatchSize);
  UQ_CHECK(out->num_elements() == batch * x_fp.dim(1) * x_fp.dim(2));
  UQ_CHECK(prob >= 0.0 && prob <= 1.0);
  if (x_q != nullptr) {
    CheckActivations(backend, {&x_fp, x_q});
    UQ_CHECK(x_q->shape() == x_fp.shape());
  }
  UQ_DISPATCH(backend, MixInputs(backend, params, seed, prob, x_q, x_fp, batch, out));
}

size_t MseLossScratchBytes(const Backend& backend, int64_t num_elements) {
  return UQ_DISPATCH(&backend, MseLossScratchBytes(backend, num_elements));
}

void MseLoss(Backend* backend, const StepParams* params, const Tensor& y, const Tensor& targets,
             int batch, int num_parts, Tensor* scratch, Tensor* dy, Tensor* loss) {
  CheckActivations(backend, {&y, &targets, dy});
  CheckSameSize({&y, dy});
  CheckFloats(backend, *loss, 1);
  UQ_CHECK(targets.shape().size() == 3 && batch > 0 && batch <= kMaxBatchSize && num_parts > 0);
  UQ_CHECK(y.num_elements() == batch * targets.dim(1) * targets.dim(2));
  UQ_CHECK(scratch->size_bytes() >= MseLossScratchBytes(*backend, y.num_elements()));
  UQ_DISPATCH(backend, MseLoss(backend, params, y, targets, batch, num_parts, scratch, dy, loss));
}

void Embedding(Backend* backend, const Tensor& ids, const Tensor& table, Tensor* out) {
  CheckActivations(backend, {&table, out});
  CheckActivation(backend, ids, DType::kInt32);
  UQ_CHECK(table.shape().size() == 2);
  UQ_CHECK(out->num_elements() == ids.num_elements() * table.dim(1));
  UQ_DISPATCH(backend, Embedding(backend, ids, table, out));
}

void CrossEntropy(Backend* backend, const Tensor& logits, const Tensor& targets, Tensor* nll) {
  CheckActivations(backend, {&logits});
  CheckActivation(backend, targets, DType::kInt32);
  UQ_CHECK(logits.num_elements() == targets.num_elements() * LastDim(logits));
  CheckFloats(backend, *nll, targets.num_elements());
  UQ_DISPATCH(backend, CrossEntropy(backend, logits, targets, nll));
}

void Cast(Backend* backend, const Tensor& src, Tensor* dst) {
  for (const Tensor* tensor : {&src, const_cast<const Tensor*>(dst)}) {
    UQ_CHECK(tensor->dtype() == DType::kFloat32 || tensor->dtype() == DType::kBfloat16);
    CheckActivation(backend, *tensor, tensor->dtype());
  }
  CheckSameSize({&src, dst});
  UQ_DISPATCH(backend, Cast(backend, src, dst));
}

#undef UQ_DISPATCH

}  // namespace uniquanf::ops
