// A store seen through a local cache: reads of remote objects, models above all, ask the store only
// for what is not on this machine's disk. Everything else passes through.
//
// Never stale. Pieces are cached under the object's URI, version, size and time, so an object that
// was written anew has other pieces. Which version is the current one is asked when an object is
// opened (Stat, Read), and again when a read comes more than 10 s after the last answer; in
// between, reads see the object as it was then, as an open file would, if the pieces are there, and
// the new object if not. A piece is fetched on the condition that the object still has the version
// (If-Match); when it has another one, the read starts over with that. So one read never mixes
// versions. Objects whose version the store cannot tell are not cached.
//
// Thread safety, errors: object_store.h. Ownership: shared.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_CACHING_STORE_H_
#define UNIQUANF_COMMON_OBJECT_STORE_CACHING_STORE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/stop_token.h"
#include "common/object_store/object_cache.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

// `cache` null: `store` itself. `stop` (StoreOptions) ends waiting for what others fetch.
std::shared_ptr<ObjectStore> NewCachingStore(std::shared_ptr<ObjectStore> store,
                                             std::shared_ptr<ObjectCache> cache,
                                             StopToken stop = {});

// Opens `uri` as OpenObjectStore does, through `cache` (may be null) where it is remote.
absl::StatusOr<std::shared_ptr<ObjectStore>> OpenObjectStoreThrough(
    absl::string_view uri, std::shared_ptr<ObjectCache> cache, const StoreOptions& options = {});

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_CACHING_STORE_H_
