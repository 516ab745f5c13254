// Writes one S3 object; the rules are in s3_store.h. Not thread-safe. Keeps the client alive. Holds
// up to five parts in memory: one that is filled and kMaxPartsInFlight on their way, each on a
// thread.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_S3_WRITER_H_
#define UNIQUANF_COMMON_OBJECT_STORE_S3_WRITER_H_

#include <cstdint>
#include <deque>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/digest.h"
#include "common/object_store/object_store.h"
#include "common/object_store/s3_client.h"

namespace uniquanf {

class S3Writer : public ObjectWriter {
 public:
  // `key` is the full key in the bucket; `write_id` is unique to this write.
  S3Writer(std::shared_ptr<S3Client> client, std::string key, WriteOptions options,
           std::string write_id, uint64_t min_part_bytes);
  ~S3Writer() override;  // aborts an upload that was not completed; may take a few requests

  absl::Status Append(absl::string_view data) override;
  absl::Status Commit() override;

 private:
  absl::Status AppendParts(absl::string_view data);
  absl::Status StartUpload();
  // Starts sending a part, when kMaxPartsInFlight are on their way after waiting for the oldest.
  absl::Status SendPart(std::string part);
  // Waits for the oldest part, or for all; the first failure.
  absl::Status FinishOldestPart();
  absl::Status FinishParts();
  absl::Status PutWhole();
  absl::Status CompleteUpload();
  absl::Status CheckCompleted();
  void Abort();

  // The object's state as HEAD tells it.
  enum class Presence { kAbsent, kOther, kOurs };
  absl::StatusOr<Presence> Look(uint64_t* size_bytes);
  absl::Status AlreadyExists() const;
  std::string Name() const;

  const std::shared_ptr<S3Client> client_;
  const std::string key_;
  const WriteOptions options_;
  const std::string write_id_;
  const uint64_t min_part_bytes_;

  std::string buffer_;  // the part that is being filled
  uint64_t sent_bytes_ = 0;
  std::deque<std::future<absl::StatusOr<std::string>>> in_flight_;  // entity tags, in part order
  std::string upload_id_;           // "" while there is no multipart upload
  std::vector<std::string> etags_;  // of the finished parts, in order
  Sha256 digest_;                   // fed only when the options name an expected digest
  absl::Status status_;             // the first failure; later calls repeat it
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_S3_WRITER_H_
