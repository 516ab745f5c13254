#include "common/job/phase_clock.h"

#include <cmath>

#include "common/job/loss_history.h"
#include "gtest/gtest.h"

namespace uniquanf {
namespace {

TEST(PhaseClockTest, RemainingFollowsThePaceOfThePhase) {
  PhaseClock clock;
  EXPECT_FALSE(clock.Update("reconstructing", 0, 100, 1.5, absl::Seconds(10)).remaining);
  const TaskProgress at_20 = clock.Update("reconstructing", 20, 100, 1.2, absl::Seconds(14));
  EXPECT_EQ(at_20.remaining, absl::Seconds(16));
  EXPECT_EQ(at_20.phase, "reconstructing");
  EXPECT_EQ(at_20.step, 20);
  EXPECT_EQ(at_20.num_steps, 100);
  EXPECT_EQ(at_20.loss, 1.2);
  EXPECT_EQ(at_20.elapsed, absl::Seconds(4));
  // A new phase starts without an estimate.
  EXPECT_FALSE(clock.Update("storing", 3, 0, 0, absl::Seconds(15)).remaining);
}

TEST(PhaseClockTest, APhaseThatStartsInTheMiddleCountsItsOwnSteps) {
  PhaseClock clock;
  clock.Update("evaluating", 50, 100, 0, absl::Seconds(0));
  EXPECT_EQ(clock.Update("evaluating", 75, 100, 0, absl::Seconds(5)).remaining, absl::Seconds(5));
}

TEST(PhaseClockTest, VisitsOfOnePhaseAddUp) {
  PhaseClock clock;
  clock.Update("activations", 0, 2, 0, absl::Seconds(0));
  clock.Update("reconstructing", 0, 10, 0, absl::Seconds(3));
  clock.Update("activations", 1, 2, 0, absl::Seconds(10));
  const std::vector<PhaseTime> expected = {{"activations", absl::Seconds(7)},
                                           {"reconstructing", absl::Seconds(7)}};
  EXPECT_EQ(clock.End(absl::Seconds(14)), expected);
}

TEST(LossHistoryTest, CoversTheRunEvenlyFromItsFirstStep) {
  LossHistory history;
  for (int64_t step = 1; step <= 100000; ++step) history.Add(step, 1.0f / step);
  EXPECT_LE(history.size(), LossHistory::kMaxPoints);
  EXPECT_GE(history.size(), LossHistory::kMaxPoints / 3);
  EXPECT_EQ(history.steps().front(), 1);
  const int64_t even = 100000 / static_cast<int64_t>(history.size());
  for (size_t i = 1; i < history.size(); ++i) {
    EXPECT_LE(history.steps()[i] - history.steps()[i - 1], 3 * even) << i;
  }
}

TEST(LossHistoryTest, LeavesOutWhatIsNoPoint) {
  LossHistory history;
  history.Add(5, 1);
  history.Add(5, 2);
  history.Append(3, 2);
  history.Append(6, std::nanf(""));
  EXPECT_EQ(history.steps(), std::vector<int64_t>{5});
  history.Append(7, 3);
  EXPECT_EQ(history.last_step(), 7);
}

// A server that is told another's points in portions has as few of them.
TEST(LossHistoryTest, WhatIsToldInPortionsStaysBounded) {
  LossHistory worker, server;
  for (int64_t step = 1; step <= 5000; ++step) {
    worker.Add(step * 3, static_cast<float>(step));
    if (step % 7 != 0) continue;
    for (size_t i = 0; i < worker.size(); ++i) {
      server.Append(worker.steps()[i], worker.losses()[i]);
    }
    ASSERT_LE(server.size(), LossHistory::kMaxPoints);
  }
  EXPECT_EQ(server.steps().front(), 3);
  EXPECT_GE(server.last_step(), 3 * 4900);
}

}  // namespace
}  // namespace uniquanf
