#include "common/rpc/time_proto.h"
#include "server/service/services.h"

namespace uniquanf::server {

grpc::ServerUnaryReactor* WorkerServiceImpl::Synchronize(grpc::CallbackServerContext*,
                                                         const v1::SynchronizeRequest* request,
                                                         v1::SynchronizeResponse* response) {
  auto* call = new UnaryCall("Synchronize", context_.observer);
  absl::StatusOr<SynchronizeEvent> event = SynchronizeFromProto(*request);
  if (!event.ok()) {
    call->Done(event.status());
    return call;
  }
  // A worker that went away must not be given tasks in its held call.
  call->set_on_cancel(
      [runtime = context_.runtime, session = event->session, sequence = event->sequence] {
        runtime->AbandonSynchronize(session, sequence);
      });
  context_.runtime->Synchronize(
      *std::move(event), DurationFromProto(request->max_wait()),
      [call, response, layout = &context_.layout](absl::StatusOr<SynchronizeReply> reply) {
        if (reply.ok()) ReplyToProto(*reply, *layout, response);
        call->Done(reply.status());
      });
  return call;
}

}  // namespace uniquanf::server
