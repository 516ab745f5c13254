// What a policy file says about one call: `uniquanf-server --check-policy FILE PRINCIPAL METHOD
// RESOURCE`, for people who write one. It asks the very functions that the server asks.
#ifndef UNIQUANF_SERVER_SERVICE_CHECK_POLICY_H_
#define UNIQUANF_SERVER_SERVICE_CHECK_POLICY_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/access/access_policy.h"

namespace uniquanf::server {

struct PolicyDecision {
  bool allowed = false;
  std::string explanation;  // one line for people
};
// `method` is a name such as GetJob; `resource` is "tenants/T/jobs/J", "tenants/T" (all its jobs),
// "workers/W" or "server". Errors: kInvalidArgument names the argument that makes no sense.
absl::StatusOr<PolicyDecision> DecidePolicy(const AccessPolicy& policy,
                                            const std::string& principal, const std::string& method,
                                            const std::string& resource);

// `arguments`: FILE PRINCIPAL METHOD RESOURCE. Exit codes: 0 allowed, 1 denied, 2 bad usage or a
// bad file.
int RunCheckPolicy(const std::vector<std::string>& arguments);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_CHECK_POLICY_H_
