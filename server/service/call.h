// The one door for calls: every call becomes an Admission, which knows its method's row, who calls
// and when it began, and without which no reactor can be made. It says whether the caller may go
// on, converts absl::Status in one place, and counts and records the call when it ends.
//
// Thread safety: Done may be called from any thread, once. Lifetime: what is borrowed by the Door
// outlives the calls.
#ifndef UNIQUANF_SERVER_SERVICE_CALL_H_
#define UNIQUANF_SERVER_SERVICE_CALL_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "server/access/access_control.h"
#include "server/access/audit_log.h"
#include "server/access/principal.h"
#include "server/access/relayed_callers.h"
#include "server/service/methods.h"

namespace uniquanf::server {

// For metrics; thread-safe.
class RpcObserver {
 public:
  virtual ~RpcObserver() = default;
  virtual void OnCallDone(std::string_view method, const grpc::Status& status,
                          absl::Duration latency) {}
  // A call was refused to who made it; `reason` is one of a bounded number.
  virtual void OnDenied(const std::string& reason) {}
};

// What all calls share.
struct Door {
  const Clock* clock = nullptr;
  RpcObserver* observer = nullptr;  // may be null
  // Null: nobody is asked who he is, and everybody may do everything.
  const AccessControl* access = nullptr;
  // Who stands behind calls that the HTTP address makes; null: it makes none.
  const RelayedCallers* relayed = nullptr;
  AuditLog* audit = nullptr;    // null: nothing is recorded
  bool audit_required = false;  // what cannot be recorded is not done
  std::shared_ptr<const Principal> anonymous = std::make_shared<const Principal>(Anonymous());
  std::shared_ptr<const void> open_calls = std::make_shared<char>();  // each has a share in it
};

// OK, or kPermissionDenied (PERMISSION_DENIED): nothing gives the principal the method's right, on
// whatever.
absl::Status CheckAccess(const Principal& principal, const Method& method);

// What the audit log says beside who called what: filled in as the call learns of it.
struct AuditDetail {
  std::string resource;  // as the request names it; of CreateJob the job that was made
  std::string tenant;    // of the stored job
  std::string request_id, spec_sha256;
  std::vector<std::string> uris;
};

class Admission {
 public:
  // Copies what it needs of `rpc`. `resource`: the name that the request says.
  static Admission Admit(const Door& door, const grpc::ServerContextBase& rpc, const Method& method,
                         std::string resource);

  // Not OK: the call must end with it.
  const absl::Status& status() const { return status_; }
  // Who calls; of a call whose status is not OK, nobody with any right.
  const std::shared_ptr<const Principal>& principal() const { return principal_; }
  const Method& method() const { return *method_; }
  AuditDetail& audit() { return audit_; }
  // What the call ends with, counted and recorded.
  grpc::Status End(const absl::Status& status) const;

 private:
  Admission(const Door& door, const Method& method, std::string resource)
      : door_(&door), method_(&method), start_(door.clock->Monotonic()), open_(door.open_calls) {
    audit_.resource = std::move(resource);
  }
  void Record(const absl::Status& status) const;

  const Door* door_;
  const Method* method_;
  AuditDetail audit_;
  std::string peer_;
  absl::Duration start_;
  std::shared_ptr<const void> open_;
  std::shared_ptr<const Principal> principal_;
  absl::Status status_;
};

// The reactor of every unary call; deletes itself when gRPC is done with it.
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  // Runs `handler` with the call and who makes it, who may do so; else the call is done. The
  // handler, or what it hands the call to, calls Done once.
  static grpc::ServerUnaryReactor* Serve(
      Admission admission, const std::function<void(UnaryCall*, const Principal&)>& handler) {
    auto* call = new UnaryCall(std::move(admission));
    if (call->admission_.status().ok()) {
      const auto principal = call->admission_.principal();  // the call may be deleted meanwhile
      handler(call, *principal);
    } else {
      call->Done(call->admission_.status());
    }
    return call;
  }

  // REQUIRES: set before the handler returns.
  void set_on_cancel(std::function<void()> on_cancel) { on_cancel_ = std::move(on_cancel); }

  // Before Done, by whoever will call it.
  AuditDetail& audit() { return admission_.audit(); }
  void Done(const absl::Status& status) { Finish(admission_.End(status)); }

 private:
  explicit UnaryCall(Admission admission) : admission_(std::move(admission)) {}
  void OnDone() override { delete this; }
  void OnCancel() override {
    if (on_cancel_ != nullptr) on_cancel_();
  }

  Admission admission_;
  std::function<void()> on_cancel_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_CALL_H_
