// The programs under pressure from the network: floods of connections, probes, and what people and
// container engines ask them.
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/e2e/service_test.h"
#include "tests/support/socket_util.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr absl::string_view kPreface("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);

class NetworkTest : public ServiceTest {
 protected:
  ~NetworkTest() override {
    for (const int fd : connections_) close(fd);
    if (HasFailure() && server_ != nullptr) std::fputs(server_->Log().c_str(), stderr);
  }

  // A server under `ulimit -n num_files`, on free ports that its log names.
  void StartServer(const std::string& num_files, const std::vector<std::string>& flags = {}) {
    std::string command =
        absl::StrCat("ulimit -n ", num_files, " && exec ", UNIQUANF_BINARY_DIR,
                     "/bin/uniquanf-server --listen=127.0.0.1:0 --data-dir=", cluster_.File("data"),
                     " --metrics-listen=127.0.0.1:0");
    for (const std::string& flag : flags) absl::StrAppend(&command, " ", flag);
    server_ = std::make_unique<ChildProcess>("/bin/sh", std::vector<std::string>{"-c", command},
                                             std::map<std::string, std::string>{},
                                             cluster_.File("server.log"));
  }
  // What follows `key` in the server's log, waited for.
  std::string Logged(const ChildProcess& process, const std::string& key) {
    std::string value;
    EXPECT_TRUE(WaitUntil(
        [&] {
          const std::string log = process.Log();
          const size_t start = log.find(key);
          if (start == std::string::npos) return false;
          const size_t end = log.find_first_of(" \n", start + key.size());
          if (end == std::string::npos) return false;
          value = log.substr(start + key.size(), end - start - key.size());
          return true;
        },
        absl::Seconds(30)))
        << key;
    return value;
  }
  std::string MetricsAddress(const ChildProcess& process, const std::string& key) {
    return absl::StrCat("127.0.0.1:", Logged(process, key));
  }
  void Connect(const std::string& address, int num, absl::string_view text) {
    for (int i = 0; i < num; ++i) {
      const int fd = ConnectTo(address);
      if (fd < 0) continue;
      connections_.push_back(fd);
      send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    }
  }
  void CloseAll() {
    for (const int fd : connections_) close(fd);
    connections_.clear();
  }
  ExitStatus Health(const std::string& program, const std::string& target) {
    return cluster_.Run(program, {absl::StrCat("--health=", target)}).status;
  }

  std::unique_ptr<ChildProcess> server_;
  std::vector<int> connections_;
};

class FloodTest : public NetworkTest, public testing::WithParamInterface<const char*> {};

// S-16, T10, R25: gRPC's own listener never accepted again.
TEST_P(FloodTest, ThePortServesAgainAfterAFloodOfIdleConnections) {
  rlimit files = {};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, 4096);
  setrlimit(RLIMIT_NOFILE, &files);
  StartServer(GetParam());
  const std::string address = Logged(*server_, "listening on address=");
  const std::string pages = MetricsAddress(*server_, "metrics_port=");
  ClientOptions options;
  options.server = address;
  const auto early = Client::Connect(options);
  ASSERT_OK(early);
  ASSERT_OK((*early)->ListJobs({}));
  Connect(address, 1200, kPreface);
  EXPECT_THAT(HttpGet(pages, "/healthz"), StartsWith("200"));
  EXPECT_OK((*early)->ListJobs({})) << "who was there before goes on";
  CloseAll();
  const auto late = Client::Connect(options);
  ASSERT_OK(late);
  const absl::Time start = absl::Now();
  EXPECT_OK((*late)->ListJobs({}));
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  EXPECT_THAT(HttpGet(pages, "/healthz"), StartsWith("200"));
  EXPECT_THAT(HttpGet(pages, "/metrics"), HasSubstr("uniquanf_connections_refused_total{limit="));
  EXPECT_TRUE(server_->running());
}

INSTANTIATE_TEST_SUITE_P(FileLimits, FloodTest, testing::Values("256", "1024"));

TEST_F(NetworkTest, TheSoftLimitOfOpenFilesIsRaisedToTheHardOne) {
  StartServer("300 && ulimit -S -n 200");
  EXPECT_EQ(Logged(*server_, "open_files_before="), "200");
  EXPECT_EQ(Logged(*server_, " open_files="), "300");
}

// T11 on the programs as they are.
TEST_F(NetworkTest, ProbesOfServerAndWorkerAnswerBesideIdleConnections) {
  StartServer("1024");
  const std::string address = Logged(*server_, "listening on address=");
  ChildProcess worker(UNIQUANF_BINARY_DIR "/bin/uniquanf-worker",
                      {absl::StrCat("--server=", address), "--name=w1", "--device=cpu",
                       "--threads=1", "--metrics-listen=127.0.0.1:0"},
                      {}, cluster_.File("worker.log"));
  for (const std::string& pages :
       {MetricsAddress(*server_, "metrics_port="), MetricsAddress(worker, "metrics port=")}) {
    for (const char* const text :
         {"", "GET /healthz HT", "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"}) {
      Connect(pages, 40, text);
      const absl::Time start = absl::Now();
      EXPECT_THAT(HttpGet(pages, "/healthz"), StartsWith("200")) << pages << " " << text;
      EXPECT_LE(absl::Now() - start, absl::Seconds(1)) << pages << " " << text;
    }
  }
}

// I6: what a container engine can ask without a program in the image.
TEST_F(NetworkTest, HealthCommandsTellWhetherAProgramServes) {
  StartServer("1024");
  const std::string address = Logged(*server_, "listening on address=");
  const std::string pages = MetricsAddress(*server_, "metrics_port=");
  const ExitStatus healthy = {0, 0}, sick = {1, 0}, usage = {2, 0};
  for (const char* program : {"uniquanf-server", "uniquanf-worker"}) {
    EXPECT_EQ(Health(program, address), healthy);
    EXPECT_EQ(Health(program, absl::StrCat("http://", pages, "/readyz?standby=ok")), healthy);
    EXPECT_EQ(Health(program, absl::StrCat("http://", pages, "/nothing")), sick);
    EXPECT_EQ(Health(program, "127.0.0.1:1"), sick);
    EXPECT_EQ(Health(program, "http://127.0.0.1:1/healthz"), sick);
    EXPECT_EQ(Health(program, "ftp://127.0.0.1/"), usage);
  }
  EXPECT_EQ(cluster_.Run("uniquanf", {"health", "--server", address}).status, healthy);
  EXPECT_EQ(cluster_.Run("uniquanf", {"health", "--server", "127.0.0.1:1", "--timeout=1s"}).status,
            (ExitStatus{4, 0}));
}

// K13: a large state must not look like a dead process.
TEST_F(NetworkTest, ProbesAreAnsweredWhileTheStateIsRead) {
  StartServer("1024");
  Logged(*server_, "listening on address=");
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->WaitForExit(absl::Seconds(30)), (ExitStatus{0, 0}));
  sqlite3* state = nullptr;
  ASSERT_EQ(sqlite3_open(cluster_.File("data/state.sqlite").c_str(), &state), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(state, "PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE", nullptr, nullptr,
                         nullptr),
            SQLITE_OK);
  std::string port_of_itself;
  const int probe = ListenOnLoopback(&port_of_itself);  // a free port
  close(probe);
  StartServer("1024", {absl::StrCat("--metrics-listen=", port_of_itself)});
  std::string ready;
  EXPECT_TRUE(WaitUntil([&] { return !(ready = HttpGet(port_of_itself, "/readyz")).empty(); },
                        absl::Seconds(30)));
  EXPECT_EQ(ready, "503 the state is being read\n");
  EXPECT_THAT(HttpGet(port_of_itself, "/readyz?standby=ok"), StartsWith("503"));
  EXPECT_THAT(HttpGet(port_of_itself, "/healthz"), StartsWith("200"));
  sqlite3_close(state);
  EXPECT_TRUE(WaitUntil([&] { return HttpGet(port_of_itself, "/readyz") == "200 ready\n"; },
                        absl::Seconds(30)));
}

// S-15.
TEST_F(NetworkTest, StateIsForItsUserAlone) {
  umask(022);
  StartServer("1024");
  Logged(*server_, "listening on address=");
  const auto mode = [&](const std::string& name) {
    struct stat info {};
    EXPECT_EQ(stat(cluster_.File(name).c_str(), &info), 0) << name;
    return info.st_mode & 0777;
  };
  EXPECT_EQ(mode("data"), 0700u);
  for (const char* suffix : {"", "-wal", "-shm", ".lock"}) {
    EXPECT_EQ(mode(absl::StrCat("data/state.sqlite", suffix)), 0600u) << suffix;
  }
}

// I10.
TEST_F(NetworkTest, EveryLineOfTheLogIsOfTheChosenFormat) {
  StartServer("1024", {"--log-format=json"});
  EXPECT_THAT(Logged(*server_, "\"event\":\"listening on\",\"address\":"), HasSubstr("127.0.0.1:"));
  const std::string log = server_->Log();
  for (size_t start = 0; start < log.size(); start = log.find('\n', start) + 1) {
    EXPECT_EQ(log[start], '{') << log.substr(start, 80);
  }
}

}  // namespace
}  // namespace uniquanf
