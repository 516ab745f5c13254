#include "server/core/types.h"

namespace uniquanf::server {

absl::string_view JobStateName(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "QUEUED";
    case JobState::kRunning:
      return "RUNNING";
    case JobState::kPaused:
      return "PAUSED";
    case JobState::kCancelling:
      return "CANCELLING";
    case JobState::kSucceeded:
      return "SUCCEEDED";
    case JobState::kFailed:
      return "FAILED";
    case JobState::kCancelled:
      return "CANCELLED";
  }
  return "STATE_UNSPECIFIED";
}

absl::string_view TaskKindName(TaskKind kind) {
  switch (kind) {
    case TaskKind::kPrepare:
      return "PREPARE";
    case TaskKind::kLayer:
      return "LAYER";
    case TaskKind::kFinalize:
      return "FINALIZE";
  }
  return "KIND_UNSPECIFIED";
}

absl::string_view TaskStateName(TaskState state) {
  switch (state) {
    case TaskState::kBlocked:
      return "BLOCKED";
    case TaskState::kReady:
      return "READY";
    case TaskState::kLeased:
      return "LEASED";
    case TaskState::kSucceeded:
      return "SUCCEEDED";
    case TaskState::kFailed:
      return "FAILED";
    case TaskState::kCancelled:
      return "CANCELLED";
  }
  return "STATE_UNSPECIFIED";
}

absl::string_view FailureClassName(FailureClass failure_class) {
  switch (failure_class) {
    case FailureClass::kWorkerLost:
      return "WORKER_LOST";
    case FailureClass::kTransient:
      return "TRANSIENT";
    case FailureClass::kOutOfMemory:
      return "OUT_OF_MEMORY";
    case FailureClass::kInvalidInput:
      return "INVALID_INPUT";
    case FailureClass::kInternal:
      return "INTERNAL";
    case FailureClass::kEnvironment:
      return "ENVIRONMENT";
    case FailureClass::kInputLost:
      return "INPUT_LOST";
  }
  return "FAILURE_CLASS_UNSPECIFIED";
}

}  // namespace uniquanf::server
