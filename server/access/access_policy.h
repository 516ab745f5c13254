// The policy file: whom the server believes, and who may do what (README.md has the format).
// Nothing that is not in it is allowed.
//
// Thread safety: immutable once made. Errors: kInvalidArgument (INVALID_POLICY) names the member;
// kUnauthenticated for callers, with a reason.
#ifndef UNIQUANF_SERVER_ACCESS_ACCESS_POLICY_H_
#define UNIQUANF_SERVER_ACCESS_ACCESS_POLICY_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/signing_key.h"
#include "server/access/data_uri.h"
#include "server/access/jwt.h"
#include "server/access/principal.h"

namespace uniquanf::server {

// What a verified certificate says of its owner.
struct PeerNames {
  std::vector<std::string> uris, dns_names;
  std::string common_name;
  bool empty() const { return uris.empty() && dns_names.empty() && common_name.empty(); }
};

// Who signs tokens, and what their claims mean.
struct TokenIssuer {
  enum class Kind { kUser, kOperator, kWorker };
  std::string issuer;    // "iss", as it is written there
  std::string audience;  // must be in "aud"
  std::string keys;      // https URL or path of a JWK set
  Kind kind = Kind::kUser;
  std::string name_claim = "sub";
  std::string tenant_claim = "tenant";  // a string or an array of them
  std::string role_claim = "roles";     // likewise
  std::map<std::string, Role> roles;    // by the claim's value; others mean nothing
};

// What a tenant may do, and with what.
struct TenantRules {
  int max_priority = 0;
  int max_queued_jobs = 1'000;
  int max_tasks_per_job = 20'000;
  double max_creates_per_second = 50;
  // URI prefixes by DataPurpose; none: its own place alone.
  std::array<std::vector<std::string>, kNumDataPurposes> data = {};
  std::string credentials;  // a reference (common/object_store/data_access.h), for remote prefixes
  const std::vector<std::string>& DataOf(DataPurpose purpose) const {
    return data[static_cast<size_t>(purpose)];
  }
};

// What processes under a worker's identity may be, whatever they say.
struct WorkerRules {
  std::set<std::string> devices;  // none: any
  // The labels that it has, in place of those that it says.
  std::optional<std::map<std::string, std::string>> labels;
  int64_t max_memory_bytes = 0;  // 0: as it says
  int max_slots = 0;             // tasks at once; 0: as it says
  // With which it signs results; none: it need not.
  std::vector<VerifyingKey> signing_keys;
};

class AccessPolicy {
 public:
  static absl::StatusOr<AccessPolicy> Parse(absl::string_view text);

  // Who has this certificate: by its SPIFFE ID where it has one, else by the policy's table of DNS
  // names and common names. UNKNOWN_CERTIFICATE, GATEWAY_CERTIFICATE.
  absl::StatusOr<Identity> FromCertificate(const PeerNames& names) const;
  const std::vector<TokenIssuer>& issuers() const { return issuers_; }
  // Who the claims of a verified token speak of, if they are good now and for one of the issuers,
  // which comes with it. TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, UNKNOWN_ISSUER, WRONG_AUDIENCE,
  // INVALID_TOKEN.
  absl::StatusOr<Identity> FromClaims(const TokenIssuer& issuer, const nlohmann::json& claims,
                                      absl::Time now) const;
  // The one of whom the token, which is not verified yet, says that it is of. UNKNOWN_ISSUER,
  // WRONG_AUDIENCE, INVALID_TOKEN.
  absl::StatusOr<const TokenIssuer*> IssuerOf(const nlohmann::json& claims) const;

  // What the policy gives it.
  Principal Resolve(Identity identity) const;
  // Whether an identity that this policy, or one before it, has made is one still.
  bool Believes(const Identity& identity) const;
  // What is said of it, or of those of whom nothing is said ("*").
  const TenantRules& RulesOf(const std::string& tenant) const;
  // The same of the worker of this identity, "worker/W".
  const WorkerRules& RulesOfWorker(absl::string_view identity) const;

 private:
  struct Binding {
    std::vector<std::string> principals;  // patterns
    Role role = Role::kViewer;
    TenantScope tenants = TenantScope::None();
    bool own = false;  // and those that it belongs to
  };

  absl::Status ReadCertificates(const nlohmann::json& value);
  absl::Status ReadIssuer(const nlohmann::json& value, const std::string& path);
  absl::Status ReadBinding(const nlohmann::json& value, const std::string& path);
  absl::Status ReadTenant(const nlohmann::json& value, const std::string& name);
  absl::Status ReadWorker(const nlohmann::json& value, const std::string& name);

  std::string trust_domain_;
  std::map<std::string, std::string> names_;  // DNS name or common name -> principal
  std::set<std::string> gateways_;
  std::vector<TokenIssuer> issuers_;
  std::vector<Binding> bindings_;
  std::map<std::string, TenantRules> tenants_;
  std::map<std::string, WorkerRules> workers_;  // by W
};

// A binding's pattern: '*' and '?' inside of a segment, never across a '/'.
bool PrincipalMatches(absl::string_view pattern, absl::string_view name);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_ACCESS_ACCESS_POLICY_H_
