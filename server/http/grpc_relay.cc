#include "server/http/grpc_relay.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"

namespace uniquanf::server {
namespace {

using google::protobuf::Message;

std::string PathOf(const google::protobuf::MethodDescriptor& method) {
  return absl::StrCat("/", method.service()->full_name(), "/", method.name());
}

grpc::ByteBuffer ToBytes(const Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

bool FromBytes(const grpc::ByteBuffer& bytes, Message* message) {
  grpc::Slice slice;
  return bytes.DumpToSingleSlice(&slice).ok() &&
         message->ParseFromArray(slice.begin(), static_cast<int>(slice.size()));
}

// What both kinds of calls begin with. The entry of the caller lives as long as the call.
class Context {
 public:
  Context(const RelayedCall& call, RelayedCallers* callers) : ticket_(callers->Add(call.caller)) {
    context_.AddMetadata(RelayedCallers::kMetadataKey, ticket_->id());
    for (const std::string& value : call.authorization) {
      context_.AddMetadata("authorization", value);
    }
    if (!call.traceparent.empty()) context_.AddMetadata("traceparent", call.traceparent);
  }
  grpc::ClientContext* get() { return &context_; }

 private:
  const std::unique_ptr<RelayedCallers::Ticket> ticket_;
  grpc::ClientContext context_;
};

class Stream final : public RelayedStream,
                     private grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  Stream(grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>* stub,
         const RelayedCall& call, RelayedCallers* callers)
      : context_(call, callers), request_(ToBytes(*call.request)) {
    stub->PrepareBidiStreamingCall(context_.get(), PathOf(*call.method), {}, this);
    StartWriteLast(&request_, {});
    StartRead(&received_);
    StartCall();
  }
  ~Stream() override {
    context_.get()->TryCancel();
    absl::MutexLock lock(&mutex_);
    // A message that nobody takes: go on, so that the call can end.
    while (!done_) {
      if (arrived_) ReadOn();
      mutex_.Await(absl::Condition(this, &Stream::HasNews));
    }
  }

  Next Wait(absl::Duration timeout, Message* message) override {
    absl::MutexLock lock(&mutex_);
    if (!mutex_.AwaitWithTimeout(absl::Condition(this, &Stream::HasNews), timeout)) {
      return Next::kTimeout;
    }
    if (!arrived_) return Next::kEnd;
    const bool parsed = FromBytes(received_, message);
    ReadOn();
    if (parsed) return Next::kMessage;
    context_.get()->TryCancel();
    return Next::kTimeout;  // the end follows
  }
  const grpc::Status& status() const override { return status_; }

 private:
  bool HasNews() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return arrived_ || done_; }
  void ReadOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    arrived_ = false;
    StartRead(&received_);
  }
  void OnReadDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    arrived_ = ok;
  }
  // Nothing of this object is touched afterwards: the destructor may have waited for it.
  void OnDone(const grpc::Status& status) override {
    absl::MutexLock lock(&mutex_);
    status_ = status;
    done_ = true;
  }

  Context context_;
  const grpc::ByteBuffer request_;
  mutable absl::Mutex mutex_;
  grpc::ByteBuffer received_;
  bool arrived_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status status_;
};

}  // namespace

bool IsMetadataValue(const std::string& value) {
  return std::all_of(value.begin(), value.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
}

GrpcRelay::GrpcRelay(std::shared_ptr<grpc::Channel> channel, RelayedCallers* callers)
    : channel_(std::move(channel)), stub_(channel_), callers_(callers) {}

grpc::Status GrpcRelay::Call(const RelayedCall& call, absl::Duration timeout, Message* response) {
  Context context(call, callers_);
  context.get()->set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  const grpc::ByteBuffer request = ToBytes(*call.request);
  grpc::ByteBuffer bytes;
  grpc::Status status;
  absl::Notification done;
  stub_.UnaryCall(context.get(), PathOf(*call.method), {}, &request, &bytes,
                  [&](const grpc::Status& result) {
                    status = result;
                    done.Notify();
                  });
  done.WaitForNotification();
  if (status.ok() && !FromBytes(bytes, response)) {
    return {grpc::StatusCode::INTERNAL, "the answer is no message of its type"};
  }
  return status;
}

std::unique_ptr<RelayedStream> GrpcRelay::Open(const RelayedCall& call) {
  return std::make_unique<Stream>(&stub_, call, callers_);
}

}  // namespace uniquanf::server
