#include "server/service/call.h"

#include <grpc/grpc_security_constants.h>

#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/rpc/status_proto.h"

namespace uniquanf::server {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// What the connection's certificate says, which gRPC has verified. The principal is not put beside
// it: gRPC 1.51 has one context for all calls of a connection, and each may bring its own token.
PeerNames CertificateOf(const grpc::ServerContextBase& rpc) {
  PeerNames names;
  const std::shared_ptr<const grpc::AuthContext> context = rpc.auth_context();
  if (context == nullptr) return names;
  const auto values = [&](const char* property) {
    std::vector<std::string> found;
    for (const grpc::string_ref& value : context->FindPropertyValues(property)) {
      found.emplace_back(value.data(), value.size());
    }
    return found;
  };
  names.uris = values(GRPC_PEER_URI_PROPERTY_NAME);
  names.dns_names = values(GRPC_PEER_DNS_PROPERTY_NAME);
  for (std::string& name : values(GRPC_X509_CN_PROPERTY_NAME)) names.common_name = std::move(name);
  return names;
}

std::vector<std::string> AuthorizationOf(const grpc::ServerContextBase& rpc) {
  std::vector<std::string> values;
  const auto range = rpc.client_metadata().equal_range("authorization");
  for (auto it = range.first; it != range.second; ++it) {
    values.emplace_back(it->second.data(), it->second.size());
  }
  return values;
}

// Who makes the call: the peer of the connection, or whoever the HTTP address makes it for.
absl::StatusOr<RelayedCaller> CallerOf(const Door& door, const grpc::ServerContextBase& rpc) {
  const auto& metadata = rpc.client_metadata();
  const auto relayed = metadata.find(RelayedCallers::kMetadataKey);
  if (relayed == metadata.end()) return RelayedCaller{CertificateOf(rpc), rpc.peer()};
  std::optional<RelayedCaller> caller;
  if (door.relayed != nullptr) {
    caller = door.relayed->Find(std::string(relayed->second.data(), relayed->second.size()));
  }
  if (caller.has_value()) return *std::move(caller);
  return MakeError(absl::StatusCode::kUnauthenticated, "UNKNOWN_RELAY",
                   absl::StrCat("the call's ", RelayedCallers::kMetadataKey,
                                " names no call of this server's own"));
}

bool Changes(const Method& method) {
  return method.verb != Verb::kRead && method.verb != Verb::kWork;
}

absl::Status CheckAudit(const Door& door, const Method& method) {
  if (!door.audit_required || door.audit == nullptr || !Changes(method)) return absl::OkStatus();
  return door.audit->health();
}

}  // namespace

absl::Status CheckAccess(const Principal& principal, const Method& method) {
  if (!ScopeOf(principal, method.verb, method.resource).empty()) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED",
      absl::StrCat(principal.name, " may not call ", View(method.service), "/", View(method.name),
                   ": the server's policy gives it no role that may ", VerbName(method.verb), " a ",
                   ResourceName(method.resource)));
}

Admission Admission::Admit(const Door& door, const grpc::ServerContextBase& rpc,
                           const Method& method, std::string resource) {
  Admission admission(door, method, std::move(resource));
  const absl::StatusOr<RelayedCaller> caller = CallerOf(door, rpc);
  if (door.audit != nullptr) admission.peer_ = caller.ok() ? caller->peer : rpc.peer();
  if (door.access == nullptr) {
    admission.principal_ = door.anonymous;
    admission.status_ = caller.ok() ? CheckAudit(door, method) : caller.status();
    return admission;
  }
  absl::StatusOr<Principal> principal =
      caller.ok() ? door.access->Authenticate(caller->certificate, AuthorizationOf(rpc))
                  : caller.status();
  admission.status_ = principal.ok() ? CheckAccess(*principal, method) : principal.status();
  if (admission.status_.ok()) admission.status_ = CheckAudit(door, method);
  admission.principal_ =
      std::make_shared<const Principal>(principal.ok() ? *std::move(principal) : Principal());
  return admission;
}

// Calls that change something, and those that were refused; a job that is not there may be one that
// is not for the caller, and nobody but this log is to see the difference.
void Admission::Record(const absl::Status& status) const {
  const bool denied = absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status) ||
                      absl::IsNotFound(status);
  if (!denied && !Changes(*method_)) return;
  AuditRecord record;
  record.time = door_->clock->Now();
  if (principal_ != nullptr) {
    record.principal = principal_->name;
    record.authenticator = principal_->authenticator;
  }
  record.peer = peer_;
  record.method = absl::StrCat(View(method_->service), "/", View(method_->name));
  record.resource = audit_.resource;
  record.tenant = audit_.tenant;
  record.allowed = !denied;
  record.code = absl::StatusCodeToString(status.code());
  record.reason = ErrorReason(status);
  record.request_id = audit_.request_id;
  record.spec_sha256 = audit_.spec_sha256;
  record.uris = audit_.uris;
  door_->audit->Append(record);
}

grpc::Status Admission::End(const absl::Status& status) const {
  const grpc::Status result = ToGrpcStatus(status);
  if (door_->audit != nullptr) Record(status);
  if (door_->observer != nullptr) {
    door_->observer->OnCallDone(method_->name, result, door_->clock->Monotonic() - start_);
    if (absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status)) {
      door_->observer->OnDenied(ErrorReason(status));
    }
  }
  return result;
}

}  // namespace uniquanf::server
