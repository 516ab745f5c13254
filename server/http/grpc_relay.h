// Calls of the server's own methods over an in-process channel: whatever comes over HTTP goes
// through the same door and the same handlers as gRPC, any method by its name.
//
// Thread safety: thread-safe. Lifetime: borrows the callers, who outlive it; calls end before the
// channel's server does.
#ifndef UNIQUANF_SERVER_HTTP_GRPC_RELAY_H_
#define UNIQUANF_SERVER_HTTP_GRPC_RELAY_H_

#include <google/protobuf/message.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/access/relayed_callers.h"

namespace uniquanf::server {

// What a call is made with.
struct RelayedCall {
  const google::protobuf::MethodDescriptor* method = nullptr;
  const google::protobuf::Message* request = nullptr;
  RelayedCaller caller;
  std::vector<std::string> authorization;  // the headers as they came
  std::string traceparent;                 // likewise; "": none
};

// A stream of replies, one at a time: the next is fetched when the last has been taken.
class RelayedStream {
 public:
  virtual ~RelayedStream() = default;  // cancels what is still open, and waits for its end
  enum class Next { kMessage, kEnd, kTimeout };
  // kEnd: there will be no more, and status() says why.
  virtual Next Wait(absl::Duration timeout, google::protobuf::Message* message) = 0;
  virtual const grpc::Status& status() const = 0;
};

class GrpcRelay {
 public:
  GrpcRelay(std::shared_ptr<grpc::Channel> channel, RelayedCallers* callers);

  // Blocks until the reply is there, or for `timeout` (DEADLINE_EXCEEDED).
  grpc::Status Call(const RelayedCall& call, absl::Duration timeout,
                    google::protobuf::Message* response);
  std::unique_ptr<RelayedStream> Open(const RelayedCall& call);

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub_;
  RelayedCallers* const callers_;
};

// Whether gRPC takes it as a value of metadata; others would end the process.
bool IsMetadataValue(const std::string& value);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_GRPC_RELAY_H_
