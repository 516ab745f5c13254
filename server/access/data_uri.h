// Whether a tenant's job may name a URI: what the server asks when it is submitted.
//
// Thread safety: free functions. Errors: kInvalidArgument (INVALID_SPEC); kPermissionDenied
// (DATA_NOT_ALLOWED); both name the URI.
#ifndef UNIQUANF_SERVER_ACCESS_DATA_URI_H_
#define UNIQUANF_SERVER_ACCESS_DATA_URI_H_

#include <array>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/object_store/data_access.h"

namespace uniquanf::server {

// What one tenant's jobs may name.
struct DataRules {
  std::string own;                    // its place, for reading: OBJECT_ROOT/tenants/{t}
  std::vector<std::string> reserved;  // the server's own places, for nobody else
};
// What a worker may open for one of the tenant's jobs: the tenant's own place with the worker's
// rights, and the prefixes of its policy (`data`, by DataPurpose), remote ones with `credentials`.
std::vector<DataGrant> GrantsOf(const DataRules& rules,
                                const std::array<std::vector<std::string>, kNumDataPurposes>& data,
                                const std::string& credentials);

// Whether the tenant may name `uri`, which the spec's `member` ("model_uri") says, for `purpose`,
// by `prefixes` of its policy.
absl::Status CheckDataAllowed(const DataRules& rules, const std::vector<std::string>& prefixes,
                              DataPurpose purpose, const std::string& tenant,
                              const std::string& member, const std::string& uri);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_ACCESS_DATA_URI_H_
