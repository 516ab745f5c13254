// The ends of a language model (embedding, final norm, LM head) around blocks that are loaded one
// at a time, and perplexity over token windows.
//
// Thread safety: as Backend. Memory: one block, the embedding or head, and the activations of the
// windows in flight; never the whole model.
#ifndef UNIQUANF_WORKER_MODEL_LANGUAGE_MODEL_H_
#define UNIQUANF_WORKER_MODEL_LANGUAGE_MODEL_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/stop_token.h"
#include "worker/backend/sequence_buffer.h"
#include "worker/model/checkpoint.h"

namespace uniquanf {

// hidden [S, L, H] act = embedding of ids [S·L] (host). Errors: TOKEN_OUT_OF_RANGE names position,
// id and vocabulary size.
absl::StatusOr<Tensor> EmbedTokens(Backend* backend, const Checkpoint& checkpoint, DType act,
                                   const std::vector<int32_t>& ids, int64_t num_sequences,
                                   int64_t seq_len);

// hidden [S, L, H] through one block, sequence by sequence (so that the bits of a sequence do not
// depend on S), in place.
absl::Status ForwardBlockInPlace(Backend* backend, const BlockSpec& spec, const RopeTables& rope,
                                 const BlockWeights& weights, Tensor* hidden);
// The same into another tensor of the same shape.
absl::Status ForwardBlock(Backend* backend, const BlockSpec& spec, const RopeTables& rope,
                          const BlockWeights& weights, const Tensor& hidden, Tensor* out);

// The same over calibration activations, wherever they lie. `out` may be `&hidden`. `stop` is
// asked before each sequence (kCancelled).
absl::StatusOr<SequenceBuffer> EmbedSequences(Backend* backend, const Checkpoint& checkpoint,
                                              DType act, SequenceBuffer::Placement placement,
                                              const std::vector<int32_t>& ids,
                                              int64_t num_sequences, int64_t seq_len);
absl::Status ForwardBlock(Backend* backend, const BlockSpec& spec, const RopeTables& rope,
                          const BlockWeights& weights, const SequenceBuffer& hidden,
                          SequenceBuffer* out, const StopToken& stop);

struct PerplexityOptions {
  int64_t window = 1024;      // tokens; windows do not overlap, a shorter tail is dropped
  int64_t max_windows = 200;  // 0: all
  DType act = DType::kFloat32;
  bool keep_packed = false;  // quantized layers multiply from their packed form
  std::function<void(int64_t done, int64_t total)>
      progress;  // in units of (block, window); may be empty
  StopToken stop;
  // The last block's output of the first `max_kept` windows goes there, [windows, L, H] act; null:
  // nowhere.
  Tensor* kept = nullptr;
  int64_t max_kept = 0;
};
struct Perplexity {
  double perplexity = 0;   // exp(mean negative log likelihood)
  double mean_nll = 0;     // nats a token
  int64_t num_tokens = 0;  // predicted tokens: (window − 1) · windows
  // Most device memory that weights held at a time (the model is read layer by layer), and what all
  // blocks and the head would hold together.
  uint64_t peak_weight_bytes = 0, total_weight_bytes = 0;
};
// Layer by layer over all windows. Errors: TOO_FEW_TOKENS when there is no whole window;
// TOKEN_OUT_OF_RANGE; kCancelled.
absl::StatusOr<Perplexity> EvaluatePerplexity(Backend* backend, const Checkpoint& checkpoint,
                                              const std::vector<int32_t>& tokens,
                                              const PerplexityOptions& options);

// How far a model's predictions are from the original's, on the same tokens.
struct Agreement {
  double divergence = 0;   // mean KL(original ‖ other), nats a token
  double same_top = 0;     // part of the tokens at which both find the same token most probable
  int64_t num_tokens = 0;  // predictions compared
};
// From what EvaluatePerplexity kept of both. Error: kCancelled; LOGITS_NOT_FINITE.
absl::StatusOr<Agreement> ComparePredictions(Backend* backend, const Checkpoint& original,
                                             const Tensor& kept_original, const Checkpoint& other,
                                             const Tensor& kept_other, const StopToken& stop);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_LANGUAGE_MODEL_H_
