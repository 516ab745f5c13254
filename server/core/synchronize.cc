#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/secret.h"
#include "common/base/status.h"
#include "server/core/mutations.h"
#include "server/core/progress.h"

namespace uniquanf::server {
namespace {

// A worker counts its calls one by one; one that is so far ahead is none of its calls.
constexpr int64_t kMaxSequenceStep = int64_t{1} << 20;
// An estimate looks at all tasks of the job.
constexpr absl::Duration kEstimatePeriod = absl::Milliseconds(500);

// The task of the lease that `report` is about, when that is still its task's latest lease and the
// report says its token.
const Task* LatestLease(const State& state, const std::string& session, const LeaseReport& report,
                        TaskRef* ref) {
  for (const uint64_t seq : state.job_of_id.Find(report.job)) {
    const JobEntry& entry = state.jobs.at(seq);
    const auto it = entry.task_of_id.find(report.task);
    if (it == entry.task_of_id.end()) continue;
    const Task& task = entry.tasks[it->second];
    if (task.lease_id != report.lease_id || task.attempt != report.attempt ||
        task.session != session || !SameSecret(task.lease_token_sha256, report.token_sha256)) {
      continue;
    }
    *ref = {seq, it->second};
    return &task;
  }
  return nullptr;
}

LeaseAction ActionFor(const State& state, const std::string& session, const LeaseReport& report) {
  const auto known = state.sessions.find(session);
  if (known != state.sessions.end()) {
    if (known->second.ended_checks.contains(report.lease_id)) return LeaseAction::kAcknowledged;
    if (const SpotCheck* check = FindCheck(state, known->second, report); check != nullptr) {
      return check->stop ? LeaseAction::kStop : LeaseAction::kContinue;
    }
  }
  TaskRef ref;
  const Task* task = LatestLease(state, session, report, &ref);
  if (task == nullptr || task->lease == LeaseStatus::kRevoked) return LeaseAction::kLost;
  if (task->lease == LeaseStatus::kReported) return LeaseAction::kAcknowledged;
  return state.jobs.at(ref.job).job.state == JobState::kCancelling ? LeaseAction::kStop
                                                                   : LeaseAction::kContinue;
}

bool IsReported(const Session& session, const std::string& lease_id) {
  return std::any_of(session.reported.begin(), session.reported.end(),
                     [&](const LeaseReport& r) { return r.lease_id == lease_id; });
}

// Sent again often enough: the lease is left to run out. Its assignment must not be sent any more,
// for whoever receives one trusts it for a whole lease from its call on.
bool IsWithheld(const Policy& policy, const Task& task) {
  return task.num_resends > policy.max_resends;
}

Assignment MakeAssignment(const State& state, const JobEntry& entry, const Task& task) {
  Assignment assignment;
  assignment.lease_id = task.lease_id;
  assignment.lease_token = LeaseToken(state, task.lease_id);
  assignment.attempt = task.attempt;
  assignment.job = entry.job.id;
  assignment.tenant = entry.job.tenant;
  assignment.job_uid = entry.job.uid;
  assignment.task = task.id;
  assignment.kind = task.kind;
  assignment.layer = task.layer;
  assignment.round = task.round;
  assignment.spec = entry.job.spec;
  if (task.kind == TaskKind::kPrepare) return assignment;
  // One sent again names the inputs that it had, also where one is being made again meanwhile.
  const auto result = [](const Task& input) {
    return input.result_sha256.empty() ? input.lost_sha256 : input.result_sha256;
  };
  assignment.plan_sha256 = result(entry.tasks[0]);
  for (const int32_t input : InputsOf(ShapeOf(entry.job), {task.kind, task.layer, task.round})) {
    assignment.layer_sha256.push_back(result(entry.tasks.at(input)));
  }
  return assignment;
}

}  // namespace

Outcome Mutation::Synchronize(const SynchronizeEvent& event) {
  const auto [it, created] = state_.sessions.try_emplace(event.session);
  Session& session = it->second;
  if (session.has_called && session.identity != event.identity) {
    return {MakeError(absl::StatusCode::kPermissionDenied, "SESSION_NOT_YOURS",
                      absl::StrCat(event.identity,
                                   " did not begin this session; a worker goes on "
                                   "with sessions of its own alone")),
            0, false};
  }
  if (!created && event.sequence < session.sequence) {
    return {MakeError(absl::StatusCode::kAborted, "STALE_REQUEST",
                      absl::StrCat("request ", event.sequence, " of session ", event.session,
                                   " is older than ", session.sequence, ", which came before it")),
            0, false};
  }
  if (session.has_called && event.sequence - session.sequence > kMaxSequenceStep) {
    return {MakeError(absl::StatusCode::kAborted, "STALE_REQUEST",
                      absl::StrCat("request ", event.sequence, " of session ", event.session,
                                   " does not follow ", session.sequence,
                                   "; a worker counts its calls one by one")),
            0, false};
  }
  if (!session.has_called) {
    session.id = event.session;
    session.has_called = true;
    session.identity = event.identity;
    session.start_time = now_.wall;
    session.first_seen = now_.mono;
    session.first_sequence = event.sequence;
    const auto drain = state_.drains.find(event.worker);
    if (drain != state_.drains.end()) {
      session.drain_requested = drain->second.session == event.session;
      session.held = drain->second.by_name && !session.drain_requested;
    }
  }
  session.worker = event.worker;
  state_.sessions_of_worker[event.worker].insert(event.session);
  session.software_version = event.software_version;
  session.sequence = event.sequence;
  session.capabilities = event.capabilities;
  session.draining = event.draining;
  session.cached = event.cached;
  session.last_seen = now_.mono;
  session.last_seen_time = now_.wall;
  session.reported.clear();
  session.ended_checks.clear();
  for (const LeaseReport& report : event.leases) {
    LeaseReport& kept = session.reported.emplace_back();
    kept.lease_id = report.lease_id;
    kept.attempt = report.attempt;
    kept.job = report.job;
    kept.task = report.task;
    kept.token_sha256 = report.token_sha256;
  }
  Unpark(event.session);
  NoteSharedName(&session);

  ExpireTimers();
  EndSupersededSessions(session);
  for (const LeaseReport& report : event.leases) {
    ProcessReport(&session, report);
    ReportOnCheck(&session, report);
  }
  RenewUnreported(&session);

  // Slots that the worker calls free, but that leases it has not heard of will take.
  int32_t num_unreported = 0;
  for (const TaskRef& ref : session.leases) {
    if (!IsReported(session, state_.FindTask(ref)->lease_id)) ++num_unreported;
  }
  for (const uint64_t id : session.checks) {
    if (!IsReported(session, state_.checks.at(id).lease_id)) ++num_unreported;
  }
  session.num_free_slots = std::max(0, event.num_free_slots - num_unreported);
  bool has_news = num_unreported > 0 || session.drain_requested;
  while (CanTakeTasks(session)) {
    const std::optional<TaskRef> ref = Pick(session);
    if (!ref.has_value()) break;
    Lease(&session, *ref);
    has_news = true;
  }
  while (CanTakeTasks(session) && LeaseCheck(&session)) has_news = true;
  YieldChecks(&session);
  for (const LeaseReport& report : event.leases) {
    if (ActionFor(state_, event.session, report) != LeaseAction::kContinue) has_news = true;
  }
  Outcome outcome;
  if (event.may_wait && !has_news && state_.leasing) {
    session.parked = true;
    state_.parked[session.id] = &session;
    outcome.parked = true;
  }
  return outcome;
}

// What a worker says of its task that people see; not stored.
void Mutation::NoteProgress(JobEntry* entry, int32_t index, const LeaseReport& report) {
  Task& task = entry->tasks[index];
  const TaskProgress& told = report.progress;
  const bool advanced = task.progress.phase != told.phase || task.progress.step != told.step;
  if (advanced) task.progress_at = now_.mono;
  task.told_at = now_.mono;
  AppendLosses(&task, report);
  if (!advanced && task.progress.loss == told.loss && task.progress.num_steps == told.num_steps) {
    return;
  }
  const double fraction = task.progress.fraction;
  const std::optional<absl::Duration> remaining = task.progress.remaining;
  task.progress = told;
  task.progress.fraction = fraction;
  // Of the phase alone; an estimate made a moment ago tells more.
  if (remaining.has_value()) task.progress.remaining = remaining;
  if (now_.mono - entry->job.estimated_at >= kEstimatePeriod) EstimateProgress(entry, now_.mono);
  BumpVersion(entry);
  entry->job.update_time = now_.wall;
  task.version = entry->job.version;
  edits_.progress.insert({entry->job.seq, index});
}

void Mutation::AppendLosses(Task* task, const LeaseReport& report) {
  if (report.losses.empty()) return;
  auto history = task->history == nullptr ? std::make_shared<LossHistory>()
                                          : std::make_shared<LossHistory>(*task->history);
  for (const auto& [step, loss] : report.losses) history->Append(step, loss);
  task->history = std::move(history);
}

void Mutation::ProcessReport(Session* session, const LeaseReport& report) {
  TaskRef ref;
  const Task* latest = LatestLease(state_, session->id, report, &ref);
  if (latest == nullptr || latest->lease != LeaseStatus::kActive) return;
  JobEntry* entry = &state_.jobs.at(ref.job);
  Task& task = entry->tasks[ref.index];
  switch (report.kind) {
    case LeaseReport::Kind::kRunning: {
      NoteProgress(entry, ref.index, report);
      if (state_.policy.stall_timeout > absl::ZeroDuration() &&
          now_.mono - task.progress_at > state_.policy.stall_timeout) {
        const TaskFailure failure = {
            FailureClass::kWorkerLost,
            "TASK_STALLED",
            absl::StrCat("worker ", task.worker, " calls, but the task made no progress for ",
                         absl::FormatDuration(state_.policy.stall_timeout)),
            task.attempt,
            task.worker,
            now_.wall};
        NoteFailure(session, *entry, failure);
        Fail(entry, ref.index, failure, LeaseStatus::kRevoked);
        return;
      }
      // Not renewed while its job is being cancelled: a worker that does not stop loses the task
      // when the lease runs out.
      if (entry->job.state == JobState::kCancelling) return;
      state_.timers.erase({task.lease_expiry, TimerKind::kLease, ref});
      task.lease_expiry = now_.mono + state_.policy.lease_duration;
      state_.timers.insert({task.lease_expiry, TimerKind::kLease, ref});
      return;
    }
    case LeaseReport::Kind::kSucceeded:
      Succeed(entry, ref.index, report.outcome);
      return;
    case LeaseReport::Kind::kFailed: {
      TaskFailure failure = report.failure;
      failure.attempt = task.attempt;
      failure.worker = task.worker;
      failure.time = now_.wall;
      if (failure.failure_class == FailureClass::kInputLost) {
        return LoseInputs(entry, ref.index, report, std::move(failure));
      }
      NoteFailure(session, *entry, failure);
      Fail(entry, ref.index, std::move(failure), LeaseStatus::kReported);
      return;
    }
    case LeaseReport::Kind::kReleased:
      if (session->draining || entry->job.state == JobState::kCancelling) {
        Release(entry, ref.index);
      } else {
        // Given back for no reason that the server knows: bounded like a lost worker.
        const TaskFailure failure = {
            FailureClass::kWorkerLost,
            "LEASE_RELEASED",
            absl::StrCat("worker ", task.worker, " gave the task back unfinished"),
            task.attempt,
            task.worker,
            now_.wall};
        NoteFailure(session, *entry, failure);
        Fail(entry, ref.index, failure, LeaseStatus::kReported);
      }
      return;
  }
}

// Leases that the worker did not report: their assignment's reply was lost and is sent again, for
// which the lease is renewed, but not for ever.
void Mutation::RenewUnreported(Session* session) {
  for (const TaskRef& ref : session->leases) {
    Task& task = *state_.FindTask(ref);
    if (IsReported(*session, task.lease_id) || IsWithheld(state_.policy, task)) continue;
    if (++task.num_resends > state_.policy.max_resends) continue;
    // A server that has started since has another key: it gives the lease a token of its own.
    std::string token_sha256 = Sha256Hex(LeaseToken(state_, task.lease_id));
    if (token_sha256 != task.lease_token_sha256) {
      task.lease_token_sha256 = std::move(token_sha256);
      edits_.tasks.insert(ref);
    }
    state_.timers.erase({task.lease_expiry, TimerKind::kLease, ref});
    task.lease_expiry = now_.mono + state_.policy.lease_duration;
    state_.timers.insert({task.lease_expiry, TimerKind::kLease, ref});
  }
}

bool Mutation::CanTakeTasks(const Session& session) const {
  return state_.leasing && session.has_called && !session.withdrawn() && session.num_free_slots > 0;
}

void Mutation::Unpark(const std::string& session) {
  const auto it = state_.sessions.find(session);
  if (it == state_.sessions.end() || !it->second.parked) return;
  it->second.parked = false;
  state_.parked.erase(session);
}

void Mutation::Wake(const std::string& session) {
  const auto it = state_.sessions.find(session);
  if (it == state_.sessions.end() || !it->second.parked) return;
  Unpark(session);
  edits_.wake.insert(session);
}

SynchronizeReply BuildReply(const State& state, const std::string& session_id) {
  SynchronizeReply reply;
  reply.lease_duration = state.policy.lease_duration;
  const auto it = state.sessions.find(session_id);
  if (it == state.sessions.end()) return reply;
  const Session& session = it->second;
  for (const LeaseReport& report : session.reported) {
    LeaseDirective& directive = reply.directives.emplace_back();
    directive = {report.lease_id, ActionFor(state, session_id, report)};
    TaskRef ref;
    const Task* task = LatestLease(state, session_id, report, &ref);
    if (task != nullptr && task->history != nullptr) {
      directive.history_step = task->history->last_step();
    }
  }
  for (const TaskRef& ref : session.leases) {
    const JobEntry& entry = state.jobs.at(ref.job);
    const Task& task = entry.tasks[ref.index];
    if (IsReported(session, task.lease_id) || IsWithheld(state.policy, task)) continue;
    reply.assignments.push_back(MakeAssignment(state, entry, task));
  }
  for (const uint64_t id : session.checks) {
    const SpotCheck& check = state.checks.at(id);
    if (IsReported(session, check.lease_id)) continue;
    const JobEntry& entry = state.jobs.at(check.task.job);
    Assignment assignment = MakeAssignment(state, entry, entry.tasks[check.task.index]);
    assignment.lease_id = check.lease_id;
    assignment.lease_token = LeaseToken(state, check.lease_id);
    assignment.attempt = check.attempt;
    reply.assignments.push_back(std::move(assignment));
  }
  // An idle worker waits in its call; a busy one calls often enough for progress and cancellation.
  reply.next_call = session.leases.empty() && session.checks.empty() ? MaxHold(state.policy)
                                                                     : NextCall(state.policy);
  reply.drain = session.drain_requested;
  reply.name_shared = session.shares_name;
  return reply;
}

}  // namespace uniquanf::server
