// How probable a model finds each of several continuations of a text.
// Thread safety: as Backend. Errors: those of IncrementalModel; kInvalidArgument
// (LOGITS_NOT_FINITE).
#ifndef UNIQUANF_WORKER_GENERATE_CHOICE_SCORE_H_
#define UNIQUANF_WORKER_GENERATE_CHOICE_SCORE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/generate/resident_model.h"

namespace uniquanf {

struct ChoiceTokens {
  std::vector<int32_t> ids;  // the text and its continuation
  int64_t first = 0;         // of the continuation, at least 1
};

// Σ log p(token | those before) over each one's continuation. What is longer than the model's
// positions loses tokens at its beginning. REQUIRES: every continuation has a token.
absl::StatusOr<std::vector<double>> ScoreChoices(ResidentModel* model,
                                                 std::vector<ChoiceTokens> choices);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_GENERATE_CHOICE_SCORE_H_
