#include <gtest/gtest.h>
#include <prometheus/counter.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "common/telemetry/logger.h"
#include "common/telemetry/telemetry_server.h"
#include "tests/support/socket_util.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

class FixedClock : public Clock {
 public:
  absl::Time Now() const override { return absl::FromUnixSeconds(1700000000); }
  absl::Duration Monotonic() const override { return absl::ZeroDuration(); }
};
struct StringSink : LogSink {
  void Write(absl::string_view line) override { text.append(line.data(), line.size()); }
  std::string text;
};

TEST(LoggerTest, JsonIsOneEscapedLine) {
  FixedClock clock;
  StringSink sink;
  Logger logger(&sink, &clock, LogFormat::kJson, LogLevel::kInfo);
  logger.Debug("unseen");
  logger.Info("job state", {{"job", "a\"b\n"}, {"attempt", 2}, {"loss", 0.5}});
  EXPECT_EQ(sink.text,
            "{\"time\":\"2023-11-14T22:13:20.000000Z\",\"level\":\"info\",\"event\":\"job state\","
            "\"job\":\"a\\\"b\\n\",\"attempt\":2,\"loss\":0.5}\n");
}

TEST(LoggerTest, TextQuotesWhatNeedsIt) {
  FixedClock clock;
  StringSink sink;
  Logger logger(&sink, &clock, LogFormat::kText, LogLevel::kDebug);
  logger.Warning("x", {{"plain", "a/b"}, {"spaced", "a b"}, {"empty", ""}});
  EXPECT_EQ(sink.text,
            "2023-11-14T22:13:20.000000Z warning x plain=a/b spaced=\"a b\" empty=\"\"\n");
}

TEST(LoggerTest, CredentialsInUrisAreCutOut) {
  EXPECT_EQ(RedactCredentials("open postgresql://me:pw@host/db?password=x failed"),
            "open postgresql://***@host/db?*** failed");
  EXPECT_EQ(RedactCredentials("s3://bucket/key and file:///a@b"),
            "s3://bucket/key and file:///a@b");
  EXPECT_EQ(RedactCredentials("no uri"), "no uri");
}

class PagesTest : public ::testing::Test {
 protected:
  void Start() {
    options_.listen = "127.0.0.1:0";
    options_.registry = std::make_shared<prometheus::Registry>();
    auto server = TelemetryServer::Start(options_);
    ASSERT_THAT(server, IsOk());
    server_ = *std::move(server);
    address_ = "127.0.0.1:" + std::to_string(server_->port());
  }
  ~PagesTest() override {
    for (const int fd : connections_) close(fd);
  }
  // Connections that send `text` and then nothing more.
  void Occupy(int num, const std::string& text) {
    for (int i = 0; i < num; ++i) {
      connections_.push_back(ConnectTo(address_));
      ASSERT_EQ(send(connections_.back(), text.data(), text.size(), MSG_NOSIGNAL),
                static_cast<ssize_t>(text.size()));
    }
  }

  TelemetryServerOptions options_;
  std::unique_ptr<TelemetryServer> server_;
  std::string address_;
  std::vector<int> connections_;
};

TEST_F(PagesTest, ChecksDecideAboutTheAnswers) {
  absl::Status ready = absl::UnavailableError("stands by");
  options_.ready = [&] { return ready; };
  options_.ready_or_standby = [] { return absl::OkStatus(); };
  Start();
  EXPECT_EQ(HttpGet(address_, "/healthz"), "200 ok\n");
  EXPECT_EQ(HttpGet(address_, "/readyz"), "503 stands by\n");
  EXPECT_EQ(HttpGet(address_, "/readyz?standby=no"), "503 stands by\n");
  EXPECT_EQ(HttpGet(address_, "/readyz?standby=ok"), "200 ready\n");
  ready = absl::OkStatus();
  EXPECT_EQ(HttpGet(address_, "/readyz"), "200 ready\n");
}

TEST_F(PagesTest, OnlyItsPagesAndOnlyReadingThem) {
  Start();
  for (const char* path : {"/", "/../etc/passwd", "/healthz/", "//healthz"}) {
    EXPECT_EQ(HttpGet(address_, path).substr(0, 3), "404") << path;
  }
  for (const char* method : {"PUT", "POST", "TRACE", "PROPFIND", "DELETE", "CONNECT"}) {
    const std::string reply =
        Exchange(address_, std::string(method) + " /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(reply.substr(0, 12), "HTTP/1.1 405") << method;
  }
  EXPECT_EQ(Exchange(address_, "hello\r\n\r\n").substr(0, 12), "HTTP/1.1 400");
  EXPECT_EQ(Exchange(address_, std::string(20000, 'a')).substr(0, 12), "HTTP/1.1 431");
}

// T11, R25: what starved two threads that each served one connection.
TEST_F(PagesTest, ConnectionsThatSendNoRequestDoNotKeepProbesWaiting) {
  Start();
  for (const char* text :
       {"", "GET /healthz HT", "POST /healthz HTTP/1.1\r\nContent-Length: 9\r\n\r\n"}) {
    Occupy(40, text);
    EXPECT_EQ(HttpGet(address_, "/healthz"), "200 ok\n") << text;
  }
  Occupy(300, "");  // more than it keeps
  EXPECT_EQ(HttpGet(address_, "/healthz"), "200 ok\n");
}

TEST_F(PagesTest, AConnectionThatSendsNoRequestIsClosedSoon) {
  Start();
  EXPECT_EQ(Exchange(address_, "GET /heal"), "");  // returns when the server closes
}

// A scrape that hangs must not take the probes along.
TEST_F(PagesTest, ASlowScrapeDoesNotKeepProbesWaiting) {
  absl::Notification go;
  options_.before_scrape = [&] { go.WaitForNotification(); };
  Start();
  Occupy(3, "GET /metrics HTTP/1.1\r\n\r\n");
  EXPECT_EQ(HttpGet(address_, "/healthz"), "200 ok\n");
  go.Notify();
  server_.reset();  // while what its scrapes wait for is still there
}

TEST(TelemetryServerTest, TakesAFreePortAndRefusesNonsense) {
  TelemetryServerOptions options;
  options.listen = "127.0.0.1:0";
  options.registry = std::make_shared<prometheus::Registry>();
  const auto server = TelemetryServer::Start(options);
  ASSERT_THAT(server, IsOk());
  EXPECT_GT((*server)->port(), 0);
  options.listen = "nonsense";
  EXPECT_THAT(TelemetryServer::Start(options),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_LISTEN"));
  options.listen = "127.0.0.1:" + std::to_string((*server)->port());
  EXPECT_THAT(TelemetryServer::Start(options),
              FailsWith(absl::StatusCode::kUnavailable, "LISTEN_FAILED"));
}

}  // namespace
}  // namespace uniquanf
