// Records of the scheduler's core: jobs, tasks and what workers say about them.
//
// Plain values, copied freely; no proto, no I/O, no clock. What the core does not need to
// understand (the quantization spec, the report) is carried as opaque bytes. Fields marked
// "ephemeral" are not stored: they are rebuilt or lost at a restart, by design.
#ifndef UNIQUANF_SERVER_CORE_TYPES_H_
#define UNIQUANF_SERVER_CORE_TYPES_H_

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/job/job.h"
#include "common/job/loss_history.h"
#include "common/job/task_graph.h"
#include "server/core/tenant_scope.h"

namespace uniquanf::server {

// The time of one event, read once: wall-clock time for what people see and for deadlines,
// monotonic time for leases and backoff, so that a clock jump ends no lease.
struct Now {
  absl::Time wall;
  absl::Duration mono;
};

// Words, numbers and what the API shows: shared with every program (common/job).
using uniquanf::FailureClass;
using uniquanf::JobError;
using uniquanf::JobState;
using uniquanf::TaskFailure;
using uniquanf::TaskKind;
using uniquanf::TaskProgress;
using uniquanf::TaskState;
using ArtifactRef = ArtifactInfo;

// How a task's last lease stands.
enum class LeaseStatus {
  kNone = 0,    // never leased
  kActive = 1,  // held by `session`
  // Ended by the worker's own report: the report may be repeated and is acknowledged.
  kReported = 2,
  kRevoked = 3,  // ended by the server: it ran out, or its job ended; reports are refused
};

inline constexpr size_t kMaxFailuresKept = 8;

// Its `progress` is ephemeral.
struct Task : TaskFields {
  Task() {
    kind = TaskKind::kPrepare;
    state = TaskState::kBlocked;
  }

  std::string id;                   // TaskId (common/job/task_graph.h): unique in its job
  std::vector<int32_t> depends_on;  // indices into the job's tasks
  int64_t version = 0;              // the job's version when this task last changed

  // The current or last lease.
  std::string lease_id;
  LeaseStatus lease = LeaseStatus::kNone;
  std::string session;
  // SHA-256 (hex) of the token that its holder says in every report; "": leased by a server that
  // gave none.
  std::string lease_token_sha256;

  // Failures since the job was created or retried, by class.
  int32_t num_worker_lost = 0;
  int32_t num_transient = 0;
  int32_t num_out_of_memory = 0;
  int32_t num_internal = 0;
  int32_t num_environment = 0;
  // Processes on which it failed with kEnvironment: another one is to confirm that.
  std::vector<std::string> environment_sessions;
  // How often its result was lost and it ran again, and the result that was lost last.
  int32_t num_reopened = 0;
  std::string lost_sha256;
  // Only a worker with more device memory than this may lease it (set after OUT_OF_MEMORY).
  int64_t exceeded_memory_bytes = 0;
  absl::Duration worker_time;  // leased time of all attempts

  // Of the attempt that runs or made the result; null or empty: nothing was told. A worker tells a
  // lease's history again from its start to a server that has forgotten it.
  std::shared_ptr<const LossHistory> history;
  std::shared_ptr<const std::vector<ModuleMetrics>> modules;
  std::vector<PhaseTime> phases;

  // Ephemeral.
  absl::Duration ready_since;     // monotonic; when it last became leasable
  absl::Duration lease_expiry;    // monotonic; kActive only
  absl::Duration leased_at;       // monotonic
  absl::Duration not_before;      // monotonic; kReady in backoff
  absl::Duration progress_at;     // monotonic; when `progress` last changed
  absl::Duration told_at;         // monotonic; when `progress` was last told
  bool waits_for_checks = false;  // finalize: kReady in backoff until its job's spot checks ended
  int32_t num_resends = 0;  // assignments repeated because the worker never reported the lease
};

// Its `device` is "" until known.
struct Job : JobFields {
  Job() { state = JobState::kQueued; }

  uint64_t seq = 0;  // key in state and store; grows with creation
  std::string id;    // {job} of "jobs/{job}"
  std::string spec;  // opaque
  std::string request_id;
  std::string request_digest;

  // From prepare's outcome.
  int32_t num_layers = 0;
  bool layers_independent = false;
  int32_t num_rounds = 1;
  int32_t distill_window = 0;
  int64_t layer_memory_bytes = 0;
  JobWork work;

  std::string report;  // opaque

  // How far it is, estimated when that may have changed (progress.h). It never falls, but for a
  // retry that has to do something again.
  double fraction = 0;
  // Ephemeral.
  std::optional<absl::Duration> remaining;
  absl::Duration estimated_at;  // monotonic
  int32_t most_leased = 0;      // tasks at once, since the server's start
  int32_t num_before = -1;      // jobs that get a slot earlier; -1: it does not wait for a slot
  std::string waits_for;        // "WORKER" or "QUOTA": what it waits for instead
  std::string silent_worker;    // runs a task of it and does not call
};

// The graph that the job's tasks are, once prepare has run.
inline GraphShape ShapeOf(const Job& job) {
  return {job.num_layers, job.num_rounds, job.layers_independent, job.distill_window};
}

// A job label with this prefix is a requirement on the worker's labels: "require/zone" = "b" runs
// only on workers whose label "zone" is "b".
inline constexpr char kRequireLabelPrefix[] = "require/";

// Jobs by (id, tenant): ids are a tenant's own.
class JobIndex {
 public:
  // False: it is there already.
  bool Add(const std::string& id, const std::string& tenant, uint64_t seq) {
    return seqs_.emplace(std::pair(id, tenant), seq).second;
  }
  void Remove(const std::string& id, const std::string& tenant) { seqs_.erase({id, tenant}); }
  void Clear() { seqs_.clear(); }
  // Those with this id of the tenants of `scope`, by tenant.
  std::vector<uint64_t> Find(const std::string& id, const TenantScope& scope = {}) const {
    std::vector<uint64_t> found;
    for (auto it = seqs_.lower_bound({id, ""}); it != seqs_.end() && it->first.first == id; ++it) {
      if (scope.Has(it->first.second)) found.push_back(it->second);
    }
    return found;
  }

 private:
  std::map<std::pair<std::string, std::string>, uint64_t> seqs_;
};

// Names one task in state and store.
struct TaskRef {
  uint64_t job = 0;
  int32_t index = 0;
  friend auto operator<=>(const TaskRef&, const TaskRef&) = default;
};

struct WorkerCapabilities {
  std::string device;
  std::string device_description;
  int64_t memory_bytes = 0;  // 0: unknown, taken as enough
  int32_t num_slots = 0;
  std::map<std::string, std::string> labels;
  int32_t num_cpus = 0;                    // 0: unknown
  std::vector<std::string> architectures;  // of models that it can quantize; empty: unknown
  TenantScope tenants = {};  // whose tasks it may be given: the policy's word, not its own
};

// The operator's wish for a worker.
struct WorkerDrain {
  std::string worker;
  std::string session;  // the process that is to end
  // The wish is for the name: whatever process comes under it gets no tasks, until it is taken
  // back. Else it does not outlive its process.
  bool by_name = false;
  // Monotonic, not stored: no process has the name any more.
  absl::Duration unused_since = absl::ZeroDuration();
};

// What a finished task hands back.
struct TaskOutcome {
  std::string result_sha256;
  int32_t num_layers = 0;
  bool layers_independent = false;
  int32_t num_rounds = 1;
  int32_t distill_window = 0;
  std::string device;
  int64_t layer_memory_bytes = 0;
  JobWork work;
  std::vector<PhaseTime> phases;
  double initial_loss = 0, final_loss = 0;
  std::vector<ModuleMetrics> modules;
  LossHistory history;
  std::optional<ArtifactRef> artifact;
  std::string report;  // opaque
  std::string fault;   // what the service found to be false about it; ephemeral
};

// Everything a store holds.
struct StoredTask {
  TaskRef ref;
  Task task;
};
struct StoredState {
  std::vector<Job> jobs;
  std::vector<StoredTask> tasks;
  std::vector<WorkerDrain> drains;
  std::vector<std::string> garbage;  // uids of jobs whose working objects are to be deleted
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_CORE_TYPES_H_
