// The processes that are a worker, and the operator's word on them: which is to end, and which name
// gets no tasks.
#include <algorithm>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "server/core/mutations.h"

namespace uniquanf::server {
namespace {

// What tells a session from others of its worker: workers call all of them "session-...".
absl::string_view SessionHandle(absl::string_view id) { return absl::StripPrefix(id, "session-"); }

}  // namespace

Outcome Mutation::DrainWorker(const DrainWorkerEvent& event) {
  const bool by_name = event.session.empty();
  const auto it = state_.sessions_of_worker.find(event.worker);
  const auto drain = state_.drains.find(event.worker);
  if (it == state_.sessions_of_worker.end() || it->second.empty()) {
    if (by_name && !event.drain && drain != state_.drains.end()) {
      edits_.drains.insert(event.worker);
      state_.drains.erase(drain);
      return {};
    }
    return {NotFound("WORKER_NOT_FOUND", absl::StrCat("no worker \"workers/", event.worker,
                                                      "\"; `workers` shows those there are")),
            0, false};
  }
  const std::vector<const Session*> live = LiveSessions(state_, event.worker, now_.mono);
  if (by_name && event.drain && live.size() > 1) {
    std::string names;
    for (const Session* session : live) {
      absl::StrAppend(&names, names.empty() ? "" : ", ", WorkerProcessName(*session));
    }
    return {
        FailedPrecondition("WORKER_AMBIGUOUS", absl::StrCat(live.size(), " processes are called ",
                                                            event.worker, "; name one of ", names)),
        0, false};
  }
  const Session* latest = nullptr;
  for (const std::string& id : it->second) {
    if (!absl::StartsWith(SessionHandle(id), event.session)) continue;
    Session& session = state_.sessions.at(id);
    session.drain_requested = event.drain;
    session.held = false;
    if (!event.drain) NoteSuccess(&session);  // whatever was held against it
    Wake(id);
    if (latest == nullptr || session.last_seen >= latest->last_seen) latest = &session;
  }
  if (latest == nullptr) {
    return {NotFound("WORKER_NOT_FOUND",
                     absl::StrCat("no process of worker \"workers/", event.worker,
                                  "\" has a session that begins with \"", event.session,
                                  "\"; `workers` shows those there are")),
            0, false};
  }
  // A word on one process says nothing about the name.
  const bool name_stays = !by_name && drain != state_.drains.end() && drain->second.by_name;
  if (event.drain) {
    state_.drains[event.worker] = {event.worker, latest->id, by_name || name_stays};
  } else if (name_stays) {
    drain->second.session.clear();
  } else {
    state_.drains.erase(event.worker);
  }
  edits_.drains.insert(event.worker);
  return {};
}

std::string WorkerProcessName(const Session& session) {
  return absl::StrCat(session.worker, "@", SessionHandle(session.id).substr(0, 8));
}

std::vector<const Session*> LiveSessions(const State& state, const std::string& worker,
                                         absl::Duration now) {
  std::vector<const Session*> known, live;
  const auto it = state.sessions_of_worker.find(worker);
  if (it == state.sessions_of_worker.end()) return {};
  for (const std::string& id : it->second) {
    const Session& session = state.sessions.at(id);
    if (session.has_called) known.push_back(&session);
  }
  if (known.empty()) return {};
  std::copy_if(known.begin(), known.end(), std::back_inserter(live),
               [&](const Session* s) { return IsPresent(state.policy, *s, now); });
  if (live.empty()) {
    return {*std::max_element(known.begin(), known.end(), [](const auto* a, const auto* b) {
      return a->last_seen < b->last_seen;
    })};
  }
  // The latest process, and those that called after it had begun: its predecessors did not.
  std::stable_sort(live.begin(), live.end(), [](const Session* a, const Session* b) {
    return a->first_seen > b->first_seen;
  });
  const absl::Duration begun = live[0]->first_seen;
  live.erase(std::remove_if(live.begin() + 1, live.end(),
                            [&](const Session* s) { return s->last_seen <= begun; }),
             live.end());
  return live;
}

// A worker that started again under the same name: its predecessor is dead when it has stopped
// calling, and its tasks need not wait for their leases to run out.
void Mutation::EndSupersededSessions(const Session& session) {
  const std::set<std::string>& same_name = state_.sessions_of_worker[session.worker];
  // Only a process that the server saw starting is known to be the later one.
  if (same_name.size() < 2 || session.first_sequence > 1) return;
  for (const std::string& other_id : same_name) {
    if (other_id == session.id) continue;
    const auto it = state_.sessions.find(other_id);
    if (it == state_.sessions.end() || it->second.first_seen >= session.first_seen) continue;
    Session& other = it->second;
    // One that called after this one had begun is no predecessor, but another of the same name.
    if (other.last_seen > session.first_seen) continue;
    if (!other.has_called || other.leases.empty() ||
        now_.mono - other.last_seen < state_.policy.superseded_after || other.parked) {
      continue;
    }
    const std::set<TaskRef> leases = other.leases;
    for (const TaskRef& ref : leases) {
      JobEntry* entry = &state_.jobs.at(ref.job);
      Task& task = entry->tasks[ref.index];
      if (task.lease != LeaseStatus::kActive) continue;
      Fail(entry, ref.index,
           {FailureClass::kWorkerLost, "WORKER_RESTARTED",
            absl::StrCat("worker ", task.worker, " started again and left the task unfinished"),
            task.attempt, task.worker, now_.wall},
           LeaseStatus::kRevoked);
    }
  }
}

// Two processes of one name, both calling: people are told, for whoever names the worker means one
// of them.
void Mutation::NoteSharedName(Session* session) {
  const std::set<std::string>& same_name = state_.sessions_of_worker[session->worker];
  const bool before = session->shares_name;
  session->shares_name = false;
  if (same_name.size() < 2) return;
  session->shares_name =
      std::any_of(same_name.begin(), same_name.end(), [&](const std::string& id) {
        const Session& other = state_.sessions.at(id);
        return id != session->id && IsPresent(state_.policy, other, now_.mono) &&
               other.last_seen > session->first_seen && session->last_seen > other.first_seen;
      });
  if (session->shares_name && !before) edits_.shared_names.push_back(session->worker);
}

}  // namespace uniquanf::server
