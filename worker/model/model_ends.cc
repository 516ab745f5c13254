#include "worker/model/model_ends.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/safetensors/float_conversion.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

// The first of `tensor`'s elements, in the shape of `like`.
Tensor ViewOf(const Tensor& tensor, const Tensor& like) {
  UQ_CHECK(tensor.num_elements() >= like.num_elements() && tensor.dtype() == like.dtype());
  return Tensor::View(tensor.backend(), const_cast<void*>(tensor.data()), tensor.dtype(),
                      like.shape());
}

bool FitsBfloat16(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(),
                     [](float x) { return (std::bit_cast<uint32_t>(x) & 0xFFFFu) == 0; });
}

}  // namespace

absl::StatusOr<OuterNorm> OuterNorm::Create(Backend* backend, const Checkpoint& checkpoint,
                                            const std::string& module, const NormTraits& kind,
                                            int64_t num_rows) {
  OuterNorm norm;
  if (module.empty()) return norm;
  norm.in_use_ = true;
  norm.kind_ = kind;
  norm.backend_ = backend;
  norm.width_ = checkpoint.config().hidden_size;
  if (kind.weight) {
    UQ_ASSIGN_OR_RETURN(std::vector<float> values,
                        checkpoint.LoadOuter(absl::StrCat(module, ".weight")));
    for (float& value : values) value += kind.added;
    UQ_ASSIGN_OR_RETURN(norm.weight_,
                        Tensor::FromFloats(backend, DType::kFloat32, {norm.width_}, values.data()));
  }
  if (kind.bias) {
    UQ_ASSIGN_OR_RETURN(const std::vector<float> values,
                        checkpoint.LoadOuter(absl::StrCat(module, ".bias")));
    UQ_ASSIGN_OR_RETURN(norm.bias_,
                        Tensor::FromFloats(backend, DType::kFloat32, {norm.width_}, values.data()));
  }
  UQ_ASSIGN_OR_RETURN(norm.stats_, Tensor::Allocate(backend, DType::kFloat32,
                                                    {norm.plain() ? num_rows : 2 * num_rows}));
  return norm;
}

void OuterNorm::Apply(const Tensor& x, Tensor* y) {
  const int64_t num_rows = x.num_elements() / width_;
  Tensor stats =
      Tensor::View(backend_, stats_.data(), DType::kFloat32, {plain() ? num_rows : 2 * num_rows});
  UQ_CHECK(stats.num_elements() <= stats_.num_elements());
  if (plain()) {
    ops::RmsNormForward(backend_, x, weight_, kind_.eps, y, &stats);
    return;
  }
  const ops::NormShape shape = {kind_.center, width_, kind_.eps};
  ops::NormForward(backend_, shape, x, weight_.empty() ? nullptr : &weight_,
                   bias_.empty() ? nullptr : &bias_, y, &stats);
}

void OuterNorm::Backward(const Tensor& dy, const Tensor& x, Tensor* dx) {
  if (plain()) {
    ops::RmsNormBackward(backend_, dy, x, weight_, stats_, /*accumulate=*/false, dx);
    return;
  }
  const ops::NormShape shape = {kind_.center, width_, kind_.eps};
  ops::NormBackward(backend_, shape, dy, x, weight_.empty() ? nullptr : &weight_, stats_,
                    /*accumulate=*/false, dx);
}

absl::StatusOr<std::unique_ptr<EmbeddingEnd>> EmbeddingEnd::Create(Backend* backend,
                                                                   const Checkpoint& checkpoint,
                                                                   DType act, int64_t seq_len,
                                                                   int64_t max_rows) {
  const ModelConfig& config = checkpoint.config();
  const ModelEnds& ends = config.ends;
  auto end = std::make_unique<EmbeddingEnd>();
  end->backend_ = backend;
  end->scale_ = ends.embedding_scale;
  if (ends.embedding_scale_rounded && act == DType::kBfloat16) {
    end->scale_ = Bfloat16ToFloat(FloatToBfloat16(ends.embedding_scale));
  }
  const Shape shape = {seq_len, config.hidden_size};
  const Shape scratch = {std::max(seq_len, max_rows), config.hidden_size};
  if (!ends.positions.empty()) {
    if (ends.position_offset + seq_len > ends.num_positions) {
      return InvalidInput("SEQUENCE_TOO_LONG",
                          absl::StrCat("sequences of ", seq_len, " tokens are longer than the ",
                                       ends.num_positions - ends.position_offset,
                                       " learned positions of the model"));
    }
    UQ_ASSIGN_OR_RETURN(const std::vector<float> values,
                        checkpoint.LoadOuter(absl::StrCat(ends.positions, ".weight")));
    UQ_ASSIGN_OR_RETURN(
        end->positions_,
        Tensor::FromFloats(backend, act, shape,
                           values.data() + ends.position_offset * config.hidden_size));
    if (max_rows > 0) {
      UQ_ASSIGN_OR_RETURN(end->gathered_,
                          Tensor::Allocate(backend, act, {max_rows, config.hidden_size}));
    }
  }
  UQ_ASSIGN_OR_RETURN(end->norm_, OuterNorm::Create(backend, checkpoint, ends.embedding_norm,
                                                    ends.embedding_norm_kind, scratch[0]));
  if (end->norm_.in_use()) {
    UQ_ASSIGN_OR_RETURN(end->unnormed_, Tensor::Allocate(backend, act, scratch));
  }
  return end;
}

absl::Status EmbeddingEnd::Apply(Tensor* x) {
  if (scale_ != 1) ops::Scale(backend_, *x, scale_, x);
  if (!positions_.empty()) {
    ops::Add(backend_, *x, ViewOf(positions_, *x), x);
  }
  return ApplyNorm(x);
}

absl::Status EmbeddingEnd::ApplyAt(const Tensor& positions, Tensor* x) {
  if (scale_ != 1) ops::Scale(backend_, *x, scale_, x);
  if (!positions_.empty()) {
    Tensor rows = ViewOf(gathered_, *x);
    ops::Embedding(backend_, positions, positions_, &rows);
    ops::Add(backend_, *x, rows, x);
  }
  return ApplyNorm(x);
}

absl::Status EmbeddingEnd::ApplyNorm(Tensor* x) {
  if (!norm_.in_use()) return absl::OkStatus();
  Tensor unnormed = ViewOf(unnormed_, *x);
  UQ_RETURN_IF_ERROR(backend_->CopyOnDevice(unnormed.data(), x->data(), x->size_bytes()));
  norm_.Apply(unnormed, x);
  return absl::OkStatus();
}

namespace {

// Divides each row by its length.
void NormalizeRows(int64_t width, std::vector<float>* values) {
  constexpr double kSmallest = 1e-12;
  for (size_t row = 0; row < values->size(); row += width) {
    double squares = 0;
    for (int64_t i = 0; i < width; ++i) squares += std::pow((*values)[row + i], 2.0);
    const double length = std::max(std::sqrt(squares), kSmallest);
    for (int64_t i = 0; i < width; ++i) {
      (*values)[row + i] = static_cast<float>((*values)[row + i] / length);
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<HeadEnd>> HeadEnd::Create(Backend* backend,
                                                         const Checkpoint& checkpoint, DType act,
                                                         int64_t num_rows, bool in_act) {
  const ModelConfig& config = checkpoint.config();
  const ModelEnds& ends = config.ends;
  auto end = std::make_unique<HeadEnd>();
  end->backend_ = backend;
  end->scale_ = ends.logit_scale;
  end->softcap_ = ends.logit_softcap;
  UQ_ASSIGN_OR_RETURN(end->norm_, OuterNorm::Create(backend, checkpoint, ends.final_norm,
                                                    ends.final_norm_kind, num_rows));
  {
    UQ_ASSIGN_OR_RETURN(std::vector<float> values, checkpoint.LoadLmHead());
    if (ends.head_rows_normalized) NormalizeRows(config.hidden_size, &values);
    // The CPU multiplies by it as it is: half the memory, the same bits.
    const bool narrow = !in_act && backend->kind() == DeviceKind::kCpu && FitsBfloat16(values);
    UQ_ASSIGN_OR_RETURN(end->head_,
                        Tensor::FromFloats(backend, narrow ? DType::kBfloat16 : act,
                                           {config.vocab_size, config.hidden_size}, values.data()));
  }
  if (ends.head_bias) {
    UQ_ASSIGN_OR_RETURN(const std::vector<float> values,
                        checkpoint.LoadOuter(absl::StrCat(ends.head, ".bias")));
    UQ_ASSIGN_OR_RETURN(end->bias_, Tensor::FromFloats(backend, DType::kFloat32,
                                                       {config.vocab_size}, values.data()));
  }
  if (end->norm_.in_use()) {
    UQ_ASSIGN_OR_RETURN(end->normed_,
                        Tensor::Allocate(backend, act, {num_rows, config.hidden_size}));
  }
  return end;
}

void HeadEnd::Apply(const Tensor& x, Tensor* logits) {
  Tensor normed;
  if (norm_.in_use()) {
    normed = ViewOf(normed_, x);
    norm_.Apply(x, &normed);
  }
  ops::LinearForward(backend_, norm_.in_use() ? normed : x, head_, bias_.empty() ? nullptr : &bias_,
                     logits);
  if (scale_ != 1) ops::Scale(backend_, *logits, scale_, logits);
  if (softcap_ != 0) ops::SoftCap(backend_, *logits, softcap_, logits);
}

}  // namespace uniquanf
