// One place for what every call of the client shares: deadline, metadata, retries and the
// translation of errors.
#ifndef UNIQUANF_CLIENT_SRC_CALLER_H_
#define UNIQUANF_CLIENT_SRC_CALLER_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <functional>
#include <memory>
#include <random>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/include/uniquanf/client.h"
#include "common/base/status.h"
#include "common/rpc/channel_source.h"
#include "uniquanf/v1/admin_service.grpc.pb.h"
#include "uniquanf/v1/job_service.grpc.pb.h"

namespace uniquanf {

// Thread-safe. Shared by a Client and the watchers and iterators that it made.
class Caller {
 public:
  using Channel = std::shared_ptr<grpc::Channel>;

  Caller(ClientOptions options, std::unique_ptr<ChannelSource> channels);

  const ClientOptions& options() const { return options_; }
  // For the next call. Waits for a name that is being looked up for the first time, at most as long
  // as a call may take.
  Channel channel() { return channels_->Get(options_.call_timeout); }
  // What a call's end means. A server that ends cuts its calls, which gRPC calls CANCELLED: that is
  // UNAVAILABLE, since we cancelled nothing. After a failure the next call may need another
  // channel.
  grpc::Status Judge(const grpc::Status& status);

  // Runs `attempt` until it gives anything but UNAVAILABLE, or attempts or time are used up.
  // `num_attempts` (optional) receives how many were made.
  absl::Status Run(const std::function<grpc::Status(const Channel&, grpc::ClientContext*)>& attempt,
                   int* num_attempts = nullptr);

  // The same for a unary method of a service's stub: Call(&Stub::GetJob, request).
  template <typename Reply, typename Stub, typename Request>
  absl::StatusOr<Reply> Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                          Reply*),
                             const Request& request, int* num_attempts = nullptr) {
    Reply reply;
    UQ_RETURN_IF_ERROR(Run(
        [&](const Channel& channel, grpc::ClientContext* context) {
          reply.Clear();
          Stub stub(channel);
          return (stub.*method)(context, request, &reply);
        },
        num_attempts));
    return reply;
  }

  // With several servers another one is about to take over, so calls are tried for longer.
  int max_attempts() const;
  // Sleeps, less when a connection comes up meanwhile. Connections make progress only while a
  // thread waits in gRPC, so a plain sleep would find them as they were.
  void Pause(absl::Duration pause);

  // Metadata that every call has. Errors: those of AddToken.
  absl::Status PrepareContext(grpc::ClientContext* context) const;
  // The pause before attempt `attempt` + 1 (attempt >= 1): doubling, capped, times 0.5..1.
  absl::Duration Backoff(int attempt);
  // `status` with the server's name and a reason, where gRPC itself made it.
  absl::Status Explain(const grpc::Status& status, int num_attempts) const;

 private:
  const ClientOptions options_;
  const std::unique_ptr<ChannelSource> channels_;
  absl::Mutex mutex_;
  std::minstd_rand random_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace uniquanf

#endif  // UNIQUANF_CLIENT_SRC_CALLER_H_
