// Jobs that nothing disturbs but their users and operators.
#include <signal.h>

#include <set>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/e2e/service_test.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using LifecycleTest = ServiceTest;

TEST_F(LifecycleTest, AJobGivesTheBytesOfTheBatchProgram) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1");
  const QuantizationSpec spec = Spec("out");
  const std::string job = Submit(spec);
  ExpectReferenceArtifact(job, spec);
  const CommandResult verified = cluster_.Run("uniquanf-batch", {"verify", cluster_.File("out")});
  EXPECT_EQ(verified.status, (ExitStatus{0, 0})) << verified.output;
}

TEST_F(LifecycleTest, TwoWorkersGiveTheSameBytes) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1", {.flags = {"--threads=1"}});
  cluster_.StartWorker("w2", {.flags = {"--threads=2"}});
  const QuantizationSpec spec = Spec("out");
  ExpectReferenceArtifact(Submit(spec), spec);
}

// Four workers on one job whose layers are independent, and on one whose layers are pipelined.
TEST_F(LifecycleTest, FourWorkersOnOneParallelJobGiveTheBytesOfOne) {
  ASSERT_TRUE(cluster_.StartServer());
  for (const std::string worker : {"w1", "w2", "w3", "w4"}) {
    cluster_.StartWorker(worker, {.flags = {"--threads=1"}});
    ASSERT_TRUE(cluster_.WaitUntilReady(worker));
  }
  QuantizationSpec independent = Spec("independent"), pipelined = Spec("pipelined");
  independent.input_prob = 0;
  pipelined.schedule = LayerSchedule::kPipelined;
  pipelined.pipeline_rounds = 4;
  for (const auto& [spec, flags] :
       {std::pair{independent, std::vector<std::string>{"--input-prob=0"}},
        {pipelined, {"--schedule=pipelined", "--pipeline-rounds=4"}}}) {
    const std::string job = Submit(spec);
    ExpectArtifact(job, spec, BatchArtifact(flags));
    const auto tasks = cluster_.client().ListTasks(job);
    ASSERT_OK(tasks);
    std::set<std::string> workers;
    for (const Task& task : *tasks) workers.insert(task.worker);
    EXPECT_GE(workers.size(), 2u) << "one worker did it all";
  }
}

TEST_F(LifecycleTest, ACancelledJobFreesItsWorkerWithinTwoSeconds) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1");
  const std::string job = Submit(LongSpec("out"));
  ASSERT_TRUE(WaitUntilALayerRuns(job));
  const absl::Time start = absl::Now();
  ASSERT_OK(cluster_.client().CancelJob(job));
  const auto cancelled = cluster_.WaitForJob(job, absl::Seconds(20));
  ASSERT_OK(cancelled);
  EXPECT_EQ(cancelled->state, JobState::kCancelled);
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  // The worker is free for the next job.
  const QuantizationSpec spec = Spec("out2");
  ExpectReferenceArtifact(Submit(spec), spec);
}

TEST_F(LifecycleTest, ATerminatedWorkerFinishesItsTaskAndExitsWithZero) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1");
  const QuantizationSpec spec = Spec("out");
  const std::string job = Submit(spec);
  ASSERT_TRUE(WaitUntilALayerRuns(job));
  cluster_.worker("w1")->Signal(SIGTERM);
  EXPECT_EQ(cluster_.worker("w1")->WaitForExit(absl::Minutes(2)), (ExitStatus{0, 0}));
  cluster_.StartWorker("w2");
  ExpectReferenceArtifact(job, spec);
  EXPECT_EQ(NumFailures(job, "WORKER_LOST"), 0) << "nothing was lost";
}

TEST_F(LifecycleTest, ADrainTimeoutGivesTheTaskBackWithoutAFailure) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1", {.flags = {"--drain-timeout=100ms"}});
  const std::string job = Submit(LongSpec("out"));
  ASSERT_TRUE(WaitUntilALayerRuns(job));
  cluster_.worker("w1")->Signal(SIGTERM);
  EXPECT_EQ(cluster_.worker("w1")->WaitForExit(absl::Seconds(20)), (ExitStatus{0, 0}));
  EXPECT_EQ(NumFailures(job, "WORKER_LOST"), 0);
  cluster_.StartWorker("w2");
  EXPECT_TRUE(WaitUntilALayerRuns(job));
}

TEST_F(LifecycleTest, ASecondSignalEndsTheWorkerAtOnce) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1");
  ASSERT_TRUE(WaitUntilALayerRuns(Submit(LongSpec("out"))));
  ChildProcess* worker = cluster_.worker("w1");
  worker->Signal(SIGINT);
  ASSERT_TRUE(WaitUntil([&] { return worker->Log().find("draining") != std::string::npos; },
                        absl::Seconds(10)));
  EXPECT_TRUE(worker->running());
  worker->Signal(SIGINT);
  EXPECT_EQ(worker->WaitForExit(absl::Seconds(5)), (ExitStatus{128 + SIGINT, 0}));
}

TEST_F(LifecycleTest, AnAdministratorsDrainEndsTheWorkerAfterItsTask) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1");
  ASSERT_TRUE(cluster_.WaitUntilReady("w1"));
  ASSERT_OK(cluster_.client().DrainWorker("w1"));
  EXPECT_EQ(cluster_.worker("w1")->WaitForExit(absl::Seconds(20)), (ExitStatus{0, 0}));
}

// As where a supervisor starts the process again.
TEST_F(LifecycleTest, ADrainedNameStaysDrainedUntilItIsUndrained) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1");
  ASSERT_TRUE(cluster_.WaitUntilReady("w1"));
  ASSERT_OK(cluster_.client().DrainWorker("w1"));
  EXPECT_EQ(cluster_.worker("w1")->WaitForExit(absl::Seconds(20)), (ExitStatus{0, 0}));
  cluster_.StartWorker("w1");
  ASSERT_TRUE(cluster_.WaitUntilReady("w1"));
  cluster_.KillServer();
  ASSERT_TRUE(cluster_.StartServer());
  ASSERT_TRUE(WaitUntil(
      [&] {
        const auto workers = cluster_.client().ListWorkers();
        return workers.ok() && workers->size() == 1 &&
               workers->at(0).state == WorkerState::kDraining;
      },
      absl::Seconds(20)));
  const QuantizationSpec spec = Spec("out");
  const std::string job = Submit(spec);
  EXPECT_TRUE(cluster_.worker("w1")->running());
  EXPECT_EQ(cluster_.client().GetJob(job)->state, JobState::kQueued);
  ASSERT_OK(cluster_.client().UndrainWorker("w1"));
  ExpectReferenceArtifact(job, spec);
}

TEST_F(LifecycleTest, AWorkerThatEndsWhenIdleDoesAJobFirst) {
  ASSERT_TRUE(cluster_.StartServer());
  const QuantizationSpec spec = Spec("out");
  const std::string job = Submit(spec);
  cluster_.StartWorker("w1", {.flags = {"--exit-when-idle=1s"}});
  ExpectReferenceArtifact(job, spec);
  EXPECT_EQ(cluster_.worker("w1")->WaitForExit(absl::Seconds(30)), (ExitStatus{0, 0}));
}

TEST_F(LifecycleTest, AMissingModelFailsItsJobAndHarmsNothing) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1");
  QuantizationSpec missing = Spec("out");
  missing.model_uri = "file:///nonexistent/model";
  const auto failed = cluster_.WaitForJob(Submit(missing, /*unchecked=*/true), absl::Minutes(1));
  ASSERT_OK(failed);
  EXPECT_EQ(failed->state, JobState::kFailed);
  ASSERT_TRUE(failed->error.has_value());
  EXPECT_THAT(failed->error->message, testing::HasSubstr("/nonexistent/model"));
  const QuantizationSpec spec = Spec("out");
  ExpectReferenceArtifact(Submit(spec), spec);
}

TEST_F(LifecycleTest, AWorkerWithoutAServerKeepsTryingUntilThereIsOne) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.KillServer();
  cluster_.StartWorker("w1");
  EXPECT_FALSE(cluster_.WaitUntilReady("w1", absl::Milliseconds(500)));
  EXPECT_TRUE(cluster_.worker("w1")->running());
  ASSERT_TRUE(cluster_.StartServer());
  EXPECT_TRUE(cluster_.WaitUntilReady("w1"));
}

TEST_F(LifecycleTest, WrongUsageExitsWithTwo) {
  EXPECT_EQ(cluster_.Run("uniquanf-worker", {"--name=UPPER"}).status, (ExitStatus{2, 0}));
  EXPECT_EQ(cluster_.Run("uniquanf-worker", {"--help"}).status, (ExitStatus{0, 0}));
  EXPECT_EQ(cluster_.Run("uniquanf-worker", {"--version"}).status, (ExitStatus{0, 0}));
  EXPECT_EQ(cluster_.Run("uniquanf-worker", {"--tls-cert=/nonexistent"}).status,
            (ExitStatus{2, 0}));
}

}  // namespace
}  // namespace uniquanf
