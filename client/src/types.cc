#include "client/include/uniquanf/types.h"

namespace uniquanf {

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
    case JobState::kUnknown:
      break;
  }
  return "UNKNOWN";
}

bool IsFinal(JobState state) {
  return state == JobState::kSucceeded || state == JobState::kFailed ||
         state == JobState::kCancelled;
}

absl::string_view TaskKindName(TaskKind kind) {
  switch (kind) {
    case TaskKind::kPrepare:
      return "PREPARE";
    case TaskKind::kLayer:
      return "LAYER";
    case TaskKind::kFinalize:
      return "FINALIZE";
    case TaskKind::kUnknown:
      break;
  }
  return "UNKNOWN";
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
    case TaskState::kUnknown:
      break;
  }
  return "UNKNOWN";
}

absl::string_view WorkerStateName(WorkerState state) {
  switch (state) {
    case WorkerState::kReady:
      return "READY";
    case WorkerState::kDraining:
      return "DRAINING";
    case WorkerState::kLost:
      return "LOST";
    case WorkerState::kQuarantined:
      return "QUARANTINED";
    case WorkerState::kUnknown:
      break;
  }
  return "UNKNOWN";
}

}  // namespace uniquanf
