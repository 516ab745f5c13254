// Limits and decisions of the scheduler, as stateless functions over values.
// Thread safety: free functions, no state.
#ifndef UNIQUANF_SERVER_CORE_POLICY_H_
#define UNIQUANF_SERVER_CORE_POLICY_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/core/types.h"

namespace uniquanf::server {

struct Policy {
  absl::Duration lease_duration = absl::Seconds(30);
  // Failures of one task, by class, before its job fails.
  int max_worker_lost = 5;
  int max_transient = 8;
  int max_out_of_memory = 2;  // the second time, on a worker with more memory, is the last
  int max_internal = 2;
  int max_environment = 4;  // whoever confirms them
  int max_reopened = 3;     // losses of one task's result
  absl::Duration backoff_initial = absl::Seconds(1);
  absl::Duration backoff_max = absl::Minutes(2);
  // Per tenant; 0: no limit.
  int max_running_jobs_per_tenant = 0;
  int max_queued_jobs_per_tenant = 0;
  double max_creates_per_second_per_tenant = 0;  // a second's worth may come at once
  // Worker time used counts half after this long, so that fair share forgets.
  absl::Duration usage_half_life = absl::Hours(24);
  // A worker process silent for this long, whose successor of the same name has called, is gone.
  absl::Duration superseded_after = absl::Seconds(3);
  // A task whose progress stands still this long is taken from its worker, although that worker
  // still calls: it hangs. Zero: never.
  absl::Duration stall_timeout = absl::Minutes(30);
  // Of jobs that say nothing about it. Zero: they are kept.
  absl::Duration default_time_to_live = absl::ZeroDuration();
  // One in so many layers runs again on another worker of the same kind; 0: none does.
  int spot_check_one_in = 0;
  // How long finalize waits for checks of its job that have not ended.
  absl::Duration spot_check_wait = absl::ZeroDuration();
  int max_layers = 10000;
  int max_tasks_per_job = 20000;
  // Changes to more tasks of a job than this are made in several transactions.
  int tasks_per_slice = 1000;
  // A worker process that fails this many different jobs in a row gets no tasks that another can
  // run, for a time that doubles; 0: never.
  int quarantine_after_jobs = 3;
  absl::Duration quarantine_initial = absl::Seconds(30);
  absl::Duration quarantine_max = absl::Minutes(15);
  // How far the wall clock may run ahead of the monotonic one before deadlines and deletions wait
  // until that has lasted for the second.
  absl::Duration clock_tolerance = absl::Minutes(1);
  absl::Duration clock_settle_time = absl::Minutes(10);
  // The same for the first reading of a process, against the newest time in the stored state.
  absl::Duration clock_start_tolerance = absl::Hours(1);
  // An assignment that its worker does not report is sent again, and its lease renewed, this often.
  int max_resends = 3;
};

// What to do with a task after a failure of `failure_class`; the counters in `task` already include
// it. `random` is uniform in [0, 1).
struct RetryDecision {
  bool retry = false;
  absl::Duration delay;
  std::string limit;  // for people, when !retry: which limit ended it
};
RetryDecision DecideRetry(const Policy& policy, const Task& task, FailureClass failure_class,
                          double random);

// The same after a failure that may be the worker's own fault (kEnvironment): final when a second
// process has confirmed it, or when no other can be asked and a second attempt has failed too.
RetryDecision DecideConfirmation(const Policy& policy, const Task& task, bool others_can_run_it);

// "" when a worker with `capabilities` may run `task` of `job`, else why not, for people:
// "device cuda", "more than 8.00 GiB of device memory".
std::string Mismatch(const Job& job, const Task& task, const WorkerCapabilities& capabilities);
// Whether it may, without the words.
bool Fits(const Job& job, const Task& task, const WorkerCapabilities& capabilities);
// The job's labels that are requirements on a worker's labels, without their prefix.
std::vector<std::pair<std::string, std::string>> RequiredLabels(const Job& job);
// Device and memory needed by any of the job's tasks that run after prepare; 0 for prepare itself.
int64_t MemoryNeeded(const Job& job, const Task& task);

// A worker process that has been silent for longer is not counted on.
absl::Duration PresenceWindow(const Policy& policy);
// How often a worker that holds leases should call.
absl::Duration NextCall(const Policy& policy);
// The longest time to hold the reply of a worker. A worker counts a lease from when it sent the
// call, so a lease that comes with a held reply is short by as much.
absl::Duration MaxHold(const Policy& policy);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_CORE_POLICY_H_
