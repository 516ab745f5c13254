#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/rpc/channel.h"
#include "common/rpc/time_proto.h"
#include "server/service/job_listing.h"
#include "server/service/resource_names.h"
#include "server/service/server_capabilities.h"
#include "server/service/services.h"

namespace uniquanf::server {
namespace {

absl::Status NoState(const Runtime& runtime) {
  UQ_RETURN_IF_ERROR(runtime.availability());  // a standby says so
  return Unavailable("STATE_UNAVAILABLE", "the server cannot read its state now; call again");
}

// The process that was named, or the latest one of the worker; null: there is none.
const Session* FindSession(const State& state, const DrainWorkerEvent& event, absl::Duration now) {
  for (const Session* session : LiveSessions(state, event.worker, now)) {
    const std::string name = WorkerProcessName(*session);
    const std::string wanted = absl::StrCat(event.worker, "@", event.session);
    if (event.session.empty() || absl::StartsWith(wanted, name) || absl::StartsWith(name, wanted)) {
      return session;
    }
  }
  return nullptr;
}

// The first name after `after` that a process has or that is drained.
std::optional<std::string> NextWorker(const State& state, const std::string& after) {
  const auto worker = state.sessions_of_worker.upper_bound(after);
  const auto drain = state.drains.upper_bound(after);
  const bool no_worker = worker == state.sessions_of_worker.end();
  const bool no_drain = drain == state.drains.end();
  if (no_worker && no_drain) return std::nullopt;
  if (no_worker) return drain->first;
  if (no_drain) return worker->first;
  return std::min(worker->first, drain->first);
}

// "workers/{worker}" or "workers/{worker}@{the beginning of a session}".
absl::StatusOr<DrainWorkerEvent> DrainFromName(const std::string& name, bool drain) {
  DrainWorkerEvent event;
  event.drain = drain;
  const size_t at = name.find('@');
  UQ_ASSIGN_OR_RETURN(event.worker, ParseWorkerName("name", name.substr(0, at)));
  if (at == std::string::npos) return event;
  event.session = name.substr(at + 1);
  if (!ParseWorkerName("name", WorkerName(event.session)).ok()) {
    return InvalidInput(
        "INVALID_REQUEST",
        absl::StrCat("name ", Quoted(name), " is not workers/{worker}@{beginning of a session}"));
  }
  return event;
}

void FillInfo(const ServiceContext& context, const State* state, v1::ServerInfo* response) {
  response->set_version(kSoftwareVersion);
  response->set_active(state != nullptr);
  response->set_state_backend(context.state_backend);
  response->set_object_root(context.layout.root);
  *response->mutable_start_time() = TimeToProto(context.start_time);
  v1::ServerCapabilities* const capabilities = response->mutable_capabilities();
  SettingsToProto(capabilities);
  v1::ServerLimits* const limits = capabilities->mutable_limits();
  limits->set_max_request_bytes(kMaxRequestBytes);
  limits->set_max_reply_bytes(kMaxReplyBytes);
  limits->set_max_page_size(kMaxPageSize);
  limits->set_max_http_streams(context.max_http_streams);
  if (state == nullptr) return;
  limits->set_max_layers(state->policy.max_layers);
  limits->set_max_tasks_per_job(state->policy.max_tasks_per_job);
  FleetToProto(*state, context.clock->Monotonic(), capabilities);
  response->set_num_jobs(static_cast<int64_t>(state->jobs.size()));
  response->set_num_tasks_ready(state->num_tasks[static_cast<int>(TaskState::kReady)]);
  response->set_num_tasks_leased(state->num_tasks[static_cast<int>(TaskState::kLeased)]);
  if (state->clock.lead > absl::ZeroDuration()) {
    *response->mutable_wall_clock_ahead() = DurationToProto(state->clock.lead);
  }
}

}  // namespace

std::vector<const google::protobuf::ServiceDescriptor*> HttpDescriptors() {
  return {v1::Job::descriptor()->file()->pool()->FindServiceByName("uniquanf.v1.JobService"),
          v1::Job::descriptor()->file()->pool()->FindServiceByName("uniquanf.v1.AdminService")};
}

grpc::ServerUnaryReactor* AdminServiceImpl::ListWorkers(grpc::CallbackServerContext* rpc,
                                                        const v1::ListWorkersRequest* request,
                                                        v1::ListWorkersResponse* response) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("ListWorkers"), "workers"),
      [&](UnaryCall* call, const Principal& principal) {
        context_.runtime->Read([call, request, response, context = &context_,
                                form = NameFormFor(principal)](const State* state) {
          const auto list = [&]() -> absl::Status {
            if (state == nullptr) return NoState(*context->runtime);
            UQ_ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request->page_size()));
            std::string after;
            if (!request->page_token().empty()) {
              UQ_ASSIGN_OR_RETURN(after, ParsePageToken("workers", request->page_token()));
            }
            const Now now{context->clock->Now(), context->clock->Monotonic()};
            std::string last;
            for (auto name = NextWorker(*state, after); name.has_value();
                 name = NextWorker(*state, *name)) {
              const std::vector<const Session*> sessions = LiveSessions(*state, *name, now.mono);
              const auto drain = state->drains.find(*name);
              const bool drained = drain != state->drains.end() && drain->second.by_name;
              if (sessions.empty() && !drained) continue;
              // A page ends between names: the processes that share one stay together.
              if (response->workers_size() >= size) {
                response->set_next_page_token(MakePageToken("workers", last));
                break;
              }
              last = *name;
              if (sessions.empty()) DrainedNameToProto(*name, response->add_workers());
              for (const Session* session : sessions) {
                WorkerToProto(*state, *session, now, form, response->add_workers());
              }
            }
            return absl::OkStatus();
          };
          call->Done(list());
        });
      });
}

grpc::ServerUnaryReactor* AdminServiceImpl::SetDrain(Admission admission, const std::string& name,
                                                     bool drain, v1::Worker* response) {
  return UnaryCall::Serve(std::move(admission), [&](UnaryCall* call, const Principal& principal) {
    const absl::StatusOr<DrainWorkerEvent> event = DrainFromName(name, drain);
    if (!event.ok()) {
      return call->Done(event.status());
    }
    context_.runtime->Post(*event, [call, response, event = *event, context = &context_,
                                    form = NameFormFor(principal)](const absl::Status& status) {
      if (!status.ok()) return call->Done(status);
      context->runtime->Read([call, response, event, context, form](const State* state) {
        const Now now{context->clock->Now(), context->clock->Monotonic()};
        if (state == nullptr) return call->Done(NoState(*context->runtime));
        const Session* session = FindSession(*state, event, now.mono);
        if (session == nullptr) {
          // The drain of a name that no process has was taken back, or the process is gone by
          // now.
          response->set_name(WorkerName(event.worker));
          response->set_state(v1::Worker::LOST);
        } else {
          WorkerToProto(*state, *session, now, form, response);
        }
        call->Done(absl::OkStatus());
      });
    });
  });
}

grpc::ServerUnaryReactor* AdminServiceImpl::DrainWorker(grpc::CallbackServerContext* rpc,
                                                        const v1::DrainWorkerRequest* request,
                                                        v1::Worker* response) {
  return SetDrain(Admit(context_, rpc, MethodRow("DrainWorker"), request->name()), request->name(),
                  true, response);
}
grpc::ServerUnaryReactor* AdminServiceImpl::UndrainWorker(grpc::CallbackServerContext* rpc,
                                                          const v1::UndrainWorkerRequest* request,
                                                          v1::Worker* response) {
  return SetDrain(Admit(context_, rpc, MethodRow("UndrainWorker"), request->name()),
                  request->name(), false, response);
}

grpc::ServerUnaryReactor* AdminServiceImpl::GetServerInfo(grpc::CallbackServerContext* rpc,
                                                          const v1::GetServerInfoRequest*,
                                                          v1::ServerInfo* response) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("GetServerInfo"), "server"),
      [&](UnaryCall* call, const Principal&) {
        context_.runtime->Read([call, response, context = &context_](const State* state) {
          FillInfo(*context, state, response);
          call->Done(absl::OkStatus());
        });
      });
}

grpc::ServerUnaryReactor* AdminServiceImpl::ConfirmWallClock(grpc::CallbackServerContext* rpc,
                                                             const v1::ConfirmWallClockRequest*,
                                                             v1::ServerInfo* response) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("ConfirmWallClock"), "server"),
      [&](UnaryCall* call, const Principal&) {
        context_.runtime->Post(ConfirmWallClockEvent{}, [call, response, context = &context_](
                                                            const absl::Status& status) {
          if (!status.ok()) return call->Done(status);
          context->runtime->Read([call, response, context](const State* state) {
            if (state == nullptr) return call->Done(NoState(*context->runtime));
            FillInfo(*context, state, response);
            call->Done(absl::OkStatus());
          });
        });
      });
}

}  // namespace uniquanf::server
