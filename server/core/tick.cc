#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/core/mutations.h"

namespace uniquanf::server {
namespace {
constexpr absl::Duration kUnschedulableCheckPeriod = absl::Seconds(2);
constexpr absl::Duration kSessionMemory = absl::Hours(1);
constexpr absl::Duration kDrainMemory = absl::Hours(7 * 24);  // of a name that nobody has any more
constexpr int kUnschedulableBatch = 2000;
constexpr absl::Duration kSilence = absl::Seconds(5);
}  // namespace

double Mutation::Random() {
  // SplitMix64 (Steele et al., OOPSLA 2014); the seed is injected.
  uint64_t z = (state_.random_state += 0x9E3779B97F4A7C15ull);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1.0p-53;
}

void Mutation::ExpireTimers() {
  while (!state_.timers.empty() && std::get<0>(*state_.timers.begin()) <= now_.mono) {
    const auto [time, kind, ref] = *state_.timers.begin();
    state_.timers.erase(state_.timers.begin());
    JobEntry* entry = &state_.jobs.at(ref.job);
    Task& task = entry->tasks[ref.index];
    if (kind == TimerKind::kBackoff) {
      task.next_attempt_time.reset();
      TouchTask(entry, ref.index);
      MarkReady(entry, ref.index);
      continue;
    }
    ++edits_.num_expired_leases;
    Fail(entry, ref.index,
         {FailureClass::kWorkerLost, "LEASE_EXPIRED",
          absl::StrCat("worker ", task.worker, " did not call for ",
                       absl::FormatDuration(state_.policy.lease_duration)),
          task.attempt, task.worker, now_.wall},
         LeaseStatus::kRevoked);
  }
}

void Mutation::Tick() {
  // The server itself stood still (a suspended machine, a stopped process): workers could not call,
  // so no lease ends for that.
  if (state_.ticked && now_.mono - state_.last_tick > state_.policy.lease_duration / 2) {
    std::vector<Timer> moved;
    for (auto it = state_.timers.begin(); it != state_.timers.end();) {
      if (std::get<1>(*it) == TimerKind::kLease) {
        moved.push_back(*it);
        it = state_.timers.erase(it);
      } else {
        ++it;
      }
    }
    for (const auto& [time, kind, ref] : moved) {
      Task& task = *state_.FindTask(ref);
      task.lease_expiry = std::max(time, now_.mono + state_.policy.lease_duration);
      state_.timers.insert({task.lease_expiry, kind, ref});
    }
  }
  state_.ticked = true;
  state_.last_tick = now_.mono;

  ExpireTimers();
  ObserveClock();
  while (!state_.job_timers.empty() && std::get<0>(*state_.job_timers.begin()) <= BelievedTime()) {
    const auto [time, kind, seq] = *state_.job_timers.begin();
    state_.job_timers.erase(state_.job_timers.begin());
    JobEntry* entry = &state_.jobs.at(seq);
    if (kind == JobTimerKind::kTimeToLive) {
      EraseJob(entry);
    } else {
      FailJob(entry, {"DEADLINE",
                      absl::StrCat("the job was not finished at its deadline, ",
                                   absl::FormatTime(time, absl::UTCTimeZone())),
                      ""});
    }
  }
  if (now_.mono - state_.last_unschedulable_check >= kUnschedulableCheckPeriod) {
    state_.last_unschedulable_check = now_.mono;
    EndQuarantines();
    ForgetSessions();
    CheckUnschedulable();
    CountBefore();
    NoteSilence();
    DecayUsage();
  }
  TickChecks();
  ContinueSweeps();
}

std::string Mutation::NoWorkerFor(const JobEntry& entry,
                                  const std::vector<const Session*>& live) const {
  std::string message = "no worker is connected";
  for (const Session* session : live) {
    const std::string mismatch =
        Mismatch(entry.job, entry.tasks[*entry.ready.begin()], session->capabilities);
    if (mismatch.empty()) return "";
    message = absl::StrCat("no worker offers ", mismatch);
  }
  return message;
}

// Says in a job's status why none of its tasks runs, when that is for want of a worker or of quota.
void Mutation::CheckUnschedulable() {
  // Workers get a moment to come back after the server's own start.
  const absl::Duration settle = std::min(state_.policy.lease_duration, absl::Seconds(5));
  if (now_.mono - state_.rebuilt_at < settle) return;
  std::vector<const Session*> live;
  for (const auto& [id, session] : state_.sessions) {
    if (session.has_called && !session.withdrawn() &&
        now_.mono - session.last_seen <= state_.policy.lease_duration + absl::Seconds(20)) {
      live.push_back(&session);
    }
  }
  std::map<QueueKey, std::string> message_of_queue;  // the same for all its jobs
  int budget = kUnschedulableBatch;
  auto it = state_.jobs.lower_bound(state_.unschedulable_cursor);
  for (; it != state_.jobs.end() && budget > 0; ++it, --budget) {
    JobEntry* entry = &it->second;
    if (!entry->queued_as.has_value() || entry->num_leased > 0) continue;
    const Job& job = entry->job;
    std::string message;
    if (entry->queued_as->uneven) {
      message = NoWorkerFor(*entry, live);
    } else {
      const auto [known, added] = message_of_queue.try_emplace(*entry->queued_as);
      if (added) known->second = NoWorkerFor(*entry, live);
      message = known->second;
    }
    const bool runnable = message.empty();
    if (runnable) {
      const int limit = state_.policy.max_running_jobs_per_tenant;
      if (job.state == JobState::kQueued && limit > 0 &&
          state_.tenants.at(job.tenant).num_running_jobs >= limit) {
        message = absl::StrCat("tenant \"", job.tenant, "\" runs ", limit, " jobs, its quota");
      }
    }
    entry->job.waits_for = message.empty() ? "" : runnable ? "QUOTA" : "WORKER";
    if (entry->unschedulable == runnable) {
      entry->unschedulable = !runnable;
      state_.num_unschedulable += runnable ? -1 : 1;
    }
    // What waits for another worker after a failure says so already.
    if (message.empty() && entry->queued_as->uneven) continue;
    SetStatusMessage(entry, std::move(message));
  }
  state_.unschedulable_cursor = it == state_.jobs.end() ? 0 : it->first;
}

// A worker that runs tasks calls every second. People are told long before its leases run out.
void Mutation::NoteSilence() {
  std::set<uint64_t> known;
  for (const auto& [id, session] : state_.sessions) {
    const absl::Duration heard = std::max(session.last_seen, state_.rebuilt_at);
    const bool silent = !session.parked && now_.mono - heard > kSilence;
    for (const TaskRef& ref : session.leases) {
      Job& job = state_.jobs.at(ref.job).job;
      // Of several workers of a job, one that is silent counts.
      if (!silent && (known.contains(ref.job) || job.silent_worker != session.worker)) continue;
      known.insert(ref.job);
      const std::string name = silent ? session.worker : "";
      if (job.silent_worker == name) continue;
      job.silent_worker = name;
      if (silent) job.remaining.reset();
      BumpVersion(&state_.jobs.at(ref.job));
      edits_.shown_jobs.insert(ref.job);
    }
  }
}

// At what place waiting jobs are, as far as priority and age say; fair share among tenants may
// change it. The first kMaxCountedBefore are counted: all others are told that there are as many.
void Mutation::CountBefore() {
  const auto show = [this](uint64_t seq, int32_t num_before) {
    JobEntry* entry = &state_.jobs.at(seq);
    if (entry->num_leased > 0 || !entry->job.waits_for.empty()) num_before = -1;
    if (entry->job.num_before == num_before) return;
    entry->job.num_before = num_before;
    BumpVersion(entry);
    edits_.shown_jobs.insert(seq);
  };
  int32_t num_counted = 0;
  for (auto it = state_.queue.begin();
       it != state_.queue.end() && num_counted < kMaxCountedBefore;) {
    const int32_t negative_priority = it->first.negative_priority;
    const int32_t wanted = kMaxCountedBefore - num_counted;
    std::vector<uint64_t> level;
    for (; it != state_.queue.end() && it->first.negative_priority == negative_priority; ++it) {
      int32_t taken = 0;
      for (const uint64_t seq : it->second) {
        if (taken++ == wanted) break;
        level.push_back(seq);
      }
    }
    std::sort(level.begin(), level.end());
    for (const uint64_t seq : level) show(seq, std::min(num_counted++, kMaxCountedBefore));
  }
  // Of those behind them a slice each time, as CheckUnschedulable goes.
  int budget = kUnschedulableBatch;
  auto job = state_.jobs.lower_bound(state_.count_cursor);
  for (; job != state_.jobs.end() && budget > 0; ++job, --budget) {
    const JobEntry& entry = job->second;
    if (entry.queued_as.has_value() && entry.job.num_before < 0) {
      show(job->first, kMaxCountedBefore);
    }
  }
  state_.count_cursor = job == state_.jobs.end() ? 0 : job->first;
}

void Mutation::DecayUsage() {
  const absl::Duration elapsed = now_.mono - state_.last_usage_decay;
  if (elapsed < absl::Minutes(1)) return;
  state_.last_usage_decay = now_.mono;
  const double factor = std::exp2(-absl::FDivDuration(elapsed, state_.policy.usage_half_life));
  for (auto& [name, tenant] : state_.tenants) tenant.used_seconds *= factor;
}

void Mutation::ForgetSessions() {
  for (auto it = state_.sessions.begin(); it != state_.sessions.end();) {
    const Session& session = it->second;
    const auto names = state_.sessions_of_worker.find(session.worker);
    const bool has_successor = names != state_.sessions_of_worker.end() && names->second.size() > 1;
    const absl::Duration memory =
        has_successor ? 2 * state_.policy.lease_duration + absl::Seconds(20) : kSessionMemory;
    if (session.parked || !session.leases.empty() || !session.checks.empty() ||
        now_.mono - session.last_seen < memory) {
      ++it;
      continue;
    }
    if (names != state_.sessions_of_worker.end()) {
      names->second.erase(session.id);
      if (names->second.empty()) state_.sessions_of_worker.erase(names);
    }
    const auto drain = state_.drains.find(session.worker);
    if (drain != state_.drains.end()) {
      drain->second.unused_since = now_.mono;
      if (!drain->second.by_name && drain->second.session == session.id) {
        edits_.drains.insert(session.worker);
        state_.drains.erase(drain);
      }
    }
    state_.num_quarantined -= session.quarantined();
    it = state_.sessions.erase(it);
  }
  // Names that are made up for every pod do not come back.
  for (auto it = state_.drains.begin(); it != state_.drains.end();) {
    const auto& [worker, drain] = *it;
    const bool unused = !state_.sessions_of_worker.contains(worker);
    if (unused && now_.mono - std::max(drain.unused_since, state_.rebuilt_at) >= kDrainMemory) {
      edits_.drains.insert(worker);
      it = state_.drains.erase(it);
    } else {
      ++it;
    }
  }
}

absl::Duration NextTick(const State& state, const Now& now) {
  // Well below the gap that Tick takes for a server that stood still: with short leases and nobody
  // calling, a quiet second would else prolong every lease, over and over.
  absl::Duration next = now.mono + std::min(absl::Seconds(1), state.policy.lease_duration / 4);
  if (!state.unfinished.empty()) return now.mono;
  if (!state.timers.empty()) next = std::min(next, std::get<0>(*state.timers.begin()));
  if (!state.job_timers.empty()) {
    next = std::min(
        next, now.mono + (std::get<0>(*state.job_timers.begin()) - (now.wall - state.clock.lead)));
  }
  return next;
}

}  // namespace uniquanf::server
