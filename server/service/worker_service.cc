#include "common/rpc/time_proto.h"
#include "server/service/services.h"

namespace uniquanf::server {

grpc::ServerUnaryReactor* WorkerServiceImpl::Synchronize(grpc::CallbackServerContext* rpc,
                                                         const v1::SynchronizeRequest* request,
                                                         v1::SynchronizeResponse* response) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("Synchronize")), [&](UnaryCall* call, const Caller&) {
        absl::StatusOr<SynchronizeEvent> event = SynchronizeFromProto(*request);
        if (!event.ok()) {
          return call->Done(event.status());
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
      });
}

}  // namespace uniquanf::server
