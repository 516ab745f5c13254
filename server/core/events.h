// What happens to the scheduler: requests of users and operators, calls of workers, time.
// Plain values. Requests have been checked for form (names, ranges, sizes) by the service.
#ifndef UNIQUANF_SERVER_CORE_EVENTS_H_
#define UNIQUANF_SERVER_CORE_EVENTS_H_

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "server/core/tenant_scope.h"
#include "server/core/types.h"

namespace uniquanf::server {

// What a tenant may have, where its policy says so; else Policy has it.
struct TenantQuota {
  int max_queued_jobs = 0;  // 0: no limit
  int64_t max_tasks_per_job = 0;
  double max_creates_per_second = 0;  // 0: no limit
};

struct CreateJobEvent {
  int64_t min_num_tasks = 0;  // that its settings alone imply
  // id, uid, spec, tenant, priority, labels, deadline, time_to_live, device, request_id and
  // request_digest are taken.
  Job job;
  bool validate_only = false;  // only say whether it would be refused
  // Its id must be free among all tenants' jobs, not its own tenant's alone: where nobody is asked
  // who he is, a name says no tenant.
  bool id_is_global = true;
  std::optional<TenantQuota> quota = {};
};
// Requests about a job: of those of `access`, the one of this id.
struct CancelJobEvent {
  std::string id;
  JobAccess access = {};
};
struct PauseJobEvent {
  std::string id;
  JobAccess access = {};
};
struct ResumeJobEvent {
  std::string id;
  JobAccess access = {};
};
struct RetryJobEvent {
  std::string id;
  // Results of finished tasks that the object store does not hold any more: they run again.
  std::set<std::string> missing = {};
  JobAccess access = {};
};
struct DeleteJobEvent {
  std::string id;
  bool allow_missing = false;
  JobAccess access = {};
};

// What a worker says of one lease.
struct LeaseReport {
  enum class Kind { kRunning, kSucceeded, kFailed, kReleased };
  std::string lease_id;
  int32_t attempt = 0;
  std::string job;           // {job}
  std::string task;          // {task}
  std::string token_sha256;  // of the token that it says, as Task::lease_token_sha256; "": none
  Kind kind = Kind::kRunning;
  TaskProgress progress;                          // kRunning
  std::vector<std::pair<int64_t, float>> losses;  // kRunning: (step, loss)
  TaskOutcome outcome;                            // kSucceeded
  TaskFailure failure;                            // kFailed: class, reason, message
  // kFailed with kInputLost: digests of results, as assigned, through which something is missing.
  std::vector<std::string> missing_sha256;
};
struct CachedActivations {
  std::string job;  // {job}
  int32_t layer = 0;
  int32_t round = 0;
};
struct SynchronizeEvent {
  std::string session;
  std::string worker;    // {worker}
  std::string identity;  // of its principal; "" where nobody is asked
  std::string software_version;
  int64_t sequence = 0;
  WorkerCapabilities capabilities;
  bool draining = false;
  std::vector<LeaseReport> leases;
  std::vector<CachedActivations> cached;
  int32_t num_free_slots = 0;
  bool may_wait = false;  // the reply may be held until there is something to do
};
// The reply of `session` is held no longer: it goes out, or its caller went away.
struct UnparkEvent {
  std::string session;
};
// Without a session the wish is for the name, and outlives the process: WorkerDrain.
struct DrainWorkerEvent {
  std::string worker;
  bool drain = true;  // false: undrain, which also lifts a quarantine
  // What follows the "@" of a WorkerProcessName, where several processes have the worker's name;
  // "": the only one.
  std::string session = "";
};
// An operator says that the wall clock is right although it ran ahead.
struct ConfirmWallClockEvent {};
// Time passed: leases run out, backoffs end, deadlines pass, jobs outlive their time to live.
struct TickEvent {};
// The working objects of a job that needs them no more are gone.
struct GarbageCollectedEvent {
  std::string uid;
};
// No new leases from here on: the server shuts down.
struct StopLeasingEvent {};

using Event =
    std::variant<CreateJobEvent, CancelJobEvent, PauseJobEvent, ResumeJobEvent, RetryJobEvent,
                 DeleteJobEvent, SynchronizeEvent, UnparkEvent, DrainWorkerEvent, TickEvent,
                 GarbageCollectedEvent, StopLeasingEvent, ConfirmWallClockEvent>;

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_CORE_EVENTS_H_
