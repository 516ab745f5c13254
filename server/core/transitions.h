// The transition tables of jobs and tasks, as code: the only place that says which state follows
// which event. A test walks every (state, event) pair. Thread safety: free functions, no state.
#ifndef UNIQUANF_SERVER_CORE_TRANSITIONS_H_
#define UNIQUANF_SERVER_CORE_TRANSITIONS_H_

#include <optional>

#include "server/core/types.h"

namespace uniquanf::server {

enum class JobEvent {
  kTaskLeased,         // a worker got one of its tasks
  kAllTasksSucceeded,  // the last task's success was accepted
  kFail,               // a task failed for good, or the deadline passed
  kCancel,             // the user's wish
  kLeasesEnded,        // kCancelling, and no worker holds a task any more
  kPause,
  kResumeQueued,   // resumed before any task had started
  kResumeRunning,  // resumed after that
  kRetry,
};
inline constexpr int kNumJobEvents = 9;

enum class TaskEvent {
  kDependenciesMet,
  kLease,
  kSucceed,
  kRetryLater,  // failed, lost or given back, and to be run again
  kFail,        // failed for good
  kCancel,      // its job is cancelled or has failed
  kReset,       // its job is retried
  kReopen,      // its result was lost, or rests on one that was lost and came out differently
  kInputsOpen,  // what it depends on runs again
};
inline constexpr int kNumTaskEvents = 9;

// The state after `event` in `state`, or nullopt where the event is refused (and changes nothing).
// A result equal to `state` means: accepted, nothing to change.
std::optional<JobState> NextState(JobState state, JobEvent event);
std::optional<TaskState> NextState(TaskState state, TaskEvent event);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_CORE_TRANSITIONS_H_
