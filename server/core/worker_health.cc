// Workers that make jobs fail. A sick one fails fast, so it is always the free one and would
// swallow every job: what failed there goes to another first, and one that fails job after job gets
// only what no other can run, for a time. A failure that two workers share says nothing about
// either.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/core/mutations.h"

namespace uniquanf::server {
namespace {

// Failures for which the worker itself may be to blame.
bool IsSuspicious(FailureClass failure_class) {
  switch (failure_class) {
    case FailureClass::kInvalidInput:
    case FailureClass::kOutOfMemory:  // tasks of other sizes may well fit
    case FailureClass::kInputLost:
      return false;
    default:
      return true;
  }
}

}  // namespace

bool IsPresent(const Policy& policy, const Session& session, absl::Duration now) {
  return session.has_called &&
         (session.parked || now - session.last_seen <= PresenceWindow(policy));
}

bool Mutation::OthersCanRun(const Job& job, const Task& task, const Session& session,
                            bool also_where_it_failed) const {
  return std::any_of(state_.sessions.begin(), state_.sessions.end(), [&](const auto& entry) {
    const Session& other = entry.second;
    return other.id != session.id && !other.withdrawn() && !other.quarantined() &&
           IsPresent(state_.policy, other, now_.mono) &&
           (also_where_it_failed || std::count(task.environment_sessions.begin(),
                                               task.environment_sessions.end(), other.id) == 0) &&
           Fits(job, task, other.capabilities);
  });
}

bool Mutation::MayRun(const Job& job, const Task& task, const Session& session) const {
  const bool failed_here = std::count(task.environment_sessions.begin(),
                                      task.environment_sessions.end(), session.id) > 0;
  // A quarantined worker confirms nothing: a second attempt by one that is well says more.
  if (session.quarantined()) return !OthersCanRun(job, task, session, true);
  return !failed_here || !OthersCanRun(job, task, session, false);
}

void Mutation::NoteFailure(Session* session, const JobEntry& entry, const TaskFailure& failure) {
  const int limit = state_.policy.quarantine_after_jobs;
  if (limit <= 0 || !IsSuspicious(failure.failure_class)) return;
  bool shared = false;
  for (auto& [id, other] : state_.sessions) {
    if (id == session->id || other.suspect_jobs.erase(entry.job.seq) == 0) continue;
    shared = true;
    if (static_cast<int>(other.suspect_jobs.size()) < limit) LiftQuarantine(&other);
  }
  if (shared) return;
  session->suspect_jobs.insert(entry.job.seq);
  if (static_cast<int>(session->suspect_jobs.size()) < limit) return;
  Quarantine(session, absl::StrCat(session->suspect_jobs.size(),
                                   " jobs in a row failed on it, the last with ", failure.reason,
                                   ": ", failure.message));
}

void Mutation::Quarantine(Session* session, std::string reason) {
  if (session->quarantined()) return;
  const double growth = std::exp2(std::min(session->num_quarantines, 30));
  ++session->num_quarantines;
  ++state_.num_quarantined;
  session->quarantined_until =
      now_.mono + std::min(state_.policy.quarantine_initial * growth, state_.policy.quarantine_max);
  session->quarantine_reason = std::move(reason);
  edits_.quarantined.push_back(session->id);
}

void Mutation::NoteSuccess(Session* session) {
  session->suspect_jobs.clear();
  session->num_quarantines = 0;
  LiftQuarantine(session);
}

void Mutation::LiftQuarantine(Session* session) {
  if (!session->quarantined()) return;
  session->quarantined_until = absl::ZeroDuration();
  session->quarantine_reason.clear();
  --state_.num_quarantined;
  rematch_all_ = true;
}

// The next failure puts it back, for longer.
void Mutation::EndQuarantines() {
  if (state_.num_quarantined == 0) return;
  for (auto& [id, session] : state_.sessions) {
    if (!session.quarantined() || session.quarantined_until > now_.mono) continue;
    if (!session.suspect_jobs.empty()) session.suspect_jobs.erase(session.suspect_jobs.begin());
    LiftQuarantine(&session);
  }
}

}  // namespace uniquanf::server
