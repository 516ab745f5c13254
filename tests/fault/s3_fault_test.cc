// A model is quantized from s3:// to s3:// through the service, on a real, strict S3 server behind
// a proxy that fails one request in ten: the same bytes as from local files. Skipped (77) where the
// S3 server cannot run.
#include <signal.h>
#include <stdlib.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/fault/chaos_world.h"
#include "tests/integration/s3_test_server.h"
#include "tests/support/failing_http_proxy.h"
#include "tests/support/mini_cluster.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

const char kBinaries[] = UNIQUANF_BINARY_DIR "/bin";
constexpr uint64_t kSeed = 4;
constexpr double kFailureRate = 0.1;
std::string s3_address;  // main's

class S3FaultTest : public testing::Test {
 protected:
  S3FaultTest() : world_(kBinaries), proxy_(s3_address, kSeed, kFailureRate) {
    std::printf("seed %d\n", static_cast<int>(kSeed));
    const std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    root_ = absl::StrCat("s3://uniquanf/", name);
    world_.MoveInputsTo(absl::StrCat(root_, "/inputs"));
  }

  void Start() {
    const ProgramOptions store = {
        .environment = {{"AWS_ENDPOINT_URL", absl::StrCat("http://", proxy_.address())}}};
    MiniClusterOptions options;
    options.binary_dir = kBinaries;
    options.server_flags = {absl::StrCat("--object-root=", root_, "/objects"),
                            "--retry-backoff-initial=20ms"};
    cluster_ = std::make_unique<MiniCluster>(options);
    ASSERT_TRUE(cluster_->StartServer(store));
    cluster_->StartWorker("w0", store);
    ProgramOptions cached = store;
    cached.flags = {absl::StrCat("--cache-dir=", cluster_->File("cache"))};
    cluster_->StartWorker("w1", cached);
  }

  std::string Submit(int variant) {
    SubmitOptions submit;
    submit.spec = world_.Spec(variant);
    submit.spec.output_uri = absl::StrCat(root_, "/out-", variant);
    const auto job = cluster_->client().SubmitJob(submit);
    EXPECT_OK(job.status());
    return job.ok() ? job->name : "jobs/none";
  }

  void ExpectReference(const std::string& name, int variant) {
    const auto job = cluster_->WaitForJob(name, absl::Minutes(3));
    ASSERT_OK(job.status());
    ASSERT_EQ(job->state, JobState::kSucceeded) << (job->error ? job->error->message : "");
    const std::string dir = cluster_->File(absl::StrCat("out-", variant));
    ASSERT_OK(DownloadArtifact(*job->artifact, dir).status());
    EXPECT_TRUE(ArtifactBytes(dir) == world_.Reference(variant));
    EXPECT_EQ(proxy_.NumPuts(absl::StrCat("/out-", variant, "/manifest.json")), 1)
        << "published once";
  }

  void PrintCounts() {
    const FailingHttpProxy::Counts counts = proxy_.counts();
    std::printf("%d of %d requests failed: %d refused, %d reset, %d unanswered, %d truncated\n",
                counts.failed(), counts.requests, counts.refused, counts.reset, counts.unanswered,
                counts.truncated);
    EXPECT_GT(counts.failed(), 0);
  }

  ChaosWorld world_;
  FailingHttpProxy proxy_;
  std::string root_;
  std::unique_ptr<MiniCluster> cluster_;
};

TEST_F(S3FaultTest, AModelIsQuantizedFromS3ToS3WithOneRequestInTenFailing) {
  Start();
  for (int variant = 0; variant < ChaosWorld::kNumVariants; ++variant) {
    ExpectReference(Submit(variant), variant);
  }
  PrintCounts();
}

TEST_F(S3FaultTest, AnOutageOfTheStoreOnlyDelaysTheJob) {
  proxy_.set_failure_rate(0);
  Start();
  const std::string job = Submit(0);
  ASSERT_TRUE(cluster_->WaitForTasks(
      job, [](const std::vector<Task>& tasks) { return tasks.size() > 1; }, absl::Minutes(1)));
  proxy_.set_failure_rate(1);
  // Some task has given up on the store at least once.
  ASSERT_TRUE(cluster_->WaitForTasks(
      job,
      [](const std::vector<Task>& tasks) {
        for (const Task& task : tasks) {
          if (!task.failures.empty())
            return task.failures[0].failure_class == FailureClass::kTransient;
        }
        return false;
      },
      absl::Minutes(2)));
  proxy_.set_failure_rate(0);
  ExpectReference(job, 0);
  PrintCounts();
}

}  // namespace
}  // namespace uniquanf

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  signal(SIGPIPE, SIG_IGN);
  uniquanf::S3TestServer server;
  if (const int status = server.Start(); status != 0) return status;
  uniquanf::s3_address = server.UseInThisProcess();
  return RUN_ALL_TESTS();
}
