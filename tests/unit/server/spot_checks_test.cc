// Layers that another worker runs again (SECURITY R19): who gets them, what a difference does, and
// that nobody waits for them longer than he said.
#include "tests/unit/server/core_fixture.h"

namespace uniquanf::server {
namespace {

class SpotChecksTest : public CoreTest {
 protected:
  SpotChecksTest() {
    Policy policy = policy_;
    policy.spot_check_one_in = 1;
    Start(policy);
  }
  // `w` has prepared job "a", of two layers, and made the first; the second is its next.
  void RunFirstLayer(Worker* w) {
    Create("a");
    Synchronize(w);
    FinishAndSynchronize(w);
    ASSERT_EQ(FinishAndSynchronize(w).at(0).task, "layer-0001");
    ASSERT_EQ(state_.checks.size(), 1u);
  }
  std::vector<CheckVerdict> Verdicts() const {
    std::vector<CheckVerdict> verdicts;
    for (const CheckResult& check : edits_.checks) verdicts.push_back(check.verdict);
    return verdicts;
  }
};

TEST_F(SpotChecksTest, AnotherWorkerOfTheKindRunsTheLayerAgain) {
  Worker w = NewWorker("w"), idle = NewWorker("idle");
  RunFirstLayer(&w);
  const std::vector<Assignment> given = Synchronize(&idle);
  ASSERT_EQ(given.size(), 1u);
  EXPECT_EQ(given[0].task, "layer-0000");
  EXPECT_EQ(given[0].plan_sha256, Sha256Hex("prepare"));
  EXPECT_EQ(given[0].lease_token, LeaseToken(state_, given[0].lease_id));
  EXPECT_EQ(task("a", "layer-0000").worker, "w") << "the task itself is as it was";
  EXPECT_TRUE(Synchronize(&idle).empty());
  EXPECT_EQ(actions_[given[0].lease_id], LeaseAction::kContinue);
  FinishAndSynchronize(&idle);
  EXPECT_EQ(actions_[given[0].lease_id], LeaseAction::kAcknowledged);
  EXPECT_EQ(Verdicts(), std::vector<CheckVerdict>{CheckVerdict::kSame});
  EXPECT_TRUE(state_.checks.empty());
  FinishAndSynchronize(&w);
  FinishAndSynchronize(&w);
  EXPECT_EQ(job("a").state, JobState::kSucceeded);
}

TEST_F(SpotChecksTest, ADifferenceNamesBothAndChangesNothing) {
  Worker w = NewWorker("w"), idle = NewWorker("idle");
  RunFirstLayer(&w);
  Synchronize(&idle);
  Succeed(&idle.reports[0]);
  idle.reports[0].outcome.result_sha256 = Sha256Hex("something else");
  Synchronize(&idle);
  ASSERT_EQ(Verdicts(), std::vector<CheckVerdict>{CheckVerdict::kDifferent});
  const CheckResult& check = edits_.checks[0];
  EXPECT_EQ(check.worker, "w");
  EXPECT_EQ(check.checker, "idle");
  EXPECT_EQ(check.result_sha256, Sha256Hex("layer-0000"));
  EXPECT_EQ(check.checked_sha256, Sha256Hex("something else"));
  EXPECT_EQ(task("a", "layer-0000").result_sha256, Sha256Hex("layer-0000"));
}

TEST_F(SpotChecksTest, NeitherItsMakerNorAnotherKindNorAForeignTokenChecks) {
  Worker w = NewWorker("w"), twin = NewWorker("w"), other = NewWorker("other");
  RunFirstLayer(&w);
  EXPECT_TRUE(Synchronize(&twin).empty()) << "of the same name";
  other.capabilities.device_description = "another CPU";
  EXPECT_TRUE(Synchronize(&other).empty());
  Worker barred = NewWorker("barred");
  barred.capabilities.tenants = {false, {"u"}};
  EXPECT_TRUE(Synchronize(&barred).empty());
  Worker idle = NewWorker("idle");
  ASSERT_EQ(Synchronize(&idle).size(), 1u);
  LeaseReport forged = idle.reports[0];
  forged.token_sha256 = Sha256Hex("a guess");
  Succeed(&forged);
  forged.outcome.result_sha256 = Sha256Hex("a lie");
  idle.reports[0] = forged;
  Synchronize(&idle);
  EXPECT_EQ(actions_[forged.lease_id], LeaseAction::kLost);
  EXPECT_TRUE(Verdicts().empty());
}

TEST_F(SpotChecksTest, AWorkerThatWaitsIsWokenForACheck) {
  Worker w = NewWorker("w"), idle = NewWorker("idle");
  Create("a");
  Synchronize(&w);
  FinishAndSynchronize(&w);
  EXPECT_TRUE(Call(&idle, /*may_wait=*/true).parked);
  edits_ = {};
  FinishAndSynchronize(&w);
  EXPECT_EQ(edits_.wake.count(idle.session), 1u);
  EXPECT_EQ(Hear(&idle).at(0).task, "layer-0000");
}

TEST_F(SpotChecksTest, ACheckGivesWayToATask) {
  Worker w = NewWorker("w"), idle = NewWorker("idle");
  RunFirstLayer(&w);
  const std::string check = Synchronize(&idle).at(0).lease_id;
  Create("urgent");
  EXPECT_TRUE(Synchronize(&idle).empty());
  EXPECT_EQ(actions_[check], LeaseAction::kStop);
  idle.reports[0].kind = LeaseReport::Kind::kReleased;
  const std::vector<Assignment> next = Synchronize(&idle);
  EXPECT_EQ(actions_[check], LeaseAction::kAcknowledged);
  ASSERT_EQ(next.size(), 1u);
  EXPECT_EQ(next[0].job, "urgent");
  EXPECT_EQ(state_.checks.size(), 1u) << "it waits for another";
}

TEST_F(SpotChecksTest, ACheckOfASilentWorkerGoesToAnother) {
  Worker w = NewWorker("w"), idle = NewWorker("idle"), third = NewWorker("third");
  RunFirstLayer(&w);
  const std::string first = Synchronize(&idle).at(0).lease_id;
  for (int i = 0; i < 11; ++i) {
    Pass(absl::Seconds(1));
    Synchronize(&w);
  }
  const std::vector<Assignment> again = Synchronize(&third);
  ASSERT_EQ(again.size(), 1u);
  EXPECT_NE(again[0].lease_id, first);
  FinishAndSynchronize(&idle);
  EXPECT_EQ(actions_[first], LeaseAction::kLost);
}

TEST_F(SpotChecksTest, TheJobsEndEndsItsChecksUnlessItIsToWait) {
  Worker w = NewWorker("w"), idle = NewWorker("idle");
  RunFirstLayer(&w);
  const std::string check = Synchronize(&idle).at(0).lease_id;
  ASSERT_EQ(FinishAndSynchronize(&w).at(0).task, "finalize") << "at once";
  FinishAndSynchronize(&w);
  EXPECT_EQ(job("a").state, JobState::kSucceeded);
  Pass(absl::Seconds(1));
  EXPECT_TRUE(state_.checks.empty());
  Synchronize(&idle);
  EXPECT_EQ(actions_[check], LeaseAction::kLost) << "it stops";
}

TEST_F(SpotChecksTest, FinalizeWaitsForChecksAsLongAsSaidAndNoLonger) {
  Policy policy = policy_;
  policy.spot_check_wait = absl::Seconds(5);
  Start(policy);
  Worker w = NewWorker("w"), idle = NewWorker("idle");
  RunFirstLayer(&w);
  Synchronize(&idle);
  EXPECT_TRUE(FinishAndSynchronize(&w).empty());
  FinishAndSynchronize(&idle);  // and is given the second layer's check
  ASSERT_EQ(idle.reports.size(), 1u);
  EXPECT_TRUE(Synchronize(&w).empty());
  EXPECT_EQ(FinishAndSynchronize(&idle).at(0).task, "finalize") << "as soon as they ended";
  FinishAndSynchronize(&idle);
  ASSERT_EQ(job("a").state, JobState::kSucceeded);

  Create("b");
  Synchronize(&w);
  FinishAndSynchronize(&w);
  FinishAndSynchronize(&w);
  EXPECT_TRUE(FinishAndSynchronize(&w).empty());
  Pass(absl::Seconds(4));
  EXPECT_TRUE(Synchronize(&w).empty());
  Pass(absl::Seconds(1));
  EXPECT_EQ(Synchronize(&w).at(0).task, "finalize") << "nobody has checked";
}

TEST_F(SpotChecksTest, AFailedCheckIsNobodysFailure) {
  Worker w = NewWorker("w"), idle = NewWorker("idle");
  RunFirstLayer(&w);
  Synchronize(&idle);
  Fail(&idle.reports[0], FailureClass::kInternal);
  Synchronize(&idle);
  EXPECT_EQ(Verdicts(), std::vector<CheckVerdict>{CheckVerdict::kAbandoned});
  EXPECT_TRUE(task("a", "layer-0000").failures.empty());
  EXPECT_TRUE(state_.sessions.at(idle.session).suspect_jobs.empty());
}

TEST_F(SpotChecksTest, OneInSoManyIsChosenAndWithoutItNone) {
  Policy policy = policy_;
  policy.spot_check_one_in = 4;
  Start(policy);
  Worker w = NewWorker("w");
  constexpr int kLayers = 200;
  Create("a");
  Synchronize(&w);
  FinishAndSynchronize(&w, kLayers);
  for (int i = 0; i < kLayers; ++i) FinishAndSynchronize(&w, kLayers);
  EXPECT_GT(state_.num_checks_made, kLayers / 8u);
  EXPECT_LT(state_.num_checks_made, kLayers / 2u);
  policy.spot_check_one_in = 0;
  Start(policy);
  Worker v = NewWorker("v");
  Create("b");
  Synchronize(&v);
  FinishAndSynchronize(&v);
  FinishAndSynchronize(&v);
  EXPECT_TRUE(state_.checks.empty());
}

}  // namespace
}  // namespace uniquanf::server
