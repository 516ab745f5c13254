// Sequences of one length through a language model, a first part and then a token of each at a
// time. The logits are those of the whole sequences, up to rounding.
//
// Thread safety: as Backend. The ResidentModel outlives it. Memory: what attention, convolutions
// and recurrences keep of `batch` sequences, and activations. Errors: kInvalidArgument
// (SEQUENCE_TOO_LONG, TOKEN_OUT_OF_RANGE), kUnimplemented (UNSUPPORTED_ON_DEVICE),
// kResourceExhausted.
#ifndef UNIQUANF_WORKER_GENERATE_INCREMENTAL_MODEL_H_
#define UNIQUANF_WORKER_GENERATE_INCREMENTAL_MODEL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/generate/resident_model.h"

namespace uniquanf {

class IncrementalModel {
 public:
  // For sequences of up to `capacity` tokens; rotary frequencies that depend on a sequence's length
  // are those of this one.
  static absl::StatusOr<std::unique_ptr<IncrementalModel>> Create(ResidentModel* model,
                                                                  int64_t batch, int64_t capacity);

  // Forgets what was, and goes through ids [batch, L], L >= 1. `outputs`: gets the last block's
  // output [batch · L, H], for ResidentModel::ApplyHead; null: nobody wants it.
  absl::Status Begin(absl::Span<const int32_t> ids, Tensor* outputs = nullptr);
  // One more token of each sequence. REQUIRES: Begin; length() < capacity.
  absl::Status Next(absl::Span<const int32_t> ids);
  // Of what follows the last token: [batch, V], on the host.
  absl::StatusOr<std::vector<float>> Logits() const { return logits_.ToFloats(); }
  int64_t length() const { return length_; }

 private:
  IncrementalModel(ResidentModel* model, int64_t batch, int64_t capacity)
      : model_(model), backend_(model->backend()), batch_(batch), capacity_(capacity) {}
  absl::Status Allocate();
  absl::Status MakeStepRunners();
  absl::Status SetPosition(absl::Span<const int32_t> ids);
  // Issues the work of one token.
  void Step();

  ResidentModel* const model_;
  Backend* const backend_;
  const int64_t batch_, capacity_;
  int64_t length_ = 0;
  std::vector<BlockState> states_;  // by layer
  RopeTables rope_, step_rope_;
  std::unique_ptr<EmbeddingEnd> embedding_end_;
  Tensor ids_, position_, positions_;  // of a step: [batch], [1], [batch]
  Tensor x_, y_, logits_;              // [batch, H] twice, [batch, V]
  Tensor scratch_;                     // of steps
  std::vector<std::unique_ptr<BlockRunner>> steps_;
  std::unique_ptr<CapturedSequence> recorded_;
  bool capturable_ = true;
  absl::Status step_status_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_GENERATE_INCREMENTAL_MODEL_H_
