#include "client/src/convert.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/rpc/job_proto.h"
#include "common/rpc/spec_proto.h"
#include "common/rpc/time_proto.h"

namespace uniquanf {
namespace {

WorkerState StateFromProto(v1::Worker::State state) {
  switch (state) {
    case v1::Worker::READY:
      return WorkerState::kReady;
    case v1::Worker::DRAINING:
      return WorkerState::kDraining;
    case v1::Worker::LOST:
      return WorkerState::kLost;
    case v1::Worker::QUARANTINED:
      return WorkerState::kQuarantined;
    default:
      return WorkerState::kUnknown;
  }
}

}  // namespace

absl::StatusOr<Job> JobFromProto(const v1::Job& proto) {
  Job job;
  JobFieldsFromProto(proto, &job);
  job.name = proto.name();
  auto spec = SpecFromProto(proto.spec());
  if (!spec.ok()) {
    return Annotate(spec.status(),
                    absl::StrCat("the server's ", proto.name(), " needs a newer client"));
  }
  job.spec = *std::move(spec);
  job.progress = ProgressFromProto(proto.progress());
  if (proto.has_report()) job.report = ReportFromProto(proto.report());
  job.not_checked.assign(proto.not_checked().begin(), proto.not_checked().end());
  return job;
}

Task TaskFromProto(const v1::Task& proto) {
  Task task;
  TaskFieldsFromProto(proto, &task);
  task.name = proto.name();
  task.progress = TaskProgressFromProto(proto.progress());
  return task;
}

Worker WorkerFromProto(const v1::Worker& proto) {
  Worker worker;
  worker.name = proto.name();
  worker.session_id = proto.session_id();
  worker.state = StateFromProto(proto.state());
  const v1::WorkerCapabilities& capabilities = proto.capabilities();
  worker.device = capabilities.device();
  worker.device_description = capabilities.device_description();
  worker.memory_bytes = capabilities.memory_bytes();
  worker.num_slots = capabilities.num_slots();
  worker.num_cpus = capabilities.num_cpus();
  worker.labels.insert(capabilities.labels().begin(), capabilities.labels().end());
  worker.software_version = proto.software_version();
  if (proto.has_start_time()) worker.start_time = TimeFromProto(proto.start_time());
  if (proto.has_last_seen_time()) worker.last_seen_time = TimeFromProto(proto.last_seen_time());
  worker.tasks.assign(proto.tasks().begin(), proto.tasks().end());
  worker.status_message = proto.status_message();
  worker.process = proto.process();
  return worker;
}

ServerInfo ServerInfoFromProto(const v1::ServerInfo& proto) {
  ServerInfo info;
  info.version = proto.version();
  info.active = proto.active();
  info.state_backend = proto.state_backend();
  info.object_root = proto.object_root();
  if (proto.has_start_time()) info.start_time = TimeFromProto(proto.start_time());
  info.num_jobs = proto.num_jobs();
  info.num_tasks_ready = proto.num_tasks_ready();
  info.num_tasks_leased = proto.num_tasks_leased();
  if (proto.has_wall_clock_ahead()) {
    info.wall_clock_ahead = DurationFromProto(proto.wall_clock_ahead());
  }
  return info;
}

v1::CreateJobRequest CreateJobRequestFrom(const SubmitOptions& options) {
  v1::CreateJobRequest request;
  v1::Job* job = request.mutable_job();
  *job->mutable_spec() = SpecToProto(options.spec);
  WishToProto(options, job);
  request.set_job_id(options.job_id);
  request.set_request_id(options.request_id);
  request.set_validate_only(options.validate_only);
  request.set_unchecked(options.unchecked);
  return request;
}

std::string JobResourceName(absl::string_view job) {
  const bool whole = absl::StartsWith(job, "jobs/") || absl::StartsWith(job, "tenants/");
  return whole ? std::string(job) : absl::StrCat("jobs/", job);
}

std::string WorkerResourceName(absl::string_view worker) {
  return absl::StartsWith(worker, "workers/") ? std::string(worker)
                                              : absl::StrCat("workers/", worker);
}

}  // namespace uniquanf
