// The scheduler's whole state in memory, with the indices that make decisions quick. Changed only
// by Apply (server/core/apply.h) and rebuilt from a store's records by Rebuild.
//
// Thread safety: none; one thread owns it. Every container is ordered, so that the same events give
// the same decisions.
#ifndef UNIQUANF_SERVER_CORE_STATE_H_
#define UNIQUANF_SERVER_CORE_STATE_H_

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/core/events.h"
#include "server/core/policy.h"
#include "server/core/transitions.h"
#include "server/core/types.h"

namespace uniquanf::server {

// Jobs with tasks that wait for a worker, by priority (highest first), tenant, and all that decides
// which workers may run them: a worker that does not fit one job of a queue fits none, so that a
// long queue costs no more to refuse than a short one. Jobs of an `uneven` queue are exceptions:
// some of their tasks are choosy.
struct QueueKey {
  int32_t negative_priority = 0;
  std::string tenant;
  std::string device;
  bool starts = false;  // the job is kQueued: quota of running jobs
  int64_t memory_bytes = 0;
  std::vector<std::pair<std::string, std::string>> required_labels;
  bool uneven = false;
  friend auto operator<=>(const QueueKey&, const QueueKey&) = default;
};

struct JobEntry {
  Job job;
  std::vector<Task> tasks;
  // Derived.
  std::vector<int32_t> num_open_dependencies;                    // of each task
  std::vector<std::vector<int32_t>> dependents;                  // of each task
  std::set<int32_t> ready;                                       // kReady and not in backoff
  int32_t num_ready_choosy = 0;                                  // of them, IsChoosy
  std::map<std::pair<int32_t, int32_t>, int32_t> task_of_layer;  // (round, layer) → index
  std::map<std::string, int32_t> task_of_id;
  int32_t num_leased = 0;
  int32_t num_succeeded = 0;
  std::optional<QueueKey> queued_as;
  bool unschedulable = false;  // no live worker can run its next task
  // A change to all its tasks that is made in slices, from the first on: which tasks it has not
  // reached yet. Follows from the states of job and tasks, so that a restarted server goes on.
  enum class Sweep { kNone, kCancel, kReset };
  Sweep sweep = Sweep::kNone;
  int32_t sweep_next = 0;
  std::set<std::string> missing;  // kReset: results to be made again; lost at a restart
};

// The job's graph is still being made: tasks follow those it has.
bool NeedsExpansion(const JobEntry& entry);
// Tasks of the whole graph, once prepare has told its shape.
int64_t NumGraphTasks(const Job& job);
// Some workers that may run the job's other tasks may not run this one.
inline bool IsChoosy(const Task& task) {
  return task.exceeded_memory_bytes > 0 || !task.environment_sessions.empty();
}

// A layer's result that another worker is to make again (spot_checks.cc). Ephemeral.
struct SpotCheck {
  uint64_t id = 0;
  TaskRef task;
  std::string result_sha256;  // what `worker` has reported
  std::string worker;
  std::string device, device_description;  // of it: results depend on them
  // The lease; `session` "": it waits for a worker.
  std::string session, checker, lease_id, token_sha256;
  int32_t attempt = 0;
  int32_t num_leases = 0;
  absl::Duration lease_expiry;  // monotonic
  bool stop = false;            // its place is wanted for a task
};

// One process of a worker. Ephemeral: a restarted server learns of it at its next call.
struct Session {
  std::string id;
  bool has_called = false;  // false: restored with its leases, waits for its first call
  std::string worker;
  std::string identity;  // of who called first: nobody else may go on with it
  std::string software_version;
  int64_t sequence = -1;
  WorkerCapabilities capabilities;
  bool draining = false;
  bool drain_requested = false;  // it is told to end
  bool held = false;             // its name is drained: it stays, and gets no tasks
  bool withdrawn() const { return draining || drain_requested || held; }
  int32_t num_free_slots = 0;
  std::vector<CachedActivations> cached;
  std::vector<LeaseReport> reported;  // of the last call: lease id, attempt, job and task only
  std::set<TaskRef> leases;
  std::set<uint64_t> checks;           // spot checks that it runs
  std::set<std::string> ended_checks;  // leases of those that its last call ended
  bool parked = false;                 // its reply is held
  absl::Duration first_seen;
  int64_t first_sequence = 0;  // 1: the server has known this process from its start
  absl::Duration last_seen;
  absl::Time last_seen_time;
  absl::Time start_time;
  uint64_t last_given = 0;   // State::num_given when it last got a task: idle workers take turns
  bool shares_name = false;  // another process that calls has its worker's name

  // Jobs that failed on it, one after the other, and on no other worker.
  std::set<uint64_t> suspect_jobs;
  int num_quarantines = 0;           // since its last success
  absl::Duration quarantined_until;  // monotonic; zero: it is not quarantined
  std::string quarantine_reason;     // for people
  bool quarantined() const { return quarantined_until > absl::ZeroDuration(); }
};

// When it counts as right that the wall clock says what it says: pairs of wall and monotonic time
// tell a jump from time that passed. A clock that went back is believed at once, since nothing
// ends too early by it.
struct WallClock {
  absl::Duration trusted_offset;              // wall (since the epoch) − monotonic
  absl::Duration trusted_at;                  // monotonic
  std::optional<absl::Duration> ahead_since;  // monotonic; the wall clock is not believed
  absl::Duration ahead_offset;                // what it says since then
  absl::Duration lead;                        // how far it is ahead of what is believed
};

struct Tenant {
  double used_seconds = 0;  // of finished leases, decayed
  int32_t num_leased = 0;
  double leased_at_sum_seconds = 0;  // so that running leases count too
  int32_t num_running_jobs = 0;      // jobs in kRunning
  int32_t num_queued_jobs = 0;       // jobs in kQueued
  int32_t num_open_jobs = 0;         // jobs not final
  // Token bucket: how many jobs could be created at that time, once one was.
  bool creates_known = false;
  double creates = 0;
  absl::Duration creates_at;
  double UsedSeconds(absl::Duration now) const {
    return used_seconds + num_leased * absl::ToDoubleSeconds(now) - leased_at_sum_seconds;
  }
};

// Monotonic timers.
enum class TimerKind { kLease, kBackoff };
using Timer = std::tuple<absl::Duration, TimerKind, TaskRef>;
// Wall-clock timers of jobs.
enum class JobTimerKind { kDeadline, kTimeToLive };
using JobTimer = std::tuple<absl::Time, JobTimerKind, uint64_t>;

struct State {
  State() = default;
  State(State&&) = default;  // no copies: `parked` points into `sessions`
  State& operator=(State&&) = default;

  Policy policy;
  uint64_t epoch = 0;         // grows with every start on a store
  uint64_t random_state = 1;  // jitter
  // What lease tokens are made of: random, of this process alone, never stored.
  std::string token_key;
  bool leasing = true;
  uint64_t next_seq = 1;

  std::map<uint64_t, JobEntry> jobs;
  JobIndex job_of_id;
  std::map<std::pair<std::string, std::string>, uint64_t> job_of_request_id;  // (tenant, id)
  std::map<std::string, Session> sessions;
  std::map<std::string, std::set<std::string>> sessions_of_worker;
  absl::Duration rebuilt_at;
  std::map<std::string, WorkerDrain> drains;
  std::map<std::string, Tenant> tenants;
  std::set<std::string> garbage;

  std::map<QueueKey, std::set<uint64_t>> queue;
  std::map<std::string, Session*> parked;              // by session id
  std::set<std::pair<absl::Duration, TaskRef>> ready;  // all of JobEntry::ready, by ready_since
  uint64_t num_given = 0;
  int64_t num_quarantined = 0;    // sessions
  std::set<uint64_t> unfinished;  // jobs that are swept or expanded
  WallClock clock;
  std::map<uint64_t, SpotCheck> checks;  // by id
  uint64_t num_checks_made = 0;
  std::set<Timer> timers;
  std::set<JobTimer> job_timers;
  std::array<int64_t, kNumJobStates + 1> num_jobs{};
  std::array<int64_t, kNumTaskStates + 1> num_tasks{};
  int64_t num_unschedulable = 0;  // jobs that are `unschedulable`
  uint64_t unschedulable_cursor = 0;
  uint64_t count_cursor = 0;
  absl::Duration last_tick;
  bool ticked = false;
  absl::Duration last_unschedulable_check;
  absl::Duration last_usage_decay;

  // The first one, by tenant, of those that have this id; null: none has.
  JobEntry* FindJob(const std::string& id);
  const JobEntry* FindJob(const std::string& id) const;
  Task* FindTask(const TaskRef& ref);
  const Task* FindTask(const TaskRef& ref) const;
};

// The token of the lease with this id: who does not know the state's key cannot tell it from random
// bytes.
inline constexpr size_t kLeaseTokenBytes = 16;
std::string LeaseToken(const State& state, const std::string& lease_id);

// kInvalidArgument (AMBIGUOUS_NAME): several tenants' jobs that a caller reaches have this id.
absl::Status AmbiguousJobName(absl::string_view id);

// How long, at the last tick, the task has been ready that waits for the longest of those that a
// worker may be given: jobs that are paused do not count. Zero when none waits.
absl::Duration LongestWait(const State& state);

// The check of `session` that `report` is on and whose token it says; null: none.
const SpotCheck* FindCheck(const State& state, const Session& session, const LeaseReport& report);

enum class CheckVerdict { kSame, kDifferent, kAbandoned };
struct CheckResult {
  CheckVerdict verdict = CheckVerdict::kAbandoned;
  TaskRef task;
  std::string worker, checker;
  std::string result_sha256, checked_sha256;
};

// What one or more events changed. Keys only: the values are read from the state when they are
// written, once for a whole batch.
struct Edits {
  // Durable.
  std::set<uint64_t> jobs;
  std::set<TaskRef> tasks;
  std::set<uint64_t> deleted_jobs;
  std::set<std::string> drains;  // workers whose drain wish changed
  std::set<std::string> garbage_added;
  std::set<std::string> garbage_removed;
  // Visible, but not stored.
  std::set<TaskRef> progress;
  std::set<uint64_t> shown_jobs;  // jobs alone
  // Sessions whose held reply has something to say now.
  std::set<std::string> wake;
  // For metrics.
  std::vector<double> lease_latency_seconds;  // from leasable to leased
  std::vector<FailureClass> failures;
  int64_t num_leases = 0;
  int64_t num_expired_leases = 0;
  int64_t num_tasks_succeeded = 0;
  int64_t num_results_lost = 0;
  // For logs.
  std::vector<std::string> quarantined;   // sessions
  std::vector<std::string> shared_names;  // workers
  std::vector<TaskRef> results_lost;      // tasks that run again
  std::vector<CheckResult> checks;        // that ended; also for metrics

  bool durable() const {
    return !jobs.empty() || !tasks.empty() || !deleted_jobs.empty() || !drains.empty() ||
           !garbage_added.empty() || !garbage_removed.empty();
  }
};

// The state that `stored` describes. Leases in it stay with their sessions for one lease from
// `now`, so that workers that outlived the server keep their tasks. Errors: kDataLoss
// (STATE_CORRUPT) when the records contradict each other.
absl::StatusOr<State> Rebuild(const Policy& policy, const StoredState& stored, uint64_t epoch,
                              uint64_t random_seed, const Now& now);

// Checks every invariant of the state; for tests. OK or kInternal naming the first violation.
absl::Status CheckInvariants(const State& state);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_CORE_STATE_H_
