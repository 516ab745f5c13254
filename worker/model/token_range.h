// Whether token ids are those of a model.
//
// Thread safety: free functions. Errors: kInvalidArgument (TOKEN_OUT_OF_RANGE) names id, position
// and vocabulary size.
#ifndef UNIQUANF_WORKER_MODEL_TOKEN_RANGE_H_
#define UNIQUANF_WORKER_MODEL_TOKEN_RANGE_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/base/status.h"

namespace uniquanf {

// OK when every id is in [0, vocab_size). Id: a signed integer.
template <typename Id>
absl::Status CheckTokens(absl::Span<const Id> ids, int64_t vocab_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_size) continue;
    return InvalidInput("TOKEN_OUT_OF_RANGE",
                        absl::StrCat("token id ", ids[i], " at position ", i,
                                     " is outside the model's vocabulary of ", vocab_size,
                                     "; were the tokens made by this model's tokenizer?"));
  }
  return absl::OkStatus();
}

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_TOKEN_RANGE_H_
