// The scheduler's pure core: every decision about jobs, tasks, leases and workers.
//
//   Apply(state, event, now) → outcome, edits
//
// No I/O, no thread, no clock, no randomness of its own: the same state and event give the same
// result. The caller persists the edits before anyone hears of the outcome (server/runtime).
// Thread safety: the caller owns `state`.
#ifndef UNIQUANF_SERVER_CORE_APPLY_H_
#define UNIQUANF_SERVER_CORE_APPLY_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/core/events.h"
#include "server/core/state.h"

namespace uniquanf::server {

struct Outcome {
  // Not OK: refused, nothing changed. Reasons as in the protos: JOB_NOT_FOUND, JOB_EXISTS,
  // REQUEST_ID_REUSED, QUOTA_EXCEEDED, JOB_FINAL, JOB_NOT_PAUSED, JOB_NOT_RETRYABLE, JOB_NOT_FINAL,
  // WORKER_NOT_FOUND, WORKER_AMBIGUOUS, STALE_REQUEST.
  absl::Status status;
  uint64_t job = 0;  // the job concerned, where there is one
  // Synchronize: there is nothing to say yet; hold the reply until the session is in Edits::wake.
  bool parked = false;
};

Outcome Apply(State* state, const Event& event, const Now& now, Edits* edits);

// When the next TickEvent is due, at the latest; capped at one second from `now`.
absl::Duration NextTick(const State& state, const Now& now);

// Whether the worker process calls: it waits in a held call or has called a moment ago.
bool IsPresent(const Policy& policy, const Session& session, absl::Duration now);
// The processes that are this worker now, the latest first: one, or several that share its name.
// When none calls, the one heard from last. Empty when none has ever called.
std::vector<const Session*> LiveSessions(const State& state, const std::string& worker,
                                         absl::Duration now);
// "w@1f2e3d4c": names one process of a worker for people and for DrainWorkerEvent.
std::string WorkerProcessName(const Session& session);

// What a worker is told, computed from the state after the edits are durable.
enum class LeaseAction { kContinue, kStop, kAcknowledged, kLost };
struct LeaseDirective {
  std::string lease_id;
  LeaseAction action = LeaseAction::kLost;
  int64_t history_step = 0;  // the last one of the lease's loss history; 0: none
};
struct Assignment {
  std::string lease_id;
  std::string lease_token;  // kLeaseTokenBytes: for this worker alone
  int32_t attempt = 0;
  std::string job;  // {job}
  std::string tenant;
  std::string job_uid;
  std::string task;  // {task}
  TaskKind kind = TaskKind::kPrepare;
  int32_t layer = 0;
  int32_t round = 0;
  std::string spec;  // opaque
  std::string plan_sha256;
  std::vector<std::string> layer_sha256;
};
struct SynchronizeReply {
  std::vector<LeaseDirective> directives;
  std::vector<Assignment> assignments;
  absl::Duration next_call;
  absl::Duration lease_duration;
  bool drain = false;
  bool name_shared = false;  // another process that calls has the same name
};
// REQUIRES: `session` has called.
SynchronizeReply BuildReply(const State& state, const std::string& session);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_CORE_APPLY_H_
