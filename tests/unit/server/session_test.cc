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
