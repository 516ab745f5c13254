// Opens what a job names: through what its tenant may use (data_access.h), where that is said. A
// type of its own, so that nothing that knows of a tenant can be opened as if it did not.
//
// Thread safety: free functions. Errors: of object_store.h and data_access.h.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_OPEN_DATA_H_
#define UNIQUANF_COMMON_OBJECT_STORE_OPEN_DATA_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/object_store/data_access.h"
#include "common/object_store/object_cache.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

struct DataOptions {
  StoreOptions store = {};
  // The URI must be under one of its grants for `purpose`, is opened with that grant's credentials,
  // and no link of a local one leads out of the grant's prefix. Null: whatever the process may
  // open.
  std::shared_ptr<const DataAccess> access = nullptr;
  DataPurpose purpose = DataPurpose::kModel;
};

// As OpenObjectStore, OpenObjectStoreThrough and OpenObjectLocation.
absl::StatusOr<std::shared_ptr<ObjectStore>> OpenData(absl::string_view uri,
                                                      const DataOptions& options);
absl::StatusOr<std::shared_ptr<ObjectStore>> OpenDataThrough(absl::string_view uri,
                                                             std::shared_ptr<ObjectCache> cache,
                                                             const DataOptions& options);
absl::StatusOr<ObjectLocation> OpenDataLocation(absl::string_view uri, const DataOptions& options);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_OPEN_DATA_H_
