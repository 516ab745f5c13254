// Deadlines and deletions under a wall clock that jumps.
#include "tests/unit/server/core_fixture.h"

namespace uniquanf::server {
namespace {

class WallClockTest : public CoreTest {
 protected:
  // A running job with a deadline in two hours, and a finished one that is deleted in three days.
  void MakeJobs() {
    CreateJobEvent running;
    running.job.id = running.job.uid = "running";
    running.job.deadline = now().wall + absl::Hours(2);
    Do(running);
    CreateJobEvent finished;
    finished.job.id = finished.job.uid = "finished";
    finished.job.time_to_live = absl::Hours(72);
    Do(finished);
    Do(CancelJobEvent{"finished"});
    Pass(absl::Seconds(5));
  }
  void ExpectBothThere() {
    ASSERT_NE(state_.FindJob("finished"), nullptr);
    ASSERT_NE(state_.FindJob("running"), nullptr);
    EXPECT_EQ(job("running").state, JobState::kQueued);
  }
  void ExpectBothEnded() {
    EXPECT_EQ(state_.FindJob("finished"), nullptr);
    EXPECT_EQ(job("running").state, JobState::kFailed);
  }
};

TEST_F(WallClockTest, AJumpThatPassesEndsNothing) {
  MakeJobs();
  wall_jump_ = absl::Hours(5 * 24);
  Pass(absl::Seconds(4));
  EXPECT_EQ(state_.clock.lead, absl::Hours(5 * 24));
  EXPECT_GT(NextTick(state_, now()), now().mono) << "the timers must not spin meanwhile";
  wall_jump_ = absl::ZeroDuration();
  Pass(absl::Hours(1));
  ExpectBothThere();
  EXPECT_EQ(state_.clock.lead, absl::ZeroDuration());
}

TEST_F(WallClockTest, ATimeThatLastsIsBelieved) {
  MakeJobs();
  wall_jump_ = absl::Hours(5 * 24);
  Pass(policy_.clock_settle_time - absl::Seconds(2));
  ExpectBothThere();
  Pass(absl::Seconds(4));
  ExpectBothEnded();
}

TEST_F(WallClockTest, AJumpFromOneWrongTimeToAnotherBeginsAnew) {
  MakeJobs();
  for (int day = 4; day < 20; ++day) {
    wall_jump_ = absl::Hours(24 * day);
    Pass(policy_.clock_settle_time / 2);
  }
  ExpectBothThere();
}

TEST_F(WallClockTest, AnOperatorConfirmsIt) {
  MakeJobs();
  wall_jump_ = absl::Hours(5 * 24);
  Pass(absl::Seconds(4));
  Do(ConfirmWallClockEvent{});
  Pass(absl::Seconds(2));
  ExpectBothEnded();
}

TEST_F(WallClockTest, ManySmallStepsDoNotLeadItAstray) {
  MakeJobs();
  for (int i = 0; i < 100; ++i) {
    wall_jump_ += absl::Hours(1);
    Pass(absl::Seconds(1));
  }
  for (int i = 0; i < 5 * 60; ++i) {
    wall_jump_ += absl::Seconds(50);
    Pass(absl::Seconds(1));
  }
  ExpectBothThere();
}

TEST_F(WallClockTest, StepsThatAreSmallOneByOneAreSeenTogether) {
  Pass(policy_.clock_settle_time + absl::Seconds(2));
  wall_jump_ = absl::Seconds(55);
  Pass(policy_.clock_settle_time + absl::Seconds(2));
  EXPECT_EQ(state_.clock.lead, absl::ZeroDuration());
  wall_jump_ = absl::Seconds(110);
  Pass(absl::Seconds(2));
  EXPECT_GT(state_.clock.lead, absl::Minutes(1));
}

// Two minutes ahead of what it said a second ago, though less than one ahead of what it said first.
TEST_F(WallClockTest, ASmallStepBackIsFollowedSoThatTheStepAheadAfterItIsSeenWhole) {
  Pass(absl::Seconds(2));
  wall_jump_ = -absl::Seconds(55);
  Pass(absl::Seconds(2));
  EXPECT_EQ(state_.clock.lead, absl::ZeroDuration());
  wall_jump_ = absl::Seconds(55);
  Pass(absl::Seconds(2));
  EXPECT_EQ(state_.clock.lead, absl::Seconds(110));
}

// What has lasted is the least of what it said meanwhile.
TEST_F(WallClockTest, AClockThatIsAheadByMoreAtLastIsBelievedForWhatLasted) {
  MakeJobs();
  wall_jump_ = absl::Hours(72) - absl::Seconds(60);
  Pass(policy_.clock_settle_time / 2);
  wall_jump_ = absl::Hours(72) - absl::Seconds(115);
  Pass(absl::Seconds(2));
  wall_jump_ = absl::Hours(72) - absl::Seconds(5);
  Pass(policy_.clock_settle_time / 2);
  EXPECT_GT(state_.clock.lead, absl::ZeroDuration());
}

TEST_F(WallClockTest, AClockThatGoesBackIsBelievedAndItsReturnWaits) {
  MakeJobs();
  wall_jump_ = -absl::Hours(5 * 24);
  Pass(absl::Seconds(4));
  EXPECT_EQ(state_.clock.lead, absl::ZeroDuration());
  wall_jump_ = absl::ZeroDuration();
  Pass(absl::Hours(1));
  ExpectBothThere();
}

TEST_F(WallClockTest, AServerThatStartsUnderAWrongClockEndsNothing) {
  MakeJobs();
  wall_jump_ = absl::Hours(5 * 24);
  Restart();
  Pass(absl::Seconds(4));
  ExpectBothThere();
  wall_jump_ = absl::ZeroDuration();
  Pass(absl::Minutes(30));
  ExpectBothThere();
}

TEST_F(WallClockTest, DeadlinesThatPassedWhileTheServerRestedTakeEffectLater) {
  MakeJobs();
  mono_ += absl::Hours(5 * 24);
  Restart();
  Pass(absl::Seconds(4));
  ExpectBothThere();
  Pass(policy_.clock_settle_time);
  ExpectBothEnded();
}

}  // namespace
}  // namespace uniquanf::server
