// Workers that make jobs fail: who has to confirm what, who is quarantined, who comes next.
#include <set>

#include "tests/unit/server/core_fixture.h"

namespace uniquanf::server {
namespace {

class WorkerHealthTest : public CoreTest {
 protected:
  // The worker fails all it holds as one that cannot see the model does, and calls.
  void FailAll(Worker* worker, FailureClass failure_class = FailureClass::kEnvironment) {
    for (LeaseReport& report : worker->reports) Fail(&report, failure_class);
    Synchronize(worker);
  }
  bool Quarantined(const Worker& worker) {
    return state_.sessions.at(worker.session).quarantined();
  }
};

TEST_F(WorkerHealthTest, WhatOneWorkerDoesNotFindGoesToAnother) {
  Worker sick = NewWorker("sick"), well = NewWorker("well");
  Synchronize(&well);
  Create("a");
  Synchronize(&sick);
  ASSERT_EQ(sick.reports.size(), 1u);
  FailAll(&sick);
  EXPECT_EQ(job("a").state, JobState::kRunning);
  EXPECT_TRUE(sick.reports.empty()) << "the job came back to the worker on which it failed";
  EXPECT_NE(job("a").status_message.find("another worker"), std::string::npos);
  ASSERT_EQ(Synchronize(&well).size(), 1u);
  while (!well.reports.empty()) FinishAndSynchronize(&well);
  EXPECT_EQ(job("a").state, JobState::kSucceeded);
}

TEST_F(WorkerHealthTest, ASecondWorkersWordIsFinal) {
  Worker one = NewWorker("one"), two = NewWorker("two");
  Synchronize(&two);
  Create("a");
  Synchronize(&one);
  FailAll(&one);
  Synchronize(&two);
  FailAll(&two);
  EXPECT_EQ(job("a").state, JobState::kFailed);
  EXPECT_EQ(job("a").error->reason, "REASON");
  EXPECT_NE(job("a").error->message.find("second worker confirms"), std::string::npos);
  EXPECT_EQ(task("a", "prepare").attempt, 2);
}

TEST_F(WorkerHealthTest, ALoneWorkersSecondAttemptIsFinalWithinSeconds) {
  Worker w = NewWorker("w");
  Create("a");
  Synchronize(&w);
  FailAll(&w);
  EXPECT_EQ(job("a").state, JobState::kRunning);
  Pass(absl::Seconds(2));
  ASSERT_EQ(Synchronize(&w).size(), 1u);
  FailAll(&w);
  EXPECT_EQ(job("a").state, JobState::kFailed);
  EXPECT_EQ(task("a", "prepare").attempt, 2);
}

TEST_F(WorkerHealthTest, AWorkerThatIsBusyIsWaitedFor) {
  Worker sick = NewWorker("sick"), busy = NewWorker("busy");
  Create("long");
  Synchronize(&busy);
  Create("a");
  Synchronize(&sick);
  FailAll(&sick);
  for (int i = 0; i < 60; ++i) {
    Pass(absl::Seconds(1));
    busy.reports[0].progress.step = i;
    Synchronize(&busy);
    EXPECT_TRUE(Synchronize(&sick).empty());
  }
  EXPECT_EQ(job("a").state, JobState::kRunning);
  // When that one is gone, nobody else can be asked.
  Pass(absl::Seconds(60));
  EXPECT_EQ(Synchronize(&sick).size(), 1u);
}

TEST_F(WorkerHealthTest, ARestartedServerKnowsWhoHasFailed) {
  Worker sick = NewWorker("sick"), well = NewWorker("well");
  Synchronize(&well);
  Create("a");
  Synchronize(&sick);
  FailAll(&sick);
  Restart();
  Synchronize(&well);
  ASSERT_EQ(well.reports.size(), 1u);
  Fail(&well.reports[0], FailureClass::kWorkerLost);
  well.draining = true;
  well.reports[0].kind = LeaseReport::Kind::kReleased;
  Synchronize(&well);
  EXPECT_EQ(task("a", "prepare").environment_sessions, std::vector<std::string>{sick.session});
}

TEST_F(WorkerHealthTest, AWorkerOnWhichJobAfterJobFailsGetsOnlyWhatNoOtherCanRun) {
  Worker sick = NewWorker("sick"), busy = NewWorker("busy");
  Create("long");
  Synchronize(&busy);
  for (int i = 0; i < 30; ++i) Create(absl::StrCat("j", i));
  Synchronize(&sick);
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(Quarantined(sick)) << i;
    FailAll(&sick);
  }
  EXPECT_TRUE(Quarantined(sick));
  EXPECT_EQ(state_.num_quarantined, 1);
  EXPECT_EQ(edits_.quarantined, std::vector<std::string>{sick.session});
  EXPECT_TRUE(sick.reports.empty());
  // A job for it alone is given to it all the same.
  CreateJobEvent labelled;
  labelled.job.id = labelled.job.uid = "labelled";
  labelled.job.tenant = "t";
  labelled.job.labels = {{"require/zone", "b"}};
  Do(labelled);
  sick.capabilities.labels = {{"zone", "b"}};
  ASSERT_EQ(Synchronize(&sick).size(), 1u);
  EXPECT_EQ(sick.reports[0].job, "labelled");
  // Success clears it.
  Succeed(&sick.reports[0]);
  Synchronize(&sick);
  EXPECT_FALSE(Quarantined(sick));
  while (!busy.reports.empty()) FinishAndSynchronize(&busy);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(job(absl::StrCat("j", i)).state, JobState::kSucceeded);
}

TEST_F(WorkerHealthTest, ThirtyOfThirtyJobsSucceedBesideASickWorker) {
  Worker sick = NewWorker("a-sick"), well = NewWorker("well");
  Synchronize(&sick);
  Synchronize(&well);
  for (int i = 0; i < 30; ++i) Create(absl::StrCat("j", i));
  for (int round = 0; round < 400; ++round) {
    Pass(absl::Milliseconds(200));
    FailAll(&sick);
    FinishAndSynchronize(&well);
  }
  for (int i = 0; i < 30; ++i) EXPECT_EQ(job(absl::StrCat("j", i)).state, JobState::kSucceeded);
}

TEST_F(WorkerHealthTest, AQuarantinedWorkerConfirmsNothing) {
  Worker sick = NewWorker("sick"), well = NewWorker("well");
  Create("long");
  Synchronize(&well);
  for (int i = 0; i < 3; ++i) Create(absl::StrCat("j", i));
  Synchronize(&sick);
  for (int i = 0; i < 3; ++i) FailAll(&sick);
  ASSERT_TRUE(Quarantined(sick));
  while (!well.reports.empty()) FinishAndSynchronize(&well);
  Create("a");
  ASSERT_EQ(Synchronize(&well).size(), 1u);
  FailAll(&well);
  Pass(absl::Seconds(2));
  EXPECT_TRUE(Synchronize(&sick).empty()) << "its word is worth nothing";
  ASSERT_EQ(Synchronize(&well).size(), 1u);
  FinishAndSynchronize(&well);
  EXPECT_EQ(task("a", "prepare").state, TaskState::kSucceeded);
}

TEST_F(WorkerHealthTest, QuarantineEndsByTimeAndComesBackForLonger) {
  Worker sick = NewWorker("sick"), well = NewWorker("well");
  const auto keep_well = [&](absl::Duration duration) {
    for (absl::Duration t; t < duration; t += absl::Seconds(1)) {
      Pass(absl::Seconds(1));
      for (LeaseReport& report : well.reports) ++report.progress.step;
      Synchronize(&well);
    }
  };
  Create("long");
  Synchronize(&well);
  for (int i = 0; i < 8; ++i) Create(absl::StrCat("j", i));
  Synchronize(&sick);
  for (int i = 0; i < 3; ++i) FailAll(&sick);
  ASSERT_TRUE(Quarantined(sick));
  keep_well(policy_.quarantine_initial + absl::Seconds(4));
  ASSERT_FALSE(Quarantined(sick));
  ASSERT_EQ(Synchronize(&sick).size(), 1u);
  FailAll(&sick);  // once more is enough
  ASSERT_TRUE(Quarantined(sick));
  keep_well(policy_.quarantine_initial + absl::Seconds(4));
  EXPECT_TRUE(Quarantined(sick));
  EXPECT_TRUE(Do(DrainWorkerEvent{"sick", false}).status.ok());  // an operator's word
  EXPECT_FALSE(Quarantined(sick));
}

TEST_F(WorkerHealthTest, JobsThatFailEverywhereQuarantineNobody) {
  Worker one = NewWorker("one"), two = NewWorker("two");
  Synchronize(&one);
  Synchronize(&two);
  for (int i = 0; i < 20; ++i) Create(absl::StrCat("j", i));
  for (int round = 0; round < 60; ++round) {
    FailAll(&one);
    FailAll(&two);
    Pass(absl::Milliseconds(100));
  }
  for (int i = 0; i < 20; ++i) EXPECT_EQ(job(absl::StrCat("j", i)).state, JobState::kFailed) << i;
  EXPECT_EQ(state_.num_quarantined, 0);
}

TEST_F(WorkerHealthTest, IdleWorkersTakeTurns) {
  std::vector<Worker> workers;
  for (int i = 0; i < 3; ++i) workers.push_back(NewWorker(absl::StrCat("w", i)));
  std::vector<std::string> given;
  for (int i = 0; i < 6; ++i) {
    for (Worker& worker : workers) {
      if (!state_.sessions[worker.session].parked) Call(&worker, /*may_wait=*/true);
    }
    Create(absl::StrCat("j", i));
    for (Worker& worker : workers) {
      if (Hear(&worker).empty()) continue;
      given.push_back(worker.name);
      Fail(&worker.reports[0], FailureClass::kInvalidInput);
      Synchronize(&worker);
    }
  }
  ASSERT_EQ(given.size(), 6u);
  EXPECT_EQ(std::set<std::string>(given.begin(), given.begin() + 3).size(), 3u);
  EXPECT_EQ(std::set<std::string>(given.begin() + 3, given.end()).size(), 3u);
}

}  // namespace
}  // namespace uniquanf::server
