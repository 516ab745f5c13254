// Working objects that disappear: who runs again, how often, and what follows from it.
#include "tests/unit/server/core_fixture.h"

namespace uniquanf::server {
namespace {

class LostResultsTest : public CoreTest {
 protected:
  // `worker` holds one task and reports the loss of these tasks' results.
  void Miss(Worker* worker, const std::vector<std::string>& tasks) {
    LeaseReport& report = worker->reports.at(0);
    report.kind = LeaseReport::Kind::kFailed;
    report.failure = {FailureClass::kInputLost, "OBJECT_NOT_FOUND", "gone", 0, "", {}};
    for (const std::string& id : tasks) report.missing_sha256.push_back(Sha256Hex(id));
    Synchronize(worker);
  }
  // Until the worker holds `id`.
  void RunUpTo(Worker* worker, const std::string& id, int num_layers = 3) {
    if (worker->reports.empty()) Synchronize(worker);
    while (worker->reports.at(0).task != id) FinishAndSynchronize(worker, num_layers);
  }
};

TEST_F(LostResultsTest, TheTaskThatMadeALostResultRunsAgainAndTheJobSucceeds) {
  Create("a");
  Worker w = NewWorker("w");
  RunUpTo(&w, "finalize");
  Miss(&w, {"layer-0000"});
  EXPECT_EQ(job("a").state, JobState::kRunning);
  ASSERT_EQ(w.reports.size(), 1u);
  EXPECT_EQ(w.reports[0].task, "layer-0000");
  EXPECT_EQ(task("a", "layer-0001").state, TaskState::kSucceeded) << "its result is still right";
  EXPECT_EQ(task("a", "finalize").state, TaskState::kBlocked);
  FinishAndSynchronize(&w, 3);
  ASSERT_EQ(w.reports.at(0).task, "finalize");
  FinishAndSynchronize(&w, 3);
  EXPECT_EQ(job("a").state, JobState::kSucceeded);
  EXPECT_EQ(edits_.num_results_lost, 1);
}

TEST_F(LostResultsTest, EverythingThatIsGoneIsMadeAgainInOrder) {
  Create("a");
  Worker w = NewWorker("w");
  RunUpTo(&w, "finalize");
  Miss(&w, {"prepare", "layer-0000", "layer-0001", "layer-0002"});
  std::vector<std::string> order;
  while (!w.reports.empty()) {
    order.push_back(w.reports[0].task);
    FinishAndSynchronize(&w, 3);
  }
  EXPECT_EQ(order, (std::vector<std::string>{"prepare", "layer-0000", "layer-0001", "layer-0002",
                                             "finalize"}));
  EXPECT_EQ(job("a").state, JobState::kSucceeded);
}

// A layer in the middle of a chain reads results that it depends on only through others.
TEST_F(LostResultsTest, WhoMissesAResultWaitsForItHoweverFarAwayItWasMade) {
  Create("a");
  Worker w = NewWorker("w"), other = NewWorker("other");
  RunUpTo(&w, "layer-0002");
  Miss(&w, {"layer-0000"});
  ASSERT_EQ(w.reports.at(0).task, "layer-0000");
  EXPECT_TRUE(Synchronize(&other).empty());
  Restart();
  FinishAndSynchronize(&w, 3);
  EXPECT_EQ(w.reports.at(0).task, "layer-0002");
}

TEST_F(LostResultsTest, WhatRestsOnAResultThatComesOutDifferentlyRunsAgain) {
  Create("a");
  Worker w = NewWorker("w");
  RunUpTo(&w, "finalize");
  Miss(&w, {"layer-0001"});
  ASSERT_EQ(w.reports.at(0).task, "layer-0001");
  Succeed(&w.reports[0]);
  w.reports[0].outcome.result_sha256 = Sha256Hex("another");
  Synchronize(&w);
  EXPECT_EQ(task("a", "layer-0000").state, TaskState::kSucceeded);
  ASSERT_EQ(w.reports.at(0).task, "layer-0002");
  FinishAndSynchronize(&w, 3);
  ASSERT_EQ(w.reports.at(0).task, "finalize");
}

TEST_F(LostResultsTest, LossesAreBounded) {
  Create("a");
  Worker w = NewWorker("w");
  for (int i = 0; i < policy_.max_reopened; ++i) {
    RunUpTo(&w, "finalize");
    Miss(&w, {"layer-0000"});
    ASSERT_EQ(job("a").state, JobState::kRunning) << i;
  }
  RunUpTo(&w, "finalize");
  Miss(&w, {"layer-0000"});
  EXPECT_EQ(job("a").state, JobState::kFailed);
  EXPECT_EQ(job("a").error->reason, "OBJECT_NOT_FOUND");
  EXPECT_NE(job("a").error->message.find("layer-0000 was lost 4 times"), std::string::npos);
}

TEST_F(LostResultsTest, ALossThatNobodyKnowsOfIsAFailureLikeOthers) {
  Create("a");
  Worker w = NewWorker("w");
  for (int i = 0; i < policy_.max_transient; ++i) {
    RunUpTo(&w, "layer-0000");
    Miss(&w, {"what was never made"});
    Pass(policy_.backoff_max);
    Synchronize(&w);
  }
  EXPECT_EQ(job("a").state, JobState::kFailed);
}

TEST_F(LostResultsTest, ARetryMakesMissingResultsAgain) {
  Create("a");
  Worker w = NewWorker("w");
  RunUpTo(&w, "finalize");
  Fail(&w.reports[0], FailureClass::kInvalidInput);
  Synchronize(&w);
  ASSERT_EQ(job("a").state, JobState::kFailed);
  ASSERT_TRUE(Do(RetryJobEvent{"a", {Sha256Hex("layer-0001")}}).status.ok());
  EXPECT_EQ(task("a", "layer-0000").state, TaskState::kSucceeded);
  RunUpTo(&w, "layer-0001");
  FinishAndSynchronize(&w, 3);
  EXPECT_EQ(w.reports.at(0).task, "finalize");
}

TEST_F(LostResultsTest, ACancelledJobReopensNothing) {
  Create("a");
  Worker w = NewWorker("w");
  RunUpTo(&w, "finalize");
  Do(CancelJobEvent{"a"});
  Miss(&w, {"layer-0000"});
  EXPECT_EQ(job("a").state, JobState::kCancelled);
}

}  // namespace
}  // namespace uniquanf::server
