// What a model does before its first block and after its last one, for the kinds of ModelEnds.
//
// Thread safety: as Backend. Errors: those of Checkpoint; kInvalidArgument (SEQUENCE_TOO_LONG)
// where learned positions end.
#ifndef UNIQUANF_WORKER_MODEL_MODEL_ENDS_H_
#define UNIQUANF_WORKER_MODEL_MODEL_ENDS_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/backend/tensor.h"
#include "worker/model/checkpoint.h"
#include "worker/ops/op.h"

namespace uniquanf {

// A norm outside the blocks, for up to `num_rows` rows.
class OuterNorm {
 public:
  // Without a module it does nothing.
  static absl::StatusOr<OuterNorm> Create(Backend* backend, const Checkpoint& checkpoint,
                                          const std::string& module, const NormTraits& kind,
                                          int64_t num_rows);
  bool in_use() const { return in_use_; }
  void Apply(const Tensor& x, Tensor* y);  // as many rows as x has
  // dx = the gradient for x, of the last Apply. REQUIRES: in_use().
  void Backward(const Tensor& dy, const Tensor& x, Tensor* dx);

 private:
  bool plain() const { return kind_.weight && !kind_.bias && !kind_.center; }
  bool in_use_ = false;
  NormTraits kind_;
  int64_t width_ = 0;
  Backend* backend_ = nullptr;
  Tensor weight_, bias_, stats_;
};

// Between the embedding's rows and the first block: scale, learned positions, norm.
class EmbeddingEnd {
 public:
  static absl::StatusOr<std::unique_ptr<EmbeddingEnd>> Create(Backend* backend,
                                                              const Checkpoint& checkpoint,
                                                              DType act, int64_t seq_len,
                                                              int64_t max_rows = 0);
  // In place on one sequence [L, H] from position 0 on, L <= seq_len.
  absl::Status Apply(Tensor* x);
  // In place on rows [R, H] of these positions ([R] i32 on the device, below seq_len); R <=
  // max_rows.
  absl::Status ApplyAt(const Tensor& positions, Tensor* x);

 private:
  absl::Status ApplyNorm(Tensor* x);

  Backend* backend_ = nullptr;
  float scale_ = 1;
  Tensor positions_;            // [seq_len, H]
  Tensor unnormed_, gathered_;  // scratch
  OuterNorm norm_;
};

// From the last block's output to logits: norm, head, bias, scale, soft cap.
class HeadEnd {
 public:
  // `in_act`: the head's matrix is of type act everywhere, for who computes backwards through it.
  static absl::StatusOr<std::unique_ptr<HeadEnd>> Create(Backend* backend,
                                                         const Checkpoint& checkpoint, DType act,
                                                         int64_t num_rows, bool in_act = false);
  // logits [R, V] of x [R, H], R <= num_rows.
  void Apply(const Tensor& x, Tensor* logits);
  // The parts, for who takes the vocabulary in chunks.
  OuterNorm& norm() { return norm_; }
  // [V, H], act or, but for `in_act`, on the CPU bf16 where that holds its values.
  Tensor& head() { return head_; }
  Tensor& bias() { return bias_; }  // [V] f32, or empty
  ops::LogitShape shape() const { return {scale_, softcap_}; }

 private:
  Backend* backend_ = nullptr;
  OuterNorm norm_;
  Tensor normed_, head_, bias_;
  float scale_ = 1, softcap_ = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_MODEL_ENDS_H_
