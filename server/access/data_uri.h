// Where a tenant's data may lie: URIs below prefixes. What is compared is what a store will open,
// so a URI with anything that a store, or a file system, could read in two ways is refused.
//
// Thread safety: free functions. Errors: kInvalidArgument (INVALID_SPEC) without the URI, which the
// caller names; kPermissionDenied (DATA_NOT_ALLOWED).
#ifndef UNIQUANF_SERVER_ACCESS_DATA_URI_H_
#define UNIQUANF_SERVER_ACCESS_DATA_URI_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace uniquanf::server {

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

// What one tenant's jobs may name.
struct DataRules {
  std::string own;                    // its place, for reading: OBJECT_ROOT/tenants/{t}
  std::vector<std::string> reserved;  // the server's own places, for nobody else
};
// Whether the tenant may name `uri` for `purpose`, by `prefixes` of its policy.
absl::Status CheckDataAllowed(const DataRules& rules, const std::vector<std::string>& prefixes,
                              DataPurpose purpose, const std::string& tenant,
                              const std::string& uri);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_ACCESS_DATA_URI_H_
