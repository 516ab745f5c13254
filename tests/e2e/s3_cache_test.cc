// The workers' cache, end to end on a real S3 server behind a proxy that counts: the second task,
// worker, job and program on one model ask S3 for (nearly) nothing, the bytes of the artifacts are
// those without a cache, and a model that was replaced is noticed. Skipped (77) where the S3 server
// cannot run.
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "common/object_store/object_store.h"
#include "gmock/gmock.h"
#include "tests/fault/chaos_world.h"
#include "tests/integration/s3_test_server.h"
#include "tests/support/failing_http_proxy.h"
#include "tests/support/mini_cluster.h"
#include "tests/support/socket_util.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

const char kBinaries[] = UNIQUANF_BINARY_DIR "/bin";
constexpr char kModel[] = "/inputs/model/";
std::string s3_address;  // main's

class S3CacheTest : public testing::Test {
 protected:
  S3CacheTest() : world_(kBinaries), proxy_(s3_address, /*seed=*/1, /*failure_rate=*/0) {
    const std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    root_ = absl::StrCat("s3://uniquanf/", name);
    world_.MoveInputsTo(absl::StrCat(root_, "/inputs"));
    MiniClusterOptions options;
    options.binary_dir = kBinaries;
    options.server_flags = {absl::StrCat("--object-root=", root_, "/objects")};
    cluster_ = std::make_unique<MiniCluster>(options);
  }

  ProgramOptions ThroughProxy(std::vector<std::string> flags = {}) {
    return {.flags = std::move(flags),
            .environment = {{"AWS_ENDPOINT_URL", absl::StrCat("http://", proxy_.address())}}};
  }
  std::string CacheFlag() { return absl::StrCat("--cache-dir=", cluster_->File("cache")); }

  // Runs a job and returns the bytes of the model that S3 was asked for meanwhile.
  uint64_t ModelBytesOfJob(const std::string& out) {
    const uint64_t before = proxy_.BytesRead(kModel);
    SubmitOptions submit;
    submit.spec = world_.Spec(0);
    submit.spec.output_uri = absl::StrCat(root_, "/", out);
    submit.unchecked = true;  // what the workers read is counted, not the server's look at headers
    const auto submitted = cluster_->client().SubmitJob(submit);
    EXPECT_OK(submitted.status());
    if (!submitted.ok()) return 0;
    const auto job = cluster_->WaitForJob(submitted->name, absl::Minutes(2));
    EXPECT_OK(job.status());
    if (!job.ok()) return 0;
    EXPECT_EQ(job->state, JobState::kSucceeded) << (job->error ? job->error->message : "");
    if (job->state == JobState::kSucceeded) {
      const std::string dir = cluster_->File(out);
      EXPECT_OK(DownloadArtifact(*job->artifact, dir).status());
      EXPECT_TRUE(ArtifactBytes(dir) == world_.Reference(0)) << out;
    }
    return proxy_.BytesRead(kModel) - before;
  }

  ChaosWorld world_;
  FailingHttpProxy proxy_;
  std::string root_;
  std::unique_ptr<MiniCluster> cluster_;
};

std::string HttpGet(const std::string& address, const std::string& path) {
  const int fd = ConnectTo(address);
  if (fd < 0) return "";
  const std::string request =
      absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  if (write(fd, request.data(), request.size()) < 0) return "";
  std::string reply;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;) reply.append(buffer, n);
  close(fd);
  return reply;
}

TEST_F(S3CacheTest, TheModelIsReadFromS3OnceForAllTasksWorkersAndJobs) {
  ASSERT_TRUE(cluster_->StartServer(ThroughProxy()));
  cluster_->StartWorker("uncached", ThroughProxy());
  const uint64_t uncached = ModelBytesOfJob("out-uncached");
  cluster_->worker("uncached")->Kill();

  std::string metrics_address;
  close(ListenOnLoopback(&metrics_address));  // a port that is free now
  cluster_->StartWorker(
      "first", ThroughProxy({CacheFlag(), absl::StrCat("--metrics-listen=", metrics_address)}));
  const uint64_t first = ModelBytesOfJob("out-first");
  const uint64_t again = ModelBytesOfJob("out-again");
  const std::string metrics = HttpGet(metrics_address, "/metrics");
  cluster_->worker("first")->Kill();
  cluster_->StartWorker("second", ThroughProxy({CacheFlag()}));
  const uint64_t second = ModelBytesOfJob("out-second");

  std::printf(
      "bytes of the model read from S3: %llu uncached, %llu, then %llu, %llu by another "
      "worker\n",
      static_cast<unsigned long long>(uncached), static_cast<unsigned long long>(first),
      static_cast<unsigned long long>(again), static_cast<unsigned long long>(second));
  EXPECT_GT(first, 0u);
  EXPECT_LT(first, uncached / 2) << "tasks of one job share what they read";
  EXPECT_EQ(again, 0u);
  EXPECT_EQ(second, 0u);
  EXPECT_THAT(metrics, ContainsRegex("uniquanf_worker_cache_hits_total [1-9]"));
  EXPECT_THAT(metrics, ContainsRegex("uniquanf_worker_cache_misses_total [1-9]"));
  EXPECT_THAT(metrics, ContainsRegex("uniquanf_worker_cache_fetched_bytes_total [1-9]"));
  EXPECT_THAT(metrics, HasSubstr("uniquanf_worker_cache_evictions_total 0"));
  EXPECT_THAT(metrics, ContainsRegex("uniquanf_worker_cache_bytes [1-9]"));
}

TEST_F(S3CacheTest, TheBatchProgramCachesTooAndNoticesAReplacedModel) {
  const std::string tokens = world_.Spec(0).evaluation_uri;
  // Through the environment of this process: MiniCluster::Run adds none.
  setenv("AWS_ENDPOINT_URL", absl::StrCat("http://", proxy_.address()).c_str(), 1);
  const auto evaluate = [&](const std::vector<std::string>& flags) {
    std::vector<std::string> arguments = {"eval",        "--model", world_.Spec(0).model_uri,
                                          "--tokens",    tokens,    "--window=64",
                                          "--device=cpu"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const CommandResult result = cluster_->Run("uniquanf-batch", arguments);
    EXPECT_EQ(result.status, (ExitStatus{0, 0})) << result.output;
    return result.output;
  };
  const std::string uncached = evaluate({});
  EXPECT_THAT(uncached, HasSubstr("perplexity"));
  EXPECT_EQ(evaluate({CacheFlag()}), uncached);
  const uint64_t before = proxy_.BytesRead(kModel);
  EXPECT_EQ(evaluate({CacheFlag()}), uncached);
  EXPECT_EQ(proxy_.BytesRead(kModel), before);
  // Another model of the same size in its place.
  const auto store = OpenObjectStore(world_.Spec(0).model_uri);
  ASSERT_OK(store);
  ASSERT_OK_AND_ASSIGN(std::string weights, (*store)->Read("model.safetensors", 1 << 30));
  // Signs of the last values, whether they have two bytes or four.
  for (size_t i = weights.size() - 3999; i < weights.size(); i += 2) weights[i] ^= '\x80';
  ASSERT_OK((*store)->Write("model.safetensors", weights));
  const std::string replaced = evaluate({});
  EXPECT_NE(replaced, uncached);
  EXPECT_EQ(evaluate({CacheFlag()}), replaced);
  // Nowhere to write costs speed only.
  EXPECT_THAT(evaluate({"--cache-dir=/proc/none"}), HasSubstr("warning: cannot make"));
  setenv("AWS_ENDPOINT_URL", absl::StrCat("http://", s3_address).c_str(), 1);
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
