#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/check.h"
#include "common/base/digest.h"
#include "server/core/mutations.h"
#include "server/core/progress.h"

namespace uniquanf::server {
namespace {

// Done jobs stay for weeks, with all their layers: of a task that is done the server keeps this
// many points, evenly over its run with both ends. All of them are in the result and its run.json.
constexpr size_t kPointsOfDoneTask = 64;

LossHistory HistoryOfDoneTask(const LossHistory& all) {
  LossHistory kept;
  const size_t count = std::min(all.size(), kPointsOfDoneTask);
  for (size_t i = 0; i < count; ++i) {
    const size_t from = count == 1 ? 0 : i * (all.size() - 1) / (count - 1);
    kept.Append(all.steps()[from], all.losses()[from]);
  }
  return kept;
}

// Far beyond what schedules use; bounds the graph.
constexpr int32_t kMaxRounds = 64;

// What is wrong with an outcome that a worker reported, or "".
std::string MalformedOutcome(const Policy& policy, const Job& job, const Task& task,
                             const TaskOutcome& outcome) {
  if (!outcome.fault.empty()) return outcome.fault;
  if (!IsSha256Hex(outcome.result_sha256)) return "result_sha256 is not 64 hex digits";
  if (task.kind == TaskKind::kPrepare) {
    if (outcome.num_layers < 1 || outcome.num_layers > policy.max_layers) {
      return absl::StrCat("num_layers ", outcome.num_layers, " is outside 1..", policy.max_layers);
    }
    if (outcome.num_rounds < 1 || outcome.num_rounds > kMaxRounds) {
      return absl::StrCat("num_rounds ", outcome.num_rounds, " is outside 1..", kMaxRounds);
    }
    if (outcome.distill_window < 0 || outcome.distill_window > outcome.num_layers) {
      return absl::StrCat("distill_window ", outcome.distill_window, " is outside 0..",
                          outcome.num_layers);
    }
    if (outcome.layer_memory_bytes < 0) return "layer_memory_bytes is negative";
    if (outcome.device != "cpu" && outcome.device != "cuda") {
      return absl::StrCat("device \"", outcome.device, "\" is neither cpu nor cuda");
    }
    if (!job.device.empty() && job.device != outcome.device) {
      return absl::StrCat("device ", outcome.device, " is not the job's, ", job.device);
    }
    if (job.num_layers > 0 &&
        (job.num_layers != outcome.num_layers || job.num_rounds != outcome.num_rounds ||
         job.layers_independent != outcome.layers_independent ||
         job.distill_window != outcome.distill_window)) {
      return "a plan made again has another number of layers, rounds or windows than before";
    }
  }
  if (task.kind == TaskKind::kFinalize && !outcome.artifact.has_value()) {
    return "finalize reported no artifact";
  }
  return "";
}

}  // namespace

void IndexTasks(JobEntry* entry) {
  entry->num_open_dependencies.clear();
  entry->dependents.clear();
  entry->task_of_layer.clear();
  entry->task_of_id.clear();
  entry->num_leased = 0;
  entry->num_succeeded = 0;
  for (size_t i = 0; i < entry->tasks.size(); ++i) IndexTask(entry, static_cast<int32_t>(i));
}

void IndexTask(JobEntry* entry, int32_t index) {
  const Task& task = entry->tasks[index];
  entry->task_of_id[task.id] = index;
  if (task.kind == TaskKind::kLayer) entry->task_of_layer[{task.round, task.layer}] = index;
  if (task.state == TaskState::kLeased) ++entry->num_leased;
  if (task.state == TaskState::kSucceeded) ++entry->num_succeeded;
  entry->dependents.emplace_back();
  int32_t& num_open = entry->num_open_dependencies.emplace_back(0);
  for (const int32_t dependency : task.depends_on) {
    entry->dependents[dependency].push_back(index);
    num_open += entry->tasks[dependency].state != TaskState::kSucceeded;
  }
}

void Mutation::TouchTask(JobEntry* entry, int32_t index) {
  Touch(entry);
  entry->tasks[index].version = entry->job.version;
  edits_.tasks.insert({entry->job.seq, index});
}

void Mutation::SetTaskState(JobEntry* entry, int32_t index, TaskEvent event) {
  Task& task = entry->tasks[index];
  const std::optional<TaskState> next = NextState(task.state, event);
  UQ_CHECK(next.has_value());
  --state_.num_tasks[static_cast<int>(task.state)];
  ++state_.num_tasks[static_cast<int>(*next)];
  if (task.state == TaskState::kReady) {
    if (entry->ready.erase(index) > 0) entry->num_ready_choosy -= IsChoosy(task);
    state_.ready.erase({task.ready_since, {entry->job.seq, index}});
    state_.timers.erase({task.not_before, TimerKind::kBackoff, {entry->job.seq, index}});
    task.next_attempt_time.reset();
  }
  entry->num_succeeded += *next == TaskState::kSucceeded;
  entry->num_succeeded -= task.state == TaskState::kSucceeded;
  task.state = *next;
  TouchTask(entry, index);
  RefreshQueue(entry);
}

void Mutation::MakeReady(JobEntry* entry, int32_t index, absl::Duration delay) {
  Task& task = entry->tasks[index];
  UQ_CHECK(task.state == TaskState::kReady);
  if (delay <= absl::ZeroDuration()) {
    MarkReady(entry, index);
    return;
  }
  task.not_before = now_.mono + delay;
  task.next_attempt_time = now_.wall + delay;
  state_.timers.insert({task.not_before, TimerKind::kBackoff, {entry->job.seq, index}});
}

void Mutation::MarkReady(JobEntry* entry, int32_t index) {
  Task& task = entry->tasks[index];
  task.ready_since = now_.mono;
  entry->ready.insert(index);
  state_.ready.insert({task.ready_since, {entry->job.seq, index}});
  entry->num_ready_choosy += IsChoosy(task);
  RefreshQueue(entry);
  matchable_.insert(entry->job.seq);
}

void Mutation::Lease(Session* session, const TaskRef& ref) {
  JobEntry* entry = &state_.jobs.at(ref.job);
  Task& task = entry->tasks[ref.index];
  SetTaskState(entry, ref.index, TaskEvent::kLease);
  ++task.attempt;
  // Unique without chance: a task's attempts are counted durably before anyone hears of them.
  task.lease_id = absl::StrCat(entry->job.uid, "/", task.id, "/", task.attempt);
  task.lease_token_sha256 = Sha256Hex(LeaseToken(state_, task.lease_id));
  task.lease = LeaseStatus::kActive;
  task.session = session->id;
  task.worker = session->worker;
  task.start_time = now_.wall;
  task.end_time.reset();
  task.progress = {};
  task.progress_at = task.told_at = now_.mono;
  task.history = nullptr;
  task.modules = nullptr;
  task.phases.clear();
  task.initial_loss = task.final_loss = 0;
  task.num_resends = 0;
  task.waits_for_checks = false;
  task.leased_at = now_.mono;
  task.lease_expiry = now_.mono + state_.policy.lease_duration;
  state_.timers.insert({task.lease_expiry, TimerKind::kLease, ref});
  session->leases.insert(ref);
  session->last_given = ++state_.num_given;
  --session->num_free_slots;
  ++entry->num_leased;
  Tenant& tenant = state_.tenants[entry->job.tenant];
  ++tenant.num_leased;
  tenant.leased_at_sum_seconds += absl::ToDoubleSeconds(now_.mono);
  entry->job.status_message.clear();
  entry->job.waits_for.clear();
  if (entry->unschedulable) {
    entry->unschedulable = false;
    --state_.num_unschedulable;
  }
  entry->job.num_before = -1;
  SetJobState(entry, JobEvent::kTaskLeased);
  EstimateProgress(entry, now_.mono);
  ++edits_.num_leases;
  edits_.lease_latency_seconds.push_back(absl::ToDoubleSeconds(now_.mono - task.ready_since));
}

void Mutation::EndLease(JobEntry* entry, int32_t index, LeaseStatus end) {
  Task& task = entry->tasks[index];
  UQ_CHECK(task.lease == LeaseStatus::kActive);
  const TaskRef ref{entry->job.seq, index};
  task.lease = end;
  task.end_time = now_.wall;
  const absl::Duration held = now_.mono - task.leased_at;
  task.worker_time += held;
  state_.timers.erase({task.lease_expiry, TimerKind::kLease, ref});
  const auto session = state_.sessions.find(task.session);
  if (session != state_.sessions.end()) session->second.leases.erase(ref);
  if (--entry->num_leased == 0) entry->job.remaining.reset();
  if (entry->job.silent_worker == task.worker) entry->job.silent_worker.clear();
  Tenant& tenant = state_.tenants[entry->job.tenant];
  --tenant.num_leased;
  tenant.leased_at_sum_seconds -= absl::ToDoubleSeconds(task.leased_at);
  if (tenant.num_leased == 0) tenant.leased_at_sum_seconds = 0;  // no drift from rounding
  tenant.used_seconds += absl::ToDoubleSeconds(held);
  if (end == LeaseStatus::kRevoked) Wake(task.session);
}

void Mutation::Succeed(JobEntry* entry, int32_t index, const TaskOutcome& outcome) {
  Task& task = entry->tasks[index];
  const std::string malformed = MalformedOutcome(state_.policy, entry->job, task, outcome);
  if (!malformed.empty()) {
    const TaskFailure failure = {
        FailureClass::kInternal,
        "MALFORMED_OUTCOME",
        absl::StrCat("worker ", task.worker,
                     " reported an outcome that makes no sense: ", malformed),
        task.attempt,
        task.worker,
        now_.wall};
    if (const auto it = state_.sessions.find(task.session); it != state_.sessions.end()) {
      NoteFailure(&it->second, *entry, failure);
      // Not bad luck, but an untruth.
      if (!outcome.fault.empty()) Quarantine(&it->second, failure.message);
    }
    Fail(entry, index, failure, LeaseStatus::kReported);
    return;
  }
  Job& job = entry->job;
  if (task.kind == TaskKind::kPrepare && job.num_layers == 0) {
    const int64_t num_tasks =
        NumNodes({outcome.num_layers, outcome.num_rounds, false, outcome.distill_window});
    if (num_tasks > state_.policy.max_tasks_per_job) {
      Fail(entry, index,
           {FailureClass::kInvalidInput, "TASKS_EXCEEDED",
            absl::StrCat(outcome.num_layers, " layers in ", outcome.num_rounds, " rounds make ",
                         num_tasks, " tasks; a job may have ", state_.policy.max_tasks_per_job,
                         "; use fewer pipeline_rounds or a larger distill_window"),
            task.attempt, task.worker, now_.wall},
           LeaseStatus::kReported);
      return;
    }
    job.num_layers = outcome.num_layers;
    job.layers_independent = outcome.layers_independent;
    job.num_rounds = outcome.num_rounds;
    job.distill_window = outcome.distill_window;
    job.device = outcome.device;
    job.layer_memory_bytes = outcome.layer_memory_bytes;
    job.work = outcome.work;
  }
  if (const auto it = state_.sessions.find(task.session); it != state_.sessions.end()) {
    NoteSuccess(&it->second);
  }
  EndLease(entry, index, LeaseStatus::kReported);
  const std::string former = std::exchange(task.lost_sha256, "");
  task.result_sha256 = outcome.result_sha256;
  task.phases = outcome.phases;
  task.initial_loss = outcome.initial_loss;
  task.final_loss = outcome.final_loss;
  if (!outcome.history.empty()) {
    task.history = std::make_shared<const LossHistory>(HistoryOfDoneTask(outcome.history));
  }
  if (!outcome.modules.empty()) {
    task.modules = std::make_shared<const std::vector<ModuleMetrics>>(outcome.modules);
  }
  ++edits_.num_tasks_succeeded;
  SetTaskState(entry, index, TaskEvent::kSucceed);
  if (const auto it = state_.sessions.find(task.session); it != state_.sessions.end()) {
    MaybeCheck(*entry, index, it->second);
  }
  const bool changed = !former.empty() && former != outcome.result_sha256;
  if (changed) ReopenConsumers(entry, index);
  if (task.kind == TaskKind::kFinalize) {
    job.artifact = outcome.artifact;
    job.report = outcome.report;
  }
  for (const int32_t dependent : entry->dependents[index]) {
    --entry->num_open_dependencies[dependent];
    ReadyIfInputsAre(entry, dependent);
  }
  StartExpansion(entry);
  EstimateProgress(entry, now_.mono);
  if (changed && job.state == JobState::kCancelling) StartSweep(entry, JobEntry::Sweep::kCancel);
  FinishIfDone(entry);
}

void Mutation::RecordFailure(JobEntry* entry, int32_t index, const TaskFailure& failure) {
  Task& task = entry->tasks[index];
  edits_.failures.push_back(failure.failure_class);
  task.failures.push_back(failure);
  if (task.failures.size() > kMaxFailuresKept) task.failures.erase(task.failures.begin());
}

void Mutation::Fail(JobEntry* entry, int32_t index, TaskFailure failure, LeaseStatus end) {
  Task& task = entry->tasks[index];
  int64_t memory_bytes = 0;
  if (const auto it = state_.sessions.find(task.session); it != state_.sessions.end()) {
    memory_bytes = it->second.capabilities.memory_bytes;
  }
  EndLease(entry, index, end);
  RecordFailure(entry, index, failure);
  switch (failure.failure_class) {
    case FailureClass::kWorkerLost:
      ++task.num_worker_lost;
      break;
    case FailureClass::kTransient:
      ++task.num_transient;
      break;
    case FailureClass::kOutOfMemory:
      ++task.num_out_of_memory;
      task.exceeded_memory_bytes = std::max<int64_t>({task.exceeded_memory_bytes, memory_bytes, 1});
      break;
    case FailureClass::kInvalidInput:
      break;
    case FailureClass::kUnknown:
    case FailureClass::kInternal:
      ++task.num_internal;
      break;
    case FailureClass::kEnvironment:
      ++task.num_environment;
      if (std::count(task.environment_sessions.begin(), task.environment_sessions.end(),
                     task.session) == 0) {
        task.environment_sessions.push_back(task.session);
      }
      break;
    case FailureClass::kInputLost:
      break;
  }
  if (entry->job.state == JobState::kCancelling) {
    SetTaskState(entry, index, TaskEvent::kCancel);
    FinishIfDone(entry);
    return;
  }
  RetryDecision decision;
  const bool confirms = failure.failure_class == FailureClass::kEnvironment;
  if (confirms) {
    const auto session = state_.sessions.find(task.session);
    const bool others =
        session != state_.sessions.end() && OthersCanRun(entry->job, task, session->second, false);
    decision = DecideConfirmation(state_.policy, task, others);
  } else {
    decision = DecideRetry(state_.policy, task, failure.failure_class, Random());
  }
  if (decision.retry) {
    RunLeaseAgain(entry, index, decision.delay);
    if (confirms && decision.delay == absl::ZeroDuration() && entry->num_leased == 0) {
      entry->job.status_message =
          absl::StrCat("task ", task.id, " failed on worker ", task.worker, " (", failure.reason,
                       ": ", failure.message, "); another worker is to try it");
    } else if (decision.delay > absl::ZeroDuration() && entry->num_leased == 0) {
      entry->job.status_message =
          absl::StrFormat("task %s failed on attempt %d (%s: %s); it runs again in %s", task.id,
                          task.attempt, failure.reason, failure.message,
                          absl::FormatDuration(absl::Ceil(decision.delay, absl::Seconds(1))));
    }
    return;
  }
  SetTaskState(entry, index, TaskEvent::kFail);
  std::string message = failure.message;
  if (failure.failure_class != FailureClass::kInvalidInput) {
    absl::StrAppend(&message, " (", decision.limit, ")");
  }
  FailJob(entry, {failure.reason, std::move(message), task.id});
}

void Mutation::Release(JobEntry* entry, int32_t index) {
  EndLease(entry, index, LeaseStatus::kReported);
  if (entry->job.state == JobState::kCancelling) {
    SetTaskState(entry, index, TaskEvent::kCancel);
    FinishIfDone(entry);
    return;
  }
  RunLeaseAgain(entry, index, absl::ZeroDuration());
}

void Mutation::RunLeaseAgain(JobEntry* entry, int32_t index, absl::Duration delay) {
  if (entry->num_open_dependencies[index] > 0) {  // they run again
    SetTaskState(entry, index, TaskEvent::kInputsOpen);
    return;
  }
  SetTaskState(entry, index, TaskEvent::kRetryLater);
  MakeReady(entry, index, delay);
}

void Mutation::CancelTask(JobEntry* entry, int32_t index) {
  if (entry->tasks[index].state == TaskState::kLeased) {
    EndLease(entry, index, LeaseStatus::kRevoked);
  }
  SetTaskState(entry, index, TaskEvent::kCancel);
}

}  // namespace uniquanf::server
