// GetJobMetrics: what is known of the losses and modules of a job's tasks.
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/violations.h"
#include "common/rpc/job_proto.h"
#include "server/service/job_listing.h"
#include "server/service/resource_names.h"
#include "server/service/services.h"

namespace uniquanf::server {
namespace {

// A page ends when it is this large: clients refuse replies beyond 4 MiB.
constexpr size_t kMaxPageBytes = 2 << 20;

bool HasMetrics(const Task& task) {
  return task.history != nullptr || task.modules != nullptr || !task.phases.empty();
}

void MetricsToProto(const std::string& job, const Task& task, v1::TaskMetrics* proto) {
  proto->set_task(TaskNameOf(job, task.id));
  proto->set_kind(TaskKindToProto(task.kind));
  proto->set_layer(task.layer);
  proto->set_round(task.round);
  if (task.history != nullptr) HistoryToProto(*task.history, 0, proto->mutable_history());
  proto->set_initial_loss(task.initial_loss);
  proto->set_final_loss(task.final_loss);
  if (task.modules != nullptr) ModulesToProto(*task.modules, proto->mutable_modules());
  PhasesToProto(task.phases, proto->mutable_phases());
}

absl::Status Fill(const v1::GetJobMetricsRequest& request, const JobView& view, NameForm form,
                  v1::JobMetrics* response) {
  const std::string scope = absl::StrCat("metrics\n", view.job->uid, "\n", request.after_version());
  size_t begin = 0;
  if (!request.page_token().empty()) {
    UQ_ASSIGN_OR_RETURN(const std::string key, ParsePageToken(scope, request.page_token()));
    uint64_t last = 0;
    if (!absl::SimpleAtoi(key, &last)) {
      return InvalidField("INVALID_PAGE_TOKEN", "page_token",
                          "page_token is not one that this server gave; start without one");
    }
    begin = last + 1;
  }
  response->set_version(view.job->version);
  const std::string name = NameOf(*view.job, form);
  size_t num_bytes = 0;
  for (size_t i = begin; i < view.tasks.size(); ++i) {
    const Task& task = *view.tasks[i];
    if (!HasMetrics(task) || task.version <= request.after_version()) continue;
    if (num_bytes > kMaxPageBytes) {
      response->set_next_page_token(MakePageToken(scope, absl::StrCat(i - 1)));
      return absl::OkStatus();
    }
    v1::TaskMetrics* metrics = response->add_tasks();
    MetricsToProto(name, task, metrics);
    num_bytes += metrics->ByteSizeLong();
  }
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* JobServiceImpl::GetJobMetrics(grpc::CallbackServerContext* rpc,
                                                        const v1::GetJobMetricsRequest* request,
                                                        v1::JobMetrics* response) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("GetJobMetrics"), request->name()),
      [&](UnaryCall* call, const Principal& principal) {
        context_.runtime->WhenCurrent([call, request, response, runtime = context_.runtime,
                                       access = AccessTo(principal, Verb::kRead),
                                       form = NameFormFor(principal)](const absl::Status& current) {
          const auto read = [&]() -> absl::Status {
            UQ_RETURN_IF_ERROR(current);
            UQ_ASSIGN_OR_RETURN(const JobRef job, ParseJobName("name", request->name()));
            UQ_ASSIGN_OR_RETURN(const JobView view, FindJob(runtime->published(), job, access));
            return Fill(*request, view, form, response);
          };
          call->Done(read());
        });
      });
}

// Behind the door, so that who may not create jobs learns nothing here either.
grpc::ServerUnaryReactor* JobServiceImpl::EstimateJob(grpc::CallbackServerContext* rpc,
                                                      const v1::EstimateJobRequest*,
                                                      v1::JobEstimate*) {
  return UnaryCall::Serve(
      Admit(context_, rpc, MethodRow("EstimateJob"), "jobs"),
      [](UnaryCall* call, const Principal&) {
        call->Done(MakeError(absl::StatusCode::kUnimplemented, "NOT_IMPLEMENTED",
                             "this version of the server gives no estimates; a job's progress has "
                             "one as soon as it runs"));
      });
}

}  // namespace uniquanf::server
