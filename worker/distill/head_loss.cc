#include "worker/distill/head_loss.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/ops/op.h"

namespace uniquanf::distill {

absl::StatusOr<std::unique_ptr<HeadLoss>> HeadLoss::Create(Backend* backend,
                                                           const Checkpoint& checkpoint, DType act,
                                                           int64_t num_rows, int64_t piece) {
  auto loss = std::unique_ptr<HeadLoss>(new HeadLoss());
  loss->backend_ = backend;
  loss->act_ = act;
  loss->num_rows_ = num_rows;
  loss->vocab_size_ = checkpoint.config().vocab_size;
  loss->hidden_size_ = checkpoint.config().hidden_size;
  loss->piece_ = std::min(piece, loss->vocab_size_);
  UQ_ASSIGN_OR_RETURN(loss->end_,
                      HeadEnd::Create(backend, checkpoint, act, num_rows, /*in_act=*/true));
  if (loss->end_->norm().in_use()) {
    for (Tensor* tensor : {&loss->normed_, &loss->target_normed_, &loss->d_normed_}) {
      UQ_ASSIGN_OR_RETURN(*tensor, Tensor::Allocate(backend, act, {num_rows, loss->hidden_size_}));
    }
  }
  const Shape logits = {num_rows * loss->piece_};
  for (Tensor* tensor : {&loss->logits_, &loss->target_logits_}) {
    UQ_ASSIGN_OR_RETURN(*tensor, Tensor::Allocate(backend, DType::kFloat32, logits));
  }
  if (act != DType::kFloat32) {
    UQ_ASSIGN_OR_RETURN(loss->d_logits_, Tensor::Allocate(backend, act, logits));
  }
  for (Tensor* tensor : {&loss->sums_, &loss->target_sums_}) {
    UQ_ASSIGN_OR_RETURN(*tensor, Tensor::Allocate(backend, DType::kFloat32, {num_rows, 2}));
  }
  return loss;
}

uint64_t HeadLoss::Bytes(const ModelConfig& config, DType act, int64_t num_rows) {
  const uint64_t act_bytes = DTypeBytes(act);
  const uint64_t piece = std::min(kVocabularyPiece, config.vocab_size);
  const uint64_t logit_bytes = 2 * sizeof(float) + (act == DType::kFloat32 ? 0 : act_bytes);
  return static_cast<uint64_t>(config.vocab_size) * config.hidden_size * act_bytes +
         config.vocab_size * sizeof(float) + num_rows * piece * logit_bytes +
         num_rows * (4 * config.hidden_size * act_bytes + 8 * sizeof(float));
}

Tensor HeadLoss::HeadRows(int64_t first, int64_t count) {
  const auto row_bytes = static_cast<int64_t>(hidden_size_ * DTypeBytes(act_));
  return Tensor::View(backend_, static_cast<char*>(end_->head().data()) + first * row_bytes, act_,
                      {count, hidden_size_});
}

Tensor HeadLoss::Logits(const Tensor& normed, int64_t first, Tensor* room) {
  const int64_t count = std::min(piece_, vocab_size_ - first);
  Tensor logits = Tensor::View(backend_, room->data(), DType::kFloat32, {num_rows_, count});
  const Tensor head = HeadRows(first, count);
  Tensor bias;
  if (!end_->bias().empty()) {
    bias = Tensor::View(backend_, end_->bias().f32() + first, DType::kFloat32, {count});
  }
  ops::LinearForward(backend_, normed, head, bias.empty() ? nullptr : &bias, &logits);
  return logits;
}

void HeadLoss::Compute(const Tensor& x, const Tensor& target, float factor, Tensor* dx,
                       Tensor* kl) {
  UQ_CHECK(x.num_elements() == num_rows_ * hidden_size_);
  OuterNorm& norm = end_->norm();
  const bool has_norm = norm.in_use();
  if (has_norm) {
    norm.Apply(target, &target_normed_);
    norm.Apply(x, &normed_);  // the last one: its statistics are what Backward needs
  }
  const Tensor& to = has_norm ? target_normed_ : target;
  const Tensor& from = has_norm ? normed_ : x;
  const ops::LogitShape shape = end_->shape();
  const bool again = num_pieces() > 1;
  Tensor target_logits, logits;
  for (int64_t first = 0; first < vocab_size_; first += piece_) {
    target_logits = Logits(to, first, &target_logits_);
    ops::LogitSums(backend_, shape, target_logits, first == 0, &target_sums_);
    logits = Logits(from, first, &logits_);
    ops::LogitSums(backend_, shape, logits, first == 0, &sums_);
  }
  Tensor* const d_from = has_norm ? &d_normed_ : dx;
  for (int64_t first = 0; first < vocab_size_; first += piece_) {
    if (again) {
      target_logits = Logits(to, first, &target_logits_);
      logits = Logits(from, first, &logits_);
    }
    Tensor* const room = d_logits_.empty() ? &logits_ : &d_logits_;
    Tensor d_logits = Tensor::View(backend_, room->data(), act_, logits.shape());
    ops::KlDivergence(backend_, shape, target_logits, target_sums_, logits, sums_, factor,
                      first == 0, &d_logits, kl);
    if (dx == nullptr) continue;
    ops::LinearBackwardInput(backend_, d_logits, HeadRows(first, logits.dim(1)),
                             /*accumulate=*/first > 0, d_from);
  }
  if (dx != nullptr && has_norm) norm.Backward(d_normed_, x, dx);
}

}  // namespace uniquanf::distill
