#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/rpc/time_proto.h"
#include "server/service/job_listing.h"
#include "server/service/resource_names.h"
#include "server/service/services.h"

namespace uniquanf::server {
namespace {

absl::Status NoState(const Runtime& runtime) {
  UQ_RETURN_IF_ERROR(runtime.availability());  // a standby says so
  return Unavailable("STATE_UNAVAILABLE", "the server cannot read its state now; call again");
}

// The session that speaks for a worker: the one heard from last.
const Session* LatestSession(const State& state, const std::set<std::string>& ids) {
  const Session* latest = nullptr;
  for (const std::string& id : ids) {
    const Session& session = state.sessions.at(id);
    if (!session.has_called) continue;
    if (latest == nullptr || session.last_seen >= latest->last_seen) latest = &session;
  }
  return latest;
}

}  // namespace

grpc::ServerUnaryReactor* AdminServiceImpl::ListWorkers(grpc::CallbackServerContext*,
                                                        const v1::ListWorkersRequest* request,
                                                        v1::ListWorkersResponse* response) {
  auto* call = new UnaryCall("ListWorkers", context_.observer);
  context_.runtime->Read([call, request, response, context = &context_](const State* state) {
    const auto list = [&]() -> absl::Status {
      if (state == nullptr) return NoState(*context->runtime);
      UQ_ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request->page_size()));
      std::string after;
      if (!request->page_token().empty()) {
        UQ_ASSIGN_OR_RETURN(after, ParsePageToken("workers", request->page_token()));
      }
      const Now now{context->clock->Now(), context->clock->Monotonic()};
      auto it = after.empty() ? state->sessions_of_worker.begin()
                              : state->sessions_of_worker.upper_bound(after);
      std::string last;
      for (; it != state->sessions_of_worker.end(); ++it) {
        const Session* session = LatestSession(*state, it->second);
        if (session == nullptr) continue;
        if (response->workers_size() == size) {
          response->set_next_page_token(MakePageToken("workers", last));
          break;
        }
        last = it->first;
        WorkerToProto(*state, *session, now, response->add_workers());
      }
      return absl::OkStatus();
    };
    call->Done(list());
  });
  return call;
}

grpc::ServerUnaryReactor* AdminServiceImpl::SetDrain(const char* method, const std::string& name,
                                                     bool drain, v1::Worker* response) {
  auto* call = new UnaryCall(method, context_.observer);
  const absl::StatusOr<std::string> worker = ParseWorkerName("name", name);
  if (!worker.ok()) {
    call->Done(worker.status());
    return call;
  }
  context_.runtime->Post(
      DrainWorkerEvent{*worker, drain},
      [call, response, worker = *worker, context = &context_](const absl::Status& status) {
        if (!status.ok()) return call->Done(status);
        context->runtime->Read([call, response, worker, context](const State* state) {
          const Session* session = nullptr;
          if (state != nullptr) {
            const auto it = state->sessions_of_worker.find(worker);
            if (it != state->sessions_of_worker.end()) {
              session = LatestSession(*state, it->second);
            }
          }
          if (session == nullptr) return call->Done(NoState(*context->runtime));
          WorkerToProto(*state, *session, {context->clock->Now(), context->clock->Monotonic()},
                        response);
          call->Done(absl::OkStatus());
        });
      });
  return call;
}

grpc::ServerUnaryReactor* AdminServiceImpl::DrainWorker(grpc::CallbackServerContext*,
                                                        const v1::DrainWorkerRequest* request,
                                                        v1::Worker* response) {
  return SetDrain("DrainWorker", request->name(), true, response);
}
grpc::ServerUnaryReactor* AdminServiceImpl::UndrainWorker(grpc::CallbackServerContext*,
                                                          const v1::UndrainWorkerRequest* request,
                                                          v1::Worker* response) {
  return SetDrain("UndrainWorker", request->name(), false, response);
}

grpc::ServerUnaryReactor* AdminServiceImpl::GetServerInfo(grpc::CallbackServerContext*,
                                                          const v1::GetServerInfoRequest*,
                                                          v1::ServerInfo* response) {
  auto* call = new UnaryCall("GetServerInfo", context_.observer);
  context_.runtime->Read([call, response, context = &context_](const State* state) {
    response->set_version(kSoftwareVersion);
    response->set_active(state != nullptr);
    response->set_state_backend(context->state_backend);
    response->set_object_root(context->layout.root);
    *response->mutable_start_time() = TimeToProto(context->start_time);
    if (state != nullptr) {
      response->set_num_jobs(static_cast<int64_t>(state->jobs.size()));
      response->set_num_tasks_ready(state->num_tasks[static_cast<int>(TaskState::kReady)]);
      response->set_num_tasks_leased(state->num_tasks[static_cast<int>(TaskState::kLeased)]);
    }
    call->Done(absl::OkStatus());
  });
  return call;
}

}  // namespace uniquanf::server
