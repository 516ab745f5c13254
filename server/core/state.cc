#include "server/core/state.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/secret.h"
#include "common/base/status.h"
#include "server/core/mutations.h"

namespace uniquanf::server {
namespace {

// More than any limit on tasks of a job; bounds what a damaged record makes of itself.
constexpr int32_t kMaxStoredTasks = 1 << 20;

absl::Status Corrupt(const Job& job, const std::string& what) {
  return MakeError(
      absl::StatusCode::kDataLoss, "STATE_CORRUPT",
      absl::StrCat("stored job \"", job.id, "\": ", what, "; restore the state from a backup"));
}

absl::Status CheckStoredTasks(const JobEntry& entry) {
  const int32_t count = static_cast<int32_t>(entry.tasks.size());
  if (count == 0) return Corrupt(entry.job, "no tasks");
  for (int32_t i = 0; i < count; ++i) {
    const Task& task = entry.tasks[i];
    if (task.id.empty()) return Corrupt(entry.job, absl::StrCat("task ", i, " is missing"));
    for (const int32_t dependency : task.depends_on) {
      if (dependency < 0 || dependency >= i) {
        return Corrupt(entry.job, absl::StrCat("task ", task.id, " depends on task ", dependency));
      }
    }
    if ((task.state == TaskState::kLeased) != (task.lease == LeaseStatus::kActive)) {
      return Corrupt(entry.job, absl::StrCat("task ", task.id, "'s state and lease disagree"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string LeaseToken(const State& state, const std::string& lease_id) {
  return HmacSha256(state.token_key, lease_id).substr(0, kLeaseTokenBytes);
}

absl::Status AmbiguousJobName(absl::string_view id) {
  return InvalidInput("AMBIGUOUS_NAME",
                      absl::StrCat("several tenants have a job \"jobs/", id,
                                   "\"; say which: \"tenants/{tenant}/jobs/", id, "\""));
}

JobEntry* State::FindJob(const std::string& id) {
  const std::vector<uint64_t> found = job_of_id.Find(id);
  return found.empty() ? nullptr : &jobs.at(found[0]);
}
const JobEntry* State::FindJob(const std::string& id) const {
  const std::vector<uint64_t> found = job_of_id.Find(id);
  return found.empty() ? nullptr : &jobs.at(found[0]);
}
Task* State::FindTask(const TaskRef& ref) {
  const auto it = jobs.find(ref.job);
  return it == jobs.end() ? nullptr : &it->second.tasks.at(ref.index);
}
const Task* State::FindTask(const TaskRef& ref) const {
  const auto it = jobs.find(ref.job);
  return it == jobs.end() ? nullptr : &it->second.tasks.at(ref.index);
}

absl::StatusOr<State> Rebuild(const Policy& policy, const StoredState& stored, uint64_t epoch,
                              uint64_t random_seed, const Now& now) {
  State state;
  state.policy = policy;
  state.epoch = epoch;
  state.random_state = random_seed;
  state.rebuilt_at = now.mono;
  state.last_usage_decay = now.mono;
  state.last_unschedulable_check = now.mono;
  state.garbage.insert(stored.garbage.begin(), stored.garbage.end());
  absl::Time newest = absl::InfinitePast();
  for (const Job& job : stored.jobs) newest = std::max(newest, job.update_time);
  state.clock.trusted_offset = (now.wall - absl::UnixEpoch()) - now.mono;
  state.clock.trusted_at = now.mono;
  if (!stored.jobs.empty() && now.wall - newest > policy.clock_start_tolerance) {
    // A long rest, or a clock that is wrong: the first reading of this process is not believed.
    state.clock.lead = now.wall - newest;
    state.clock.trusted_offset -= state.clock.lead;
  }
  for (const WorkerDrain& drain : stored.drains) state.drains[drain.worker] = drain;
  for (const Job& job : stored.jobs) {
    JobEntry& entry = state.jobs[job.seq];
    entry.job = job;
    state.next_seq = std::max(state.next_seq, job.seq + 1);
    if (!state.job_of_id.Add(job.id, job.tenant, job.seq)) return Corrupt(job, "stored twice");
    if (!job.request_id.empty()) {
      state.job_of_request_id[{job.tenant, job.request_id}] = job.seq;
    }
    if (!IsFinal(job.state)) {
      // Progress since the last durable change was seen under higher versions than the stored one.
      entry.job.version = std::max(job.version, static_cast<int64_t>(epoch << 32));
    }
  }
  for (const StoredTask& task : stored.tasks) {
    const auto it = state.jobs.find(task.ref.job);
    if (it == state.jobs.end() || task.ref.index < 0 || task.ref.index >= kMaxStoredTasks) {
      return MakeError(absl::StatusCode::kDataLoss, "STATE_CORRUPT",
                       absl::StrCat("stored task ", task.ref.job, "/", task.ref.index,
                                    " belongs to no job; restore the state from a backup"));
    }
    auto& tasks = it->second.tasks;
    if (static_cast<int32_t>(tasks.size()) <= task.ref.index) tasks.resize(task.ref.index + 1);
    tasks[task.ref.index] = task.task;
  }
  Edits unused;
  Mutation mutation(&state, now, &unused);
  for (auto& [seq, entry] : state.jobs) {
    const absl::Status status = CheckStoredTasks(entry);
    if (!status.ok()) return status;
    CountJob(&state, entry.job, 1);
    Tenant& tenant = state.tenants[entry.job.tenant];
    const Job& job = entry.job;
    if (IsFinal(job.state)) {
      if (job.time_to_live.has_value() && job.end_time.has_value()) {
        state.job_timers.insert(
            {*job.end_time + *job.time_to_live, JobTimerKind::kTimeToLive, seq});
      }
    } else if (job.deadline.has_value()) {
      state.job_timers.insert({*job.deadline, JobTimerKind::kDeadline, seq});
    }
    IndexTasks(&entry);
    for (int32_t i = 0; i < static_cast<int32_t>(entry.tasks.size()); ++i) {
      Task& task = entry.tasks[i];
      const TaskRef ref{seq, i};
      ++state.num_tasks[static_cast<int>(task.state)];
      // As DecayUsage would have left it.
      const absl::Duration age =
          std::max(absl::ZeroDuration(), now.wall - task.end_time.value_or(now.wall));
      tenant.used_seconds += absl::ToDoubleSeconds(task.worker_time) *
                             std::exp2(-absl::FDivDuration(age, policy.usage_half_life));
      if (task.state == TaskState::kLeased) {
        task.leased_at = task.progress_at = task.told_at = now.mono;
        task.lease_expiry = now.mono + policy.lease_duration;
        state.timers.insert({task.lease_expiry, TimerKind::kLease, ref});
        ++tenant.num_leased;
        tenant.leased_at_sum_seconds += absl::ToDoubleSeconds(now.mono);
        Session& session = state.sessions[task.session];
        session.id = task.session;
        session.worker = task.worker;
        session.last_seen = now.mono;
        session.last_seen_time = now.wall;
        session.leases.insert(ref);
        state.sessions_of_worker[task.worker].insert(task.session);
      } else if (task.state == TaskState::kReady) {
        absl::Duration delay;
        if (task.next_attempt_time.has_value()) {
          // Bounded, since the clock may have been set meanwhile.
          delay = std::min(*task.next_attempt_time - now.wall, policy.backoff_max);
        }
        const std::optional<absl::Time> next_attempt_time = task.next_attempt_time;
        mutation.MakeReady(&entry, i, delay);
        task.next_attempt_time = next_attempt_time;  // as stored, whatever the clock says now
      }
    }
    entry.sweep = SweepOf(entry);
    if (entry.sweep != JobEntry::Sweep::kNone || NeedsExpansion(entry)) {
      state.unfinished.insert(seq);
    }
  }
  return state;
}

absl::Duration LongestWait(const State& state) {
  for (const auto& [since, ref] : state.ready) {
    if (!state.jobs.at(ref.job).queued_as.has_value()) continue;
    return std::max(absl::ZeroDuration(), state.last_tick - since);
  }
  return absl::ZeroDuration();
}

absl::Status CheckInvariants(const State& state) {
  const auto violated = [](const JobEntry& entry, absl::string_view what) {
    return absl::InternalError(absl::StrCat("job ", entry.job.id, ": ", what));
  };
  std::array<int64_t, kNumJobStates + 1> num_jobs{};
  std::array<int64_t, kNumTaskStates + 1> num_tasks{};
  size_t num_queued = 0, num_leases = 0, num_ready = 0;
  for (const auto& [seq, entry] : state.jobs) {
    const Job& job = entry.job;
    ++num_jobs[static_cast<int>(job.state)];
    JobEntry fresh;
    fresh.tasks = entry.tasks;
    IndexTasks(&fresh);
    if (fresh.num_open_dependencies != entry.num_open_dependencies) {
      return violated(entry, "open dependencies");
    }
    if (fresh.num_leased != entry.num_leased || fresh.num_succeeded != entry.num_succeeded) {
      return violated(entry, "task counters");
    }
    for (size_t i = 0; i < entry.tasks.size(); ++i) {
      const Task& task = entry.tasks[i];
      const TaskRef ref{seq, static_cast<int32_t>(i)};
      ++num_tasks[static_cast<int>(task.state)];
      if ((task.state == TaskState::kLeased) != (task.lease == LeaseStatus::kActive)) {
        return violated(entry, "lease without leased state or the reverse");
      }
      if (task.state == TaskState::kLeased) {
        ++num_leases;
        const auto session = state.sessions.find(task.session);
        if (session == state.sessions.end() || session->second.leases.count(ref) == 0) {
          return violated(entry, "leased to a session that does not hold it");
        }
        if (state.timers.count({task.lease_expiry, TimerKind::kLease, ref}) == 0) {
          return violated(entry, "lease without expiry");
        }
      }
      if (task.state == TaskState::kReady && entry.num_open_dependencies[i] != 0) {
        return violated(entry, "a task is ready ahead of its dependencies");
      }
      if (task.state == TaskState::kLeased || task.state == TaskState::kSucceeded) {
        for (const int32_t dependency : task.depends_on) {
          const Task& input = entry.tasks[dependency];
          if (input.state != TaskState::kSucceeded && input.lost_sha256.empty()) {
            return violated(entry, "a task ran ahead of its dependencies");
          }
        }
      }
      if (task.state == TaskState::kSucceeded && task.result_sha256.empty()) {
        return violated(entry, "success without result");
      }
      const bool backoff = state.timers.count({task.not_before, TimerKind::kBackoff, ref}) > 0;
      const bool ready = entry.ready.count(ref.index) > 0;
      if ((task.state == TaskState::kReady) != (backoff || ready) || (backoff && ready)) {
        return violated(entry, "a ready task is nowhere or in two places");
      }
      num_ready += ready;
      if (ready && state.ready.count({task.ready_since, ref}) == 0) {
        return violated(entry, "a ready task whose waiting nobody counts");
      }
      const bool swept = entry.sweep != JobEntry::Sweep::kCancel || ref.index < entry.sweep_next;
      if (IsFinal(job.state) && swept &&
          (task.state == TaskState::kLeased || task.state == TaskState::kReady ||
           task.state == TaskState::kBlocked)) {
        return violated(entry, "final with an unfinished task");
      }
      if (task.num_worker_lost > state.policy.max_worker_lost ||
          task.num_transient > state.policy.max_transient ||
          task.num_out_of_memory > state.policy.max_out_of_memory ||
          task.num_internal > state.policy.max_internal ||
          task.num_environment > state.policy.max_environment ||
          task.num_reopened > state.policy.max_reopened) {
        return violated(entry, "more failures than the limit");
      }
      if (task.state == TaskState::kFailed && !task.failures.empty() &&
          task.failures.back().failure_class == FailureClass::kEnvironment &&
          task.environment_sessions.size() < 2 && task.num_environment < 2) {
        return violated(entry, "failed by what one worker said once");
      }
    }
    const bool unfinished = entry.sweep != JobEntry::Sweep::kNone || NeedsExpansion(entry);
    if (unfinished != (state.unfinished.count(seq) > 0)) return violated(entry, "unfinished");
    if (entry.sweep == JobEntry::Sweep::kNone && SweepOf(entry) != JobEntry::Sweep::kNone) {
      return violated(entry, "tasks that no sweep has reached");
    }
    const bool wanted =
        !entry.ready.empty() && (job.state == JobState::kQueued || job.state == JobState::kRunning);
    if (wanted != entry.queued_as.has_value()) return violated(entry, "queue membership");
    if (wanted) {
      ++num_queued;
      const auto& tasks = entry.tasks;
      const auto choosy = std::count_if(entry.ready.begin(), entry.ready.end(),
                                        [&tasks](int32_t i) { return IsChoosy(tasks[i]); });
      if (choosy != entry.num_ready_choosy || (choosy > 0) != entry.queued_as->uneven) {
        return violated(entry, "tasks that not every worker may run");
      }
      const auto queue = state.queue.find(*entry.queued_as);
      if (queue == state.queue.end() || queue->second.count(seq) == 0) {
        return violated(entry, "not in its queue");
      }
    }
    if (job.state == JobState::kSucceeded &&
        (entry.num_succeeded != static_cast<int32_t>(entry.tasks.size()) ||
         !job.artifact.has_value())) {
      return violated(entry, "succeeded without all tasks or artifact");
    }
    if (job.state == JobState::kFailed && !job.error.has_value()) {
      return violated(entry, "failed without error");
    }
    if (job.state == JobState::kCancelling && entry.num_leased == 0 && !unfinished) {
      return violated(entry, "cancelling, but nothing is leased");
    }
    if (job.state == JobState::kQueued && entry.num_leased > 0) {
      return violated(entry, "queued, but leased");
    }
  }
  if (num_jobs != state.num_jobs || num_tasks != state.num_tasks) {
    return absl::InternalError("counters of jobs or tasks by state");
  }
  if (num_ready != state.ready.size()) return absl::InternalError("tasks that wait and are gone");
  size_t in_queues = 0, in_sessions = 0;
  int64_t num_quarantined = 0;
  for (const auto& [key, queue] : state.queue) in_queues += queue.size();
  for (const auto& [id, session] : state.sessions) {
    in_sessions += session.leases.size();
    num_quarantined += session.quarantined();
    const auto parked = state.parked.find(id);
    if (session.parked != (parked != state.parked.end()) ||
        (session.parked && parked->second != &session)) {
      return absl::InternalError(absl::StrCat("session ", id, ": parked"));
    }
  }
  if (num_quarantined != state.num_quarantined) {
    return absl::InternalError("counter of quarantined sessions");
  }
  if (in_queues != num_queued) return absl::InternalError("queues hold jobs that are not queued");
  if (in_sessions != num_leases) return absl::InternalError("sessions hold leases that ended");
  return absl::OkStatus();
}

}  // namespace uniquanf::server
