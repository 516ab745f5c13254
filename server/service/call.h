// The reactor of every unary call: finishes exactly once, converts absl::Status in one place, and
// counts the call. Deletes itself when gRPC is done with it.
//
// Thread safety: Done may be called from any thread, once.
#ifndef UNIQUANF_SERVER_SERVICE_CALL_H_
#define UNIQUANF_SERVER_SERVICE_CALL_H_

#include <grpcpp/grpcpp.h>

#include <functional>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/rpc/status_proto.h"

namespace uniquanf::server {

// For metrics; thread-safe.
class RpcObserver {
 public:
  virtual ~RpcObserver() = default;
  virtual void OnCallDone(const char* method, const grpc::Status& status, absl::Duration latency) {}
};

class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(const char* method, RpcObserver* observer)
      : method_(method), observer_(observer), start_ns_(absl::GetCurrentTimeNanos()) {}

  // REQUIRES: set before the handler returns.
  void set_on_cancel(std::function<void()> on_cancel) { on_cancel_ = std::move(on_cancel); }

  void Done(const absl::Status& status) {
    const grpc::Status result = ToGrpcStatus(status);
    if (observer_ != nullptr) {
      observer_->OnCallDone(method_, result,
                            absl::Nanoseconds(absl::GetCurrentTimeNanos() - start_ns_));
    }
    Finish(result);
  }

 private:
  void OnDone() override { delete this; }
  void OnCancel() override {
    if (on_cancel_ != nullptr) on_cancel_();
  }

  const char* const method_;
  RpcObserver* const observer_;
  const int64_t start_ns_;
  std::function<void()> on_cancel_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_CALL_H_
