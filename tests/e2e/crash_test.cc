// Jobs whose processes are killed: the artifact has the bytes of an undisturbed run.
#include <signal.h>

#include "absl/strings/str_replace.h"
#include "common/base/crash_point.h"
#include "gmock/gmock.h"
#include "tests/e2e/service_test.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

class CrashTest : public ServiceTest {
 protected:
  // At least `num` layers are done, or the job is.
  bool WaitUntilLayersDone(const std::string& job, int num) {
    return WaitUntil(
        [&] {
          const auto now = cluster_.client().GetJob(job);
          return now.ok() && (now->progress.num_layers_succeeded >= num || IsFinal(now->state));
        },
        absl::Minutes(2));
  }
};

TEST_F(CrashTest, AKilledWorkersTaskRunsAgain) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1");
  const QuantizationSpec spec = Spec("out");
  const std::string job = Submit(spec);
  ASSERT_TRUE(WaitUntilALayerRuns(job));
  cluster_.worker("w1")->Kill();
  cluster_.StartWorker("w1");
  ExpectReferenceArtifact(job, spec);
}

TEST_F(CrashTest, AnotherWorkerTakesOverFromAKilledOne) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1");
  const QuantizationSpec spec = Spec("out");
  const std::string job = Submit(spec);
  ASSERT_TRUE(WaitUntilALayerRuns(job));
  cluster_.worker("w1")->Kill();
  cluster_.StartWorker("w2");
  ExpectReferenceArtifact(job, spec);
}

TEST_F(CrashTest, AServerThatIsKilledAgainAndAgainContinues) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1");
  const QuantizationSpec spec = Spec("out");
  const std::string job = Submit(spec);
  for (int i = 1; i <= 4; ++i) {
    ASSERT_TRUE(WaitUntilLayersDone(job, i)) << i;
    cluster_.KillServer();
    ASSERT_TRUE(cluster_.StartServer()) << i;
  }
  ExpectReferenceArtifact(job, spec);
  const auto tasks = cluster_.client().ListTasks(job);
  ASSERT_OK(tasks);
  for (const Task& task : *tasks) {
    EXPECT_EQ(task.attempt, 1) << task.name << ": nothing is done twice, the worker lived on";
  }
}

TEST_F(CrashTest, BothKilledTogetherContinue) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1");
  const QuantizationSpec spec = Spec("out");
  const std::string job = Submit(spec);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(WaitUntilLayersDone(job, i)) << i;
    cluster_.KillServer();
    cluster_.worker("w1")->Kill();
    ASSERT_TRUE(cluster_.StartServer()) << i;
    cluster_.StartWorker("w1");
  }
  ExpectReferenceArtifact(job, spec);
}

// A worker that stood still beyond its lease: its task went to another one, and what it does when
// it wakes changes nothing.
TEST_F(CrashTest, AWorkerThatReturnsAfterItsLeaseHasEndedHarmsNothing) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1");
  const QuantizationSpec spec = Spec("out");
  const std::string job = Submit(spec);
  ASSERT_TRUE(WaitUntilALayerRuns(job));
  cluster_.worker("w1")->Signal(SIGSTOP);
  cluster_.StartWorker("w2");
  ASSERT_TRUE(WaitUntil([&] { return NumFailures(job, "WORKER_LOST") > 0; }, absl::Minutes(1)));
  cluster_.worker("w1")->Signal(SIGCONT);
  ExpectReferenceArtifact(job, spec);
  EXPECT_TRUE(cluster_.worker("w1")->running());
}

// Windows are distilled after the layers; a worker that dies with one, and another that goes on,
// without what the first had at hand, make the batch program's bytes.
TEST_F(CrashTest, ADistillationGoesOnOnAnotherWorker) {
  const Artifact reference = BatchArtifact({"--distill-window=2", "--distill-steps=4"});
  ASSERT_FALSE(reference.empty());
  EXPECT_NE(reference, Reference());
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker(
      "w1", {.environment = {{kCrashPointVariable, CrashPoint("distill.result_stored").At(1)}}});
  QuantizationSpec spec = Spec("out");
  spec.distill_window = 2;
  spec.distill_steps = 4;
  const std::string job = Submit(spec);
  EXPECT_EQ(cluster_.worker("w1")->WaitForExit(absl::Minutes(3)), (ExitStatus{-1, SIGKILL}));
  cluster_.StartWorker("w2");
  ExpectArtifact(job, spec, reference);
  const auto done = cluster_.client().GetJob(job);
  ASSERT_OK(done);
  ASSERT_TRUE(done->report.has_value());
  ASSERT_EQ(done->report->windows.size(), 2u);
  EXPECT_EQ(done->report->windows[1].first_layer, 2);
  EXPECT_GT(done->report->windows[0].initial_divergence, 0);
}

constexpr CrashPoint kWorkerPoints[] = {"worker.before_task", "worker.after_result_stored",
                                        "worker.before_report", "worker.after_report"};

class CrashPointTest : public CrashTest, public testing::WithParamInterface<CrashPoint> {};

TEST_P(CrashPointTest, AWorkerThatDiesThereLosesNothing) {
  ASSERT_TRUE(cluster_.StartServer());
  // The second hit: the first layer, after prepare.
  cluster_.StartWorker("w1", {.environment = {{kCrashPointVariable, GetParam().At(2)}}});
  const QuantizationSpec spec = Spec("out");
  const std::string job = Submit(spec);
  EXPECT_EQ(cluster_.worker("w1")->WaitForExit(absl::Minutes(2)), (ExitStatus{-1, SIGKILL}));
  cluster_.StartWorker("w1");
  ExpectReferenceArtifact(job, spec);
}

INSTANTIATE_TEST_SUITE_P(Points, CrashPointTest, testing::ValuesIn(kWorkerPoints),
                         [](const auto& info) {
                           return absl::StrReplaceAll(info.param.name(), {{".", "_"}});
                         });

}  // namespace
}  // namespace uniquanf
