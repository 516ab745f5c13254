// Object storage: a flat map from keys to byte strings, behind one interface for local directories
// (file://) and S3 (s3://). A conformance suite (tests/unit/common/object_store_conformance.h)
// states what every implementation does.
//
// Keys are relative, '/'-separated, without empty, "." or ".." segments, 1..1000 bytes of printable
// ASCII; anything else is kInvalidArgument (reason INVALID_OBJECT_KEY).
// Thread safety: stores are thread-safe; a writer is used by one thread at a time.
// Errors: kNotFound (OBJECT_NOT_FOUND), kAlreadyExists (OBJECT_EXISTS) for a refused conditional
// write, kPermissionDenied (PERMISSION_DENIED), kResourceExhausted (STORAGE_FULL) for a full disk
// or quota, kDataLoss (DIGEST_MISMATCH), kAborted (OBJECT_CHANGED) from ReadVersionAt alone,
// kUnavailable (STORE_UNAVAILABLE) after bounded retries. A failed write leaves no object and never
// a partial one. Messages name the object, never credentials.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_OBJECT_STORE_H_
#define UNIQUANF_COMMON_OBJECT_STORE_OBJECT_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/base/stop_token.h"

namespace uniquanf {

class StoreObserver;  // common/object_store/store_observer.h

struct ObjectInfo {
  std::string key;
  uint64_t size_bytes = 0;
  absl::Time modified;
  // From Stat: opaque, another one whenever the object was written anew (S3's entity tag; a local
  // file's inode, size and time of change, as exact as the file system's clock). Empty when the
  // store cannot tell, and in listings.
  std::string version;
};

struct WriteOptions {
  // Fail with kAlreadyExists, atomically, when the object exists (S3's If-None-Match: *).
  bool if_absent = false;
  // When not empty: 64 hex digits; the write fails with kDataLoss unless the bytes hash to it.
  std::string expected_sha256;
};

struct ListOptions {
  std::string prefix;
  // Continue after this key (exclusive); empty starts at the beginning.
  std::string start_after;
  int max_results = 1000;  // 1..1000
};

struct ListResult {
  std::vector<ObjectInfo> objects;  // in byte order of their keys
  bool truncated = false;           // more follow after the last key
};

// Streams one object. The object appears when Commit returns OK, whole; destroying a writer that
// was not committed aborts it and leaves nothing.
class ObjectWriter {
 public:
  virtual ~ObjectWriter() = default;
  virtual absl::Status Append(absl::string_view data) = 0;
  // Makes the object durable and visible. After an error the object is absent, except that after
  // kUnavailable and kCancelled it may exist whole. REQUIRES: called at most once, last.
  virtual absl::Status Commit() = 0;
};

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  // What the store is, for messages: "file:///data/models" or "s3://bucket/prefix".
  virtual std::string uri() const = 0;

  virtual absl::StatusOr<ObjectInfo> Stat(absl::string_view key) = 0;
  // Reads exactly `size_bytes` bytes from `offset` into `out` (caller's, at least that large);
  // kOutOfRange (OBJECT_TOO_SHORT) when the object ends before.
  virtual absl::Status ReadAt(absl::string_view key, uint64_t offset, uint64_t size_bytes,
                              char* out) = 0;
  // As ReadAt, of the object in the version that Stat returned (not empty): kAborted
  // (OBJECT_CHANGED) when it is another one by now; `out` then holds anything. The default compares
  // with a Stat after reading.
  virtual absl::Status ReadVersionAt(absl::string_view key, absl::string_view version,
                                     uint64_t offset, uint64_t size_bytes, char* out);
  // The whole object; kOutOfRange (OBJECT_TOO_LARGE) when it is larger than `max_bytes`.
  virtual absl::StatusOr<std::string> Read(absl::string_view key, uint64_t max_bytes);

  virtual absl::StatusOr<std::unique_ptr<ObjectWriter>> NewWriter(absl::string_view key,
                                                                  const WriteOptions& options) = 0;
  virtual absl::Status Write(absl::string_view key, absl::string_view data,
                             const WriteOptions& options = {});
  virtual absl::StatusOr<ListResult> List(const ListOptions& options) = 0;
  // OK also when the object does not exist.
  virtual absl::Status Delete(absl::string_view key) = 0;
};

struct StoreOptions {
  // Asked often, from any thread, while operations of a remote store wait for it: once it says yes
  // they end within about a second with kCancelled (REQUEST_INTERRUPTED). Local stores do not ask.
  StopToken stop;
  // Told of every operation on the store that is opened; null: nobody.
  std::shared_ptr<StoreObserver> observer;
  // Of directories that a local store makes, whatever the umask; its files are the same without
  // execution (0750 gives 0640). nullopt: 0777 and 0666 less the umask.
  std::optional<uint32_t> directory_mode;
};

// Opens the store named by `uri`: "file:///absolute/dir", a plain path (relative to the working
// directory), or "s3://bucket/prefix". The directory is created at the first write, not here.
// Errors: kInvalidArgument (INVALID_URI).
absl::StatusOr<std::shared_ptr<ObjectStore>> OpenObjectStore(absl::string_view uri,
                                                             const StoreOptions& options = {});

// A view of `store` in which every key is prefixed by `prefix` + "/". Shares ownership of `store`.
std::shared_ptr<ObjectStore> NewPrefixedStore(std::shared_ptr<ObjectStore> store,
                                              absl::string_view prefix);

// Splits "dir-uri/name" at the last '/'; for arguments that name one object (a token file).
// Errors: kInvalidArgument (INVALID_URI).
struct ObjectLocation {
  std::shared_ptr<ObjectStore> store;
  std::string key;
};
absl::StatusOr<ObjectLocation> OpenObjectLocation(absl::string_view uri,
                                                  const StoreOptions& options = {});

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_OBJECT_STORE_H_
