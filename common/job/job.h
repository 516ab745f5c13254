// What there is to say about a job and its tasks, for every program: the server's records
// (server/core/types.h), the client's values (uniquanf/types.h) and the API's messages
// (common/rpc/job_proto.h converts) are these and what each adds. A new field of a job is a line
// here, one in job.proto, two in job_proto.cc, and its use.
//
// Names: a record of the server holds ids ("layer-0003", "gpu-1"), an answer of the API resource
// names ("jobs/x/tasks/layer-0003", "workers/gpu-1").
// Thread safety: plain values. A time or duration that is not known, or never, is nullopt.
#ifndef UNIQUANF_COMMON_JOB_JOB_H_
#define UNIQUANF_COMMON_JOB_JOB_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/job/states.h"

namespace uniquanf {

struct JobError {
  std::string reason;   // stable word: "TENSOR_SHAPE"
  std::string message;  // names the thing and the fix
  std::string task;     // where one failed, or ""
  friend bool operator==(const JobError&, const JobError&) = default;
};

struct ArtifactInfo {
  std::string uri;
  std::string manifest_sha256;
  int64_t size_bytes = 0;
  friend bool operator==(const ArtifactInfo&, const ArtifactInfo&) = default;
};

struct JobProgress {
  int32_t num_tasks = 0;  // 1 until the model has been read
  int32_t num_tasks_succeeded = 0;
  int32_t num_layers = 0;
  int32_t num_layers_succeeded = 0;
  double fraction = 0;  // 0..1, of estimated work
  std::optional<absl::Duration> remaining;
};

// Why a job waits: SLOT, WORKER, QUOTA, RETRY, PAUSED or SERVER, as in job.proto.
struct Waiting {
  std::string reason;
  int32_t num_before = 0;  // SLOT: jobs that get one earlier; at most kMaxCountedBefore
  friend bool operator==(const Waiting&, const Waiting&) = default;
};
inline constexpr int32_t kMaxCountedBefore = 100;

// What whoever submits a job may ask for, beside its spec.
struct JobWish {
  std::string tenant;    // "": the server's default
  int32_t priority = 0;  // -100..100; higher runs earlier
  std::map<std::string, std::string> labels;
  std::optional<absl::Time> deadline;
  std::optional<absl::Duration> time_to_live;
  std::string device;  // "cpu", "cuda" or "": any; of a job, once known, the one it runs on
};

struct JobFields : JobWish {
  std::string uid;      // unique across time, also when a name is used again
  int64_t version = 0;  // grows with every visible change
  JobState state = JobState::kUnknown;
  std::string status_message;     // why it does not get on, for people
  std::optional<JobError> error;  // in kFailed
  absl::Time create_time = absl::InfinitePast();
  absl::Time update_time = absl::InfinitePast();
  std::optional<absl::Time> start_time, end_time;
  std::optional<ArtifactInfo> artifact;  // in kSucceeded
  std::optional<Waiting> waiting;        // while it is not final and no task of it runs
};

// How long a task has spent in one of its phases, all visits together.
struct PhaseTime {
  std::string phase;
  absl::Duration duration;
  friend bool operator==(const PhaseTime&, const PhaseTime&) = default;
};

// Amounts that a job's time depends on, told by prepare. Tokens count once for each pass.
struct JobWork {
  int64_t num_steps = 0;  // of a layer's training, over all rounds
  int64_t tokens_per_step = 0;
  int64_t calibration_tokens = 0;
  int64_t evaluation_tokens = 0;  // through the whole model, over all evaluated models
  int64_t layer_weights = 0;      // of one layer's linear modules that a token passes
  int64_t head_weights = 0;       // of the output head
  int64_t distill_steps = 0;      // of one window's training
  int64_t distill_tokens_per_step = 0;
  int64_t text_tokens = 0;  // written for the report
  friend bool operator==(const JobWork&, const JobWork&) = default;
};

// What became of one linear module of a layer.
struct ModuleMetrics {
  std::string module;  // "model.layers.3.mlp.down_proj"
  int32_t bits = 0;    // 0: left in full precision
  int64_t group_size = 0;
  double weight_error = 0;  // mean squared error of the stored weights
  int64_t num_saturated = 0;
  friend bool operator==(const ModuleMetrics&, const ModuleMetrics&) = default;
};

struct TaskProgress {
  std::string phase;
  int64_t step = 0;
  int64_t num_steps = 0;
  double loss = 0;  // the latest mean; 0 outside reconstruction
  std::optional<absl::Duration> remaining = std::nullopt;
  absl::Duration elapsed = absl::ZeroDuration();  // in this phase
  std::vector<PhaseTime> finished = {};           // phases of this attempt that are over, in order
  double fraction = 0;                            // 0..1, of the task's estimated time
  friend bool operator==(const TaskProgress&, const TaskProgress&) = default;
};

struct TaskFailure {
  FailureClass failure_class = FailureClass::kUnknown;
  std::string reason;
  std::string message;
  int32_t attempt = 0;
  std::string worker;
  absl::Time time;
  friend bool operator==(const TaskFailure&, const TaskFailure&) = default;
};

struct TaskFields {
  TaskKind kind = TaskKind::kUnknown;
  int32_t layer = 0;  // kLayer; kDistill: the window's first
  int32_t round = 0;  // kLayer only: a layer has one task a round
  TaskState state = TaskState::kUnknown;
  int32_t attempt = 0;  // counted when leased; the first is 1
  std::string worker;   // of the current or last lease
  TaskProgress progress;
  std::vector<TaskFailure> failures;               // the latest
  std::optional<absl::Time> start_time, end_time;  // of the current or last attempt
  std::optional<absl::Time> next_attempt_time;     // after a failure
  std::string result_sha256;
  // kSucceeded, kLayer and kDistill: as the report's; 0: not measured.
  double initial_loss = 0, final_loss = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_JOB_JOB_H_
