// Who calls, and what that allows: roles, and the rights that each has over which resources. A
// right that no role has is nobody's.
//
// Thread safety: plain values and free functions.
#ifndef UNIQUANF_SERVER_ACCESS_PRINCIPAL_H_
#define UNIQUANF_SERVER_ACCESS_PRINCIPAL_H_

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/core/tenant_scope.h"

namespace uniquanf::server {

enum class Role { kUser, kViewer, kOperator, kWorker };
inline constexpr Role kRoles[] = {Role::kUser, Role::kViewer, Role::kOperator, Role::kWorker};
enum class Verb { kCreate, kRead, kCancel, kRetry, kPause, kResume, kDelete, kWork, kDrain, kSet };
enum class Resource { kJob, kWorker, kServer };

std::string RoleName(Role role);  // "user"
std::optional<Role> RoleFromName(absl::string_view name);
std::string VerbName(Verb verb);
std::string ResourceName(Resource resource);
bool RoleMay(Role role, Verb verb, Resource resource);

// What an authenticator has found out.
struct Identity {
  // "tenant/T/user/U", "user/U" (of several tenants or of none), "operator/O" or "worker/W".
  std::string name;
  std::string authenticator;      // "mtls" or "jwt"; "none" where nothing is asked
  std::string issuer;             // of a token
  std::set<std::string> tenants;  // that it belongs to
  std::set<Role> roles;           // that its token claims and the policy lets it claim
  absl::Time expires = absl::InfiniteFuture();
};

// A role, over the jobs of these tenants.
struct Grant {
  Role role;
  TenantScope tenants;
  std::string source;  // for people: which line of the policy
};

struct Principal : Identity {
  std::vector<Grant> grants;
};

// Whoever calls a server that asks for no identity: it may do everything.
Principal Anonymous();
// The tenants over whose jobs it has the right; for other resources not empty means that it has it.
TenantScope ScopeOf(const Principal& principal, Verb verb, Resource resource);
JobAccess AccessTo(const Principal& principal, Verb verb);

// A tenant of an identity: [a-z0-9][a-z0-9-]{0,62}.
bool IsTenantName(absl::string_view name);
// The identity that has this name, of no authenticator. Errors: kInvalidArgument
// (INVALID_PRINCIPAL) says which forms there are.
absl::StatusOr<Identity> IdentityFromName(absl::string_view name);
// {worker} for people: W of "worker/W", or, where the process calls itself otherwise, "W:process":
// several may share an identity, and none takes another's. "" for others.
std::string WorkerOf(const Identity& identity, absl::string_view process);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_ACCESS_PRINCIPAL_H_
