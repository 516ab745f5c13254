#include "server/service/converters.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/base/violations.h"
#include "common/object_store/store_schemes.h"
#include "common/rpc/deterministic_bytes.h"
#include "common/rpc/job_proto.h"
#include "common/rpc/spec_proto.h"
#include "common/rpc/time_proto.h"
#include "server/core/progress.h"
#include "server/service/resource_names.h"

namespace uniquanf::server {
namespace {

constexpr char kReason[] = "INVALID_REQUEST";
constexpr size_t kMaxLabels = 32;
constexpr int kMaxPriority = 100;

absl::Status Invalid(absl::string_view message) { return InvalidInput(kReason, message); }

bool IsLabelKey(absl::string_view key) {
  if (key.empty() || key.size() > 63) return false;
  return std::all_of(key.begin(), key.end(), [](char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-' || c == '_' || c == '.' ||
           c == '/';
  });
}

absl::Status CheckLabels(const google::protobuf::Map<std::string, std::string>& labels) {
  if (labels.size() > kMaxLabels) {
    return Invalid(
        absl::StrCat("labels: ", labels.size(), " labels; at most ", kMaxLabels, " are allowed"));
  }
  for (const auto& [key, value] : labels) {
    if (!IsLabelKey(key)) {
      return Invalid(
          absl::StrCat("labels: key ", Quoted(key), " is not 1..63 characters of [a-z0-9_./-]"));
    }
    if (value.size() > 255) {
      return Invalid(absl::StrCat("labels: the value of \"", key, "\" is longer than 255 bytes"));
    }
  }
  return absl::OkStatus();
}

// The service's programs run anywhere, so a plain path means nothing to them.
void CheckUri(absl::string_view field, absl::string_view uri, Violations* violations) {
  if (uri.empty() || IsCompleteStoreUri(uri)) return;
  violations->Add("INVALID_SPEC", absl::StrCat("job.spec.", field),
                  absl::StrCat("spec.", field, " ", Quoted(uri), " is not ", StoreUriForms()));
}

// The spec of a request, complete, and its canonical bytes in `job`.
void ReadSpec(const v1::QuantizationSpec& proto, const std::string& default_output,
              CreateJobEvent* event, Violations* violations) {
  constexpr char kPrefix[] = "job.spec.";
  absl::StatusOr<QuantizationSpec> spec = SpecFromProto(proto);
  if (!spec.ok()) return violations->Merge(spec.status(), kPrefix);
  if (spec->output_uri.empty()) spec->output_uri = default_output;
  violations->Merge(spec->Validate(), kPrefix);
  CheckUri("model_uri", spec->model_uri, violations);
  CheckUri("calibration_uri", spec->calibration_uri, violations);
  for (const CalibrationShare& share : spec->calibration_mix) {
    CheckUri("calibration_mix.uri", share.uri, violations);
  }
  CheckUri("output_uri", spec->output_uri, violations);
  CheckUri("evaluation_uri", spec->evaluation_uri, violations);
  CheckUri("distillation_uri", spec->distillation_uri, violations);
  event->job.spec = DeterministicBytes(SpecToProto(*spec));
  event->min_num_tasks =
      2 + int64_t{spec->schedule == LayerSchedule::kPipelined ? spec->pipeline_rounds : 1};
}

// Bytes that this server has made, or has read and checked (CheckStoredJob).
void ParseChecked(const std::string& bytes, google::protobuf::Message* proto) {
  UQ_CHECK(proto->ParseFromString(bytes));
}

}  // namespace

std::string ObjectLayout::ArtifactUri(const std::string& tenant, const std::string& job,
                                      const std::string& job_uid) const {
  constexpr size_t kUidCharacters = 8;
  const std::string random = job_uid.substr(job_uid.find('-') + 1).substr(0, kUidCharacters);
  return absl::StrCat(root, "/tenants/", tenant, "/artifacts/", job, "-", random);
}

std::string NameOf(const Job& job, NameForm form) {
  return JobName(job.id, form == NameForm::kWithTenant ? job.tenant : "");
}

absl::Status CheckStoredJob(const Job& job) {
  v1::QuantizationSpec spec;
  v1::JobReport report;
  const char* damaged = !spec.ParseFromString(job.spec)       ? "spec"
                        : !report.ParseFromString(job.report) ? "report"
                                                              : nullptr;
  if (damaged == nullptr) return absl::OkStatus();
  return MakeError(absl::StatusCode::kDataLoss, "STATE_CORRUPT",
                   absl::StrCat("the ", damaged, " of the stored job \"", job.id,
                                "\" cannot be read; restore the state from a backup"));
}

void TaskToProto(const std::string& job, const Task& task, v1::Task* proto) {
  TaskFieldsToProto(task, proto);
  proto->set_name(TaskNameOf(job, task.id));
  if (task.state == TaskState::kLeased) {
    TaskProgressToProto(task.progress, proto->mutable_progress());
  }
  if (!task.worker.empty()) proto->set_worker(WorkerName(task.worker));
  for (v1::TaskFailure& failure : *proto->mutable_failures()) {
    if (!failure.worker().empty()) failure.set_worker(WorkerName(failure.worker()));
  }
}

void JobToProto(const JobView& view, NameForm form, v1::Job* proto) {
  const Job& job = *view.job;
  JobFieldsToProto(job, proto);
  proto->set_name(NameOf(job, form));
  ParseChecked(job.spec, proto->mutable_spec());
  if (job.error && !job.error->task.empty()) {
    proto->mutable_error()->set_task(TaskNameOf(proto->name(), job.error->task));
  }
  ProgressToProto(ComputeProgress(job, view.tasks), proto->mutable_progress());
  if (job.state == JobState::kSucceeded && job.artifact) {
    ParseChecked(job.report, proto->mutable_report());
  } else {
    proto->clear_artifact();
  }
}

void DrainedNameToProto(const std::string& worker, v1::Worker* proto) {
  proto->set_name(WorkerName(worker));
  proto->set_state(v1::Worker::LOST);
  proto->set_status_message(
      "no process has this name now, and one that comes gets no tasks until `uniquanf undrain` "
      "takes the drain back");
}

void WorkerToProto(const State& state, const Session& session, const Now& now, NameForm form,
                   v1::Worker* proto) {
  proto->set_name(WorkerName(session.worker));
  proto->set_session_id(session.id);
  const bool lost =
      now.mono - session.last_seen > state.policy.lease_duration + MaxHold(state.policy);
  proto->set_state(lost                    ? v1::Worker::LOST
                   : session.withdrawn()   ? v1::Worker::DRAINING
                   : session.quarantined() ? v1::Worker::QUARANTINED
                                           : v1::Worker::READY);
  proto->set_process(WorkerProcessName(session));
  if (session.held) {
    proto->set_status_message(
        "its name is drained: it gets no tasks until `uniquanf undrain` takes that back");
  }
  if (session.quarantined()) {
    const absl::Duration left = session.quarantined_until - now.mono;
    proto->set_status_message(absl::StrCat(
        session.quarantine_reason, "; it gets only what no other worker can run for ",
        absl::FormatDuration(absl::Ceil(std::max(left, absl::ZeroDuration()), absl::Seconds(1))),
        " more, or until a task succeeds there or it is undrained"));
  }
  v1::WorkerCapabilities* capabilities = proto->mutable_capabilities();
  capabilities->set_device(session.capabilities.device);
  capabilities->set_device_description(session.capabilities.device_description);
  capabilities->set_memory_bytes(session.capabilities.memory_bytes);
  capabilities->set_num_slots(session.capabilities.num_slots);
  capabilities->set_num_cpus(session.capabilities.num_cpus);
  capabilities->mutable_labels()->insert(session.capabilities.labels.begin(),
                                         session.capabilities.labels.end());
  proto->set_software_version(session.software_version);
  *proto->mutable_last_seen_time() = TimeToProto(session.last_seen_time);
  *proto->mutable_start_time() = TimeToProto(session.start_time);
  for (const TaskRef& ref : session.leases) {
    const JobEntry& entry = state.jobs.at(ref.job);
    proto->add_tasks(TaskNameOf(NameOf(entry.job, form), entry.tasks[ref.index].id));
  }
}

void ReplyToProto(const SynchronizeReply& reply, const ObjectLayout& layout, NameForm form,
                  v1::SynchronizeResponse* proto) {
  for (const LeaseDirective& directive : reply.directives) {
    v1::LeaseDirective* d = proto->add_directives();
    d->set_lease_id(directive.lease_id);
    switch (directive.action) {
      case LeaseAction::kContinue:
        d->set_action(v1::LeaseDirective::CONTINUE);
        break;
      case LeaseAction::kStop:
        d->set_action(v1::LeaseDirective::STOP);
        break;
      case LeaseAction::kAcknowledged:
        d->set_action(v1::LeaseDirective::ACKNOWLEDGED);
        break;
      case LeaseAction::kLost:
        d->set_action(v1::LeaseDirective::LOST);
        break;
    }
  }
  for (const Assignment& assignment : reply.assignments) {
    v1::TaskAssignment* a = proto->add_assignments();
    a->set_lease_id(assignment.lease_id);
    a->set_lease_token(assignment.lease_token);
    a->set_attempt(assignment.attempt);
    const std::string tenant = form == NameForm::kWithTenant ? assignment.tenant : "";
    a->set_task(TaskNameOf(JobName(assignment.job, tenant), assignment.task));
    a->set_kind(TaskKindToProto(assignment.kind));
    a->set_layer(assignment.layer);
    a->set_round(assignment.round);
    ParseChecked(assignment.spec, a->mutable_spec());
    a->set_work_uri(layout.WorkUri(assignment.job_uid));
    a->set_plan_sha256(assignment.plan_sha256);
    for (const std::string& sha256 : assignment.layer_sha256) a->add_layer_sha256(sha256);
    *a->mutable_lease_duration() = DurationToProto(reply.lease_duration);
    // One trace for a job, one span for an attempt; both follow from the lease alone.
    const std::string trace = Sha256Hex(assignment.job_uid);
    const std::string span = Sha256Hex(assignment.lease_id);
    a->set_traceparent(absl::StrCat("00-", trace.substr(0, 32), "-", span.substr(0, 16), "-01"));
  }
  *proto->mutable_next_call() = DurationToProto(reply.next_call);
  proto->set_drain(reply.drain);
  proto->set_name_shared(reply.name_shared);
}

absl::StatusOr<CreateJobEvent> CreateJobFromProto(const v1::CreateJobRequest& request,
                                                  const std::string& fallback_id,
                                                  const std::string& uid,
                                                  const ObjectLayout& layout,
                                                  const std::string* tenant) {
  CreateJobEvent event;
  event.id_is_global = tenant == nullptr;
  Job& job = event.job;
  event.validate_only = request.validate_only();
  if (!request.has_job() || !request.job().has_spec()) {
    return InvalidField("INVALID_SPEC", "job.spec", "job.spec is missing; it is required");
  }
  const v1::Job& wish = request.job();
  Violations violations;
  const auto wrong = [&violations](absl::string_view field, absl::string_view description) {
    violations.Add(kReason, field, description);
  };
  if (request.job_id().empty()) {
    job.id = fallback_id;
  } else {
    violations.Merge(CheckJobId("job_id", request.job_id()), "");
    job.id = request.job_id();
  }
  job.uid = uid;
  if (request.request_id().size() > 128) {
    wrong("request_id", "request_id is longer than 128 characters");
  }
  job.request_id = request.request_id();
  v1::CreateJobRequest content = request;
  content.clear_request_id();
  content.clear_validate_only();
  job.request_digest = Sha256Hex(DeterministicBytes(content));

  ReadSpec(
      wish.spec(),
      tenant == nullptr ? layout.ArtifactUri(job.id) : layout.ArtifactUri(*tenant, job.id, uid),
      &event, &violations);

  WishFromProto(wish, &job);
  if (tenant != nullptr) job.tenant = *tenant;
  if (job.tenant.empty()) job.tenant = "default";
  if (!ParseWorkerName("job.tenant", WorkerName(job.tenant)).ok() || job.tenant.size() > 63) {
    wrong("job.tenant", absl::StrCat("job.tenant ", Quoted(job.tenant),
                                     " is not 1..63 characters of [A-Za-z0-9._:-]"));
  }
  if (wish.priority() < -kMaxPriority || wish.priority() > kMaxPriority) {
    wrong("job.priority", absl::StrCat("job.priority ", wish.priority(), " is outside -100..100"));
  }
  violations.Merge(CheckLabels(wish.labels()), "job.labels");
  if (job.time_to_live && *job.time_to_live < absl::ZeroDuration()) {
    wrong("job.time_to_live", "job.time_to_live is negative");
  }
  if (wish.device() != "" && wish.device() != "cpu" && wish.device() != "cuda") {
    wrong("job.device",
          absl::StrCat("job.device ", Quoted(wish.device()), " is not cpu, cuda or empty (any)"));
  }
  if (!violations.empty()) return violations.status();
  return event;
}

absl::StatusOr<SynchronizeEvent> SynchronizeFromProto(const v1::SynchronizeRequest& request) {
  if (request.protocol_version() != kProtocolVersion) {
    return FailedPrecondition(
        "VERSION_MISMATCH",
        absl::StrCat("worker ", Quoted(request.worker()), " (version ",
                     Quoted(request.software_version()), ") speaks protocol version ",
                     request.protocol_version(), ", this server ", kProtocolVersion,
                     "; install version ", kSoftwareVersion, " of the worker"));
  }
  SynchronizeEvent event;
  if (request.session_id().empty() || request.session_id().size() > 128 ||
      request.session_id()[0] == '*') {
    return Invalid("session_id is empty, longer than 128 characters, or begins with *");
  }
  event.session = request.session_id();
  UQ_ASSIGN_OR_RETURN(event.worker, ParseWorkerName("worker", request.worker()));
  event.software_version = request.software_version().substr(0, 128);
  if (request.sequence() < 0) return Invalid("sequence is negative; it counts calls from 1");
  event.sequence = request.sequence();
  const v1::WorkerCapabilities& capabilities = request.capabilities();
  if (capabilities.device() != "cpu" && capabilities.device() != "cuda") {
    return Invalid(absl::StrCat("capabilities.device ", Quoted(capabilities.device()),
                                " is neither cpu nor cuda"));
  }
  if (capabilities.memory_bytes() < 0 || capabilities.num_slots() < 0 ||
      capabilities.num_cpus() < 0 || request.num_free_slots() < 0 ||
      request.num_free_slots() > 4096) {
    return Invalid(
        "capabilities.memory_bytes, num_slots, num_cpus or num_free_slots is out of range");
  }
  UQ_RETURN_IF_ERROR(CheckLabels(capabilities.labels()));
  event.capabilities.device = capabilities.device();
  event.capabilities.device_description = capabilities.device_description();
  event.capabilities.memory_bytes = capabilities.memory_bytes();
  event.capabilities.num_slots = capabilities.num_slots();
  event.capabilities.num_cpus = capabilities.num_cpus();
  event.capabilities.labels.insert(capabilities.labels().begin(), capabilities.labels().end());
  event.draining = request.draining();
  event.num_free_slots = request.num_free_slots();
  for (const v1::CachedActivations& cached : request.cached()) {
    UQ_ASSIGN_OR_RETURN(JobRef job, ParseJobName("cached.job", cached.job()));
    event.cached.push_back({std::move(job.id), cached.layer(), cached.round()});
  }
  for (const v1::LeaseReport& report : request.leases()) {
    LeaseReport& r = event.leases.emplace_back();
    r.lease_id = report.lease_id();
    r.attempt = report.attempt();
    if (!report.lease_token().empty()) r.token_sha256 = Sha256Hex(report.lease_token());
    UQ_ASSIGN_OR_RETURN(const TaskName name, ParseTaskName("leases.task", report.task()));
    r.job = name.job;
    r.task = name.task;
    switch (report.status_case()) {
      case v1::LeaseReport::kRunning:
        r.kind = LeaseReport::Kind::kRunning;
        r.progress = TaskProgressFromProto(report.running());
        r.progress.phase = r.progress.phase.substr(0, 64);
        break;
      case v1::LeaseReport::kSucceeded: {
        const v1::TaskOutcome& outcome = report.succeeded();
        r.kind = LeaseReport::Kind::kSucceeded;
        r.outcome.result_sha256 = outcome.result_sha256();
        r.outcome.num_layers = outcome.num_layers();
        r.outcome.layers_independent = outcome.layers_independent();
        r.outcome.num_rounds = outcome.num_rounds() == 0 ? 1 : outcome.num_rounds();
        r.outcome.distill_window = outcome.distill_window();
        r.outcome.device = outcome.device();
        r.outcome.layer_memory_bytes = outcome.layer_memory_bytes();
        if (outcome.has_artifact()) r.outcome.artifact = ArtifactFromProto(outcome.artifact());
        r.outcome.report = DeterministicBytes(outcome.report());
        break;
      }
      case v1::LeaseReport::kFailed: {
        const v1::TaskFailure& failure = report.failed();
        r.kind = LeaseReport::Kind::kFailed;
        // A class of a later protocol is handled like a bug: retried once.
        r.failure.failure_class = FailureClassFromProto(failure.failure_class());
        if (r.failure.failure_class == FailureClass::kUnknown) {
          r.failure.failure_class = FailureClass::kInternal;
        }
        r.failure.reason = failure.reason().empty() ? "UNKNOWN" : failure.reason().substr(0, 64);
        r.failure.message = failure.message().substr(0, 4096);
        r.missing_sha256.assign(failure.missing_sha256().begin(), failure.missing_sha256().end());
        break;
      }
      case v1::LeaseReport::kReleased:
        r.kind = LeaseReport::Kind::kReleased;
        break;
      case v1::LeaseReport::STATUS_NOT_SET:
        return Invalid(absl::StrCat("leases: the report on ", Quoted(report.task()),
                                    " has no status; set running, succeeded, failed or released"));
    }
  }
  return event;
}

}  // namespace uniquanf::server
