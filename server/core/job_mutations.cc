#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "server/core/mutations.h"

namespace uniquanf::server {
namespace {

Outcome Refused(absl::Status status) { return {std::move(status), 0, false}; }
Outcome Done(const JobEntry& entry) { return {absl::OkStatus(), entry.job.seq, false}; }

absl::Status NoSuchJob(const std::string& id) {
  return NotFound("JOB_NOT_FOUND",
                  absl::StrCat("no job \"jobs/", id, "\"; `list` shows the jobs there are"));
}
absl::Status JobExists(const std::string& id) {
  return MakeError(
      absl::StatusCode::kAlreadyExists, "JOB_EXISTS",
      absl::StrCat("job \"jobs/", id, "\" exists; choose another job_id or delete it first"));
}

}  // namespace

void CountJob(State* state, const Job& job, int sign) {
  Tenant& tenant = state->tenants[job.tenant];
  state->num_jobs[static_cast<int>(job.state)] += sign;
  if (job.state == JobState::kRunning) tenant.num_running_jobs += sign;
  if (job.state == JobState::kQueued) tenant.num_queued_jobs += sign;
  if (!IsFinal(job.state)) tenant.num_open_jobs += sign;
}

void Mutation::BumpVersion(JobEntry* entry) {
  // Versions handed out for progress are not stored; the epoch in the upper half keeps versions
  // growing across a restart all the same.
  entry->job.version = std::max(entry->job.version + 1, static_cast<int64_t>(state_.epoch << 32));
}

void Mutation::Touch(JobEntry* entry) {
  BumpVersion(entry);
  entry->job.update_time = now_.wall;
  edits_.jobs.insert(entry->job.seq);
}

void Mutation::SetStatusMessage(JobEntry* entry, std::string message) {
  if (entry->job.status_message == message) return;
  entry->job.status_message = std::move(message);
  Touch(entry);
}

void Mutation::SetJobState(JobEntry* entry, JobEvent event) {
  Job& job = entry->job;
  const std::optional<JobState> next = NextState(job.state, event);
  UQ_CHECK(next.has_value());
  if (*next == job.state) return;
  const bool was_running = job.state == JobState::kRunning;
  CountJob(&state_, job, -1);
  job.state = *next;
  CountJob(&state_, job, 1);
  job.status_message.clear();
  job.waits_for.clear();
  if (entry->unschedulable) {
    entry->unschedulable = false;
    --state_.num_unschedulable;
  }
  if (job.state == JobState::kRunning && !job.start_time.has_value()) job.start_time = now_.wall;
  if (IsFinal(job.state)) {
    job.end_time = now_.wall;
    job.remaining.reset();
    job.num_before = -1;
    if (job.deadline.has_value()) {
      state_.job_timers.erase({*job.deadline, JobTimerKind::kDeadline, job.seq});
    }
    if (job.time_to_live.has_value()) {
      state_.job_timers.insert(
          {*job.end_time + *job.time_to_live, JobTimerKind::kTimeToLive, job.seq});
    }
    // The artifact holds all that is left of them. A failed or cancelled job may be retried.
    if (job.state == JobState::kSucceeded) AddGarbage(job.uid);
  }
  // A tenant at its limit of running jobs may start its next one.
  if (was_running && state_.policy.max_running_jobs_per_tenant > 0) rematch_all_ = true;
  Touch(entry);
  RefreshQueue(entry);
  if (!entry->ready.empty()) matchable_.insert(job.seq);
}

Outcome Mutation::CreateJob(const CreateJobEvent& event) {
  if (!event.job.request_id.empty()) {
    const auto it = state_.job_of_request_id.find({event.job.tenant, event.job.request_id});
    if (it != state_.job_of_request_id.end()) {
      const JobEntry& existing = state_.jobs.at(it->second);
      if (existing.job.request_digest == event.job.request_digest) return Done(existing);
      return Refused(MakeError(
          absl::StatusCode::kAlreadyExists, "REQUEST_ID_REUSED",
          absl::StrCat("request_id \"", event.job.request_id, "\" made job \"jobs/",
                       existing.job.id, "\" with other content; use a fresh request_id")));
    }
  }
  const TenantScope rivals =
      event.id_is_global ? TenantScope() : TenantScope().Only(event.job.tenant);
  if (!state_.job_of_id.Find(event.job.id, rivals).empty()) {
    return Refused(JobExists(event.job.id));
  }
  const Tenant& tenant = state_.tenants[event.job.tenant];
  const TenantQuota quota = event.quota.value_or(
      TenantQuota{state_.policy.max_queued_jobs_per_tenant, state_.policy.max_tasks_per_job,
                  state_.policy.max_creates_per_second_per_tenant});
  const int limit = quota.max_queued_jobs;
  if (limit > 0 && tenant.num_queued_jobs >= limit) {
    return Refused(
        MakeError(absl::StatusCode::kResourceExhausted, "QUOTA_EXCEEDED",
                  absl::StrCat("tenant \"", event.job.tenant, "\" has ", tenant.num_queued_jobs,
                               " queued jobs, its quota; ", "submit again when one has started")));
  }
  const int64_t max_tasks =
      std::min<int64_t>(quota.max_tasks_per_job, state_.policy.max_tasks_per_job);
  if (event.min_num_tasks > max_tasks) {
    return Refused(MakeError(
        absl::StatusCode::kResourceExhausted, "TASKS_EXCEEDED",
        absl::StrCat("the job has at least ", event.min_num_tasks, " tasks; a job may have ",
                     max_tasks, "; use fewer pipeline_rounds")));
  }
  if (event.validate_only) return {};
  if (const double rate = quota.max_creates_per_second; rate > 0) {
    Tenant& mine = state_.tenants[event.job.tenant];
    const double passed = absl::ToDoubleSeconds(now_.mono - mine.creates_at);
    const double most = std::max(rate, 1.0);
    mine.creates = mine.creates_known ? std::min(most, mine.creates + rate * passed) : most;
    mine.creates_known = true;
    mine.creates_at = now_.mono;
    if (mine.creates < 1) {
      return Refused(
          MakeError(absl::StatusCode::kResourceExhausted, "QUOTA_EXCEEDED",
                    absl::StrCat("tenant \"", event.job.tenant, "\" creates more than ", rate,
                                 " jobs a second, its quota; submit again in a "
                                 "second")));
    }
    mine.creates -= 1;
  }
  if (tenant.num_open_jobs == 0) {
    // A tenant that comes back starts level with the least served of the active ones: it has no
    // claim on time that nobody wanted from it.
    std::optional<double> least;
    for (const auto& [name, other] : state_.tenants) {
      if (other.num_open_jobs == 0) continue;
      const double used = other.UsedSeconds(now_.mono);
      least = least.has_value() ? std::min(*least, used) : used;
    }
    Tenant& mine = state_.tenants[event.job.tenant];
    if (least.has_value()) mine.used_seconds = std::max(mine.used_seconds, *least);
  }

  const uint64_t seq = state_.next_seq++;
  JobEntry& entry = state_.jobs[seq];
  entry.job = event.job;
  Job& job = entry.job;
  job.seq = seq;
  job.state = JobState::kQueued;
  job.create_time = now_.wall;
  if (!job.time_to_live.has_value() && state_.policy.default_time_to_live > absl::ZeroDuration()) {
    job.time_to_live = state_.policy.default_time_to_live;
  }
  state_.job_of_id.Add(job.id, job.tenant, seq);
  if (!job.request_id.empty()) state_.job_of_request_id[{job.tenant, job.request_id}] = seq;
  if (job.deadline.has_value()) {
    state_.job_timers.insert({*job.deadline, JobTimerKind::kDeadline, seq});
  }
  CountJob(&state_, job, 1);
  entry.tasks.emplace_back().id = TaskId({TaskKind::kPrepare});
  ++state_.num_tasks[static_cast<int>(TaskState::kBlocked)];
  IndexTasks(&entry);
  Touch(&entry);
  SetTaskState(&entry, 0, TaskEvent::kDependenciesMet);
  MakeReady(&entry, 0, absl::ZeroDuration());
  return Done(entry);
}

absl::StatusOr<JobEntry*> Mutation::Reach(const std::string& id, const JobAccess& access) {
  const std::vector<uint64_t> found = state_.job_of_id.Find(id, access.visible);
  if (found.empty()) return NoSuchJob(id);
  if (found.size() > 1) return AmbiguousJobName(id);
  JobEntry* const entry = &state_.jobs.at(found[0]);
  if (!access.allowed.Has(entry->job.tenant)) {
    return MakeError(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED",
                     absl::StrCat("the caller may look at job \"jobs/", id, "\" and no more"));
  }
  return entry;
}

Outcome Mutation::CancelJob(const CancelJobEvent& event) {
  const absl::StatusOr<JobEntry*> reached = Reach(event.id, event.access);
  if (!reached.ok()) return Refused(reached.status());
  JobEntry* const entry = *reached;
  if (IsFinal(entry->job.state) || entry->job.state == JobState::kCancelling) return Done(*entry);
  SetJobState(entry, JobEvent::kCancel);
  if (entry->num_leased > 0) {
    for (const Task& task : entry->tasks) {
      if (task.state == TaskState::kLeased) Wake(task.session);  // so that it hears of it now
    }
  }
  StartSweep(entry, JobEntry::Sweep::kCancel);
  FinishIfDone(entry);
  return Done(*entry);
}

Outcome Mutation::PauseJob(const PauseJobEvent& event) {
  const std::string& id = event.id;
  const absl::StatusOr<JobEntry*> reached = Reach(id, event.access);
  if (!reached.ok()) return Refused(reached.status());
  JobEntry* const entry = *reached;
  if (!NextState(entry->job.state, JobEvent::kPause).has_value()) {
    return Refused(FailedPrecondition(
        "JOB_FINAL", absl::StrCat("job \"jobs/", id, "\" is ", JobStateName(entry->job.state),
                                  "; only a queued or running job can be paused")));
  }
  SetJobState(entry, JobEvent::kPause);
  return Done(*entry);
}

Outcome Mutation::ResumeJob(const ResumeJobEvent& event) {
  const std::string& id = event.id;
  const absl::StatusOr<JobEntry*> reached = Reach(id, event.access);
  if (!reached.ok()) return Refused(reached.status());
  JobEntry* const entry = *reached;
  if (entry->job.state != JobState::kPaused) {
    return Refused(FailedPrecondition(
        "JOB_NOT_PAUSED", absl::StrCat("job \"jobs/", id, "\" is ", JobStateName(entry->job.state),
                                       ", not PAUSED; there is nothing to resume")));
  }
  SetJobState(entry, entry->job.start_time.has_value() ? JobEvent::kResumeRunning
                                                       : JobEvent::kResumeQueued);
  return Done(*entry);
}

Outcome Mutation::RetryJob(const RetryJobEvent& event) {
  const std::string& id = event.id;
  const absl::StatusOr<JobEntry*> reached = Reach(id, event.access);
  if (!reached.ok()) return Refused(reached.status());
  JobEntry* const entry = *reached;
  Job& job = entry->job;
  if (!NextState(job.state, JobEvent::kRetry).has_value()) {
    return Refused(FailedPrecondition(
        "JOB_NOT_RETRYABLE", absl::StrCat("job \"jobs/", id, "\" is ", JobStateName(job.state),
                                          "; only a FAILED or CANCELLED job can be retried")));
  }
  if (job.time_to_live.has_value()) {
    state_.job_timers.erase(
        {*job.end_time + *job.time_to_live, JobTimerKind::kTimeToLive, job.seq});
  }
  SetJobState(entry, JobEvent::kRetry);
  job.error.reset();
  job.end_time.reset();
  job.start_time.reset();
  job.fraction = 0;  // what is left of it is estimated anew
  if (job.deadline.has_value()) {
    // A deadline that has passed would end the retry at once: the wish to retry overrides it.
    if (*job.deadline <= BelievedTime()) {
      job.deadline.reset();
    } else {
      state_.job_timers.insert({*job.deadline, JobTimerKind::kDeadline, job.seq});
    }
  }
  StartSweep(entry, JobEntry::Sweep::kReset, event.missing);
  return Done(*entry);
}

Outcome Mutation::DeleteJob(const DeleteJobEvent& event) {
  const absl::StatusOr<JobEntry*> reached = Reach(event.id, event.access);
  if (!reached.ok()) {
    const bool missing = absl::IsNotFound(reached.status());
    return missing && event.allow_missing ? Outcome{} : Refused(reached.status());
  }
  JobEntry* const entry = *reached;
  if (!IsFinal(entry->job.state)) {
    return Refused(FailedPrecondition(
        "JOB_NOT_FINAL", absl::StrCat("job \"jobs/", event.id, "\" is ",
                                      JobStateName(entry->job.state), "; cancel it first")));
  }
  const uint64_t seq = entry->job.seq;
  EraseJob(entry);
  return {absl::OkStatus(), seq, false};
}

void Mutation::EraseJob(JobEntry* entry) {
  const Job job = entry->job;
  for (int32_t i = 0; i < static_cast<int32_t>(entry->tasks.size()); ++i) {
    const Task& task = entry->tasks[i];
    --state_.num_tasks[static_cast<int>(task.state)];
    if (task.state == TaskState::kReady) {  // a sweep has not come to it
      state_.timers.erase({task.not_before, TimerKind::kBackoff, {job.seq, i}});
      state_.ready.erase({task.ready_since, {job.seq, i}});
    }
  }
  state_.unfinished.erase(job.seq);
  CountJob(&state_, job, -1);
  if (job.time_to_live.has_value() && job.end_time.has_value()) {
    state_.job_timers.erase(
        {*job.end_time + *job.time_to_live, JobTimerKind::kTimeToLive, job.seq});
  }
  state_.job_of_id.Remove(job.id, job.tenant);
  if (!job.request_id.empty()) state_.job_of_request_id.erase({job.tenant, job.request_id});
  state_.jobs.erase(job.seq);
  // Edits of the same batch to what is now gone must not bring it back.
  edits_.jobs.erase(job.seq);
  edits_.tasks.erase(edits_.tasks.lower_bound({job.seq, 0}),
                     edits_.tasks.lower_bound({job.seq + 1, 0}));
  edits_.progress.erase(edits_.progress.lower_bound({job.seq, 0}),
                        edits_.progress.lower_bound({job.seq + 1, 0}));
  edits_.deleted_jobs.insert(job.seq);
  TickChecks();
  AddGarbage(job.uid);
}

void Mutation::AddGarbage(const std::string& uid) {
  state_.garbage.insert(uid);
  edits_.garbage_added.insert(uid);
  edits_.garbage_removed.erase(uid);
}

void Mutation::FailJob(JobEntry* entry, JobError error) {
  if (!NextState(entry->job.state, JobEvent::kFail).has_value()) return;
  entry->job.error = std::move(error);
  SetJobState(entry, JobEvent::kFail);
  if (entry->num_leased > 0) {
    for (int32_t i = 0; i < static_cast<int32_t>(entry->tasks.size()); ++i) {
      if (entry->tasks[i].state == TaskState::kLeased) CancelTask(entry, i);
    }
  }
  StartSweep(entry, JobEntry::Sweep::kCancel);
}

void Mutation::FinishIfDone(JobEntry* entry) {
  if (IsFinal(entry->job.state)) return;
  const bool all = entry->num_succeeded == static_cast<int32_t>(entry->tasks.size()) &&
                   entry->tasks.back().kind == TaskKind::kFinalize;
  if (all) {
    SetJobState(entry, JobEvent::kAllTasksSucceeded);
  } else if (entry->job.state == JobState::kCancelling && entry->num_leased == 0 &&
             entry->sweep == JobEntry::Sweep::kNone) {
    SetJobState(entry, JobEvent::kLeasesEnded);
  }
}

}  // namespace uniquanf::server
