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
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace uniquanf::server {

// The time of one event, read once: wall-clock time for what people see and for deadlines,
// monotonic time for leases and backoff, so that a clock jump ends no lease.
struct Now {
  absl::Time wall;
  absl::Duration mono;
};

enum class JobState {
  kQueued = 1,
  kRunning = 2,
  kPaused = 3,
  kCancelling = 4,
  kSucceeded = 5,
  kFailed = 6,
  kCancelled = 7,
};
inline constexpr int kNumJobStates = 7;
absl::string_view JobStateName(JobState state);
inline bool IsFinal(JobState state) {
  return state == JobState::kSucceeded || state == JobState::kFailed ||
         state == JobState::kCancelled;
}

enum class TaskKind { kPrepare = 1, kLayer = 2, kFinalize = 3 };
absl::string_view TaskKindName(TaskKind kind);

enum class TaskState {
  kBlocked = 1,
  kReady = 2,
  kLeased = 3,
  kSucceeded = 4,
  kFailed = 5,
  kCancelled = 6,
};
inline constexpr int kNumTaskStates = 6;
absl::string_view TaskStateName(TaskState state);

enum class FailureClass {
  kWorkerLost = 1,
  kTransient = 2,
  kOutOfMemory = 3,
  kInvalidInput = 4,
  kInternal = 5,
  kEnvironment = 6,  // what the worker found around it: missing, refused, not as expected
  kInputLost = 7,    // working objects of earlier tasks are gone
};
inline constexpr int kNumFailureClasses = 7;
absl::string_view FailureClassName(FailureClass failure_class);

// How a task's last lease stands.
enum class LeaseStatus {
  kNone = 0,    // never leased
  kActive = 1,  // held by `session`
  // Ended by the worker's own report: the report may be repeated and is acknowledged.
  kReported = 2,
  kRevoked = 3,  // ended by the server: it ran out, or its job ended; reports are refused
};

struct TaskProgress {
  std::string phase;
  int64_t step = 0;
  int64_t num_steps = 0;
  double loss = 0;
  std::optional<absl::Duration> remaining;
  friend bool operator==(const TaskProgress&, const TaskProgress&) = default;
};

struct TaskFailure {
  FailureClass failure_class = FailureClass::kInternal;
  std::string reason;
  std::string message;
  int32_t attempt = 0;
  std::string worker;
  absl::Time time;
  friend bool operator==(const TaskFailure&, const TaskFailure&) = default;
};
inline constexpr size_t kMaxFailuresKept = 8;

struct Task {
  std::string id;  // "prepare", "layer-0003", "layer-0003-1", "finalize"; unique in its job
  TaskKind kind = TaskKind::kPrepare;
  int32_t layer = 0;  // kLayer only; with `round` the key of activation affinity
  int32_t round = 0;  // kLayer only: a layer has one task a round
  TaskState state = TaskState::kBlocked;
  std::vector<int32_t> depends_on;  // indices into the job's tasks
  int64_t version = 0;              // the job's version when this task last changed

  // The current or last lease.
  int32_t attempt = 0;
  std::string lease_id;
  LeaseStatus lease = LeaseStatus::kNone;
  std::string session;
  std::string worker;

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
  std::vector<TaskFailure> failures;  // the latest kMaxFailuresKept

  std::optional<absl::Time> start_time;
  std::optional<absl::Time> end_time;
  std::optional<absl::Time> next_attempt_time;  // kReady, waiting after a failure
  absl::Duration worker_time;                   // leased time of all attempts
  std::string result_sha256;

  // Ephemeral.
  TaskProgress progress;
  absl::Duration ready_since;   // monotonic; when it last became leasable
  absl::Duration lease_expiry;  // monotonic; kActive only
  absl::Duration leased_at;     // monotonic
  absl::Duration not_before;    // monotonic; kReady in backoff
  absl::Duration progress_at;   // monotonic; when `progress` last changed
  int32_t num_resends = 0;      // assignments repeated because the worker never reported the lease
};

struct JobError {
  std::string reason;
  std::string message;
  std::string task;  // task id, or "" when no task is to blame
  friend bool operator==(const JobError&, const JobError&) = default;
};

struct ArtifactRef {
  std::string uri;
  std::string manifest_sha256;
  int64_t size_bytes = 0;
  friend bool operator==(const ArtifactRef&, const ArtifactRef&) = default;
};

struct Job {
  uint64_t seq = 0;  // key in state and store; grows with creation
  std::string id;    // {job} of "jobs/{job}"
  std::string uid;   // never used again
  std::string spec;  // opaque
  int64_t version = 0;
  JobState state = JobState::kQueued;
  std::string status_message;
  std::optional<JobError> error;
  std::string tenant;
  int32_t priority = 0;
  std::map<std::string, std::string> labels;
  absl::Time create_time;
  absl::Time update_time;
  std::optional<absl::Time> start_time;
  std::optional<absl::Time> end_time;
  std::optional<absl::Time> deadline;
  std::optional<absl::Duration> time_to_live;
  std::string device;  // "" until known
  std::string request_id;
  std::string request_digest;

  // From prepare's outcome.
  int32_t num_layers = 0;
  bool layers_independent = false;
  int32_t num_rounds = 1;
  int64_t layer_memory_bytes = 0;

  std::optional<ArtifactRef> artifact;
  std::string report;  // opaque
};

// A job label with this prefix is a requirement on the worker's labels: "require/zone" = "b" runs
// only on workers whose label "zone" is "b".
inline constexpr char kRequireLabelPrefix[] = "require/";

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
};

// The operator's wish for one worker process; it does not outlive that process.
struct WorkerDrain {
  std::string worker;
  std::string session;
};

// What a finished task hands back.
struct TaskOutcome {
  std::string result_sha256;
  int32_t num_layers = 0;
  bool layers_independent = false;
  int32_t num_rounds = 1;
  std::string device;
  int64_t layer_memory_bytes = 0;
  std::optional<ArtifactRef> artifact;
  std::string report;  // opaque
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
