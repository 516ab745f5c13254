#include "worker/ops/op.h"

#include <initializer_list>

#include "common/base/check.h"
#include "worker/ops/op_check.h"

namespace uniquanf::ops {
namespace {

// Act, or bf16 on the CPU.
void CheckMatrix(const Backend* backend, const Tensor& matrix, DType act) {
  const bool narrow = backend->kind() == DeviceKind::kCpu && matrix.dtype() == DType::kBfloat16;
  CheckActivation(backend, matrix, narrow ? DType::kBfloat16 : act);
}

// Rows of width weight.num_elements(), each inside the last dimension of x.
void CheckNorm(const Backend* backend, const Tensor& x, const Tensor& weight,
               const Tensor& inv_rms) {
  const int64_t width = weight.num_elements();
  UQ_CHECK(width > 0 && LastDim(x) % width == 0);
  CheckFloats(backend, weight, width);
  CheckFloats(backend, inv_rms, x.num_elements() / width);
}

// The general form; a weight may have several rows.
void CheckNormShape(const Backend* backend, const NormShape& shape, const Tensor& x,
                    const Tensor* weight, const Tensor& stats) {
  UQ_CHECK(shape.width > 0 && LastDim(x) % shape.width == 0);
  CheckFloats(backend, stats, x.num_elements() / shape.width * 2);
  if (weight == nullptr) return;
  UQ_CHECK(weight->num_elements() % shape.width == 0 && LastDim(x) % weight->num_elements() == 0);
  CheckFloats(backend, *weight, weight->num_elements());
}

void CheckXielu(const Backend* backend, const XieluParameters& parameters) {
  for (const Tensor* parameter :
       {parameters.positive, parameters.negative, parameters.beta, parameters.epsilon}) {
    CheckFloats(backend, *parameter, 1);
  }
}

}  // namespace

void LinearForward(Backend* backend, const Tensor& x, const Tensor& w, const Tensor* bias,
                   Tensor* y) {
  CheckActivations(backend, {&x});
  CheckActivation(backend, *y, y->dtype() == DType::kFloat32 ? y->dtype() : x.dtype());
  CheckMatrix(backend, w, x.dtype());
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

void NormForward(Backend* backend, const NormShape& shape, const Tensor& x, const Tensor* weight,
                 const Tensor* bias, Tensor* y, Tensor* stats) {
  CheckActivations(backend, {&x, y});
  CheckSameSize({&x, y});
  CheckNormShape(backend, shape, x, weight, *stats);
  CheckNormShape(backend, shape, x, bias, *stats);
  UQ_DISPATCH(backend, NormForward(backend, shape, x, weight, bias, y, stats));
}

void NormBackward(Backend* backend, const NormShape& shape, const Tensor& dy, const Tensor& x,
                  const Tensor* weight, const Tensor& stats, bool accumulate, Tensor* dx) {
  CheckActivations(backend, {&dy, &x, dx});
  CheckSameSize({&dy, &x, dx});
  CheckNormShape(backend, shape, x, weight, stats);
  UQ_CHECK(dx->data() != dy.data());
  UQ_DISPATCH(backend, NormBackward(backend, shape, dy, x, weight, stats, accumulate, dx));
}

void NormBackwardWeight(Backend* backend, const NormShape& shape, const Tensor& dy, const Tensor& x,
                        const Tensor& stats, bool accumulate, Tensor* dweight) {
  CheckActivations(backend, {&dy, &x});
  CheckSameSize({&dy, &x});
  UQ_CHECK(shape.width > 0 && LastDim(x) % shape.width == 0);
  const int64_t num_rows = x.num_elements() / shape.width;
  UQ_CHECK(stats.num_elements() == num_rows || stats.num_elements() == 2 * num_rows);
  CheckFloats(backend, stats, stats.num_elements());
  CheckFloats(backend, *dweight, dweight->num_elements());
  UQ_CHECK(dweight->num_elements() % shape.width == 0 && LastDim(x) % dweight->num_elements() == 0);
  UQ_DISPATCH(backend, NormBackwardWeight(backend, shape, dy, x, stats, accumulate, dweight));
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

void RopePart(Backend* backend, const Tensor& cos, const Tensor& sin, const RopeShape& shape,
              bool inverse, Tensor* x) {
  CheckActivations(backend, {x});
  UQ_CHECK(cos.shape().size() == 2 && cos.shape() == sin.shape());
  CheckFloats(backend, cos, cos.num_elements());
  CheckFloats(backend, sin, cos.num_elements());
  UQ_CHECK(shape.offset >= 0 && shape.offset + 2 * cos.dim(1) <= shape.head_size);
  const int64_t width = int64_t{shape.num_heads} * shape.head_size;
  UQ_CHECK(LastDim(*x) == width && x->num_elements() / width % cos.dim(0) == 0);
  UQ_DISPATCH(backend, RopePart(backend, cos, sin, shape, inverse, x));
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

void ActivationForward(Backend* backend, Activation kind, const Tensor& gate, const Tensor* up,
                       Tensor* y) {
  CheckActivations(backend, {&gate, y});
  CheckSameSize({&gate, y});
  if (up != nullptr) {
    CheckActivations(backend, {&gate, up});
    CheckSameSize({&gate, up});
  }
  UQ_CHECK(kind != Activation::kClampedSwiGlu || up != nullptr);
  UQ_DISPATCH(backend, ActivationForward(backend, kind, gate, up, y));
}

void ActivationBackward(Backend* backend, Activation kind, const Tensor& dy, const Tensor& gate,
                        const Tensor* up, Tensor* dgate, Tensor* dup) {
  CheckActivations(backend, {&dy, &gate, dgate});
  CheckSameSize({&dy, &gate, dgate});
  UQ_CHECK((up == nullptr) == (dup == nullptr));
  if (up != nullptr) {
    CheckActivations(backend, {&gate, up, dup});
    CheckSameSize({&gate, up, dup});
  }
  UQ_CHECK(kind != Activation::kClampedSwiGlu || up != nullptr);
  UQ_DISPATCH(backend, ActivationBackward(backend, kind, dy, gate, up, dgate, dup));
}

void XieluForward(Backend* backend, const XieluParameters& parameters, const Tensor& x, Tensor* y) {
  CheckActivations(backend, {&x, y});
  CheckSameSize({&x, y});
  CheckXielu(backend, parameters);
  UQ_DISPATCH(backend, XieluForward(backend, parameters, x, y));
}

void XieluBackward(Backend* backend, const XieluParameters& parameters, const Tensor& dy,
                   const Tensor& x, Tensor* dx) {
  CheckActivations(backend, {&dy, &x, dx});
  CheckSameSize({&dy, &x, dx});
  CheckXielu(backend, parameters);
  UQ_DISPATCH(backend, XieluBackward(backend, parameters, dy, x, dx));
}

void Add(Backend* backend, const Tensor& a, const Tensor& b, Tensor* out) {
  CheckActivations(backend, {&a, &b, out});
  CheckSameSize({&a, &b, out});
  UQ_DISPATCH(backend, Add(backend, a, b, out));
}

void AddScaled(Backend* backend, const Tensor& a, const Tensor& b, float factor, Tensor* out) {
  CheckActivations(backend, {&a, &b, out});
  CheckSameSize({&a, &b, out});
  UQ_DISPATCH(backend, AddScaled(backend, a, b, factor, out));
}

void Scale(Backend* backend, const Tensor& x, float factor, Tensor* out) {
  CheckActivations(backend, {&x, out});
  CheckSameSize({&x, out});
  UQ_DISPATCH(backend, Scale(backend, x, factor, out));
}

void ScaleBy(Backend* backend, const Tensor& x, const Tensor& factor, Tensor* out) {
  CheckActivations(backend, {&x, out});
  CheckSameSize({&x, out});
  CheckFloats(backend, factor, 1);
  UQ_DISPATCH(backend, ScaleBy(backend, x, factor, out));
}

void CopyHeads(Backend* backend, int64_t width, const HeadsShape& from_heads, const Tensor& from,
               CopyMode mode, const HeadsShape& to_heads, Tensor* to) {
  CheckActivations(backend, {&from, to});
  UQ_CHECK(width > 0);
  for (const HeadsShape* heads : {&from_heads, &to_heads}) {
    UQ_CHECK(heads->count > 0 && heads->offset >= 0 && heads->offset + width <= heads->size);
  }
  UQ_CHECK(from_heads.count == to_heads.count || from_heads.count == 1 || to_heads.count == 1);
  const int64_t from_width = from_heads.count * from_heads.size;
  const int64_t to_width = to_heads.count * to_heads.size;
  UQ_CHECK(LastDim(from) == from_width && LastDim(*to) == to_width);
  UQ_CHECK(from.num_elements() / from_width == to->num_elements() / to_width);
  UQ_DISPATCH(backend, CopyHeads(backend, width, from_heads, from, mode, to_heads, to));
}

void SoftCap(Backend* backend, const Tensor& x, float cap, Tensor* out) {
  CheckActivations(backend, {&x, out});
  CheckSameSize({&x, out});
  UQ_CHECK(cap > 0);
  UQ_DISPATCH(backend, SoftCap(backend, x, cap, out));
}

void Clip(Backend* backend, const Tensor& x, float limit, Tensor* out) {
  CheckActivations(backend, {&x, out});
  CheckSameSize({&x, out});
  UQ_CHECK(limit > 0);
  UQ_DISPATCH(backend, Clip(backend, x, limit, out));
}

void ClipBackward(Backend* backend, const Tensor& dy, const Tensor& x, float limit, Tensor* dx) {
  CheckActivations(backend, {&dy, &x, dx});
  CheckSameSize({&dy, &x, dx});
  UQ_CHECK(limit > 0);
  UQ_DISPATCH(backend, ClipBackward(backend, dy, x, limit, dx));
}

void SigmoidGateForward(Backend* backend, const Tensor& x, const Tensor& gate, Tensor* y) {
  CheckActivations(backend, {&x, &gate, y});
  CheckSameSize({&x, y});
  UQ_CHECK(gate.num_elements() > 0 && x.num_elements() % gate.num_elements() == 0);
  UQ_DISPATCH(backend, SigmoidGateForward(backend, x, gate, y));
}

void SigmoidGateBackward(Backend* backend, const Tensor& dy, const Tensor& x, const Tensor& gate,
                         Tensor* dx, Tensor* dgate) {
  CheckActivations(backend, {&dy, &x, &gate, dx, dgate});
  CheckSameSize({&x, &dy, dx});
  CheckSameSize({&gate, dgate});
  UQ_CHECK(gate.num_elements() > 0 && x.num_elements() % gate.num_elements() == 0);
  UQ_DISPATCH(backend, SigmoidGateBackward(backend, dy, x, gate, dx, dgate));
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
  CheckActivations(backend, {out});
  CheckMatrix(backend, table, out->dtype());
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

void LogitSums(Backend* backend, const LogitShape& shape, const Tensor& logits, bool first,
               Tensor* sums) {
  CheckFloats(backend, logits, logits.num_elements());
  UQ_CHECK(logits.shape().size() == 2 && shape.softcap >= 0);
  CheckFloats(backend, *sums, 2 * logits.dim(0));
  UQ_DISPATCH(backend, LogitSums(backend, shape, logits, first, sums));
}

void KlDivergence(Backend* backend, const LogitShape& shape, const Tensor& target,
                  const Tensor& target_sums, const Tensor& logits, const Tensor& sums, float factor,
                  bool first, Tensor* dlogits, Tensor* kl) {
  CheckFloats(backend, logits, logits.num_elements());
  UQ_CHECK(logits.shape().size() == 2 && target.shape() == logits.shape());
  UQ_CHECK(dlogits->shape() == logits.shape() && shape.softcap >= 0);
  CheckFloats(backend, target, logits.num_elements());
  CheckActivations(backend, {dlogits});
  for (const Tensor* row_sums : {&target_sums, &sums}) {
    CheckFloats(backend, *row_sums, 2 * logits.dim(0));
  }
  CheckFloats(backend, *kl, logits.dim(0));
  UQ_DISPATCH(backend, KlDivergence(backend, shape, target, target_sums, logits, sums, factor,
                                    first, dlogits, kl));
}

void Cast(Backend* backend, const Tensor& src, Tensor* dst) {
  for (const Tensor* tensor : {&src, const_cast<const Tensor*>(dst)}) {
    UQ_CHECK(tensor->dtype() == DType::kFloat32 || tensor->dtype() == DType::kBfloat16);
    CheckActivation(backend, *tensor, tensor->dtype());
  }
  CheckSameSize({&src, dst});
  UQ_DISPATCH(backend, Cast(backend, src, dst));
}

}  // namespace uniquanf::ops
