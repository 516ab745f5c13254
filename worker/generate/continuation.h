// What a model writes after a prompt.
//
// Thread safety: as Backend. Errors: those of IncrementalModel and SampleToken.
#ifndef UNIQUANF_WORKER_GENERATE_CONTINUATION_H_
#define UNIQUANF_WORKER_GENERATE_CONTINUATION_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/stop_token.h"
#include "worker/generate/resident_model.h"
#include "worker/generate/sampler.h"

namespace uniquanf {

struct ContinuationOptions {
  Sampling sampling;
  uint64_t sequence = 0;  // of the draws: prompts beside each other have their own
  int64_t max_new_tokens = 256;
  std::vector<int32_t> end;  // tokens that end the text, ascending
  StopToken stop;            // asked before every token: the text then ends there
  std::function<void(int32_t id)>
      on_token;  // of each that comes, but those that end it; may be empty
};

struct Continuation {
  enum class End { kEndToken, kLength, kModelLength, kStopped };
  std::vector<int32_t> ids;  // without the prompt and the token that ended it
  End end = End::kLength;
};
const char* EndName(Continuation::End end);  // "end_token", "length", "model_length", "stopped"

// At most max_new_tokens after `prompt`, which is not empty, and no more than the model has
// positions for. Errors: SEQUENCE_TOO_LONG when these do not reach beyond the prompt.
absl::StatusOr<Continuation> Continue(ResidentModel* model, absl::Span<const int32_t> prompt,
                                      const ContinuationOptions& options);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_GENERATE_CONTINUATION_H_
