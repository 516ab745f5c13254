#include "server/service/check_policy.h"

#include <cstdio>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/printable.h"
#include "common/base/read_file.h"
#include "common/base/status.h"
#include "server/service/call.h"
#include "server/service/methods.h"
#include "server/service/resource_names.h"

namespace uniquanf::server {
namespace {

absl::Status BadArgument(absl::string_view message) {
  return InvalidInput("INVALID_FLAG", message);
}

const Method* FindMethod(absl::string_view name) {
  for (const Method& method : kMethods) {
    if (name == absl::string_view(method.name.data(), method.name.size())) return &method;
  }
  return nullptr;
}

// The tenant of a job's resource; "" for the others.
absl::StatusOr<std::string> TenantOf(const Method& method, absl::string_view resource) {
  const bool fits = method.resource == Resource::kJob      ? absl::StartsWith(resource, "tenants/")
                    : method.resource == Resource::kServer ? resource == "server"
                                                           : absl::StartsWith(resource, "workers/");
  if (!fits) {
    return BadArgument(absl::StrCat("RESOURCE ", Quoted(resource), " is not what ",
                                    absl::string_view(method.name.data(), method.name.size()),
                                    " is about: tenants/T or tenants/T/jobs/J, workers/W, or "
                                    "server"));
  }
  if (method.resource != Resource::kJob) return std::string();
  absl::ConsumePrefix(&resource, "tenants/");
  return std::string(resource.substr(0, resource.find('/')));
}

}  // namespace

absl::StatusOr<PolicyDecision> DecidePolicy(const AccessPolicy& policy, const std::string& name,
                                            const std::string& method_name,
                                            const std::string& resource) {
  UQ_ASSIGN_OR_RETURN(Identity identity, IdentityFromName(name));
  const Method* const method = FindMethod(method_name);
  if (method == nullptr) {
    return BadArgument(absl::StrCat("METHOD ", Quoted(method_name),
                                    " is not a method such as CreateJob or Synchronize"));
  }
  UQ_ASSIGN_OR_RETURN(const std::string tenant, TenantOf(*method, resource));
  const Principal principal = policy.Resolve(std::move(identity));
  const std::string act =
      absl::StrCat(principal.name, " may ", VerbName(method->verb), " ", resource);
  for (const Grant& grant : principal.grants) {
    if (!RoleMay(grant.role, method->verb, method->resource)) continue;
    if (!tenant.empty() && !grant.tenants.Has(tenant)) continue;
    return PolicyDecision{true, absl::StrCat("allowed: ", act, ", by the role ",
                                             RoleName(grant.role), " of ", grant.source)};
  }
  std::string roles;
  for (const Grant& grant : principal.grants) {
    absl::StrAppend(&roles, roles.empty() ? "" : ", ", RoleName(grant.role), " of ", grant.source);
  }
  const bool any = CheckAccess(principal, *method).ok();
  const bool visible = AccessTo(principal, Verb::kRead).visible.Has(tenant);
  const bool hidden = method->resource == Resource::kJob && any && !visible;
  return PolicyDecision{
      false, absl::StrCat("denied: nothing says that ", act,
                          "; its roles: ", roles.empty() ? "none" : roles, "; it is told ",
                          method->verb == Verb::kCreate && any ? "TENANT_NOT_ALLOWED"
                          : hidden                             ? "JOB_NOT_FOUND"
                                                               : "PERMISSION_DENIED")};
}

int RunCheckPolicy(const std::vector<std::string>& arguments) {
  const auto fail = [](absl::string_view message) {
    std::fprintf(stderr, "uniquanf-server: --check-policy: %s\n", PrintableText(message).c_str());
    return 2;
  };
  if (arguments.size() != 4) return fail("give FILE PRINCIPAL METHOD RESOURCE");
  const absl::StatusOr<std::string> text = ReadSmallFile(arguments[0]);
  if (!text.ok()) return fail(absl::StrCat(arguments[0], ": ", text.status().message()));
  const absl::StatusOr<AccessPolicy> policy = AccessPolicy::Parse(*text);
  if (!policy.ok()) return fail(absl::StrCat(arguments[0], ": ", policy.status().message()));
  const absl::StatusOr<PolicyDecision> decision =
      DecidePolicy(*policy, arguments[1], arguments[2], arguments[3]);
  if (!decision.ok()) return fail(decision.status().message());
  std::printf("%s\n", PrintableText(decision->explanation).c_str());
  return decision->allowed ? 0 : 1;
}

}  // namespace uniquanf::server
