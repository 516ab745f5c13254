// The next token of a sequence, from its logits.
//
// A draw is a function of the logits, the settings, the sequence's number and the position: the
// same whatever was drawn before or beside it. Thread safety: free functions and plain values.
#ifndef UNIQUANF_WORKER_GENERATE_SAMPLER_H_
#define UNIQUANF_WORKER_GENERATE_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace uniquanf {

struct Sampling {
  double temperature = 0;  // 0: the most probable token (the lower id of equals)
  // Only the most probable tokens whose probabilities reach this sum are drawn from (Holtzman et
  // al., "The curious case of neural text degeneration", ICLR 2020); 1: all.
  double top_p = 1;
  uint64_t seed = 0;
};

// Error: kInvalidArgument (LOGITS_NOT_FINITE): the model is broken, or its arithmetic overflowed.
absl::StatusOr<int32_t> SampleToken(absl::Span<const float> logits, const Sampling& sampling,
                                    uint64_t sequence, uint64_t position);

// The same of logits [B, V] for sequences first_sequence.. at the same position: [B] ids.
absl::StatusOr<std::vector<int32_t>> SampleTokens(absl::Span<const float> logits, int64_t batch,
                                                  const Sampling& sampling, uint64_t first_sequence,
                                                  uint64_t position);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_GENERATE_SAMPLER_H_
