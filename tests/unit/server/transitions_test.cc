#include "server/core/transitions.h"

#include <gtest/gtest.h>

#include <map>

namespace uniquanf::server {
namespace {

using J = JobState;
using JE = JobEvent;
using T = TaskState;
using TE = TaskEvent;

// Written out by hand, independently of the code: every pair that is not here is refused.
const std::map<std::pair<J, JE>, J> kJobs = {
    {{J::kQueued, JE::kTaskLeased}, J::kRunning},
    {{J::kQueued, JE::kFail}, J::kFailed},
    {{J::kQueued, JE::kCancel}, J::kCancelling},
    {{J::kQueued, JE::kPause}, J::kPaused},
    {{J::kRunning, JE::kTaskLeased}, J::kRunning},
    {{J::kRunning, JE::kAllTasksSucceeded}, J::kSucceeded},
    {{J::kRunning, JE::kFail}, J::kFailed},
    {{J::kRunning, JE::kCancel}, J::kCancelling},
    {{J::kRunning, JE::kPause}, J::kPaused},
    {{J::kPaused, JE::kAllTasksSucceeded}, J::kSucceeded},
    {{J::kPaused, JE::kFail}, J::kFailed},
    {{J::kPaused, JE::kCancel}, J::kCancelling},
    {{J::kPaused, JE::kPause}, J::kPaused},
    {{J::kPaused, JE::kResumeQueued}, J::kQueued},
    {{J::kPaused, JE::kResumeRunning}, J::kRunning},
    {{J::kCancelling, JE::kAllTasksSucceeded}, J::kSucceeded},
    {{J::kCancelling, JE::kCancel}, J::kCancelling},
    {{J::kCancelling, JE::kLeasesEnded}, J::kCancelled},
    {{J::kSucceeded, JE::kCancel}, J::kSucceeded},
    {{J::kFailed, JE::kCancel}, J::kFailed},
    {{J::kFailed, JE::kRetry}, J::kQueued},
    {{J::kCancelled, JE::kCancel}, J::kCancelled},
    {{J::kCancelled, JE::kRetry}, J::kQueued},
};

const std::map<std::pair<T, TE>, T> kTasks = {
    {{T::kBlocked, TE::kDependenciesMet}, T::kReady},
    {{T::kBlocked, TE::kCancel}, T::kCancelled},
    {{T::kReady, TE::kLease}, T::kLeased},
    {{T::kReady, TE::kCancel}, T::kCancelled},
    {{T::kReady, TE::kInputsOpen}, T::kBlocked},
    {{T::kLeased, TE::kSucceed}, T::kSucceeded},
    {{T::kLeased, TE::kRetryLater}, T::kReady},
    {{T::kLeased, TE::kFail}, T::kFailed},
    {{T::kLeased, TE::kCancel}, T::kCancelled},
    {{T::kLeased, TE::kInputsOpen}, T::kBlocked},
    {{T::kSucceeded, TE::kReopen}, T::kBlocked},
    {{T::kFailed, TE::kReset}, T::kBlocked},
    {{T::kCancelled, TE::kReset}, T::kBlocked},
};

TEST(TransitionsTest, EveryPairOfJobStateAndEvent) {
  for (int s = 1; s <= kNumJobStates; ++s) {
    for (int e = 0; e < kNumJobEvents; ++e) {
      const auto state = static_cast<J>(s);
      const auto event = static_cast<JE>(e);
      const auto expected = kJobs.find({state, event});
      const std::optional<J> next = NextState(state, event);
      ASSERT_EQ(next.has_value(), expected != kJobs.end()) << JobStateName(state) << " event " << e;
      if (next.has_value()) {
        EXPECT_EQ(*next, expected->second) << JobStateName(state) << " " << e;
      }
    }
  }
}

TEST(TransitionsTest, EveryPairOfTaskStateAndEvent) {
  for (int s = 1; s <= kNumTaskStates; ++s) {
    for (int e = 0; e < kNumTaskEvents; ++e) {
      const auto state = static_cast<T>(s);
      const auto event = static_cast<TE>(e);
      const auto expected = kTasks.find({state, event});
      const std::optional<T> next = NextState(state, event);
      ASSERT_EQ(next.has_value(), expected != kTasks.end())
          << TaskStateName(state) << " event " << e;
      if (next.has_value()) {
        EXPECT_EQ(*next, expected->second) << TaskStateName(state) << " " << e;
      }
    }
  }
}

TEST(TransitionsTest, OnlyTheLossOfItsResultLeadsOutOfSuccess) {
  for (int e = 0; e < kNumJobEvents; ++e) {
    EXPECT_EQ(NextState(J::kSucceeded, static_cast<JE>(e)).value_or(J::kSucceeded), J::kSucceeded);
  }
  for (int e = 0; e < kNumTaskEvents; ++e) {
    const auto event = static_cast<TE>(e);
    EXPECT_EQ(NextState(T::kSucceeded, event).has_value(), event == TE::kReopen);
  }
}

}  // namespace
}  // namespace uniquanf::server
