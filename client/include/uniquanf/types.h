// What the service tells its clients, as plain values.
//
// Thread safety: plain values. Times that are not known are absl::InfinitePast() for the past
// (`start_time` of a job that has not started) and absl::InfiniteFuture() for the future
// (`deadline` of a job that has none); durations that are not known are std::nullopt.
#ifndef UNIQUANF_CLIENT_INCLUDE_UNIQUANF_TYPES_H_
#define UNIQUANF_CLIENT_INCLUDE_UNIQUANF_TYPES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/spec/quantization_spec.h"

namespace uniquanf {

// A value that this version does not know becomes kUnknown.
enum class JobState {
  kUnknown,
  kQueued,      // accepted and durable; no task has started yet
  kRunning,     // a task has been leased at least once
  kPaused,      // no new leases by the user's wish; running tasks finish
  kCancelling,  // cancelled by the user; workers are being told
  kSucceeded,   // final: the artifact is published
  kFailed,      // final: see Job::error; RetryJob continues from the finished tasks
  kCancelled,   // final
};
absl::string_view JobStateName(JobState state);  // "RUNNING"
bool IsFinal(JobState state);

enum class TaskKind { kUnknown, kPrepare, kLayer, kFinalize };
absl::string_view TaskKindName(TaskKind kind);

enum class TaskState { kUnknown, kBlocked, kReady, kLeased, kSucceeded, kFailed, kCancelled };
absl::string_view TaskStateName(TaskState state);

enum class WorkerState { kUnknown, kReady, kDraining, kLost, kQuarantined };
absl::string_view WorkerStateName(WorkerState state);

struct JobError {
  std::string reason;  // stable word: "TENSOR_SHAPE"
  std::string message;
  std::string task;  // where one failed, or ""
};

struct JobProgress {
  int num_tasks = 0;
  int num_tasks_succeeded = 0;
  int num_layers = 0;
  int num_layers_succeeded = 0;
  double fraction = 0;  // 0..1, of estimated work
  std::optional<absl::Duration> remaining;
};

struct ArtifactInfo {
  std::string uri;
  std::string manifest_sha256;
  int64_t size_bytes = 0;
};

struct LayerReport {
  int layer = 0;
  double initial_loss = 0;  // mean squared error of the block's output before reconstruction
  double final_loss = 0;    // ... and of the stored artifact
  int bits = 0;             // the most common in the layer; 0: left in full precision
  absl::Duration duration;
};

struct JobReport {
  std::optional<double> perplexity_before, perplexity_after;
  int64_t num_evaluation_tokens = 0;
  std::vector<LayerReport> layers;
  int64_t model_size_bytes = 0;
  int64_t artifact_size_bytes = 0;
  double average_bits = 0;  // stored bits a weight over quantized modules, scales included
  absl::Duration duration;  // sum of the tasks' running times
  std::vector<std::string> warnings;
};

struct Job {
  std::string name;  // "jobs/{job}"
  std::string uid;   // unique across time, also when a name is used again
  QuantizationSpec spec;
  int64_t version = 0;
  JobState state = JobState::kUnknown;
  std::string status_message;     // why it does not get on, for people
  std::optional<JobError> error;  // in kFailed
  std::string tenant;
  int priority = 0;
  std::map<std::string, std::string> labels;
  absl::Time create_time = absl::InfinitePast();
  absl::Time start_time = absl::InfinitePast();
  absl::Time end_time = absl::InfinitePast();
  absl::Time update_time = absl::InfinitePast();
  absl::Time deadline = absl::InfiniteFuture();
  std::optional<absl::Duration> time_to_live;
  std::string device;
  JobProgress progress;
  std::optional<ArtifactInfo> artifact;  // in kSucceeded
  std::optional<JobReport> report;       // in kSucceeded
};

struct TaskProgress {
  std::string phase;
  int64_t step = 0, num_steps = 0;
  double loss = 0;  // the latest mean; 0 outside reconstruction
  std::optional<absl::Duration> remaining;
};

struct TaskFailure {
  // "WORKER_LOST", "TRANSIENT", "OUT_OF_MEMORY", "INVALID_INPUT", "INTERNAL", "ENVIRONMENT",
  // "INPUT_LOST"
  std::string failure_class;
  std::string reason;
  std::string message;
  int attempt = 0;
  std::string worker;
  absl::Time time = absl::InfinitePast();
};

struct Task {
  std::string name;  // "jobs/{job}/tasks/{task}"
  TaskKind kind = TaskKind::kUnknown;
  int layer = 0;  // kLayer only
  TaskState state = TaskState::kUnknown;
  int attempt = 0;
  std::string worker;
  TaskProgress progress;
  std::vector<TaskFailure> failures;  // the latest
  absl::Time start_time = absl::InfinitePast();
  absl::Time end_time = absl::InfinitePast();
  absl::Time next_attempt_time = absl::InfinitePast();
  std::string result_sha256;
};

struct Worker {
  std::string name;  // "workers/{worker}"
  std::string session_id;
  WorkerState state = WorkerState::kUnknown;
  std::string device;
  std::string device_description;
  int64_t memory_bytes = 0;
  int num_slots = 0;
  std::map<std::string, std::string> labels;
  std::string software_version;
  absl::Time start_time = absl::InfinitePast();
  absl::Time last_seen_time = absl::InfinitePast();
  std::vector<std::string> tasks;  // leased now
  std::string status_message;      // kQuarantined: why, and for how long
  std::string process;             // names it among those that share the worker's name
};

struct ServerInfo {
  std::string version;
  bool active = false;  // false: a standby
  std::string state_backend;
  std::string object_root;
  absl::Time start_time = absl::InfinitePast();
  int64_t num_jobs = 0;
  int64_t num_tasks_ready = 0;
  int64_t num_tasks_leased = 0;
  // How far its wall clock is ahead of what it believes: deadlines and deletions wait meanwhile.
  absl::Duration wall_clock_ahead;
};

}  // namespace uniquanf

#endif  // UNIQUANF_CLIENT_INCLUDE_UNIQUANF_TYPES_H_
