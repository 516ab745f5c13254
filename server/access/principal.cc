#include "server/access/principal.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"

namespace uniquanf::server {
namespace {

constexpr absl::string_view kRoleNames[] = {"user", "viewer", "operator", "worker"};
constexpr absl::string_view kVerbNames[] = {"create", "read",   "cancel", "retry", "pause",
                                            "resume", "delete", "work",   "drain", "set"};
constexpr absl::string_view kResourceNames[] = {"job", "worker", "server"};

struct Right {
  Role role;
  Resource resource;
  std::initializer_list<Verb> verbs;
};
const Right kRights[] = {
    {Role::kUser,
     Resource::kJob,
     {Verb::kCreate, Verb::kRead, Verb::kCancel, Verb::kRetry, Verb::kPause, Verb::kResume,
      Verb::kDelete}},
    {Role::kViewer, Resource::kJob, {Verb::kRead}},
    {Role::kOperator, Resource::kJob, {Verb::kRead, Verb::kCancel}},
    {Role::kOperator, Resource::kWorker, {Verb::kRead, Verb::kDrain}},
    {Role::kOperator, Resource::kServer, {Verb::kRead, Verb::kSet}},
    {Role::kWorker, Resource::kWorker, {Verb::kWork}},
};

// One segment of a name: printable, and nothing that a pattern or a path means something by.
bool IsPersonName(absl::string_view name) {
  return !name.empty() && name.size() <= 128 && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || absl::StrContains("._:@|+-", c);
  });
}
// As in "workers/{worker}", without the colon that comes before a process's own name.
bool IsWorkerName(absl::string_view name) {
  return !name.empty() && name.size() <= 63 && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || absl::StrContains("._-", c);
  });
}

}  // namespace

std::string RoleName(Role role) { return std::string(kRoleNames[static_cast<int>(role)]); }
std::string VerbName(Verb verb) { return std::string(kVerbNames[static_cast<int>(verb)]); }
std::string ResourceName(Resource resource) {
  return std::string(kResourceNames[static_cast<int>(resource)]);
}

std::optional<Role> RoleFromName(absl::string_view name) {
  for (const Role role : kRoles) {
    if (RoleName(role) == name) return role;
  }
  return std::nullopt;
}

bool RoleMay(Role role, Verb verb, Resource resource) {
  return std::any_of(std::begin(kRights), std::end(kRights), [&](const Right& right) {
    return right.role == role && right.resource == resource &&
           std::find(right.verbs.begin(), right.verbs.end(), verb) != right.verbs.end();
  });
}

Principal Anonymous() {
  Principal principal;
  principal.name = "anonymous";
  principal.authenticator = "none";
  for (const Role role : kRoles) {
    principal.grants.push_back({role, TenantScope(), "no identity is asked for"});
  }
  return principal;
}

TenantScope ScopeOf(const Principal& principal, Verb verb, Resource resource) {
  TenantScope scope = TenantScope::None();
  for (const Grant& grant : principal.grants) {
    if (RoleMay(grant.role, verb, resource)) scope.Add(grant.tenants);
  }
  return scope;
}

JobAccess AccessTo(const Principal& principal, Verb verb) {
  JobAccess access;
  access.allowed = ScopeOf(principal, verb, Resource::kJob);
  access.visible = ScopeOf(principal, Verb::kRead, Resource::kJob);
  access.visible.Add(access.allowed);
  return access;
}

bool IsTenantName(absl::string_view name) {
  if (name.empty() || name.size() > 63 || name[0] == '-') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-';
  });
}

absl::StatusOr<Identity> IdentityFromName(absl::string_view name) {
  Identity identity;
  identity.name = std::string(name);
  const std::vector<absl::string_view> parts = absl::StrSplit(name, '/');
  if (parts.size() == 4 && parts[0] == "tenant" && IsTenantName(parts[1]) && parts[2] == "user" &&
      IsPersonName(parts[3])) {
    identity.tenants = {std::string(parts[1])};
    return identity;
  }
  if (parts.size() == 2 &&
      (((parts[0] == "operator" || parts[0] == "user") && IsPersonName(parts[1])) ||
       (parts[0] == "worker" && IsWorkerName(parts[1])))) {
    return identity;
  }
  return InvalidInput(
      "INVALID_PRINCIPAL",
      absl::StrCat("\"", absl::CHexEscape(name.substr(0, 100)),
                   "\" is not tenant/T/user/U, user/U, operator/O or worker/W, where T is "
                   "[a-z0-9][a-z0-9-]{0,62}, U and O are up to 128 of [A-Za-z0-9._:@|+-], W up to "
                   "63 of [A-Za-z0-9._-]"));
}

std::string WorkerOf(const Identity& identity, absl::string_view process) {
  constexpr absl::string_view kPrefix = "worker/";
  if (!absl::StartsWith(identity.name, kPrefix)) return "";
  const std::string name = identity.name.substr(kPrefix.size());
  return process == name ? name : absl::StrCat(name, ":", process.substr(0, 64));
}

}  // namespace uniquanf::server
