// Content-addressed objects of a job ("objects/<sha256>") and small adapters around object stores.
//
// Thread safety: free functions; as the stores they are given.
// Errors: store errors pass through; kDataLoss (DIGEST_MISMATCH) when an object's bytes do not hash
// to its name.
#ifndef UNIQUANF_WORKER_TASK_CONTENT_STORE_H_
#define UNIQUANF_WORKER_TASK_CONTENT_STORE_H_

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

// "objects/<sha256>".
std::string ContentKey(absl::string_view sha256);

// Stores `bytes` under their digest and returns it. An object that exists already is left alone:
// its name says that it holds the same bytes.
absl::StatusOr<std::string> PutContent(ObjectStore* store, absl::string_view bytes);
// The object's bytes, checked against its name.
absl::StatusOr<std::string> GetContent(ObjectStore* store, absl::string_view sha256,
                                       uint64_t max_bytes);
// Copies an object in pieces; fails with kDataLoss when its bytes do not hash to `sha256`.
absl::Status CopyObject(ObjectStore* from, absl::string_view from_key, ObjectStore* to,
                        absl::string_view to_key, absl::string_view sha256);

// Collects what is written in memory, for bytes whose digest is their name.
class StringWriter : public ObjectWriter {
 public:
  // `expected_bytes`: room to begin with.
  explicit StringWriter(uint64_t expected_bytes = 0) { bytes_.reserve(expected_bytes); }
  absl::Status Append(absl::string_view data) override;
  absl::Status Commit() override { return absl::OkStatus(); }
  std::string& bytes() { return bytes_; }

 private:
  std::string bytes_;
};

// `base` with some objects shown from memory instead: lets an artifact be read by the ordinary
// reader before its manifest is published. Read-only.
std::shared_ptr<ObjectStore> NewOverlayStore(std::shared_ptr<ObjectStore> base,
                                             std::map<std::string, std::string> overlay);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_CONTENT_STORE_H_
