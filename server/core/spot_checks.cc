// Spot checks: some layers run again on another worker of the same kind, and both results are
// compared. Results are deterministic, so two that differ mean a worker that lies, or one whose
// machine is broken. A check takes only what nobody else wants: workers with no task to run, a
// place that is given back when there is one, and the time that finalize waits for it is bounded.
//
// Checks live in memory alone: a server that starts again has none.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/secret.h"
#include "server/core/mutations.h"

namespace uniquanf::server {
namespace {

// More than a fleet has under way; what comes beyond is not checked.
constexpr size_t kMaxChecks = 256;

// One in `n`, in a way that no worker can foresee.
bool IsChosen(const State& state, const std::string& lease_id, int n) {
  const std::string random = HmacSha256(state.token_key, absl::StrCat("check/", lease_id));
  uint64_t number = 0;
  for (size_t i = 0; i < sizeof(number); ++i) {
    number = number << 8 | static_cast<unsigned char>(random[i]);
  }
  return number % static_cast<uint64_t>(n) == 0;
}

// The job still goes on from the result that is checked.
bool Matters(const State& state, const SpotCheck& check) {
  const auto it = state.jobs.find(check.task.job);
  if (it == state.jobs.end()) return false;
  const JobState job = it->second.job.state;
  const Task& task = it->second.tasks.at(check.task.index);
  return (job == JobState::kRunning || job == JobState::kPaused) &&
         task.state == TaskState::kSucceeded && task.result_sha256 == check.result_sha256;
}

}  // namespace

const SpotCheck* FindCheck(const State& state, const Session& session, const LeaseReport& report) {
  for (const uint64_t id : session.checks) {
    const SpotCheck& check = state.checks.at(id);
    if (check.lease_id == report.lease_id && SameSecret(check.token_sha256, report.token_sha256)) {
      return &check;
    }
  }
  return nullptr;
}

void Mutation::MaybeCheck(const JobEntry& entry, int32_t index, const Session& maker) {
  const int one_in = state_.policy.spot_check_one_in;
  const Task& task = entry.tasks[index];
  if (one_in <= 0 || task.kind != TaskKind::kLayer || state_.checks.size() >= kMaxChecks ||
      !IsChosen(state_, task.lease_id, one_in)) {
    return;
  }
  SpotCheck check;
  check.id = ++state_.num_checks_made;
  check.task = {entry.job.seq, index};
  check.result_sha256 = task.result_sha256;
  check.worker = task.worker;
  check.device = maker.capabilities.device;
  check.device_description = maker.capabilities.device_description;
  state_.checks[check.id] = std::move(check);
  match_checks_ = true;
}

bool Mutation::LeaseCheck(Session* session) {
  if (session->quarantined()) return false;
  for (auto& [id, check] : state_.checks) {
    if (!check.session.empty() || session->worker == check.worker ||
        session->capabilities.device != check.device ||
        session->capabilities.device_description != check.device_description ||
        !Matters(state_, check)) {
      continue;
    }
    const JobEntry& entry = state_.jobs.at(check.task.job);
    const Task& task = entry.tasks[check.task.index];
    if (!Fits(entry.job, task, session->capabilities)) continue;
    check.session = session->id;
    check.checker = session->worker;
    check.stop = false;
    check.attempt = task.attempt;
    check.lease_id =
        absl::StrCat(entry.job.uid, "/", task.id, "/check-", id, "-", ++check.num_leases);
    check.token_sha256 = Sha256Hex(LeaseToken(state_, check.lease_id));
    check.lease_expiry = now_.mono + state_.policy.lease_duration;
    session->checks.insert(id);
    session->last_given = ++state_.num_given;
    --session->num_free_slots;
    return true;
  }
  return false;
}

void Mutation::ReportOnCheck(Session* session, const LeaseReport& report) {
  const SpotCheck* found = FindCheck(state_, *session, report);
  if (found == nullptr) return;
  SpotCheck& check = state_.checks.at(found->id);
  switch (report.kind) {
    case LeaseReport::Kind::kRunning:
      check.lease_expiry = now_.mono + state_.policy.lease_duration;
      return;
    case LeaseReport::Kind::kSucceeded:
      session->ended_checks.insert(report.lease_id);
      return EndCheck(check.id, report.outcome.result_sha256);
    case LeaseReport::Kind::kFailed:
      session->ended_checks.insert(report.lease_id);
      return EndCheck(check.id, "");
    case LeaseReport::Kind::kReleased:
      session->ended_checks.insert(report.lease_id);
      return ReturnCheck(&check);
  }
}

void Mutation::ReturnCheck(SpotCheck* check) {
  const auto session = state_.sessions.find(check->session);
  if (session != state_.sessions.end()) session->second.checks.erase(check->id);
  check->session.clear();
  match_checks_ = true;
}

void Mutation::EndCheck(uint64_t id, const std::string& result_sha256) {
  const auto it = state_.checks.find(id);
  const SpotCheck check = std::move(it->second);
  state_.checks.erase(it);
  const auto session = state_.sessions.find(check.session);
  if (session != state_.sessions.end()) session->second.checks.erase(id);
  const CheckVerdict verdict = result_sha256.empty()                  ? CheckVerdict::kAbandoned
                               : result_sha256 == check.result_sha256 ? CheckVerdict::kSame
                                                                      : CheckVerdict::kDifferent;
  edits_.checks.push_back(
      {verdict, check.task, check.worker, check.checker, check.result_sha256, result_sha256});
  const auto job = state_.jobs.find(check.task.job);
  if (job == state_.jobs.end() || ChecksOf(check.task.job) > 0) return;
  // Finalize has nothing to wait for any more.
  JobEntry* entry = &job->second;
  const auto last = static_cast<int32_t>(entry->tasks.size()) - 1;
  Task& task = entry->tasks[last];
  const TaskRef ref{entry->job.seq, last};
  if (!task.waits_for_checks || task.state != TaskState::kReady || entry->ready.contains(last)) {
    return;
  }
  state_.timers.erase({task.not_before, TimerKind::kBackoff, ref});
  task.next_attempt_time.reset();
  task.waits_for_checks = false;
  TouchTask(entry, last);
  MarkReady(entry, last);
}

int Mutation::ChecksOf(uint64_t job) const {
  return static_cast<int>(
      std::count_if(state_.checks.begin(), state_.checks.end(),
                    [job](const auto& entry) { return entry.second.task.job == job; }));
}

absl::Duration Mutation::WaitForChecks(const JobEntry& entry, Task* task) const {
  const absl::Duration wait = state_.policy.spot_check_wait;
  if (task->kind != TaskKind::kFinalize || wait <= absl::ZeroDuration() ||
      ChecksOf(entry.job.seq) == 0) {
    return absl::ZeroDuration();
  }
  task->waits_for_checks = true;
  return wait;
}

void Mutation::TickChecks() {
  std::vector<uint64_t> over;
  for (auto& [id, check] : state_.checks) {
    if (!Matters(state_, check)) {
      over.push_back(id);
    } else if (!check.session.empty() && check.lease_expiry <= now_.mono) {
      ReturnCheck(&check);
    }
  }
  for (const uint64_t id : over) EndCheck(id, "");
}

void Mutation::YieldChecks(Session* session) {
  if (session->checks.empty() || session->num_free_slots > 0 || session->withdrawn() ||
      !state_.leasing || !Pick(*session).has_value()) {
    return;
  }
  SpotCheck& check = state_.checks.at(*session->checks.begin());
  check.stop = true;
}

void Mutation::MatchChecks() {
  if (!match_checks_ || !state_.leasing) return;
  std::vector<std::string> given;
  for (const auto& [id, session] : state_.parked) {
    if (CanTakeTasks(*session) && LeaseCheck(session)) given.push_back(id);
  }
  for (const std::string& id : given) Wake(id);
}

}  // namespace uniquanf::server
