#include "common/object_store/unfinished_writes.h"

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "common/object_store/local_store.h"
#include "common/object_store/s3_store.h"

namespace uniquanf {

absl::StatusOr<int> RemoveUnfinishedWrites(absl::string_view uri, absl::Duration min_age) {
  UQ_RETURN_IF_ERROR(OpenObjectStore(uri).status());  // says what is wrong with the URI
  if (absl::StartsWith(uri, "s3://")) return AbortStaleS3Uploads(uri, min_age);
  return SweepTemporaries(absl::StripPrefix(uri, "file://"), min_age);
}

}  // namespace uniquanf
