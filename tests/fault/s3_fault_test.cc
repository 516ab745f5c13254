// A model is quantized from s3:// to s3:// through the service, on a real, strict S3 server behind
// a proxy that fails one request in ten: the same bytes as from local files. Skipped (77) where the
// S3 server cannot run.
#include <signal.h>
#include <stdlib.h>

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

TEST(S3FaultTest, AModelIsQuantizedFromS3ToS3WithOneRequestInTenFailing) {
  std::printf("seed %d\n", static_cast<int>(kSeed));
  ChaosWorld world(kBinaries);
  world.MoveInputsTo("s3://uniquanf/fault-inputs");
  FailingHttpProxy proxy(s3_address, kSeed, kFailureRate);
  const ProgramOptions store = {
      .environment = {{"AWS_ENDPOINT_URL", absl::StrCat("http://", proxy.address())}}};
  MiniClusterOptions options;
  options.binary_dir = kBinaries;
  options.server_flags = {"--object-root=s3://uniquanf/fault-objects",
                          "--retry-backoff-initial=20ms"};
  MiniCluster cluster(options);
  ASSERT_TRUE(cluster.StartServer(store));
  cluster.StartWorker("w0", store);
  cluster.StartWorker("w1", store);
  for (int variant = 0; variant < ChaosWorld::kNumVariants; ++variant) {
    SubmitOptions submit;
    submit.spec = world.Spec(variant);
    submit.spec.output_uri = absl::StrCat("s3://uniquanf/fault-out-", variant);
    const auto submitted = cluster.client().SubmitJob(submit);
    ASSERT_OK(submitted);
    const auto job = cluster.WaitForJob(submitted->name, absl::Minutes(3));
    ASSERT_OK(job);
    ASSERT_EQ(job->state, JobState::kSucceeded) << (job->error ? job->error->message : "");
    const std::string dir = cluster.File(absl::StrCat("out-", variant));
    ASSERT_OK(DownloadArtifact(*job->artifact, dir));
    EXPECT_TRUE(ArtifactBytes(dir) == world.Reference(variant));
    EXPECT_EQ(proxy.NumPuts(absl::StrCat("/fault-out-", variant, "/manifest.json")), 1)
        << "published once";
  }
  const FailingHttpProxy::Counts counts = proxy.counts();
  std::printf("%d of %d requests failed: %d refused, %d reset, %d unanswered, %d truncated\n",
              counts.failed(), counts.requests, counts.refused, counts.reset, counts.unanswered,
              counts.truncated);
  EXPECT_GT(counts.failed(), 0);
}

}  // namespace
}  // namespace uniquanf

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  signal(SIGPIPE, SIG_IGN);
  uniquanf::S3TestServer server;
  if (const int status = server.Start(); status != 0) return status;
  const uniquanf::Environment environment = server.NewEnvironment();
  for (const char* name :
       {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"}) {
    setenv(name, environment(name).c_str(), 1);
  }
  uniquanf::s3_address = absl::StrCat("127.0.0.1:", server.port());
  return RUN_ALL_TESTS();
}
