#include "client/src/convert.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/rpc/spec_proto.h"
#include "common/rpc/time_proto.h"

namespace uniquanf {
namespace {

JobState StateFromProto(v1::Job::State state) {
  switch (state) {
    case v1::Job::QUEUED:
      return JobState::kQueued;
    case v1::Job::RUNNING:
      return JobState::kRunning;
    case v1::Job::PAUSED:
      return JobState::kPaused;
    case v1::Job::CANCELLING:
      return JobState::kCancelling;
    case v1::Job::SUCCEEDED:
      return JobState::kSucceeded;
    case v1::Job::FAILED:
      return JobState::kFailed;
    case v1::Job::CANCELLED:
      return JobState::kCancelled;
    default:
      return JobState::kUnknown;
  }
}

TaskState StateFromProto(v1::Task::State state) {
  switch (state) {
    case v1::Task::BLOCKED:
      return TaskState::kBlocked;
    case v1::Task::READY:
      return TaskState::kReady;
    case v1::Task::LEASED:
      return TaskState::kLeased;
    case v1::Task::SUCCEEDED:
      return TaskState::kSucceeded;
    case v1::Task::FAILED:
      return TaskState::kFailed;
    case v1::Task::CANCELLED:
      return TaskState::kCancelled;
    default:
      return TaskState::kUnknown;
  }
}

TaskKind KindFromProto(v1::Task::Kind kind) {
  switch (kind) {
    case v1::Task::PREPARE:
      return TaskKind::kPrepare;
    case v1::Task::LAYER:
      return TaskKind::kLayer;
    case v1::Task::FINALIZE:
      return TaskKind::kFinalize;
    default:
      return TaskKind::kUnknown;
  }
}

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

JobReport ReportFromProto(const v1::JobReport& proto) {
  JobReport report;
  if (proto.has_perplexity_before()) report.perplexity_before = proto.perplexity_before();
  if (proto.has_perplexity_after()) report.perplexity_after = proto.perplexity_after();
  report.num_evaluation_tokens = proto.num_evaluation_tokens();
  for (const v1::LayerReport& layer : proto.layers()) {
    report.layers.push_back({layer.layer(), layer.initial_loss(), layer.final_loss(), layer.bits(),
                             DurationFromProto(layer.duration())});
  }
  report.model_size_bytes = proto.model_size_bytes();
  report.artifact_size_bytes = proto.artifact_size_bytes();
  report.average_bits = proto.average_bits();
  report.duration = DurationFromProto(proto.duration());
  report.warnings.assign(proto.warnings().begin(), proto.warnings().end());
  return report;
}

}  // namespace

absl::StatusOr<Job> JobFromProto(const v1::Job& proto) {
  Job job;
  job.name = proto.name();
  job.uid = proto.uid();
  auto spec = SpecFromProto(proto.spec());
  if (!spec.ok()) {
    return Annotate(spec.status(),
                    absl::StrCat("the server's ", proto.name(), " needs a newer client"));
  }
  job.spec = *std::move(spec);
  job.version = proto.version();
  job.state = StateFromProto(proto.state());
  job.status_message = proto.status_message();
  if (proto.has_error()) {
    job.error = JobError{proto.error().reason(), proto.error().message(), proto.error().task()};
  }
  job.tenant = proto.tenant();
  job.priority = proto.priority();
  job.labels.insert(proto.labels().begin(), proto.labels().end());
  if (proto.has_create_time()) job.create_time = TimeFromProto(proto.create_time());
  if (proto.has_start_time()) job.start_time = TimeFromProto(proto.start_time());
  if (proto.has_end_time()) job.end_time = TimeFromProto(proto.end_time());
  if (proto.has_update_time()) job.update_time = TimeFromProto(proto.update_time());
  if (proto.has_deadline()) job.deadline = TimeFromProto(proto.deadline());
  if (proto.has_time_to_live()) job.time_to_live = DurationFromProto(proto.time_to_live());
  job.device = proto.device();
  const v1::JobProgress& progress = proto.progress();
  job.progress.num_tasks = progress.num_tasks();
  job.progress.num_tasks_succeeded = progress.num_tasks_succeeded();
  job.progress.num_layers = progress.num_layers();
  job.progress.num_layers_succeeded = progress.num_layers_succeeded();
  job.progress.fraction = progress.fraction();
  if (progress.has_remaining()) job.progress.remaining = DurationFromProto(progress.remaining());
  if (proto.has_artifact()) {
    job.artifact = ArtifactInfo{proto.artifact().uri(), proto.artifact().manifest_sha256(),
                                proto.artifact().size_bytes()};
  }
  if (proto.has_report()) job.report = ReportFromProto(proto.report());
  return job;
}

Task TaskFromProto(const v1::Task& proto) {
  Task task;
  task.name = proto.name();
  task.kind = KindFromProto(proto.kind());
  task.layer = proto.layer();
  task.state = StateFromProto(proto.state());
  task.attempt = proto.attempt();
  task.worker = proto.worker();
  const v1::TaskProgress& progress = proto.progress();
  task.progress.phase = progress.phase();
  task.progress.step = progress.step();
  task.progress.num_steps = progress.num_steps();
  task.progress.loss = progress.loss();
  if (progress.has_remaining()) task.progress.remaining = DurationFromProto(progress.remaining());
  for (const v1::TaskFailure& failure : proto.failures()) {
    task.failures.push_back(
        {v1::FailureClass_IsValid(failure.failure_class())
             ? v1::FailureClass_Name(failure.failure_class())
             : "UNKNOWN",
         failure.reason(), failure.message(), failure.attempt(), failure.worker(),
         failure.has_time() ? TimeFromProto(failure.time()) : absl::InfinitePast()});
  }
  if (proto.has_start_time()) task.start_time = TimeFromProto(proto.start_time());
  if (proto.has_end_time()) task.end_time = TimeFromProto(proto.end_time());
  if (proto.has_next_attempt_time()) {
    task.next_attempt_time = TimeFromProto(proto.next_attempt_time());
  }
  task.result_sha256 = proto.result_sha256();
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
  job->set_tenant(options.tenant);
  job->set_priority(options.priority);
  job->mutable_labels()->insert(options.labels.begin(), options.labels.end());
  if (options.deadline != absl::InfiniteFuture()) {
    *job->mutable_deadline() = TimeToProto(options.deadline);
  }
  if (options.time_to_live.has_value()) {
    *job->mutable_time_to_live() = DurationToProto(*options.time_to_live);
  }
  job->set_device(options.device);
  request.set_job_id(options.job_id);
  request.set_request_id(options.request_id);
  request.set_validate_only(options.validate_only);
  return request;
}

std::string JobResourceName(absl::string_view job) {
  return absl::StartsWith(job, "jobs/") ? std::string(job) : absl::StrCat("jobs/", job);
}

std::string WorkerResourceName(absl::string_view worker) {
  return absl::StartsWith(worker, "workers/") ? std::string(worker)
                                              : absl::StrCat("workers/", worker);
}

}  // namespace uniquanf
