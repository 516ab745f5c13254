// Worker processes and their sessions: sequence numbers that do not wedge one, names that are
// shared.
#include <limits>

#include "tests/unit/server/core_fixture.h"

namespace uniquanf::server {
namespace {

class SessionTest : public CoreTest {};

TEST_F(SessionTest, ASequenceFarAheadIsRefusedAndChangesNothing) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Worker forged = w;
  for (const int64_t sequence :
       {std::numeric_limits<int64_t>::max(), int64_t{1} << 40, (int64_t{1} << 20) + 10}) {
    forged.sequence = sequence - 1;
    EXPECT_EQ(ErrorReason(Call(&forged).status), "STALE_REQUEST") << sequence;
  }
  EXPECT_EQ(state_.sessions[w.session].sequence, 1);
  Succeed(&w.reports[0]);
  EXPECT_EQ(Synchronize(&w).size(), 1u) << "the honest worker goes on";
}

TEST_F(SessionTest, ARepeatedSequenceIsHarmless) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  for (int i = 0; i < 3; ++i) {
    Worker repeated = w;
    repeated.sequence = w.sequence - 1;
    EXPECT_TRUE(Call(&repeated).status.ok());
  }
  Succeed(&w.reports[0]);
  EXPECT_EQ(Synchronize(&w).size(), 1u);
}

TEST_F(SessionTest, ARestartedServerTakesALongRunningWorkersSequence) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Restart();
  w.sequence = int64_t{1} << 30;
  EXPECT_TRUE(Call(&w).status.ok());
}

TEST_F(SessionTest, ProcessesThatShareANameAreToldApart) {
  Create("a");
  Create("b");
  Worker one = NewWorker("vm"), two = NewWorker("vm");
  one.session = "session-aaaaaaaaaa";
  two.session = "session-bbbbbbbbbb";
  Synchronize(&one);
  Pass(absl::Seconds(1));
  Synchronize(&two);
  EXPECT_FALSE(BuildReply(state_, two.session).name_shared) << "it may have replaced the other";
  EXPECT_EQ(LiveSessions(state_, "vm", mono_).size(), 1u);
  Pass(absl::Seconds(1));
  Synchronize(&one);
  EXPECT_TRUE(BuildReply(state_, one.session).name_shared);
  Synchronize(&two);
  EXPECT_TRUE(BuildReply(state_, two.session).name_shared);
  EXPECT_EQ(edits_.shared_names, (std::vector<std::string>{"vm", "vm"}));
  ASSERT_EQ(LiveSessions(state_, "vm", mono_).size(), 2u);

  const absl::Status ambiguous = Do(DrainWorkerEvent{"vm"}).status;
  EXPECT_EQ(ErrorReason(ambiguous), "WORKER_AMBIGUOUS");
  EXPECT_NE(ambiguous.message().find("vm@aaaaaaaa"), std::string::npos) << ambiguous;
  EXPECT_FALSE(BuildReply(state_, one.session).drain);
  ASSERT_TRUE(Do(DrainWorkerEvent{"vm", true, "aaaaaaaa"}).status.ok());
  EXPECT_TRUE(BuildReply(state_, one.session).drain);
  EXPECT_FALSE(BuildReply(state_, two.session).drain);
  EXPECT_EQ(ErrorReason(Do(DrainWorkerEvent{"vm", true, "cc"}).status), "WORKER_NOT_FOUND");
}

TEST_F(SessionTest, AHiccupOfOneLosesItNothingToAnotherOfItsName) {
  Create("a");
  Create("b");
  Worker one = NewWorker("vm"), two = NewWorker("vm");
  Synchronize(&one);
  Pass(absl::Seconds(1));
  Synchronize(&two);
  Pass(absl::Seconds(1));
  Synchronize(&one);
  for (int i = 0; i < 6; ++i) {
    Pass(absl::Seconds(1));
    Synchronize(&two);
  }
  EXPECT_EQ(task("a", "prepare").state, TaskState::kLeased);
  EXPECT_TRUE(task("a", "prepare").failures.empty());
}

// As a Deployment does it: the process ends as it was told, and its successor has its name.
TEST_F(SessionTest, ADrainOfANameHoldsForProcessesThatComeLater) {
  Create("a");
  Worker first = NewWorker("w");
  ASSERT_EQ(Synchronize(&first).size(), 1u);
  ASSERT_TRUE(Do(DrainWorkerEvent{"w"}).status.ok());
  EXPECT_TRUE(BuildReply(state_, first.session).drain);
  first.draining = true;
  EXPECT_TRUE(FinishAndSynchronize(&first).empty());
  Pass(absl::Seconds(1));
  Worker second = NewWorker("w"), other = NewWorker("v");
  EXPECT_TRUE(Synchronize(&second).empty());
  EXPECT_FALSE(BuildReply(state_, second.session).drain) << "it would be started again and again";
  // Neither a new server nor a later process changes that.
  Restart();
  EXPECT_TRUE(Synchronize(&second).empty());
  EXPECT_FALSE(BuildReply(state_, second.session).drain);
  Worker third = NewWorker("w");
  EXPECT_TRUE(Synchronize(&third).empty());
  EXPECT_TRUE(CheckInvariants(state_).ok()) << CheckInvariants(state_);
  EXPECT_EQ(Synchronize(&other).size(), 1u) << "it holds for that name alone";
  FinishAndSynchronize(&other);
  Create("b");
  ASSERT_TRUE(Do(DrainWorkerEvent{"w", false}).status.ok());
  EXPECT_EQ(Synchronize(&third).size(), 1u);
  Restart();
  Worker fourth = NewWorker("w");
  Create("c");
  EXPECT_EQ(Synchronize(&fourth).size(), 1u);
}

TEST_F(SessionTest, AProcessThatIsToEndIsToldSoByTheNextServerAsWell) {
  Worker w = NewWorker("w");
  Synchronize(&w);
  ASSERT_TRUE(Do(DrainWorkerEvent{"w"}).status.ok());
  Restart();
  Synchronize(&w);
  EXPECT_TRUE(BuildReply(state_, w.session).drain);
}

TEST_F(SessionTest, ADrainOfOneProcessHoldsForItAlone) {
  Create("a");
  Worker one = NewWorker("vm"), two = NewWorker("vm");
  one.session = "session-aaaaaaaaaa";
  two.session = "session-bbbbbbbbbb";
  one.draining = true;  // takes nothing
  Synchronize(&one);
  ASSERT_TRUE(Do(DrainWorkerEvent{"vm", true, "aaaaaaaa"}).status.ok());
  EXPECT_EQ(Synchronize(&two).size(), 1u);
}

TEST_F(SessionTest, AWordOnOneProcessLeavesTheDrainOfItsName) {
  Create("a");
  Worker w = NewWorker("w");
  w.session = "session-aaaaaaaaaa";
  w.draining = true;
  Synchronize(&w);
  ASSERT_TRUE(Do(DrainWorkerEvent{"w"}).status.ok());
  for (const bool drain : {true, false}) {
    ASSERT_TRUE(Do(DrainWorkerEvent{"w", drain, "aaaaaaaa"}).status.ok());
    Worker next = NewWorker("w");
    EXPECT_TRUE(Synchronize(&next).empty()) << drain;
  }
}

TEST_F(SessionTest, ADrainedNameIsKnownAWeekLongerThanItsProcesses) {
  Worker w = NewWorker("w");
  Synchronize(&w);
  ASSERT_TRUE(Do(DrainWorkerEvent{"w"}).status.ok());
  Pass(absl::Hours(24));
  EXPECT_FALSE(state_.sessions_of_worker.contains("w"));
  EXPECT_TRUE(state_.drains.contains("w"));
  EXPECT_TRUE(Do(DrainWorkerEvent{"w", false}).status.ok()) << "it can be taken back";
  EXPECT_FALSE(state_.drains.contains("w"));
  Synchronize(&w);
  ASSERT_TRUE(Do(DrainWorkerEvent{"w"}).status.ok());
  Pass(absl::Hours(24));
  Pass(absl::Hours(7 * 24));
  EXPECT_FALSE(state_.drains.contains("w"));
}

TEST_F(SessionTest, ARestartedWorkerIsOneProcess) {
  Worker before = NewWorker("w"), after = NewWorker("w");
  Synchronize(&before);
  Pass(absl::Seconds(1));
  Synchronize(&after);
  Synchronize(&after);
  EXPECT_FALSE(BuildReply(state_, after.session).name_shared);
  EXPECT_TRUE(Do(DrainWorkerEvent{"w"}).status.ok());
  EXPECT_TRUE(BuildReply(state_, after.session).drain);
}

}  // namespace
}  // namespace uniquanf::server
