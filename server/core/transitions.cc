#include "server/core/transitions.h"

namespace uniquanf::server {
namespace {

template <typename State, typename Event>
struct Row {
  State from;
  Event event;
  State to;
};

using J = JobState;
using JE = JobEvent;
constexpr Row<JobState, JobEvent> kJobRows[] = {
    {J::kQueued, JE::kTaskLeased, J::kRunning},
    {J::kQueued, JE::kFail, J::kFailed},
    {J::kQueued, JE::kCancel, J::kCancelling},
    {J::kQueued, JE::kPause, J::kPaused},

    {J::kRunning, JE::kTaskLeased, J::kRunning},
    {J::kRunning, JE::kAllTasksSucceeded, J::kSucceeded},
    {J::kRunning, JE::kFail, J::kFailed},
    {J::kRunning, JE::kCancel, J::kCancelling},
    {J::kRunning, JE::kPause, J::kPaused},

    // Running tasks of a paused job finish, the last one too.
    {J::kPaused, JE::kAllTasksSucceeded, J::kSucceeded},
    {J::kPaused, JE::kFail, J::kFailed},
    {J::kPaused, JE::kCancel, J::kCancelling},
    {J::kPaused, JE::kPause, J::kPaused},
    {J::kPaused, JE::kResumeQueued, J::kQueued},
    {J::kPaused, JE::kResumeRunning, J::kRunning},

    // The artifact was published before the worker heard of the wish: say so rather than deny it.
    {J::kCancelling, JE::kAllTasksSucceeded, J::kSucceeded},
    {J::kCancelling, JE::kCancel, J::kCancelling},
    {J::kCancelling, JE::kLeasesEnded, J::kCancelled},

    // Cancelling is idempotent, and a final job stays as it is.
    {J::kSucceeded, JE::kCancel, J::kSucceeded},
    {J::kFailed, JE::kCancel, J::kFailed},
    {J::kFailed, JE::kRetry, J::kQueued},
    {J::kCancelled, JE::kCancel, J::kCancelled},
    {J::kCancelled, JE::kRetry, J::kQueued},
};

using T = TaskState;
using TE = TaskEvent;
constexpr Row<TaskState, TaskEvent> kTaskRows[] = {
    {T::kBlocked, TE::kDependenciesMet, T::kReady},
    {T::kBlocked, TE::kCancel, T::kCancelled},

    {T::kReady, TE::kLease, T::kLeased},
    {T::kReady, TE::kCancel, T::kCancelled},
    {T::kReady, TE::kInputsOpen, T::kBlocked},

    {T::kLeased, TE::kSucceed, T::kSucceeded},
    {T::kLeased, TE::kRetryLater, T::kReady},
    {T::kLeased, TE::kFail, T::kFailed},
    {T::kLeased, TE::kCancel, T::kCancelled},
    {T::kLeased, TE::kInputsOpen, T::kBlocked},

    {T::kSucceeded, TE::kReopen, T::kBlocked},

    {T::kFailed, TE::kReset, T::kBlocked},
    {T::kCancelled, TE::kReset, T::kBlocked},
};

template <typename State, typename Event, size_t kSize>
std::optional<State> Find(const Row<State, Event> (&rows)[kSize], State state, Event event) {
  for (const auto& row : rows) {
    if (row.from == state && row.event == event) return row.to;
  }
  return std::nullopt;
}

}  // namespace

std::optional<JobState> NextState(JobState state, JobEvent event) {
  return Find(kJobRows, state, event);
}
std::optional<TaskState> NextState(TaskState state, TaskEvent event) {
  return Find(kTaskRows, state, event);
}

}  // namespace uniquanf::server
