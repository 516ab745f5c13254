// Several servers on one PostgreSQL state: the active one, or the database, is killed under a job.
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/e2e/service_test.h"
#include "tests/support/postgres_server.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

PostgresServer* postgres = nullptr;

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::abort();
  }
  close(fd);
  return ntohs(address.sin_port);
}

class FailoverTest : public ServiceTest {
 protected:
  static constexpr int kNumServers = 2;

  FailoverTest() {
    for (std::string& address : addresses_) address = absl::StrCat("127.0.0.1:", FreePort());
  }
  ~FailoverTest() override {
    workers_.clear();
    for (auto& server : servers_) server.reset();
    for (int i = 0; HasFailure() && i < kNumServers; ++i) {
      std::fprintf(stderr, "---- log of server %d\n%s\n", i, ReadFile(ServerLog(i)).c_str());
    }
  }

  std::string ServerLog(int i) const { return cluster_.File(absl::StrCat("server-", i, ".log")); }
  std::string ReadyFile(int i) const { return cluster_.File(absl::StrCat("server-", i, ".ready")); }
  std::string AllServers() const { return absl::StrJoin(addresses_, ","); }
  bool IsActive(int i) const { return access(ReadyFile(i).c_str(), R_OK) == 0; }
  int Active() const {
    for (int i = 0; i < kNumServers; ++i) {
      if (IsActive(i)) return i;
    }
    return -1;
  }

  void StartServer(int i) {
    std::remove(ReadyFile(i).c_str());
    servers_[i] = std::make_unique<ChildProcess>(
        UNIQUANF_BINARY_DIR "/bin/uniquanf-server",
        std::vector<std::string>{
            absl::StrCat("--listen=", addresses_[i]), absl::StrCat("--state=", state_),
            absl::StrCat("--data-dir=", cluster_.File("data")),
            absl::StrCat("--ready-file=", ReadyFile(i)), "--lease-duration=3s"},
        std::map<std::string, std::string>{}, ServerLog(i));
  }
  // Both servers, the first one active.
  void StartServers() {
    StartServer(0);
    ASSERT_TRUE(WaitUntil([&] { return IsActive(0); }, absl::Seconds(30)));
    StartServer(1);
    ASSERT_TRUE(
        WaitUntil([&] { return servers_[1]->Log().find("listening on") != std::string::npos; },
                  absl::Seconds(30)));
    EXPECT_THAT(servers_[1]->Log(), HasSubstr("stands by"));
  }
  // Ends the database session that holds the lock; its server lives.
  void EndActiveSession() {
    postgres->Sql(state_,
                  "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND "
                  "granted AND objid = 'uniquanf_meta'::regclass::oid");
  }
  // kill -9 to server i and, until the other one is active, the time it took.
  absl::Duration KillAndWaitForTakeover(int i) {
    std::remove(ReadyFile(i).c_str());
    const absl::Time start = absl::Now();
    servers_[i]->Kill();
    EXPECT_TRUE(WaitUntil([&] { return Active() >= 0; }, absl::Seconds(20)));
    return absl::Now() - start;
  }
  void StartWorker(const std::string& name) {
    workers_.push_back(std::make_unique<ChildProcess>(
        UNIQUANF_BINARY_DIR "/bin/uniquanf-worker",
        std::vector<std::string>{absl::StrCat("--server=", AllServers()),
                                 absl::StrCat("--name=", name), "--device=cpu", "--threads=1"},
        std::map<std::string, std::string>{}, cluster_.File(absl::StrCat(name, ".log"))));
  }
  std::unique_ptr<Client> Connect(const std::string& servers, int max_attempts = 4) {
    ClientOptions options;
    options.server = servers;
    options.retry.max_attempts = max_attempts;
    auto client = Client::Connect(options);
    EXPECT_OK(client);
    return *std::move(client);
  }
  static SubmitOptions Options(const QuantizationSpec& spec) {
    SubmitOptions options;
    options.spec = spec;
    return options;
  }
  int NumLayersDone(Client& client, const std::string& job) {
    const auto now = client.GetJob(job);
    if (!now.ok()) return -1;
    return IsFinal(now->state) ? 1000 : static_cast<int>(now->progress.num_layers_succeeded);
  }
  void ExpectReferenceBytes(const QuantizationSpec& spec) {
    const Artifact artifact = ArtifactBytes(spec.output_uri.substr(std::string("file://").size()));
    EXPECT_TRUE(artifact == Reference()) << "the artifact differs from the batch program's";
  }

  const std::string state_ = postgres->NewState();
  std::array<std::string, kNumServers> addresses_;
  std::array<std::unique_ptr<ChildProcess>, kNumServers> servers_;
  std::vector<std::unique_ptr<ChildProcess>> workers_;
};

TEST_F(FailoverTest, AStandbyIsNotReadyUntilItTakesOverWithinFiveSeconds) {
  StartServers();
  auto standby = Connect(addresses_[1], 1);
  const auto refused = FailsWith(absl::StatusCode::kUnavailable, "NOT_ACTIVE");
  EXPECT_THAT(standby->GetJob("jobs/a"), refused);
  EXPECT_THAT(standby->ListJobs({}), refused);
  EXPECT_THAT(standby->ListTasks("jobs/a"), refused);
  EXPECT_THAT(standby->SubmitJob(Options(Spec("out"))), refused);
  EXPECT_THAT(standby->CancelJob("jobs/a"), refused);
  EXPECT_THAT(standby->ListWorkers(), refused);
  EXPECT_FALSE(IsActive(1));
  // Calls to both only ever reach the one whose health is SERVING: not one needs a second attempt.
  auto both = Connect(AllServers(), 1);
  ASSERT_TRUE(WaitUntil([&] { return both->ListJobs({}).ok(); }, absl::Seconds(10)));
  for (int i = 0; i < 50; ++i) ASSERT_OK(both->ListJobs({})) << i;
  const absl::Duration takeover = KillAndWaitForTakeover(0);
  std::printf("takeover after kill -9: %s\n", absl::FormatDuration(takeover).c_str());
  EXPECT_LT(takeover, absl::Seconds(5));
  EXPECT_TRUE(IsActive(1));
  EXPECT_OK(standby->ListJobs({}));
  EXPECT_OK(Connect(AllServers())->ListJobs({}));
}

TEST_F(FailoverTest, AJobSurvivesItsActiveServerBeingKilledAgainAndAgain) {
  StartServers();
  StartWorker("w1");
  StartWorker("w2");
  auto client = Connect(AllServers());
  const QuantizationSpec spec = Spec("out");
  const auto job = client->SubmitJob(Options(spec));
  ASSERT_OK(job);
  // One watch over all of it.
  absl::StatusOr<Job> last = absl::UnknownError("no end seen");
  int64_t version = 0;
  bool versions_grow = true;
  std::thread watch([&] {
    last = client->WatchJob(job->name, [&](const JobUpdate& update) {
      versions_grow = versions_grow && update.job.version > version;
      version = update.job.version;
    });
  });
  auto poll = Connect(AllServers());
  for (int round = 1; round <= 3; ++round) {
    EXPECT_TRUE(
        WaitUntil([&] { return NumLayersDone(*poll, job->name) >= round; }, absl::Minutes(2)))
        << round;
    const int active = Active();
    if (active < 0) break;
    EXPECT_LT(KillAndWaitForTakeover(active), absl::Seconds(5)) << round;
    StartServer(active);
  }
  watch.join();
  ASSERT_OK(last);
  EXPECT_EQ(last->state, JobState::kSucceeded) << (last->error ? last->error->message : "");
  EXPECT_TRUE(versions_grow);
  ExpectReferenceBytes(spec);
  const auto tasks = poll->ListTasks(job->name);
  ASSERT_OK(tasks);
  for (const Task& task : *tasks) {
    EXPECT_EQ(task.attempt, 1) << task.name << ": the workers lived on, nothing is done twice";
  }
  for (int i = 0; i < kNumServers; ++i) {
    EXPECT_THAT(ReadFile(ServerLog(i)), Not(HasSubstr(PostgresServer::kPassword)));
  }
}

TEST_F(FailoverTest, AJobSurvivesTheDatabaseBeingKilled) {
  StartServers();
  StartWorker("w1");
  auto client = Connect(AllServers());
  const QuantizationSpec spec = Spec("out");
  const auto job = client->SubmitJob(Options(spec));
  ASSERT_OK(job);
  for (int round = 1; round <= 2; ++round) {
    ASSERT_TRUE(
        WaitUntil([&] { return NumLayersDone(*client, job->name) >= round; }, absl::Minutes(2)))
        << round;
    ASSERT_TRUE(postgres->Crash());
    ASSERT_TRUE(postgres->Restart());
  }
  ASSERT_TRUE(
      WaitUntil([&] { return NumLayersDone(*client, job->name) == 1000; }, absl::Minutes(3)));
  EXPECT_EQ(client->GetJob(job->name)->state, JobState::kSucceeded);
  ExpectReferenceBytes(spec);
}

// The lock falls to the other server while the first one lives: it must notice by itself, and be a
// standby from then on.
TEST_F(FailoverTest, AnActiveServerThatLosesItsSessionStandsBy) {
  StartServers();
  EndActiveSession();
  ASSERT_TRUE(WaitUntil([&] { return IsActive(1) && !IsActive(0); }, absl::Seconds(10)));
  EXPECT_THAT(Connect(addresses_[0], 1)->ListJobs({}),
              FailsWith(absl::StatusCode::kUnavailable, "NOT_ACTIVE"));
  EXPECT_OK(Connect(addresses_[1])->ListJobs({}));
  EXPECT_TRUE(servers_[0]->running());
}

// Nothing that it remembers is given out between the loss of its session and its notice of that.
TEST_F(FailoverTest, AReplacedServerDoesNotTellWhatItRemembers) {
  StartServers();
  std::array<std::unique_ptr<Client>, kNumServers> at = {Connect(addresses_[0], 1),
                                                         Connect(addresses_[1], 1)};
  const auto job = at[0]->SubmitJob(Options(Spec("out")));
  ASSERT_OK(job);
  const std::function<absl::StatusOr<Job>(Client&)> reads[] = {
      [&](Client& client) { return client.GetJob(job->name); },
      [&](Client& client) -> absl::StatusOr<Job> {
        const auto page = client.ListJobs({});
        if (!page.ok()) return page.status();
        return page->jobs.at(0);
      },
      [&](Client& client) -> absl::StatusOr<Job> {
        const auto update = client.WatchJob(job->name).Next();
        if (!update.ok()) return update.status();
        return (*update)->job;
      },
  };
  int active = 0;
  bool paused = false;
  for (const auto& read : reads) {
    servers_[active]->Signal(SIGSTOP);  // or it might notice, and take its place again
    EndActiveSession();
    const int before = active;
    active = 1 - active;
    paused = !paused;
    absl::StatusOr<Job> changed = absl::UnknownError("");
    ASSERT_TRUE(WaitUntil(
        [&] {
          changed = paused ? at[active]->PauseJob(job->name) : at[active]->ResumeJob(job->name);
          return changed.ok();
        },
        absl::Seconds(10)))
        << changed.status();
    servers_[before]->Signal(SIGCONT);
    const absl::StatusOr<Job> remembered = read(*at[before]);
    EXPECT_EQ(remembered.status().code(), absl::StatusCode::kUnavailable) << remembered.status();
    const absl::StatusOr<Job> present = read(*at[active]);
    ASSERT_OK(present);
    EXPECT_EQ(present->version, changed->version);
  }
}

// Its connections stay open, so only its silence tells.
TEST_F(FailoverTest, AnActiveServerThatHangsIsReplacedAndStandsByWhenItWakes) {
  StartServers();
  ASSERT_OK(Connect(addresses_[0])->SubmitJob(Options(Spec("out"))));
  std::remove(ReadyFile(0).c_str());
  const absl::Time start = absl::Now();
  servers_[0]->Signal(SIGSTOP);
  ASSERT_TRUE(WaitUntil([&] { return IsActive(1); }, absl::Seconds(20)));
  const absl::Duration takeover = absl::Now() - start;
  std::printf("takeover from a hung server: %s\n", absl::FormatDuration(takeover).c_str());
  EXPECT_LT(takeover, absl::Seconds(5));
  servers_[0]->Signal(SIGCONT);
  auto woken = Connect(addresses_[0], 1);
  EXPECT_TRUE(WaitUntil([&] { return ErrorReason(woken->ListJobs({}).status()) == "NOT_ACTIVE"; },
                        absl::Seconds(10)));
  EXPECT_OK(Connect(AllServers())->ListJobs({}));
}

}  // namespace
}  // namespace uniquanf

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  uniquanf::PostgresServer server;
  if (const int status = server.Start(); status != 0) {
    std::fprintf(stderr, "%s: no PostgreSQL server\n",
                 status == uniquanf::kSkipExitCode ? "skipped" : "failed");
    return status;
  }
  uniquanf::postgres = &server;
  return RUN_ALL_TESTS();
}
