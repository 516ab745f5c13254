// The worker's half of converters.h: what a worker says and is told, and how it is shown.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/rpc/deterministic_bytes.h"
#include "common/rpc/job_proto.h"
#include "common/rpc/time_proto.h"
#include "server/service/converters.h"
#include "server/service/resource_names.h"

namespace uniquanf::server {
namespace {

constexpr int kMaxArchitectures = 1000;
constexpr size_t kMaxArchitectureBytes = 100;

absl::Status Invalid(absl::string_view message) { return InvalidInput("INVALID_REQUEST", message); }

}  // namespace

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
  const absl::Duration silence = now.mono - session.last_seen;
  if (!lost && !session.parked && !session.leases.empty() && silence > absl::Seconds(5)) {
    proto->set_status_message(absl::StrCat(
        "has not called for ", absl::FormatDuration(absl::Trunc(silence, absl::Seconds(1))),
        "; its tasks are tried again when their leases run out"));
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
  for (const std::string& name : session.capabilities.architectures) {
    capabilities->add_architectures(name);
  }
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
    d->set_history_step(directive.history_step);
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
    UQ_CHECK(a->mutable_spec()->ParseFromString(assignment.spec));  // bytes that were checked
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
  if (capabilities.architectures_size() > kMaxArchitectures) {
    return Invalid(absl::StrCat("capabilities.architectures has more than ", kMaxArchitectures));
  }
  event.capabilities.device = capabilities.device();
  event.capabilities.device_description = capabilities.device_description();
  event.capabilities.memory_bytes = capabilities.memory_bytes();
  event.capabilities.num_slots = capabilities.num_slots();
  event.capabilities.num_cpus = capabilities.num_cpus();
  event.capabilities.labels.insert(capabilities.labels().begin(), capabilities.labels().end());
  for (const std::string& name : capabilities.architectures()) {
    event.capabilities.architectures.push_back(name.substr(0, kMaxArchitectureBytes));
  }
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
        r.progress.fraction = 0;  // the server's to say
        {
          const int num_points =
              std::min({report.history().steps_size(), report.history().losses_size(),
                        static_cast<int>(LossHistory::kMaxPoints)});
          for (int i = 0; i < num_points; ++i) {
            r.losses.emplace_back(report.history().steps(i), report.history().losses(i));
          }
        }
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
        r.outcome.work = WorkFromProto(outcome.work());
        r.outcome.phases = PhasesFromProto(outcome.phases());
        r.outcome.initial_loss = outcome.initial_loss();
        r.outcome.final_loss = outcome.final_loss();
        r.outcome.modules = ModulesFromProto(outcome.modules());
        AppendHistory(outcome.history(), &r.outcome.history);
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
