// The object store on S3 and what speaks its protocol (tested against Ceph RGW).
//
// Thread safety, errors: object_store.h; s3_credentials.h and s3_config.h for what can be wrong
// with the settings. Opening asks nobody: the first operation finds out whether the bucket is
// there.
//
// Writes. An object of up to `min_part_bytes` is one PUT; a longer one is a multipart upload whose
// parts hold max(min_part_bytes, bytes so far / 1000), so that 10,000 parts are never reached (a
// 5 TiB object, S3's largest, has about 7,500). Every body is signed with its SHA-256, and the
// length of a multipart object is checked after it was completed. A failed or abandoned upload is
// aborted; what a killed process leaves is for AbortStaleS3Uploads.
//
// Conditional writes. `if_absent` is S3's If-None-Match: *, for a PUT and for completing an upload.
// Servers that do not know it for completing (Ceph before 20, for one) ignore it: there, a writer
// of a *multipart* object that loses a race within the few milliseconds between its last look and
// its completion replaces the winner's object. Where that matters, write a small object last. Every
// write carries a random id as metadata ("uniquanf-write"). A retry of a write whose first attempt
// had taken effect is refused by its own condition; the id tells this from a lost race.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_S3_STORE_H_
#define UNIQUANF_COMMON_OBJECT_STORE_S3_STORE_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/object_store/object_store.h"
#include "common/object_store/s3_client.h"

namespace uniquanf {

// S3 refuses parts below 5 MiB.
inline constexpr uint64_t kDefaultMinPartBytes = 8u << 20;

// Everything from outside, for tests. `clock` and `ids` outlive the store.
struct S3StoreOptions {
  Environment environment;       // empty: the process's
  const Clock* clock = nullptr;  // null: the system's
  IdGenerator* ids = nullptr;    // null: random ones
  S3ClientOptions client;
  uint64_t min_part_bytes = kDefaultMinPartBytes;
};

// `uri`: s3://bucket or s3://bucket/prefix.
absl::StatusOr<std::shared_ptr<ObjectStore>> OpenS3Store(absl::string_view uri);
absl::StatusOr<std::shared_ptr<ObjectStore>> OpenS3Store(absl::string_view uri,
                                                         S3StoreOptions options);

// Aborts the multipart uploads under `uri` that began more than `min_age` ago, and returns how
// many. Safe beside running writers while min_age exceeds the time that any of them takes.
absl::StatusOr<int> AbortStaleS3Uploads(absl::string_view uri, absl::Duration min_age,
                                        S3StoreOptions options = {});

// Bytes of the next part after `bytes_so_far`.
uint64_t S3PartBytes(uint64_t bytes_so_far, uint64_t min_part_bytes);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_S3_STORE_H_
