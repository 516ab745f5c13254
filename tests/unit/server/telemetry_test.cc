#include <gtest/gtest.h>
#include <prometheus/counter.h>

#include "common/telemetry/logger.h"
#include "common/telemetry/telemetry_server.h"
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
