#include "server/access/access_policy.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "common/spec/glob.h"

namespace uniquanf::server {
namespace {

constexpr absl::Duration kLeeway = absl::Seconds(60);
constexpr size_t kMaxTenantsOfToken = 64;
constexpr char kOthers[] = "*";

absl::Status Unknown(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kUnauthenticated, reason, message);
}
absl::Status BadToken(absl::string_view why) {
  return Unknown("INVALID_TOKEN", absl::StrCat("the token ", why));
}

// A string, or an array of strings; nullopt: something else. A claim that is missing is none.
std::optional<std::vector<std::string>> StringsOf(const nlohmann::json& claims,
                                                  const std::string& name) {
  const auto it = claims.find(name);
  if (it == claims.end()) return std::vector<std::string>();
  if (it->is_string()) return std::vector<std::string>{it->get<std::string>()};
  if (!it->is_array() || it->size() > kMaxTenantsOfToken) return std::nullopt;
  std::vector<std::string> values;
  for (const nlohmann::json& value : *it) {
    if (!value.is_string()) return std::nullopt;
    values.push_back(value.get<std::string>());
  }
  return values;
}

std::string StringOf(const nlohmann::json& claims, const std::string& name) {
  const auto it = claims.find(name);
  return it != claims.end() && it->is_string() ? it->get<std::string>() : "";
}

// A time in seconds since 1970 (NumericDate); nullopt: missing or of no use.
std::optional<absl::Time> TimeOf(const nlohmann::json& claims, const char* name) {
  const auto it = claims.find(name);
  if (it == claims.end() || !it->is_number()) return std::nullopt;
  const double seconds = it->get<double>();
  if (!std::isfinite(seconds) || std::abs(seconds) > 1e11) return std::nullopt;
  return absl::UnixEpoch() + absl::Seconds(seconds);
}

}  // namespace

bool PrincipalMatches(absl::string_view pattern, absl::string_view name) {
  const std::vector<absl::string_view> patterns = absl::StrSplit(pattern, '/');
  const std::vector<absl::string_view> parts = absl::StrSplit(name, '/');
  if (patterns.size() != parts.size()) return false;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!GlobMatches(patterns[i], parts[i])) return false;
  }
  return true;
}

absl::StatusOr<Identity> AccessPolicy::FromCertificate(const PeerNames& names) const {
  std::set<std::string> all(names.uris.begin(), names.uris.end());
  all.insert(names.dns_names.begin(), names.dns_names.end());
  all.insert(names.common_name);
  for (const std::string& name : all) {
    if (gateways_.count(name) > 0) {
      return Unknown("GATEWAY_CERTIFICATE",
                     "the certificate is a gateway's, which is nobody: a caller behind it needs a "
                     "token");
    }
  }
  std::vector<std::string> ids;
  for (const std::string& uri : names.uris) {
    if (absl::StartsWith(uri, "spiffe://")) ids.push_back(uri);
  }
  std::set<std::string> found;
  if (!ids.empty()) {
    // A certificate with a SPIFFE ID means that one, and nothing else.
    const std::string prefix = absl::StrCat("spiffe://", trust_domain_, "/");
    if (ids.size() == 1 && !trust_domain_.empty() && absl::StartsWith(ids[0], prefix)) {
      const absl::StatusOr<Identity> identity = IdentityFromName(ids[0].substr(prefix.size()));
      if (identity.ok()) found.insert(identity->name);
    }
  } else {
    for (const std::string& name : names.dns_names) {
      const auto it = names_.find(name);
      if (it != names_.end()) found.insert(it->second);
    }
    const auto it = names_.find(names.common_name);
    if (found.empty() && it != names_.end()) found.insert(it->second);
  }
  if (found.size() != 1) {
    return Unknown("UNKNOWN_CERTIFICATE",
                   found.empty() ? "the certificate names nobody whom the server's policy knows"
                                 : "the certificate names several whom the server's policy knows");
  }
  UQ_ASSIGN_OR_RETURN(Identity identity, IdentityFromName(*found.begin()));
  identity.authenticator = "mtls";
  return identity;
}

absl::StatusOr<const TokenIssuer*> AccessPolicy::IssuerOf(const nlohmann::json& claims) const {
  const std::string name = StringOf(claims, "iss");
  const auto audiences = StringsOf(claims, "aud");
  if (name.empty()) return BadToken("has no issuer (iss)");
  if (!audiences.has_value()) return BadToken("has an audience (aud) that is no text");
  bool known = false;
  for (const TokenIssuer& issuer : issuers_) {
    if (issuer.issuer != name) continue;
    known = true;
    if (absl::c_linear_search(*audiences, issuer.audience)) return &issuer;
  }
  if (known) {
    return Unknown("WRONG_AUDIENCE",
                   "the token is meant for others: this server is not among its "
                   "audience (aud)");
  }
  return Unknown("UNKNOWN_ISSUER",
                 "the token is of an issuer (iss) whom the server's policy does "
                 "not know");
}

absl::StatusOr<Identity> AccessPolicy::FromClaims(const TokenIssuer& issuer,
                                                  const nlohmann::json& claims,
                                                  absl::Time now) const {
  const std::optional<absl::Time> expires = TimeOf(claims, "exp");
  if (!expires.has_value()) return BadToken("has no time at which it expires (exp)");
  if (now > *expires + kLeeway) {
    return Unknown("TOKEN_EXPIRED",
                   absl::StrCat("the token has expired at ",
                                absl::FormatTime(absl::RFC3339_sec, *expires, absl::UTCTimeZone()),
                                "; get a fresh one"));
  }
  if (claims.contains("nbf")) {
    const std::optional<absl::Time> begins = TimeOf(claims, "nbf");
    if (!begins.has_value()) return BadToken("begins at what is no time (nbf)");
    if (now < *begins - kLeeway) {
      return Unknown("TOKEN_NOT_YET_VALID",
                     "the token is not good yet (nbf); compare the clocks of its issuer and of "
                     "this server");
    }
  }
  const std::string name = StringOf(claims, issuer.name_claim);
  const auto tenants = StringsOf(claims, issuer.tenant_claim);
  const auto roles = StringsOf(claims, issuer.role_claim);
  if (name.empty()) return BadToken(absl::StrCat("has no claim ", issuer.name_claim));
  if (!tenants.has_value() || !roles.has_value()) {
    return BadToken(absl::StrCat("has a claim ",
                                 tenants.has_value() ? issuer.role_claim : issuer.tenant_claim,
                                 " that is neither a text nor a list of them"));
  }
  std::string full = absl::StrCat("user/", name);
  if (issuer.kind == TokenIssuer::Kind::kWorker) full = absl::StrCat("worker/", name);
  if (issuer.kind == TokenIssuer::Kind::kOperator) full = absl::StrCat("operator/", name);
  const bool of_tenants = issuer.kind == TokenIssuer::Kind::kUser;
  if (of_tenants && tenants->size() == 1)
    full = absl::StrCat("tenant/", tenants->front(), "/", full);
  absl::StatusOr<Identity> identity = IdentityFromName(full);
  if (!identity.ok()) return BadToken("has a name or a tenant that is none");
  for (const std::string& tenant : *tenants) {
    if (!IsTenantName(tenant)) return BadToken("has a tenant that is none");
    if (of_tenants) identity->tenants.insert(tenant);
  }
  for (const std::string& role : *roles) {
    const auto it = issuer.roles.find(role);
    if (it != issuer.roles.end() && issuer.kind != TokenIssuer::Kind::kWorker) {
      identity->roles.insert(it->second);
    }
  }
  identity->authenticator = "jwt";
  identity->issuer = issuer.issuer;
  identity->expires = *expires + kLeeway;
  return *std::move(identity);
}

Principal AccessPolicy::Resolve(Identity identity) const {
  Principal principal;
  static_cast<Identity&>(principal) = std::move(identity);
  for (const Role role : principal.roles) {
    TenantScope scope{role == Role::kOperator, {}};
    if (!scope.all) scope.tenants = principal.tenants;
    principal.grants.push_back({role, std::move(scope), "its token's roles"});
  }
  for (size_t i = 0; i < bindings_.size(); ++i) {
    const Binding& binding = bindings_[i];
    const bool matches = std::any_of(
        binding.principals.begin(), binding.principals.end(),
        [&](const std::string& pattern) { return PrincipalMatches(pattern, principal.name); });
    if (!matches) continue;
    Grant grant{binding.role, binding.tenants, absl::StrCat("bindings[", i, "]")};
    if (binding.own) grant.tenants.Add({false, principal.tenants});
    principal.grants.push_back(std::move(grant));
  }
  return principal;
}

bool AccessPolicy::Believes(const Identity& identity) const {
  if (identity.authenticator != "jwt") return true;
  return std::any_of(issuers_.begin(), issuers_.end(),
                     [&](const TokenIssuer& issuer) { return issuer.issuer == identity.issuer; });
}

const TenantRules& AccessPolicy::RulesOf(const std::string& tenant) const {
  static const TenantRules& none = *new TenantRules();
  const auto it = tenants_.find(tenant);
  if (it != tenants_.end()) return it->second;
  const auto others = tenants_.find(kOthers);
  return others == tenants_.end() ? none : others->second;
}

const WorkerRules& AccessPolicy::RulesOfWorker(absl::string_view identity) const {
  static const WorkerRules& none = *new WorkerRules();
  const auto it = workers_.find(std::string(absl::StripPrefix(identity, "worker/")));
  if (it != workers_.end()) return it->second;
  const auto others = workers_.find(kOthers);
  return others == workers_.end() ? none : others->second;
}

}  // namespace uniquanf::server
