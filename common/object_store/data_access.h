// Where one tenant's data may lie, and with whose rights it is opened: URI prefixes by purpose.
// What is compared is what a store will open, so a URI that a store, or a file system, could read
// in two ways is refused. The server asks when a job is submitted; the worker again where it opens,
// and there no link leads out either (local_store.h).
//
// Thread safety: immutable values and free functions. Errors: kInvalidArgument (INVALID_SPEC)
// without the URI, which the caller names; kPermissionDenied (DATA_NOT_ALLOWED);
// kFailedPrecondition (INVALID_CREDENTIALS) names the reference, never what it leads to.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_DATA_ACCESS_H_
#define UNIQUANF_COMMON_OBJECT_STORE_DATA_ACCESS_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/object_store/s3_credentials.h"

namespace uniquanf {

// kCalibration: and distillation.
enum class DataPurpose { kModel, kCalibration, kEvaluation, kOutput };
inline constexpr DataPurpose kDataPurposes[] = {DataPurpose::kModel, DataPurpose::kCalibration,
                                                DataPurpose::kEvaluation, DataPurpose::kOutput};
inline constexpr size_t kNumDataPurposes = 4;
std::string DataPurposeName(DataPurpose purpose);  // "model"

// A complete URI of a store without ".", "..", "%", empty segments or control characters; a slash
// at its end does not matter.
absl::Status CheckDataUri(absl::string_view uri);
// Both of that form: `uri` is `prefix` or below it, segment by segment.
bool LiesBelow(absl::string_view uri, absl::string_view prefix);

struct DataGrant {
  std::string uri_prefix;
  std::vector<DataPurpose> purposes;
  std::string credentials;  // a reference; "": those of the process
};

class DataAccess {
 public:
  // `withheld`: URIs below which nothing is opened through a grant that is not below them itself,
  // whatever links lead there. `credentials_dir`: where "file:NAME" lies; "": such references are
  // refused.
  DataAccess(std::vector<DataGrant> grants, std::vector<std::string> withheld,
             std::string credentials_dir)
      : grants_(std::move(grants)),
        withheld_(std::move(withheld)),
        credentials_dir_(std::move(credentials_dir)) {}

  // The grant that `uri` is under for `purpose`: of several the one with the longest prefix.
  absl::StatusOr<const DataGrant*> Find(DataPurpose purpose, absl::string_view uri) const;
  const std::vector<std::string>& withheld() const { return withheld_; }
  const std::string& credentials_dir() const { return credentials_dir_; }

 private:
  std::vector<DataGrant> grants_;
  std::vector<std::string> withheld_;
  std::string credentials_dir_;
};

// A reference has the right form: "file:NAME" (a credentials file of AWS's form below
// `credentials_dir`), "env:NAME" (NAME_ACCESS_KEY_ID, NAME_SECRET_ACCESS_KEY, NAME_SESSION_TOKEN)
// or "role:ARN" (assumed with the process's web identity).
absl::Status CheckCredentialsReference(absl::string_view reference);
// `process` with the credentials that `reference` leads to in place of its own. "": its own.
// Errors: what it leads to is not there.
absl::StatusOr<Environment> EnvironmentFor(const std::string& reference,
                                           const std::string& credentials_dir, Environment process);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_DATA_ACCESS_H_
