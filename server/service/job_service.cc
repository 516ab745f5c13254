#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "common/rpc/spec_proto.h"
#include "common/telemetry/logger.h"
#include "server/service/job_listing.h"
#include "server/service/resource_names.h"
#include "server/service/services.h"
#include "server/service/spec_locations.h"

namespace uniquanf::server {
namespace {

// A page ends when it is this large, however few it holds: clients refuse replies beyond 4 MiB.
constexpr size_t kMaxPageBytes = 2 << 20;

absl::StatusOr<JobView> FindNamed(const PublishedState& published, absl::string_view field,
                                  const std::string& name, const JobAccess& access) {
  UQ_ASSIGN_OR_RETURN(const JobRef job, ParseJobName(field, name));
  return FindJob(published, job, access);
}

absl::Status FillJob(const absl::StatusOr<JobView>& view, NameForm form, v1::Job* response) {
  if (!view.ok()) return view.status();
  if (view->job == nullptr) return NotFound("JOB_NOT_FOUND", "the job was deleted meanwhile");
  JobToProto(*view, form, response);
  return absl::OkStatus();
}

void FinishJob(UnaryCall* call, const absl::StatusOr<JobView>& view, NameForm form,
               v1::Job* response) {
  if (view.ok() && view->job != nullptr) call->audit().tenant = view->job->tenant;
  call->Done(FillJob(view, form, response));
}

void DescribeForAudit(const CreateJobEvent& event, AuditDetail* audit) {
  const Job& job = event.job;
  audit->resource = JobName(job.id);
  audit->tenant = job.tenant;
  audit->request_id = job.request_id;
  audit->spec_sha256 = Sha256Hex(job.spec);
  v1::QuantizationSpec spec;
  spec.ParseFromString(job.spec);
  for (const SpecLocation& location : LocationsOf(spec)) {
    audit->uris.push_back(RedactCredentials(location.uri));
  }
}

// Whose job it is to be: `wish` is one among the caller's own tenants.
absl::StatusOr<std::string> ChooseTenant(const Principal& principal, const std::string& wish) {
  const TenantScope scope = ScopeOf(principal, Verb::kCreate, Resource::kJob);
  if (wish.empty() && !scope.all && scope.tenants.size() == 1) return *scope.tenants.begin();
  if (wish.empty() || !scope.Has(wish)) {
    return MakeError(
        absl::StatusCode::kPermissionDenied, "TENANT_NOT_ALLOWED",
        wish.empty()
            ? absl::StrCat(principal.name,
                           " has several tenants; say in job.tenant for which the job is")
            : absl::StrCat(principal.name, " may not create jobs of the tenant ", Quoted(wish)));
  }
  if (!IsTenantName(wish)) {
    return InvalidInput(
        "INVALID_REQUEST",
        absl::StrCat("job.tenant ", Quoted(wish), " is not of the form [a-z0-9][a-z0-9-]{0,62}"));
  }
  return wish;
}

absl::Status CheckPriority(const TenantRules& limits, const Job& job) {
  if (job.priority <= limits.max_priority) return absl::OkStatus();
  return MakeError(absl::StatusCode::kPermissionDenied, "PRIORITY_NOT_ALLOWED",
                   absl::StrCat("job.priority ", job.priority, " is above ", limits.max_priority,
                                ", the highest that the server's policy allows the tenant ",
                                Quoted(job.tenant)));
}

// Of what the request itself names; where nothing is said the tenant's own place is meant.
absl::Status CheckData(const ServiceContext& context, const TenantRules& rules,
                       const std::string& tenant, const v1::QuantizationSpec& spec) {
  const DataRules data = {absl::StrCat(context.layout.root, "/tenants/", tenant),
                          context.reserved_uris};
  for (const SpecLocation& location : LocationsOf(spec)) {
    UQ_RETURN_IF_ERROR(CheckDataAllowed(data, rules.DataOf(location.purpose), location.purpose,
                                        tenant, location.member, location.uri));
  }
  return absl::OkStatus();
}

// What tells the caller's pages of a listing from others'.
std::string WhoseJobs(const TenantScope& scope) {
  return scope.all ? "" : absl::StrJoin(scope.tenants, ",");
}

// Ends the call with what `read` makes of the published state, once that is current.
void FinishRead(Runtime* runtime, UnaryCall* call,
                std::function<absl::Status(const PublishedState&)> read) {
  runtime->WhenCurrent([runtime, call, read = std::move(read)](const absl::Status& current) {
    call->Done(current.ok() ? read(runtime->published()) : current);
  });
}

}  // namespace

NameForm NameFormFor(const Principal& principal) {
  const TenantScope scope = AccessTo(principal, Verb::kRead).visible;
  const bool one = !scope.all && scope.tenants.size() <= 1;
  return one || principal.authenticator == "none" ? NameForm::kShort : NameForm::kWithTenant;
}

absl::StatusOr<JobView> FindJob(const PublishedState& published, const JobRef& job,
                                const JobAccess& access) {
  std::vector<JobView> found = published.FindAll(job.id, access.In(job.tenant).visible);
  if (found.empty()) {
    return NotFound("JOB_NOT_FOUND", absl::StrCat("no job ", Quoted(JobName(job.id, job.tenant))));
  }
  if (found.size() > 1) return AmbiguousJobName(job.id);
  return std::move(found[0]);
}

absl::StatusOr<CreateJobEvent> JobServiceImpl::NewJob(const v1::CreateJobRequest& request,
                                                      const Principal& principal) {
  const std::string id = context_.ids->NewId("job"), uid = context_.ids->NewId("uid");
  if (context_.door.access == nullptr) {
    return CreateJobFromProto(request, id, uid, context_.layout);
  }
  UQ_ASSIGN_OR_RETURN(const std::string tenant, ChooseTenant(principal, request.job().tenant()));
  UQ_ASSIGN_OR_RETURN(CreateJobEvent event,
                      CreateJobFromProto(request, id, uid, context_.layout, &tenant));
  const std::shared_ptr<const AccessPolicy> policy = context_.door.access->policy();
  const TenantRules& rules = policy->RulesOf(tenant);
  UQ_RETURN_IF_ERROR(CheckPriority(rules, event.job));
  UQ_RETURN_IF_ERROR(CheckData(context_, rules, tenant, request.job().spec()));
  event.quota = {rules.max_queued_jobs, rules.max_tasks_per_job, rules.max_creates_per_second};
  return event;
}

grpc::ServerUnaryReactor* JobServiceImpl::CreateJob(grpc::CallbackServerContext* rpc,
                                                    const v1::CreateJobRequest* request,
                                                    v1::Job* response) {
  Admission admission = Admit(context_, rpc, MethodRow("CreateJob"), JobName(request->job_id()));
  return UnaryCall::Serve(std::move(admission), [&](UnaryCall* call, const Principal& principal) {
    absl::StatusOr<CreateJobEvent> event = NewJob(*request, principal);
    const NameForm form = NameFormFor(principal);
    if (!event.ok()) {
      return call->Done(event.status());
    }
    DescribeForAudit(*event, &call->audit());
    if (context_.preflight == nullptr || request->unchecked()) {
      return Create(call, *std::move(event), form, {}, response);
    }
    CheckAndCreate(call, *std::move(event), form, response);
  });
}

void JobServiceImpl::Create(UnaryCall* call, CreateJobEvent event, NameForm form,
                            std::vector<std::string> not_checked, v1::Job* response) {
  std::optional<Job> preview;
  if (event.validate_only) {
    preview = event.job;
    preview->create_time = preview->update_time = context_.clock->Now();
  }
  const auto done = [call, response, preview, form,
                     not_checked = std::move(not_checked)](absl::StatusOr<JobView> view) {
    // A request id that is known shows the job that it made.
    if (view.ok() && view->job == nullptr && preview.has_value()) {
      view->job = std::make_shared<const Job>(*preview);
      view->tasks = {std::make_shared<const Task>()};
    }
    response->mutable_not_checked()->Assign(not_checked.begin(), not_checked.end());
    FinishJob(call, view, form, response);
  };
  context_.runtime->ChangeJob(std::move(event), done);
}

void JobServiceImpl::CheckAndCreate(UnaryCall* call, CreateJobEvent event, NameForm form,
                                    v1::Job* response) {
  v1::QuantizationSpec proto;
  proto.ParseFromString(event.job.spec);
  const absl::StatusOr<QuantizationSpec> spec = SpecFromProto(proto);
  if (!spec.ok()) return call->Done(spec.status());
  const auto looked = [this, call, form, response,
                       event = std::move(event)](const PreflightResult& result) {
    if (result.status.ok()) return Create(call, event, form, result.not_checked, response);
    // A request that made a job already, or that would be refused anyway, is answered as ever: its
    // own job may be what is in its place.
    CreateJobEvent only_ask = event;
    only_ask.validate_only = true;
    context_.runtime->ChangeJob(std::move(only_ask), [call, form, response, status = result.status](
                                                         const absl::StatusOr<JobView>& view) {
      if (view.ok() && view->job == nullptr) return call->Done(status);
      FinishJob(call, view, form, response);
    });
  };
  context_.preflight->Check(
      *spec, context_.preflight->architectures().All(context_.clock->Monotonic()), looked);
}

grpc::ServerUnaryReactor* JobServiceImpl::GetJob(grpc::CallbackServerContext* rpc,
                                                 const v1::GetJobRequest* request,
                                                 v1::Job* response) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("GetJob"), request->name()),
      [&](UnaryCall* call, const Principal& principal) {
        FinishRead(context_.runtime, call,
                   [request, response, access = AccessTo(principal, Verb::kRead),
                    form = NameFormFor(principal)](const PublishedState& published) {
                     return FillJob(FindNamed(published, "name", request->name(), access), form,
                                    response);
                   });
      });
}

grpc::ServerUnaryReactor* JobServiceImpl::ListJobs(grpc::CallbackServerContext* rpc,
                                                   const v1::ListJobsRequest* request,
                                                   v1::ListJobsResponse* response) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("ListJobs"), "jobs"),
      [&](UnaryCall* call, const Principal& principal) {
        const auto list =
            [request, response, scope = AccessTo(principal, Verb::kRead).visible,
             form = NameFormFor(principal)](const PublishedState& published) -> absl::Status {
          std::vector<std::shared_ptr<const Job>> jobs = published.Jobs();
          if (!scope.all) std::erase_if(jobs, [&](auto& job) { return !scope.Has(job->tenant); });
          UQ_ASSIGN_OR_RETURN(
              Page page, ListPage(std::move(jobs), request->filter(), request->order_by(),
                                  request->page_size(), request->page_token(), WhoseJobs(scope)));
          for (const auto& job : page.jobs) {
            const std::optional<JobView> view = published.Find(job->seq);
            JobToProto(view.has_value() ? *view : JobView{job, {}}, form, response->add_jobs());
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
  const Verb verb = admission.method().verb;
  return UnaryCall::Serve(std::move(admission), [&](UnaryCall* call, const Principal& principal) {
    const absl::StatusOr<JobRef> job = ParseJobName("name", name);
    if (!job.ok()) {
      return call->Done(job.status());
    }
    context_.runtime->ChangeJob(
        Event{job->id, AccessTo(principal, verb).In(job->tenant)},
        [call, response, form = NameFormFor(principal)](const absl::StatusOr<JobView>& view) {
          FinishJob(call, view, form, response);
        });
  });
}

grpc::ServerUnaryReactor* JobServiceImpl::CancelJob(grpc::CallbackServerContext* rpc,
                                                    const v1::CancelJobRequest* request,
                                                    v1::Job* response) {
  return ChangeJob<CancelJobEvent>(Admit(context_, rpc, MethodRow("CancelJob"), request->name()),
                                   request->name(), response);
}
grpc::ServerUnaryReactor* JobServiceImpl::RetryJob(grpc::CallbackServerContext* rpc,
                                                   const v1::RetryJobRequest* request,
                                                   v1::Job* response) {
  Admission admission = Admit(context_, rpc, MethodRow("RetryJob"), request->name());
  return UnaryCall::Serve(std::move(admission), [&](UnaryCall* call, const Principal& principal) {
    const absl::StatusOr<JobRef> job = ParseJobName("name", request->name());
    if (!job.ok()) {
      return call->Done(job.status());
    }
    RetryJobEvent event;
    event.id = job->id;
    event.access = AccessTo(principal, Verb::kRetry).In(job->tenant);
    const auto done = [call, response,
                       form = NameFormFor(principal)](const absl::StatusOr<JobView>& changed) {
      FinishJob(call, changed, form, response);
    };
    absl::StatusOr<JobView> view = FindJob(context_.runtime->published(), *job, event.access);
    const bool may = view.ok() && event.access.allowed.Has(view->job->tenant);
    if (context_.stored_results == nullptr || !may) {
      return context_.runtime->ChangeJob(std::move(event), done);
    }
    context_.stored_results->FindMissing(
        *std::move(view), [event = std::move(event), done, runtime = context_.runtime](
                              absl::StatusOr<std::set<std::string>> missing) mutable {
          // A store that cannot be asked does not hold the retry up: whoever misses a result later
          // says so.
          if (missing.ok()) event.missing = *std::move(missing);
          runtime->ChangeJob(std::move(event), done);
        });
  });
}
grpc::ServerUnaryReactor* JobServiceImpl::PauseJob(grpc::CallbackServerContext* rpc,
                                                   const v1::PauseJobRequest* request,
                                                   v1::Job* response) {
  return ChangeJob<PauseJobEvent>(Admit(context_, rpc, MethodRow("PauseJob"), request->name()),
                                  request->name(), response);
}
grpc::ServerUnaryReactor* JobServiceImpl::ResumeJob(grpc::CallbackServerContext* rpc,
                                                    const v1::ResumeJobRequest* request,
                                                    v1::Job* response) {
  return ChangeJob<ResumeJobEvent>(Admit(context_, rpc, MethodRow("ResumeJob"), request->name()),
                                   request->name(), response);
}

grpc::ServerUnaryReactor* JobServiceImpl::DeleteJob(grpc::CallbackServerContext* rpc,
                                                    const v1::DeleteJobRequest* request,
                                                    google::protobuf::Empty*) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("DeleteJob"), request->name()),
      [&](UnaryCall* call, const Principal& principal) {
        const absl::StatusOr<JobRef> job = ParseJobName("name", request->name());
        if (!job.ok()) {
          return call->Done(job.status());
        }
        context_.runtime->ChangeJob(
            DeleteJobEvent{job->id, request->allow_missing(),
                           AccessTo(principal, Verb::kDelete).In(job->tenant)},
            [call](absl::StatusOr<JobView> view) { call->Done(view.status()); });
      });
}

grpc::ServerUnaryReactor* JobServiceImpl::GetTask(grpc::CallbackServerContext* rpc,
                                                  const v1::GetTaskRequest* request,
                                                  v1::Task* response) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("GetTask"), request->name()),
      [&](UnaryCall* call, const Principal& principal) {
        const auto get =
            [request, response, access = AccessTo(principal, Verb::kRead),
             form = NameFormFor(principal)](const PublishedState& published) -> absl::Status {
          UQ_ASSIGN_OR_RETURN(const TaskName name, ParseTaskName("name", request->name()));
          const absl::StatusOr<JobView> view = FindJob(published, {name.tenant, name.job}, access);
          if (view.ok()) {
            for (const auto& task : view->tasks) {
              if (task->id != name.task) continue;
              TaskToProto(NameOf(*view->job, form), *task, response);
              return absl::OkStatus();
            }
          } else if (!absl::IsNotFound(view.status())) {
            return view.status();
          }
          return NotFound("TASK_NOT_FOUND", absl::StrCat("no task ", Quoted(request->name())));
        };
        FinishRead(context_.runtime, call, get);
      });
}

grpc::ServerUnaryReactor* JobServiceImpl::ListTasks(grpc::CallbackServerContext* rpc,
                                                    const v1::ListTasksRequest* request,
                                                    v1::ListTasksResponse* response) {
  Admission admission = Admit(context_, rpc, MethodRow("ListTasks"), request->parent());
  return UnaryCall::Serve(std::move(admission), [&](UnaryCall* call, const Principal& principal) {
    const auto list =
        [request, response, access = AccessTo(principal, Verb::kRead),
         form = NameFormFor(principal)](const PublishedState& published) -> absl::Status {
      UQ_ASSIGN_OR_RETURN(const JobView view,
                          FindNamed(published, "parent", request->parent(), access));
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
        TaskToProto(NameOf(*view.job, form), *view.tasks[i], task);
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
