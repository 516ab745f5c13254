// The policy file's form.
#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "server/access/access_policy.h"

namespace uniquanf::server {
namespace {

constexpr char kReason[] = "INVALID_POLICY";
constexpr char kAllTenants[] = "*", kOwnTenants[] = "@own", kOtherWorkers[] = "*";

absl::Status Invalid(absl::string_view message) { return InvalidInput(kReason, message); }

// Names of tenants that a policy may say: those of version 0.1 may have had other characters than
// an identity's.
bool IsStoredTenantName(absl::string_view name) {
  return !name.empty() && name.size() <= 63 && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || absl::StrContains("._:-", c);
  });
}

// "read" is short for the three purposes of reading.
absl::Status ReadData(const nlohmann::json& value, const std::string& path, TenantRules* rules) {
  JsonObjectReader reader(value, path, kReason);
  std::vector<std::string> of_all;
  reader.Read("read", JsonObjectReader::kOptional, &of_all);
  for (size_t i = 0; i < std::size(kDataPurposes); ++i) {
    const DataPurpose purpose = kDataPurposes[i];
    std::vector<std::string>& prefixes = rules->data[i];
    reader.Read(DataPurposeName(purpose), JsonObjectReader::kOptional, &prefixes);
    if (purpose != DataPurpose::kOutput) {
      prefixes.insert(prefixes.end(), of_all.begin(), of_all.end());
    }
    for (const std::string& prefix : prefixes) {
      const absl::Status form = CheckDataUri(prefix);
      if (!form.ok()) reader.Fail(absl::StrCat(path, ": \"", prefix, "\" ", form.message()));
    }
  }
  reader.Read("credentials", JsonObjectReader::kOptional, &rules->credentials);
  if (!rules->credentials.empty()) {
    const absl::Status form = CheckCredentialsReference(rules->credentials);
    if (!form.ok()) {
      // What is written here by mistake may be a secret.
      reader.Fail(absl::StrCat(reader.PathOf("credentials"), " ", form.message()));
    }
  }
  return reader.Finish();
}

}  // namespace

absl::StatusOr<AccessPolicy> AccessPolicy::Parse(absl::string_view text) {
  UQ_ASSIGN_OR_RETURN(const nlohmann::json root, ParseJson(text, "the policy", kReason, 16));
  JsonObjectReader reader(root, "", kReason);
  AccessPolicy policy;
  int version = 0;
  reader.Read("version", JsonObjectReader::kRequired, &version);
  if (reader.ok() && version != 1) {
    reader.Fail(absl::StrCat("version is ", version, "; this program reads version 1"));
  }
  if (const auto* value = reader.ReadObject("certificates", JsonObjectReader::kOptional)) {
    UQ_RETURN_IF_ERROR(policy.ReadCertificates(*value));
  }
  if (const auto* list = reader.ReadArray("tokens", JsonObjectReader::kOptional)) {
    for (size_t i = 0; i < list->size(); ++i) {
      UQ_RETURN_IF_ERROR(policy.ReadIssuer((*list)[i], absl::StrCat("tokens[", i, "]")));
    }
  }
  if (const auto* list = reader.ReadArray("bindings", JsonObjectReader::kOptional)) {
    for (size_t i = 0; i < list->size(); ++i) {
      UQ_RETURN_IF_ERROR(policy.ReadBinding((*list)[i], absl::StrCat("bindings[", i, "]")));
    }
  }
  if (const auto* tenants = reader.ReadObject("tenants", JsonObjectReader::kOptional)) {
    for (const auto& [name, value] : tenants->items()) {
      UQ_RETURN_IF_ERROR(policy.ReadTenant(value, name));
    }
  }
  if (const auto* workers = reader.ReadObject("workers", JsonObjectReader::kOptional)) {
    for (const auto& [name, value] : workers->items()) {
      UQ_RETURN_IF_ERROR(policy.ReadWorker(value, name));
    }
  }
  UQ_RETURN_IF_ERROR(reader.Finish());
  if (policy.issuers_.empty() && policy.trust_domain_.empty() && policy.names_.empty()) {
    return Invalid(
        "the policy believes nobody: give certificates.trust_domain, certificates.names or tokens");
  }
  return policy;
}

absl::Status AccessPolicy::ReadCertificates(const nlohmann::json& value) {
  JsonObjectReader reader(value, "certificates", kReason);
  reader.Read("trust_domain", JsonObjectReader::kOptional, &trust_domain_);
  if (absl::StrContains(trust_domain_, "/")) {
    reader.Fail(absl::StrCat("certificates.trust_domain \"", trust_domain_,
                             "\" is the DOMAIN of spiffe://DOMAIN/..., without a slash"));
  }
  if (const auto* names = reader.ReadObject("names", JsonObjectReader::kOptional)) {
    for (const auto& [name, principal] : names->items()) {
      if (!principal.is_string()) {
        reader.Fail(absl::StrCat("certificates.names[\"", name, "\"] is no string"));
        continue;
      }
      const absl::StatusOr<Identity> identity = IdentityFromName(principal.get<std::string>());
      if (!identity.ok()) {
        reader.Fail(
            absl::StrCat("certificates.names[\"", name, "\"]: ", identity.status().message()));
        continue;
      }
      names_[name] = identity->name;
    }
  }
  std::vector<std::string> gateways;
  reader.Read("gateways", JsonObjectReader::kOptional, &gateways);
  gateways_.insert(gateways.begin(), gateways.end());
  return reader.Finish();
}

absl::Status AccessPolicy::ReadIssuer(const nlohmann::json& value, const std::string& path) {
  JsonObjectReader reader(value, path, kReason);
  TokenIssuer issuer;
  std::string kind = "user";
  reader.Read("issuer", JsonObjectReader::kRequired, &issuer.issuer);
  reader.Read("audience", JsonObjectReader::kRequired, &issuer.audience);
  reader.Read("keys", JsonObjectReader::kRequired, &issuer.keys);
  reader.Read("kind", JsonObjectReader::kOptional, &kind);
  reader.Read("name_claim", JsonObjectReader::kOptional, &issuer.name_claim);
  reader.Read("tenant_claim", JsonObjectReader::kOptional, &issuer.tenant_claim);
  reader.Read("role_claim", JsonObjectReader::kOptional, &issuer.role_claim);
  if (reader.ok() && (issuer.issuer.empty() || issuer.audience.empty() || issuer.keys.empty())) {
    reader.Fail(absl::StrCat(path, ": issuer, audience and keys must not be empty"));
  }
  if (absl::StrContains(issuer.keys, "://") && !absl::StartsWith(issuer.keys, "https://")) {
    reader.Fail(
        absl::StrCat(path, ".keys \"", issuer.keys, "\" is neither an https URL nor a path"));
  }
  issuer.kind = kind == "operator" ? TokenIssuer::Kind::kOperator
                : kind == "worker" ? TokenIssuer::Kind::kWorker
                                   : TokenIssuer::Kind::kUser;
  if (kind != "user" && kind != "operator" && kind != "worker") {
    reader.Fail(absl::StrCat(path, ".kind \"", kind, "\" is not user, operator or worker"));
  }
  if (const auto* roles = reader.ReadObject("roles", JsonObjectReader::kOptional)) {
    for (const auto& [claimed, role_name] : roles->items()) {
      const std::optional<Role> role =
          role_name.is_string() ? RoleFromName(role_name.get<std::string>()) : std::nullopt;
      if (!role.has_value() || *role == Role::kWorker) {
        reader.Fail(
            absl::StrCat(path, ".roles[\"", claimed, "\"] is not user, viewer or operator"));
        continue;
      }
      issuer.roles[claimed] = *role;
    }
  }
  UQ_RETURN_IF_ERROR(reader.Finish());
  for (const TokenIssuer& other : issuers_) {
    if (other.issuer == issuer.issuer && other.audience == issuer.audience) {
      return Invalid(absl::StrCat(path, ": issuer and audience are those of one before it"));
    }
  }
  issuers_.push_back(std::move(issuer));
  return absl::OkStatus();
}

absl::Status AccessPolicy::ReadBinding(const nlohmann::json& value, const std::string& path) {
  JsonObjectReader reader(value, path, kReason);
  Binding binding;
  std::string role_name;
  std::vector<std::string> tenants;
  reader.Read("principals", JsonObjectReader::kRequired, &binding.principals);
  reader.Read("role", JsonObjectReader::kRequired, &role_name);
  reader.Read("tenants", JsonObjectReader::kOptional, &tenants);
  UQ_RETURN_IF_ERROR(reader.Finish());
  const std::optional<Role> role = RoleFromName(role_name);
  if (!role.has_value()) {
    return Invalid(
        absl::StrCat(path, ".role \"", role_name, "\" is not user, viewer, operator or worker"));
  }
  binding.role = *role;
  for (const std::string& pattern : binding.principals) {
    const absl::string_view kind = absl::string_view(pattern).substr(0, pattern.find('/'));
    if (kind != "tenant" && kind != "user" && kind != "operator" && kind != "worker") {
      return Invalid(absl::StrCat(path, ".principals: \"", pattern,
                                  "\" does not begin with tenant/, user/, operator/ or worker/"));
    }
    if ((kind == "worker") != (*role == Role::kWorker)) {
      return Invalid(absl::StrCat(path, ": the role worker is for worker/..., and no other is"));
    }
  }
  if (!value.contains("tenants")) {
    const bool own = *role == Role::kUser || *role == Role::kViewer;
    tenants = {own ? kOwnTenants : kAllTenants};
  }
  for (const std::string& tenant : tenants) {
    if (tenant == kAllTenants) {
      binding.tenants.all = true;
    } else if (tenant == kOwnTenants) {
      binding.own = true;
    } else if (IsStoredTenantName(tenant)) {
      binding.tenants.tenants.insert(tenant);
    } else {
      return Invalid(absl::StrCat(path, ".tenants: \"", tenant,
                                  "\" is neither a tenant nor * (all) nor @own"));
    }
  }
  bindings_.push_back(std::move(binding));
  return absl::OkStatus();
}

absl::Status AccessPolicy::ReadTenant(const nlohmann::json& value, const std::string& name) {
  if (name != kAllTenants && !IsStoredTenantName(name)) {
    return Invalid(absl::StrCat("tenants: \"", name, "\" is neither a tenant nor * (the others)"));
  }
  JsonObjectReader reader(value, absl::StrCat("tenants.", name), kReason);
  TenantRules rules;
  reader.Read("max_priority", JsonObjectReader::kOptional, &rules.max_priority);
  const auto read_limit = [&](const char* member, int* limit) {
    reader.Read(member, JsonObjectReader::kOptional, limit);
    if (*limit < 1) reader.Fail(absl::StrCat(reader.PathOf(member), " is below 1"));
  };
  read_limit("max_queued_jobs", &rules.max_queued_jobs);
  read_limit("max_tasks_per_job", &rules.max_tasks_per_job);
  reader.Read("max_creates_per_second", JsonObjectReader::kOptional, &rules.max_creates_per_second);
  if (!(rules.max_creates_per_second > 0)) {
    reader.Fail(absl::StrCat(reader.PathOf("max_creates_per_second"), " is not above 0"));
  }
  if (const auto* data = reader.ReadObject("data", JsonObjectReader::kOptional)) {
    UQ_RETURN_IF_ERROR(ReadData(*data, reader.PathOf("data"), &rules));
  }
  tenants_[name] = std::move(rules);
  return reader.Finish();
}

absl::Status AccessPolicy::ReadWorker(const nlohmann::json& value, const std::string& name) {
  if (name != kOtherWorkers && !IdentityFromName(absl::StrCat("worker/", name)).ok()) {
    return Invalid(absl::StrCat("workers: \"", name,
                                "\" is neither the W of an identity worker/W nor * (the others)"));
  }
  JsonObjectReader reader(value, absl::StrCat("workers.", name), kReason);
  WorkerRules rules;
  std::vector<std::string> devices, keys;
  reader.Read("devices", JsonObjectReader::kOptional, &devices);
  for (const std::string& device : devices) {
    if (device != "cpu" && device != "cuda") {
      reader.Fail(absl::StrCat(reader.PathOf("devices"), ": \"", device, "\" is not cpu or cuda"));
    }
    rules.devices.insert(device);
  }
  if (const auto* labels = reader.ReadObject("labels", JsonObjectReader::kOptional)) {
    rules.labels.emplace();
    for (const auto& [label, text] : labels->items()) {
      if (!text.is_string()) {
        reader.Fail(absl::StrCat(reader.PathOf("labels"), "[\"", label, "\"] is no string"));
        continue;
      }
      (*rules.labels)[label] = text.get<std::string>();
    }
  }
  reader.Read("max_memory_bytes", JsonObjectReader::kOptional, &rules.max_memory_bytes);
  reader.Read("max_slots", JsonObjectReader::kOptional, &rules.max_slots);
  if (rules.max_memory_bytes < 0) {
    reader.Fail(absl::StrCat(reader.PathOf("max_memory_bytes"), " is negative"));
  }
  if (rules.max_slots < 0) reader.Fail(absl::StrCat(reader.PathOf("max_slots"), " is negative"));
  reader.Read("signing_keys", JsonObjectReader::kOptional, &keys);
  for (size_t i = 0; i < keys.size(); ++i) {
    absl::StatusOr<VerifyingKey> key = VerifyingKey::FromBase64(keys[i]);
    if (key.ok()) {
      rules.signing_keys.push_back(*std::move(key));
    } else {
      reader.Fail(
          absl::StrCat(reader.PathOf("signing_keys"), "[", i, "]: ", key.status().message()));
    }
  }
  workers_[name] = std::move(rules);
  return reader.Finish();
}

}  // namespace uniquanf::server
