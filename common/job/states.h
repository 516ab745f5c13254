// The states of jobs and tasks, the kinds of tasks and the classes of their failures, for every
// program; with their words, one table each. The numbers are those of the API's enums
// (common/rpc/job_proto.cc asserts it) and of what the server stores: never given to another value.
//
// kUnknown is what a value of a later version becomes; the server has none of it.
// Thread safety: constants and free functions.
#ifndef UNIQUANF_COMMON_JOB_STATES_H_
#define UNIQUANF_COMMON_JOB_STATES_H_

#include <iterator>

#include "absl/strings/string_view.h"
#include "common/base/enum_rows.h"

namespace uniquanf {

enum class JobState {
  kUnknown = 0,
  kQueued = 1,
  kRunning = 2,
  kPaused = 3,
  kCancelling = 4,
  kSucceeded = 5,
  kFailed = 6,
  kCancelled = 7,
};
inline constexpr EnumRow<JobState> kJobStates[] = {
    {JobState::kQueued, "QUEUED", "accepted and durable; no task has started yet"},
    {JobState::kRunning, "RUNNING", "a task has been leased at least once"},
    {JobState::kPaused, "PAUSED", "no new leases by the user's wish; running tasks finish"},
    {JobState::kCancelling, "CANCELLING", "cancelled by the user; workers are being told"},
    {JobState::kSucceeded, "SUCCEEDED", "final: the artifact is published"},
    {JobState::kFailed, "FAILED", "final: see the error; a retry continues from finished tasks"},
    {JobState::kCancelled, "CANCELLED", "final"},
};
inline bool IsFinal(JobState state) {
  return state == JobState::kSucceeded || state == JobState::kFailed ||
         state == JobState::kCancelled;
}

enum class TaskKind { kUnknown = 0, kPrepare = 1, kLayer = 2, kFinalize = 3, kDistill = 4 };
inline constexpr EnumRow<TaskKind> kTaskKinds[] = {
    {TaskKind::kPrepare, "PREPARE", "checks everything, fixes the calibration tokens, plans"},
    {TaskKind::kLayer, "LAYER", "one decoder layer"},
    {TaskKind::kFinalize, "FINALIZE", "assembles, evaluates, publishes"},
    {TaskKind::kDistill, "DISTILL", "a window of layers, against the original model's output"},
};

enum class TaskState {
  kUnknown = 0,
  kBlocked = 1,
  kReady = 2,
  kLeased = 3,
  kSucceeded = 4,
  kFailed = 5,
  kCancelled = 6,
};
inline constexpr EnumRow<TaskState> kTaskStates[] = {
    {TaskState::kBlocked, "BLOCKED", "waits for other tasks"},
    {TaskState::kReady, "READY", "waits for a worker, or after a failure for its next attempt"},
    {TaskState::kLeased, "LEASED", "a worker has it"},
    {TaskState::kSucceeded, "SUCCEEDED", "final"},
    {TaskState::kFailed, "FAILED", "final; its job fails"},
    {TaskState::kCancelled, "CANCELLED", "final"},
};

enum class FailureClass {
  kUnknown = 0,
  kWorkerLost = 1,
  kTransient = 2,
  kOutOfMemory = 3,
  kInvalidInput = 4,
  kInternal = 5,
  kEnvironment = 6,  // what the worker found around it: missing, refused, not as expected
  kInputLost = 7,    // working objects of earlier tasks are gone
};
inline constexpr EnumRow<FailureClass> kFailureClasses[] = {
    {FailureClass::kWorkerLost, "WORKER_LOST", "the lease ran out; retried, bounded"},
    {FailureClass::kTransient, "TRANSIENT", "storage or device hiccup; retried later, bounded"},
    {FailureClass::kOutOfMemory, "OUT_OF_MEMORY", "retried once, on a worker with more memory"},
    {FailureClass::kInvalidInput, "INVALID_INPUT", "fails the job at once"},
    {FailureClass::kInternal, "INTERNAL", "a bug; retried once"},
    {FailureClass::kEnvironment, "ENVIRONMENT", "fails the job when another worker confirms it"},
    {FailureClass::kInputLost, "INPUT_LOST", "what the tasks before it made is made again"},
};

// How many there are without kUnknown: numbers run from 1 to these.
inline constexpr int kNumJobStates = static_cast<int>(std::size(kJobStates));
inline constexpr int kNumTaskKinds = static_cast<int>(std::size(kTaskKinds));
inline constexpr int kNumTaskStates = static_cast<int>(std::size(kTaskStates));
inline constexpr int kNumFailureClasses = static_cast<int>(std::size(kFailureClasses));

// The value's word, or "UNKNOWN".
inline absl::string_view JobStateName(JobState state) {
  return EnumName(kJobStates, state, "UNKNOWN");
}
inline absl::string_view TaskKindName(TaskKind kind) {
  return EnumName(kTaskKinds, kind, "UNKNOWN");
}
inline absl::string_view TaskStateName(TaskState state) {
  return EnumName(kTaskStates, state, "UNKNOWN");
}
inline absl::string_view FailureClassName(FailureClass failure_class) {
  return EnumName(kFailureClasses, failure_class, "UNKNOWN");
}

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_JOB_STATES_H_
