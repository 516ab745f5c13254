#include "common/object_store/unfinished_writes.h"

#include "common/base/status.h"
#include "common/object_store/local_store.h"
#include "common/object_store/store_schemes.h"

namespace uniquanf {

absl::StatusOr<int> RemoveUnfinishedWrites(absl::string_view uri, absl::Duration min_age) {
  UQ_RETURN_IF_ERROR(OpenObjectStore(uri).status());  // says what is wrong with the URI
  const StoreScheme* const scheme = FindStoreScheme(uri);
  return scheme != nullptr ? scheme->sweep_unfinished(uri, min_age)
                           : SweepTemporaries(uri, min_age);
}

}  // namespace uniquanf
