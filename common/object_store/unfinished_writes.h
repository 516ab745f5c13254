// What writers that were killed have left in a store: multipart uploads (S3), temporary files
// (local). Neither shows as an object, both take space.
//
// Thread safety: free function. Errors: as the stores'.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_UNFINISHED_WRITES_H_
#define UNIQUANF_COMMON_OBJECT_STORE_UNFINISHED_WRITES_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace uniquanf {

// Removes those below `uri` (as OpenObjectStore takes it) that are older than `min_age`, and
// returns how many. Safe beside running writers while no write of one object takes as long.
absl::StatusOr<int> RemoveUnfinishedWrites(absl::string_view uri, absl::Duration min_age);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_UNFINISHED_WRITES_H_
