#include "server/service/call.h"

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/rpc/status_proto.h"

namespace uniquanf::server {
namespace {

// Everybody who reaches the port may be anything: callers are not told apart yet.
Caller CallerOf(const grpc::ServerContextBase& rpc) {
  return {rpc.peer(), static_cast<unsigned>(Role::kUser) | static_cast<unsigned>(Role::kOperator) |
                          static_cast<unsigned>(Role::kWorker)};
}

}  // namespace

absl::Status CheckAccess(const Caller& caller, const Method& method) {
  if (caller.Has(method.role)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED",
                   absl::StrCat("the caller may not call ",
                                absl::string_view(method.service.data(), method.service.size()),
                                "/", absl::string_view(method.name.data(), method.name.size())));
}

Admission Admission::Admit(const grpc::ServerContextBase& rpc, const Method& method,
                           const Clock* clock, RpcObserver* observer,
                           std::shared_ptr<const void> open) {
  Admission admission(method, clock, observer);
  admission.open_ = std::move(open);
  admission.caller_ = CallerOf(rpc);
  admission.status_ = CheckAccess(admission.caller_, method);
  return admission;
}

grpc::Status Admission::End(const absl::Status& status) const {
  const grpc::Status result = ToGrpcStatus(status);
  if (observer_ != nullptr) {
    observer_->OnCallDone(method_->name, result, clock_->Monotonic() - start_);
  }
  return result;
}

}  // namespace uniquanf::server
