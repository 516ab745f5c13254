#include "worker/agent/worker_options.h"

#include <string>
#include <vector>

#include "common/base/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace uniquanf {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<WorkerOptions> Parse(const std::vector<std::string>& arguments) {
  std::string help;
  return ParseWorkerOptions(arguments, DefaultWorkerOptions("Host_7.example"), &help);
}

TEST(WorkerOptionsTest, DefaultsComeFromHostAndEnvironment) {
  EXPECT_EQ(Parse({})->name, "host-7-example");
  EXPECT_THAT(Parse({})->servers, ElementsAre("127.0.0.1:50051"));
  setenv("UNIQUANF_SERVER", "a:1,b:2", 1);
  EXPECT_THAT(Parse({})->servers, ElementsAre("a:1", "b:2"));
  EXPECT_THAT(Parse({"--server=c:3"})->servers, ElementsAre("c:3"));
  setenv("UNIQUANF_SERVER", "nonsense", 1);
  EXPECT_THAT(std::string(Parse({}).status().message()), HasSubstr("UNIQUANF_SERVER"));
  unsetenv("UNIQUANF_SERVER");
  EXPECT_EQ(DefaultWorkerOptions("").name, "worker");
}

TEST(WorkerOptionsTest, EveryFlagIsTaken) {
  const auto options =
      Parse({"--server=a:1", "--server=b:2,c:3", "--name=gpu-1", "--label=zone=x", "--label",
             "gpu=", "--device=cpu", "--threads=3", "--drain-timeout=90s", "--exit-when-idle=2m",
             "--task-stall-timeout=0", "--metrics-listen=127.0.0.1:9", "--ready-file=r",
             "--log-level=debug", "--tls", "--tls-ca=ca", "--tls-cert=c", "--tls-key=k",
             "--tls-server-name=s"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_THAT(options->servers, ElementsAre("a:1", "b:2", "c:3"));
  EXPECT_EQ(options->name, "gpu-1");
  EXPECT_THAT(options->labels, ElementsAre(testing::Pair("gpu", ""), testing::Pair("zone", "x")));
  EXPECT_EQ(options->device, "cpu");
  EXPECT_EQ(options->num_threads, 3);
  EXPECT_EQ(options->drain_timeout, absl::Seconds(90));
  EXPECT_EQ(options->exit_when_idle, absl::Minutes(2));
  EXPECT_EQ(options->task_stall_timeout, absl::InfiniteDuration());
  EXPECT_EQ(options->metrics_listen, "127.0.0.1:9");
  EXPECT_EQ(options->ready_file, "r");
  EXPECT_TRUE(options->tls.enabled);
  EXPECT_EQ(options->tls.key_file, "k");
}

TEST(WorkerOptionsTest, BadValuesAreNamed) {
  const struct {
    const char* argument;
    const char* part;
  } rows[] = {
      {"--server=nowhere", "nowhere"},
      {"--name=Über", "[a-z0-9-]"},
      {"--name=", "[a-z0-9-]"},
      {"--label=novalue", "KEY=VALUE"},
      {"--device=tpu", "tpu"},
      {"--threads=-1", "-1"},
      {"--drain-timeout=5", "5"},
      {"--exit-when-idle=5", "5"},
      {"--task-stall-timeout=-3s", "-3s"},
      {"--severs=a:1", "--server"},
      {"stray", "stray"},
  };
  for (const auto& row : rows) {
    const auto options = Parse({row.argument});
    EXPECT_EQ(ErrorReason(options.status()), "INVALID_FLAG") << row.argument;
    EXPECT_THAT(std::string(options.status().message()), HasSubstr(row.part));
  }
}

TEST(WorkerOptionsTest, HelpNamesTheExitCodes) {
  std::string help;
  ASSERT_TRUE(ParseWorkerOptions({"--help"}, DefaultWorkerOptions("h"), &help).ok());
  EXPECT_THAT(help, HasSubstr("--task-stall-timeout"));
  EXPECT_THAT(help, HasSubstr("Exit codes"));
}

}  // namespace
}  // namespace uniquanf
