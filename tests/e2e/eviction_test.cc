// Servers on one PostgreSQL state that come and go behind one name, as pods behind a headless
// service. The name stands in the hosts file of a mount namespace that this program and all that it
// starts have to themselves; the system's own lookup reads it.
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/rpc/health_check.h"
#include "gmock/gmock.h"
#include "tests/e2e/service_test.h"
#include "tests/support/postgres_server.h"
#include "tests/support/socket_util.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

constexpr char kName[] = "servers.uniquanf.test";
constexpr absl::Duration kPatience = absl::Minutes(2);
// How soon callers must go on.
constexpr absl::Duration kBound = absl::Seconds(5);

// How often gRPC looks after a connection without calls. Far more seldom than usual, since clients
// may be stopped or busy.
constexpr char kPollVariable[] = "GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS";

PostgresServer* postgres = nullptr;
std::string* hosts_file = nullptr;

std::string FreePort() {
  std::string address;
  close(ListenOnLoopback(&address));
  return address.substr(address.rfind(':') + 1);
}

class EvictionTest : public ServiceTest {
 protected:
  EvictionTest() : servers_(Options()) {}

  static MiniClusterOptions Options() {
    MiniClusterOptions options;
    options.binary_dir = UNIQUANF_BINARY_DIR "/bin";
    options.num_servers = 3;
    options.server_flags = {absl::StrCat("--state=", postgres->NewState())};
    return options;
  }

  // Every server has an address of its own, and all have the same ports, as pods have.
  static std::string Host(int i) { return absl::StrCat("127.0.0.", i + 2); }
  std::string Page(int i, const std::string& path) const {
    return absl::StrCat("http://", Host(i), ":", metrics_port_, path);
  }
  // As a pod starts: it is behind the name when the chart's readiness probe says so.
  void StartServer(int i) {
    ASSERT_TRUE(servers_.StartServer(
        i, {.flags = {absl::StrCat("--listen=", Host(i), ":", port_),
                      absl::StrCat("--metrics-listen=", Host(i), ":", metrics_port_)}}));
    ASSERT_TRUE(WaitUntil([&] { return IsReady(i, "/readyz?standby=ok"); }, kPatience));
  }
  bool IsReady(int i, const std::string& path) const {
    return ProbeHealth(Page(i, path), {}, absl::Seconds(5)).ok();
  }
  void StartWorker() {
    servers_.StartWorker(
        "w1",
        {.flags = {"--threads=1"}, .environment = {{kPollVariable, "200"}}, .server = Target()});
    ASSERT_TRUE(servers_.WaitUntilReady("w1"));
  }
  // Rewrites what the name stands for.
  static void SetAddresses(const std::vector<int>& servers) {
    std::ofstream file(*hosts_file);
    file << "127.0.0.1 localhost\n";
    for (const int i : servers) file << Host(i) << " " << kName << "\n";
  }
  std::string Target() const { return absl::StrCat(kName, ":", port_); }
  std::unique_ptr<Client> Connect() const {
    ClientOptions options;
    options.server = Target();
    return *Client::Connect(options);
  }
  // The client's call is answered, and the worker's have been.
  bool WaitUntilBothGoOn(Client& client, int active) {
    return WaitUntil(
        [&] {
          const auto workers = client.ListWorkers();
          return workers.ok() && workers->size() == 1 && servers_.IsActive(active);
        },
        kPatience);
  }

  const std::string port_ = FreePort(), metrics_port_ = FreePort();
  MiniCluster servers_;
};

TEST_F(EvictionTest, CallersThatKnowOneNameGoOnWithinFiveSecondsOfEachEviction) {
  StartServer(0);
  ASSERT_TRUE(WaitUntil([&] { return servers_.IsActive(0); }, kPatience));
  StartServer(1);
  EXPECT_TRUE(IsReady(0, "/readyz"));
  EXPECT_FALSE(IsReady(1, "/readyz")) << "it stands by";
  SetAddresses({0, 1});
  StartWorker();
  const auto client = Connect();
  const QuantizationSpec spec = Spec("out");
  SubmitOptions submit;
  submit.spec = spec;
  const auto job = client->SubmitJob(submit);
  ASSERT_OK(job);
  absl::StatusOr<Job> watched = absl::UnknownError("no end seen");
  std::thread watch([&] { watched = client->WatchJob(job->name, nullptr); });
  // The third server's address is behind the name only once it has started; in the end it is alone.
  for (int active = 0; active < 2; ++active) {
    const absl::Time start = absl::Now();
    servers_.server(active)->Signal(SIGTERM);
    SetAddresses(active == 0 ? std::vector<int>{1} : std::vector<int>{2});
    EXPECT_TRUE(WaitUntilBothGoOn(*client, active + 1));
    const absl::Duration away = absl::Now() - start;
    std::printf("client and worker went on after %s\n", absl::FormatDuration(away).c_str());
    EXPECT_LT(away, kBound);
    EXPECT_EQ(servers_.server(active)->WaitForExit(kPatience), (ExitStatus{0, 0}));
    if (active == 0) {
      StartServer(2);
      SetAddresses({1, 2});
    }
  }
  watch.join();
  ASSERT_OK(watched);
  EXPECT_EQ(watched->state, JobState::kSucceeded);
  EXPECT_TRUE(ArtifactBytes(spec.output_uri.substr(std::string("file://").size())) == Reference());
  const auto tasks = client->ListTasks(job->name);
  ASSERT_OK(tasks);
  for (const Task& task : *tasks) EXPECT_EQ(task.attempt, 1) << task.name;
}

// With one server at a time a name has one address, and nothing but a failed call tells of the
// next.
TEST_F(EvictionTest, CallersFollowANameWithOneAddressToTheNext) {
  StartServer(0);
  SetAddresses({0});
  StartWorker();
  const auto client = Connect();
  ASSERT_OK(client->ListJobs({}));
  // This client makes no call meanwhile, and so does not see that the server wants to end.
  const absl::Time evicted = absl::Now();
  servers_.server(0)->Signal(SIGTERM);
  ASSERT_EQ(servers_.server(0)->WaitForExit(kPatience), (ExitStatus{0, 0}));
  EXPECT_LT(absl::Now() - evicted, kBound);
  StartServer(1);
  SetAddresses({1});
  const absl::Time start = absl::Now();
  EXPECT_TRUE(WaitUntilBothGoOn(*client, 1));
  EXPECT_LT(absl::Now() - start, kBound);
}

// False where it is not allowed.
bool TakeOwnHostsFile(const std::string& file) {
  std::ofstream(file) << "127.0.0.1 localhost\n";
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount(file.c_str(), "/etc/hosts", nullptr, MS_BIND, nullptr) != 0) {
    return false;
  }
  // Several lines of one name are several addresses, whatever /etc/host.conf says.
  setenv("RESOLV_MULTI", "on", 1);
  return true;
}

}  // namespace
}  // namespace uniquanf

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  const uniquanf::TempDir dir;
  std::string hosts = dir.File("hosts");
  if (!uniquanf::TakeOwnHostsFile(hosts)) {
    std::fprintf(stderr,
                 "skipped: a mount namespace with its own /etc/hosts is not allowed here\n");
    return uniquanf::kSkipExitCode;
  }
  uniquanf::hosts_file = &hosts;
  setenv(uniquanf::kPollVariable, "60000", 1);
  uniquanf::PostgresServer server;
  if (const int status = server.Start(); status != 0) {
    std::fprintf(stderr, "%s: no PostgreSQL server\n",
                 status == uniquanf::kSkipExitCode ? "skipped" : "failed");
    return status;
  }
  uniquanf::postgres = &server;
  return RUN_ALL_TESTS();
}
