#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "server/service/job_listing.h"
#include "server/service/resource_names.h"
#include "server/service/services.h"

namespace uniquanf::server {
namespace {

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

grpc::ServerUnaryReactor* JobServiceImpl::CreateJob(grpc::CallbackServerContext*,
                                                    const v1::CreateJobRequest* request,
                                                    v1::Job* response) {
  auto* call = new UnaryCall("CreateJob", context_.observer);
  absl::StatusOr<CreateJobEvent> event = CreateJobFromProto(
      *request, context_.ids->NewId("job"), context_.ids->NewId("uid"), context_.layout);
  if (!event.ok()) {
    call->Done(event.status());
    return call;
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
    return call;
  }
  context_.runtime->ChangeJob(*std::move(event), [call, response](absl::StatusOr<JobView> view) {
    call->Done(FillJob(view, response));
  });
  return call;
}

grpc::ServerUnaryReactor* JobServiceImpl::GetJob(grpc::CallbackServerContext*,
                                                 const v1::GetJobRequest* request,
                                                 v1::Job* response) {
  auto* call = new UnaryCall("GetJob", context_.observer);
  FinishRead(context_.runtime, call, [request, response](const PublishedState& published) {
    return FillJob(FindJob(published, "name", request->name()), response);
  });
  return call;
}

grpc::ServerUnaryReactor* JobServiceImpl::ListJobs(grpc::CallbackServerContext*,
                                                   const v1::ListJobsRequest* request,
                                                   v1::ListJobsResponse* response) {
  auto* call = new UnaryCall("ListJobs", context_.observer);
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
  return call;
}

template <typename Event>
grpc::ServerUnaryReactor* JobServiceImpl::ChangeJob(const char* method, const std::string& name,
                                                    v1::Job* response) {
  auto* call = new UnaryCall(method, context_.observer);
  absl::StatusOr<std::string> id = ParseJobName("name", name);
  if (!id.ok()) {
    call->Done(id.status());
    return call;
  }
  context_.runtime->ChangeJob(
      Event{*std::move(id)},
      [call, response](absl::StatusOr<JobView> view) { call->Done(FillJob(view, response)); });
  return call;
}

grpc::ServerUnaryReactor* JobServiceImpl::CancelJob(grpc::CallbackServerContext*,
                                                    const v1::CancelJobRequest* request,
                                                    v1::Job* response) {
  return ChangeJob<CancelJobEvent>("CancelJob", request->name(), response);
}
grpc::ServerUnaryReactor* JobServiceImpl::RetryJob(grpc::CallbackServerContext*,
                                                   const v1::RetryJobRequest* request,
                                                   v1::Job* response) {
  return ChangeJob<RetryJobEvent>("RetryJob", request->name(), response);
}
grpc::ServerUnaryReactor* JobServiceImpl::PauseJob(grpc::CallbackServerContext*,
                                                   const v1::PauseJobRequest* request,
                                                   v1::Job* response) {
  return ChangeJob<PauseJobEvent>("PauseJob", request->name(), response);
}
grpc::ServerUnaryReactor* JobServiceImpl::ResumeJob(grpc::CallbackServerContext*,
                                                    const v1::ResumeJobRequest* request,
                                                    v1::Job* response) {
  return ChangeJob<ResumeJobEvent>("ResumeJob", request->name(), response);
}

grpc::ServerUnaryReactor* JobServiceImpl::DeleteJob(grpc::CallbackServerContext*,
                                                    const v1::DeleteJobRequest* request,
                                                    google::protobuf::Empty*) {
  auto* call = new UnaryCall("DeleteJob", context_.observer);
  absl::StatusOr<std::string> id = ParseJobName("name", request->name());
  if (!id.ok()) {
    call->Done(id.status());
    return call;
  }
  context_.runtime->ChangeJob(DeleteJobEvent{*std::move(id), request->allow_missing()},
                              [call](absl::StatusOr<JobView> view) { call->Done(view.status()); });
  return call;
}

grpc::ServerUnaryReactor* JobServiceImpl::GetTask(grpc::CallbackServerContext*,
                                                  const v1::GetTaskRequest* request,
                                                  v1::Task* response) {
  auto* call = new UnaryCall("GetTask", context_.observer);
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
  return call;
}

grpc::ServerUnaryReactor* JobServiceImpl::ListTasks(grpc::CallbackServerContext*,
                                                    const v1::ListTasksRequest* request,
                                                    v1::ListTasksResponse* response) {
  auto* call = new UnaryCall("ListTasks", context_.observer);
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
    const size_t end = std::min(view.tasks.size(), begin + static_cast<size_t>(size));
    for (size_t i = begin; i < end; ++i) {
      TaskToProto(view.job->id, *view.tasks[i], response->add_tasks());
    }
    if (end < view.tasks.size()) {
      response->set_next_page_token(MakePageToken(scope, absl::StrCat(end - 1)));
    }
    return absl::OkStatus();
  };
  FinishRead(context_.runtime, call, list);
  return call;
}

}  // namespace uniquanf::server
