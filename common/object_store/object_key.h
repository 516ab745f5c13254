// What every store checks, and how it words errors, so that all stores answer alike.
// Thread safety: free functions. Errors: as object_store.h names them.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_OBJECT_KEY_H_
#define UNIQUANF_COMMON_OBJECT_STORE_OBJECT_KEY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

// The key rules of object_store.h. Segments that start with ".tmp-" are refused too: the local
// store's temporary files have such names.
absl::Status ValidateObjectKey(absl::string_view key);
// expected_sha256 is empty or 64 lower-case hex digits.
absl::Status ValidateWriteOptions(const WriteOptions& options);

// kOutOfRange errors; `object` is the object's full name.
absl::Status ObjectTooLarge(absl::string_view object, uint64_t size_bytes, uint64_t max_bytes);
absl::Status ObjectTooShort(absl::string_view object, uint64_t actual_bytes, uint64_t offset,
                            uint64_t size_bytes);
// kAborted (OBJECT_CHANGED).
absl::Status ObjectChanged(absl::string_view object);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_OBJECT_KEY_H_
