#include <algorithm>

#include "common/rpc/time_proto.h"
#include "server/service/outcome_claims.h"
#include "server/service/services.h"

namespace uniquanf::server {

grpc::ServerUnaryReactor* WorkerServiceImpl::Synchronize(grpc::CallbackServerContext* rpc,
                                                         const v1::SynchronizeRequest* request,
                                                         v1::SynchronizeResponse* response) {
  Admission admission = Admit(context_, rpc, MethodRow("Synchronize"), request->worker());
  return UnaryCall::Serve(std::move(admission), [&](UnaryCall* call, const Principal& principal) {
    absl::StatusOr<SynchronizeEvent> event = SynchronizeFromProto(*request);
    if (!event.ok()) {
      return call->Done(event.status());
    }
    if (context_.preflight != nullptr && request->capabilities().architectures_size() > 0) {
      context_.preflight->architectures().Note(
          event->worker, event->capabilities.architectures, context_.clock->Monotonic());
    }
    // A worker that went away must not be given tasks in its held call.
    call->set_on_cancel(
        [runtime = context_.runtime, session = event->session, sequence = event->sequence] {
          runtime->AbandonSynchronize(session, sequence);
        });
    if (context_.door.access == nullptr) {
      return Believe(call, *std::move(event), DurationFromProto(request->max_wait()), response);
    }
    // A worker's name is its identity's; what the request says tells those that share one apart.
    event->identity = principal.name;
    event->worker = WorkerOf(principal, event->worker);
    for (size_t i = 0; i < event->leases.size(); ++i) {
      const v1::LeaseReport& report = request->leases(static_cast<int>(i));
      if (report.has_succeeded()) event->leases[i].outcome.fault = FindNonsense(report.succeeded());
    }
    std::vector<OutcomeClaim> claims = ClaimsOf(*event, context_.runtime->published());
    std::erase_if(claims, [](const OutcomeClaim& claim) { return !claim.outcome.fault.empty(); });
    if (claims.empty() || context_.outcome_proof == nullptr) {
      return Believe(call, *std::move(event), DurationFromProto(request->max_wait()), response);
    }
    context_.outcome_proof->Check(
        claims, [this, call, request, response, claims, event = *std::move(event)](
                    const absl::StatusOr<std::vector<std::string>>& faults) mutable {
          if (!faults.ok()) return call->Done(faults.status());
          for (size_t i = 0; i < claims.size(); ++i) {
            event.leases[claims[i].lease].outcome.fault = (*faults)[i];
          }
          Believe(call, std::move(event), DurationFromProto(request->max_wait()), response);
        });
  });
}

// Each lease that goes out, also one that goes out again since the worker had not heard of it.
void WorkerServiceImpl::RecordLeases(const SynchronizeReply& reply,
                                     const std::string& identity) const {
  if (context_.door.audit == nullptr) return;
  for (const Assignment& assignment : reply.assignments) {
    AuditRecord record;
    record.time = context_.clock->Now();
    record.principal = identity;
    record.method = "Lease";
    record.resource = TaskNameOf(JobName(assignment.job, assignment.tenant), assignment.task);
    record.tenant = assignment.tenant;
    record.allowed = true;
    record.code = "OK";
    context_.door.audit->Append(record);
  }
}

void WorkerServiceImpl::Believe(UnaryCall* call, SynchronizeEvent event, absl::Duration max_wait,
                                v1::SynchronizeResponse* response) {
  const std::string identity = event.identity.empty() ? WorkerName(event.worker) : event.identity;
  const NameForm form = context_.door.access == nullptr ? NameForm::kShort : NameForm::kWithTenant;
  context_.runtime->Synchronize(
      std::move(event), max_wait,
      [this, call, response, form, identity](const absl::StatusOr<SynchronizeReply>& reply) {
        if (reply.ok()) {
          ReplyToProto(*reply, context_.layout, form, response);
          RecordLeases(*reply, identity);
        }
        call->Done(reply.status());
      });
}

}  // namespace uniquanf::server
