#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "server/service/job_listing.h"
#include "server/service/resource_names.h"
#include "server/service/services.h"

namespace uniquanf::server {
namespace {

// A page ends when it is this large, however few it holds: clients refuse replies beyond 4 MiB.
constexpr size_t kMaxPageBytes = 2 << 20;

absl::Status NoSuchJob(absl::string_view name) {
  return NotFound("JOB_NOT_FOUND", absl::StrCat("no job ", Quoted(name)));
}

absl::StatusOr<JobView> FindJob(const PublishedState& published, absl::string_view field,
                                const std::string& name) {
  UQ_ASSIGN_OR_RETURN(const std::string id, ParseJobName(field, name));
  std::optional<JobView> view = published.Find(id);
  if (!view.has_value()) return NoSuchJob(name);
  return *std::move(view);
}

absl::Status FillJob(const absl::StatusOr<JobView>& view, v1::Job* response) {
  if (!view.ok()) return view.status();
  if (view->job == nullptr) return NotFound("JOB_NOT_FOUND", "the job was deleted meanwhile");
  JobToProto(*view, response);
  return absl::OkStatus();
}

// Ends the call with what `read` makes of the published state, once that is current.
void FinishRead(Runtime* runtime, UnaryCall* call,
                std::function<absl::Status(const PublishedState&)> read) {
  runtime->WhenCurrent([runtime, call, read = std::move(read)](const absl::Status& current) {
    call->Done(current.ok() ? read(runtime->published()) : current);
  });
}

}  // namespace

grpc::ServerUnaryReactor* JobServiceImpl::CreateJob(grpc::CallbackServerContext* rpc,
                                                    const v1::CreateJobRequest* request,
                                                    v1::Job* response) {
  return UnaryCall::Serve(Admit(context_, rpc, MethodRow("CreateJob")), [&](UnaryCall* call,
                                                                            const Caller&) {
    absl::StatusOr<CreateJobEvent> event = CreateJobFromProto(
        *request, context_.ids->NewId("job"), context_.ids->NewId("uid"), context_.layout);
    if (!event.ok()) {
      return call->Done(event.status());
    }
    if (event->validate_only) {
      Job preview = event->job;
      preview.create_time = preview.update_time = context_.clock->Now();
      context_.runtime->ChangeJob(*std::move(event),
                                  [call, response, preview](absl::StatusOr<JobView> view) {
                                    if (view.ok()) {
                                      // A request id that is known shows the job that it made.
                                      if (view->job == nullptr) {
                                        view->job = std::make_shared<const Job>(preview);
                                        Task prepare;
                                        view->tasks = {std::make_shared<const Task>(prepare)};
                                      }
                                      JobToProto(*view, response);
                                    }
                                    call->Done(view.status());
                                  });
      return;
    }
    context_.runtime->ChangeJob(*std::move(event), [call, response](absl::StatusOr<JobView> view) {
      call->Done(FillJob(view, response));
    });
  });
}

grpc::ServerUnaryReactor* JobServiceImpl::GetJob(grpc::CallbackServerContext* rpc,
                                                 const v1::GetJobRequest* request,
                                                 v1::Job* response) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("GetJob")), [&](UnaryCall* call, const Caller&) {
        FinishRead(context_.runtime, call, [request, response](const PublishedState& published) {
          return FillJob(FindJob(published, "name", request->name()), response);
        });
      });
}

grpc::ServerUnaryReactor* JobServiceImpl::ListJobs(grpc::CallbackServerContext* rpc,
                                                   const v1::ListJobsRequest* request,
                                                   v1::ListJobsResponse* response) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("ListJobs")), [&](UnaryCall* call, const Caller&) {
        const auto list = [request, response](const PublishedState& published) -> absl::Status {
          UQ_ASSIGN_OR_RETURN(Page page,
                              ListPage(published.Jobs(), request->filter(), request->order_by(),
                                       request->page_size(), request->page_token()));
          for (const auto& job : page.jobs) {
            const std::optional<JobView> view = published.Find(job->seq);
            JobToProto(view.has_value() ? *view : JobView{job, {}}, response->add_jobs());
          }
          response->set_next_page_token(page.next_page_token);
          return absl::OkStatus();
        };
        FinishRead(context_.runtime, call, list);
      });
}

template <typename Event>
grpc::ServerUnaryReactor* JobServiceImpl::ChangeJob(Admission admission, const std::string& name,
                                                    v1::Job* response) {
  return UnaryCall::Serve(std::move(admission), [&](UnaryCall* call, const Caller&) {
    absl::StatusOr<std::string> id = ParseJobName("name", name);
    if (!id.ok()) {
      return call->Done(id.status());
    }
    context_.runtime->ChangeJob(
        Event{*std::move(id)},
        [call, response](absl::StatusOr<JobView> view) { call->Done(FillJob(view, response)); });
  });
}

grpc::ServerUnaryReactor* JobServiceImpl::CancelJob(grpc::CallbackServerContext* rpc,
                                                    const v1::CancelJobRequest* request,
                                                    v1::Job* response) {
  return ChangeJob<CancelJobEvent>(Admit(context_, rpc, MethodRow("CancelJob")), request->name(),
                                   response);
}
grpc::ServerUnaryReactor* JobServiceImpl::RetryJob(grpc::CallbackServerContext* rpc,
                                                   const v1::RetryJobRequest* request,
                                                   v1::Job* response) {
  const absl::StatusOr<std::string> id = ParseJobName("name", request->name());
  std::optional<JobView> view;
  if (id.ok()) view = context_.runtime->published().Find(*id);
  if (context_.stored_results == nullptr || !view.has_value()) {
    return ChangeJob<RetryJobEvent>(Admit(context_, rpc, MethodRow("RetryJob")), request->name(),
                                    response);
  }
  return UnaryCall::Serve(Admit(context_, rpc, MethodRow("RetryJob")), [&](UnaryCall* call,
                                                                           const Caller&) {
    context_.stored_results->FindMissing(
        *std::move(view), [call, response, id = *id, runtime = context_.runtime](
                              absl::StatusOr<std::set<std::string>> missing) {
          // A store that cannot be asked does not hold the retry up: whoever misses a result later
          // says so.
          RetryJobEvent event{id, {}};
          if (missing.ok()) event.missing = *std::move(missing);
          runtime->ChangeJob(std::move(event), [call, response](absl::StatusOr<JobView> changed) {
            call->Done(FillJob(changed, response));
          });
        });
  });
}
grpc::ServerUnaryReactor* JobServiceImpl::PauseJob(grpc::CallbackServerContext* rpc,
                                                   const v1::PauseJobRequest* request,
                                                   v1::Job* response) {
  return ChangeJob<PauseJobEvent>(Admit(context_, rpc, MethodRow("PauseJob")), request->name(),
                                  response);
}
grpc::ServerUnaryReactor* JobServiceImpl::ResumeJob(grpc::CallbackServerContext* rpc,
                                                    const v1::ResumeJobRequest* request,
                                                    v1::Job* response) {
  return ChangeJob<ResumeJobEvent>(Admit(context_, rpc, MethodRow("ResumeJob")), request->name(),
                                   response);
}

grpc::ServerUnaryReactor* JobServiceImpl::DeleteJob(grpc::CallbackServerContext* rpc,
                                                    const v1::DeleteJobRequest* request,
                                                    google::protobuf::Empty*) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("DeleteJob")), [&](UnaryCall* call, const Caller&) {
        absl::StatusOr<std::string> id = ParseJobName("name", request->name());
        if (!id.ok()) {
          return call->Done(id.status());
        }
        context_.runtime->ChangeJob(
            DeleteJobEvent{*std::move(id), request->allow_missing()},
            [call](absl::StatusOr<JobView> view) { call->Done(view.status()); });
      });
}

grpc::ServerUnaryReactor* JobServiceImpl::GetTask(grpc::CallbackServerContext* rpc,
                                                  const v1::GetTaskRequest* request,
                                                  v1::Task* response) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("GetTask")), [&](UnaryCall* call, const Caller&) {
        const auto get = [request, response](const PublishedState& published) -> absl::Status {
          UQ_ASSIGN_OR_RETURN(const TaskName name, ParseTaskName("name", request->name()));
          const std::optional<JobView> view = published.Find(name.job);
          if (view.has_value()) {
            for (const auto& task : view->tasks) {
              if (task->id != name.task) continue;
              TaskToProto(name.job, *task, response);
              return absl::OkStatus();
            }
          }
          return NotFound("TASK_NOT_FOUND", absl::StrCat("no task ", Quoted(request->name())));
        };
        FinishRead(context_.runtime, call, get);
      });
}

grpc::ServerUnaryReactor* JobServiceImpl::ListTasks(grpc::CallbackServerContext* rpc,
                                                    const v1::ListTasksRequest* request,
                                                    v1::ListTasksResponse* response) {
  return UnaryCall::Serve(Admit(context_, rpc, MethodRow("ListTasks")), [&](UnaryCall* call,
                                                                            const Caller&) {
    const auto list = [request, response](const PublishedState& published) -> absl::Status {
      UQ_ASSIGN_OR_RETURN(const JobView view, FindJob(published, "parent", request->parent()));
      UQ_ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request->page_size()));
      const std::string scope = absl::StrCat("tasks\n", view.job->uid);
      size_t begin = 0;
      if (!request->page_token().empty()) {
        UQ_ASSIGN_OR_RETURN(const std::string key, ParsePageToken(scope, request->page_token()));
        uint64_t last = 0;
        if (!absl::SimpleAtoi(key, &last)) {
          return InvalidInput("INVALID_PAGE_TOKEN", "page_token is not one that this server gave");
        }
        begin = last + 1;
      }
      size_t end = std::min(view.tasks.size(), begin + static_cast<size_t>(size));
      size_t num_bytes = 0;
      for (size_t i = begin; i < end; ++i) {
        v1::Task* task = response->add_tasks();
        TaskToProto(view.job->id, *view.tasks[i], task);
        num_bytes += task->ByteSizeLong();
        if (num_bytes > kMaxPageBytes) end = i + 1;
      }
      if (end < view.tasks.size()) {
        response->set_next_page_token(MakePageToken(scope, absl::StrCat(end - 1)));
      }
      return absl::OkStatus();
    };
    FinishRead(context_.runtime, call, list);
  });
}

}  // namespace uniquanf::server
