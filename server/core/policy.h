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
  absl::Duration backoff_initial = absl::Seconds(1);
  absl::Duration backoff_max = absl::Minutes(2);
  // Per tenant; 0: no limit.
  int max_running_jobs_per_tenant = 0;
  int max_queued_jobs_per_tenant = 0;
  // Worker time used counts half after this long, so that fair share forgets.
  absl::Duration usage_half_life = absl::Hours(24);
  // A worker process silent for this long, whose successor of the same name has called, is gone.
  absl::Duration superseded_after = absl::Seconds(3);
  // A task whose progress stands still this long is taken from its worker, although that worker
  // still calls: it hangs. Zero: never.
  absl::Duration stall_timeout = absl::Minutes(30);
  // Of jobs that say nothing about it. Zero: they are kept.
  absl::Duration default_time_to_live = absl::ZeroDuration();
  int max_layers = 10000;
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

// "" when a worker with `capabilities` may run `task` of `job`, else why not, for people:
// "device cuda", "more than 8.0 GiB of device memory".
std::string Mismatch(const Job& job, const Task& task, const WorkerCapabilities& capabilities);
// Whether it may, without the words.
bool Fits(const Job& job, const Task& task, const WorkerCapabilities& capabilities);
// The job's labels that are requirements on a worker's labels, without their prefix.
std::vector<std::pair<std::string, std::string>> RequiredLabels(const Job& job);
// Device and memory needed by any of the job's tasks that run after prepare; 0 for prepare itself.
int64_t MemoryNeeded(const Job& job, const Task& task);

// How often a worker that holds leases should call.
absl::Duration NextCall(const Policy& policy);
// The longest time to hold the reply of a worker. A worker counts a lease from when it sent the
// call, so a lease that comes with a held reply is short by as much.
absl::Duration MaxHold(const Policy& policy);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_CORE_POLICY_H_
