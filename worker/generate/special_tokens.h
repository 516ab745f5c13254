// With which tokens a model begins and ends a text: generation_config.json, and where that does not
// say, config.json.
//
// Thread safety: free functions. Errors: kInvalidArgument (INVALID_MODEL_CONFIG) names file and
// field; store errors.
#ifndef UNIQUANF_WORKER_GENERATE_SPECIAL_TOKENS_H_
#define UNIQUANF_WORKER_GENERATE_SPECIAL_TOKENS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

struct BoundaryTokens {
  int32_t begin = -1;        // −1: the model has none
  std::vector<int32_t> end;  // ascending; any of them ends a text
};

// `generation_config` is empty where the model has no such file. Ids are below vocab_size.
absl::StatusOr<BoundaryTokens> ParseSpecialTokens(absl::string_view config,
                                                  absl::string_view generation_config,
                                                  int64_t vocab_size);
// Of the model at the root of `store`, whose config.json is `config`.
absl::StatusOr<BoundaryTokens> ReadSpecialTokens(ObjectStore* store, absl::string_view config,
                                                 int64_t vocab_size);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_GENERATE_SPECIAL_TOKENS_H_
