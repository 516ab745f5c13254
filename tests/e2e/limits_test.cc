// A worker in a container's limits: it announces them, plans by them and is not killed for what it
// takes.
#include <gmock/gmock.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/e2e/service_test.h"
#include "tests/support/control_group.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kGiB = uint64_t{1} << 30;

class LimitsTest : public ServiceTest {
 protected:
  LimitsTest() : group_(kGiB, /*num_cpus=*/1) {}
  void SetUp() override {
    if (!group_.made()) GTEST_SKIP() << group_.problem();
    ASSERT_TRUE(cluster_.StartServer());
  }
  // The processes have left the group before it is removed.
  void TearDown() override {
    if (!group_.made()) return;
    cluster_.worker("w1")->Signal(SIGTERM);
    EXPECT_EQ(cluster_.worker("w1")->WaitForExit(absl::Minutes(2)), (ExitStatus{0, 0}));
  }
  // A model of layers that wide with random weights, and its calibration tokens.
  QuantizationSpec WideSpec(int hidden, int intermediate, int num_layers = 1) {
    const std::string model = cluster_.File("model");
    const CommandResult made = cluster_.Run(
        "synthetic_checkpoint",
        {absl::StrCat("--out=", model), "--shape=small", absl::StrCat("--hidden=", hidden),
         absl::StrCat("--intermediate=", intermediate), absl::StrCat("--heads=", hidden / 64),
         absl::StrCat("--kv_heads=", hidden / 64), "--head_dim=64",
         absl::StrCat("--layers=", num_layers), "--vocab=256", "--sequences=4", "--seq_len=128"});
    EXPECT_EQ(made.status, (ExitStatus{0, 0})) << made.output;
    QuantizationSpec spec = Spec("out");
    spec.model_uri = absl::StrCat("file://", model);
    spec.calibration_uri = absl::StrCat("file://", model, "/tokens.safetensors");
    spec.epochs = 1;
    return spec;
  }

  ControlGroup group_;
};

TEST_F(LimitsTest, AWorkerAnnouncesItsContainersMemoryAndProcessors) {
  cluster_.StartWorker("w1", {.wrapper = group_.wrapper()});
  ASSERT_TRUE(cluster_.WaitUntilReady("w1"));
  const auto workers = cluster_.client().ListWorkers();
  ASSERT_OK(workers);
  ASSERT_EQ(workers->size(), 1u);
  EXPECT_EQ(workers->front().memory_bytes, static_cast<int64_t>(kGiB));
  EXPECT_EQ(workers->front().num_cpus, 1);
  const CommandResult json =
      cluster_.Run("uniquanf", {"workers", "--json", "--server", cluster_.address()});
  ASSERT_EQ(json.status, (ExitStatus{0, 0})) << json.output;
  const auto worker = nlohmann::json::parse(json.output)["workers"][0];
  EXPECT_EQ(worker["memory_bytes"], kGiB);
  EXPECT_EQ(worker["num_cpus"], 1);
  const QuantizationSpec spec = Spec("out");
  ExpectReferenceArtifact(Submit(spec), spec);
}

// Most of what there is: the plan counts all that a layer holds, or the kernel ends the worker.
// Of three layers the second and third begin while the one before is still being stored.
TEST_F(LimitsTest, LayersThatBarelyFitRun) {
  const QuantizationSpec spec = WideSpec(1024, 6144, /*num_layers=*/3);
  cluster_.StartWorker("w1", {.wrapper = group_.wrapper()});
  const std::string name = Submit(spec);
  const auto job = cluster_.WaitForJob(name, absl::Minutes(5));
  ASSERT_OK(job);
  EXPECT_EQ(job->state, JobState::kSucceeded) << (job->error ? job->error->message : "");
  EXPECT_EQ(NumFailures(name, "WORKER_LOST"), 0);
  EXPECT_GT(group_.peak_memory_bytes(), kGiB * 3 / 4) << "the test is too easy";
}

// The server does not give it away; without a limit read, it would, and the worker would be killed.
TEST_F(LimitsTest, ALayerThatDoesNotFitWaitsForALargerWorker) {
  QuantizationSpec spec = WideSpec(2048, 8192);
  cluster_.StartWorker("w1", {.wrapper = group_.wrapper()});
  const std::string name = Submit(spec);
  std::string message;
  EXPECT_TRUE(WaitUntil(
      [&] {
        const auto job = cluster_.client().GetJob(name);
        if (job.ok()) message = job->status_message;
        return absl::StrContains(message, "GiB of device memory");
      },
      absl::Minutes(1)))
      << "nothing says that the job waits for memory: " << message;
  EXPECT_EQ(NumFailures(name, "WORKER_LOST"), 0);
  EXPECT_TRUE(cluster_.worker("w1")->running());
}

TEST_F(LimitsTest, TheBatchProgramSaysThatALayerDoesNotFitInsteadOfBeingKilled) {
  const QuantizationSpec spec = WideSpec(2048, 8192);
  cluster_.StartWorker("w1");
  std::vector<std::string> arguments = group_.wrapper();
  const std::string shell = arguments.front();
  arguments.erase(arguments.begin());
  for (const std::string& argument :
       {absl::StrCat(UNIQUANF_BINARY_DIR, "/bin/uniquanf-batch"), std::string("quantize"),
        absl::StrCat("--model=", spec.model_uri),
        absl::StrCat("--calibration=", spec.calibration_uri),
        absl::StrCat("--output=", spec.output_uri), std::string("--num-samples=4"),
        std::string("--sequence-length=128"), std::string("--epochs=1")}) {
    arguments.push_back(argument);
  }
  ChildProcess batch(shell, arguments, {}, cluster_.File("batch.log"));
  EXPECT_EQ(batch.WaitForExit(absl::Minutes(2)), (ExitStatus{1, 0})) << batch.Log();
  EXPECT_THAT(batch.Log(), HasSubstr("a layer needs about"));
  EXPECT_THAT(batch.Log(), HasSubstr("but the device has 1.00 GiB"));
}

}  // namespace
}  // namespace uniquanf
