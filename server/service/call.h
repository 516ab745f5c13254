// The one door for calls: every call becomes an Admission, which knows its method's row, its caller
// and when it began, and without which no reactor can be made. It says whether the caller may go
// on, converts absl::Status in one place, and counts the call when it ends.
//
// Thread safety: Done may be called from any thread, once. Lifetime: what is borrowed from the
// ServiceContext outlives the calls.
#ifndef UNIQUANF_SERVER_SERVICE_CALL_H_
#define UNIQUANF_SERVER_SERVICE_CALL_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "server/service/methods.h"

namespace uniquanf::server {

// For metrics; thread-safe.
class RpcObserver {
 public:
  virtual ~RpcObserver() = default;
  virtual void OnCallDone(std::string_view method, const grpc::Status& status,
                          absl::Duration latency) {}
};

// Whoever makes a call.
struct Caller {
  std::string peer;    // address, as gRPC says it
  unsigned roles = 0;  // of Role
  bool Has(Role role) const { return (roles & static_cast<unsigned>(role)) != 0; }
};
// OK, or kPermissionDenied (PERMISSION_DENIED) naming the method.
absl::Status CheckAccess(const Caller& caller, const Method& method);

class Admission {
 public:
  // Copies what it needs of `rpc`. `observer` may be null. `open` is kept until gRPC is done with
  // the call: its owners are the open calls.
  static Admission Admit(const grpc::ServerContextBase& rpc, const Method& method,
                         const Clock* clock, RpcObserver* observer,
                         std::shared_ptr<const void> open = nullptr);

  // Not OK: the call must end with it.
  const absl::Status& status() const { return status_; }
  const Caller& caller() const { return caller_; }
  // What the call ends with, counted.
  grpc::Status End(const absl::Status& status) const;

 private:
  Admission(const Method& method, const Clock* clock, RpcObserver* observer)
      : method_(&method), clock_(clock), observer_(observer), start_(clock->Monotonic()) {}

  const Method* method_;
  const Clock* clock_;
  RpcObserver* observer_;
  absl::Duration start_;
  std::shared_ptr<const void> open_;
  Caller caller_;
  absl::Status status_;
};

// The reactor of every unary call; deletes itself when gRPC is done with it.
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  // Runs `handler` with the call and its caller, who may make it; else the call is done. The
  // handler, or what it hands the call to, calls Done once.
  static grpc::ServerUnaryReactor* Serve(
      Admission admission, const std::function<void(UnaryCall*, const Caller&)>& handler) {
    auto* call = new UnaryCall(std::move(admission));
    if (call->admission_.status().ok()) {
      const Caller caller = call->admission_.caller();  // the call may be deleted meanwhile
      handler(call, caller);
    } else {
      call->Done(call->admission_.status());
    }
    return call;
  }

  // REQUIRES: set before the handler returns.
  void set_on_cancel(std::function<void()> on_cancel) { on_cancel_ = std::move(on_cancel); }

  void Done(const absl::Status& status) { Finish(admission_.End(status)); }

 private:
  explicit UnaryCall(Admission admission) : admission_(std::move(admission)) {}
  void OnDone() override { delete this; }
  void OnCancel() override {
    if (on_cancel_ != nullptr) on_cancel_();
  }

  const Admission admission_;
  std::function<void()> on_cancel_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_CALL_H_
