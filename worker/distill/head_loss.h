// The loss of distillation: the mean over tokens of KL(original ‖ quantized) of the next-token
// distributions, from the last hidden states of both, with the gradient for the quantized model's.
// The head's products are made for a piece of the vocabulary at a time, and made again where there
// are several, so the logits of all words are never there at once.
//
// Thread safety: as Backend. Errors: those of HeadEnd; kResourceExhausted (OUT_OF_MEMORY).
#ifndef UNIQUANF_WORKER_DISTILL_HEAD_LOSS_H_
#define UNIQUANF_WORKER_DISTILL_HEAD_LOSS_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/backend/tensor.h"
#include "worker/model/model_ends.h"

namespace uniquanf::distill {

// Words of the vocabulary whose logits are there at once. Part of a result's bits.
inline constexpr int64_t kVocabularyPiece = 16384;

class HeadLoss {
 public:
  // For up to `num_rows` tokens at a time; `piece` is another size for tests.
  static absl::StatusOr<std::unique_ptr<HeadLoss>> Create(Backend* backend,
                                                          const Checkpoint& checkpoint, DType act,
                                                          int64_t num_rows,
                                                          int64_t piece = kVocabularyPiece);
  // Device bytes that Create takes; for planning.
  static uint64_t Bytes(const ModelConfig& config, DType act, int64_t num_rows);

  // kl[T] f32 of each token, from the last block's outputs x and target [T, H] act of the quantized
  // and the original model. dx [T, H] act = factor · the gradient of Σ kl for x; null: not wanted.
  // REQUIRES: T is num_rows.
  void Compute(const Tensor& x, const Tensor& target, float factor, Tensor* dx, Tensor* kl);

 private:
  HeadLoss() = default;
  int64_t num_pieces() const { return (vocab_size_ + piece_ - 1) / piece_; }
  // The logits of words [first, first + piece_) from normed hidden states.
  Tensor Logits(const Tensor& normed, int64_t first, Tensor* room);
  Tensor HeadRows(int64_t first, int64_t count);

  Backend* backend_ = nullptr;
  std::unique_ptr<HeadEnd> end_;
  DType act_ = DType::kFloat32;
  int64_t num_rows_ = 0, vocab_size_ = 0, hidden_size_ = 0, piece_ = 0;
  Tensor normed_, target_normed_, d_normed_;  // [T, H] act; empty where there is no norm
  Tensor logits_, target_logits_, d_logits_;  // [T, piece]; d_logits_ only where act is not f32
  Tensor sums_, target_sums_;                 // [T, 2]
};

}  // namespace uniquanf::distill

#endif  // UNIQUANF_WORKER_DISTILL_HEAD_LOSS_H_
