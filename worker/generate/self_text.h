// Sequences that a model writes itself: text to calibrate with where there is none, or to add to
// what there is (Liu et al., "LLM-QAT: data-free quantization aware training", ACL 2024).
//
// Sequence s is a function of the model, the device, the prompts, the seed and s: not of how many
// are asked for, in which order or how often the work was begun anew. Every batch has the same size
// for that reason.
// Thread safety: as Backend. Errors: those of IncrementalModel and SampleToken; kCancelled.
#ifndef UNIQUANF_WORKER_GENERATE_SELF_TEXT_H_
#define UNIQUANF_WORKER_GENERATE_SELF_TEXT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/stop_token.h"
#include "worker/generate/incremental_model.h"

namespace uniquanf {

struct SelfTextOptions {
  int64_t sequence_length = 512;
  double temperature = 1;
  uint64_t seed = 0;
  // Where sequences begin: `prompt_length` tokens from a place in `corpus` [corpus_rows,
  // corpus_length] that is drawn for each. An empty corpus: `begin`, or where that is −1 a token
  // that is drawn from the whole vocabulary.
  int64_t prompt_length = 16;
  std::vector<int32_t> corpus;
  int64_t corpus_length = 0;
  int32_t begin = -1;
  StopToken stop;
  std::function<void(int64_t done, int64_t total)> progress;  // in tokens a sequence; may be empty
};

class SelfTextWriter {
 public:
  // Sequences that are written side by side.
  static constexpr int64_t kBatch = 64;

  static absl::StatusOr<std::unique_ptr<SelfTextWriter>> Create(ResidentModel* model,
                                                                SelfTextOptions options);
  // Sequences [kBatch · batch, kBatch · (batch + 1)): ids [kBatch, sequence_length].
  absl::StatusOr<std::vector<int32_t>> WriteBatch(int64_t batch);

 private:
  SelfTextWriter(ResidentModel* model, SelfTextOptions options)
      : model_(model), options_(std::move(options)) {}
  std::vector<int32_t> Prompt(uint64_t sequence) const;

  ResidentModel* const model_;
  const SelfTextOptions options_;
  std::unique_ptr<IncrementalModel> sequences_;
};

// The first `num_sequences` of them: ids [num_sequences, sequence_length].
absl::StatusOr<std::vector<int32_t>> WriteSelfText(ResidentModel* model,
                                                   const SelfTextOptions& options,
                                                   int64_t num_sequences);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_GENERATE_SELF_TEXT_H_
