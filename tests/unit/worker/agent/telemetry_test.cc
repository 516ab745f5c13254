#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "common/base/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "worker/agent/http_endpoint.h"
#include "worker/agent/log.h"
#include "worker/agent/worker_telemetry.h"

namespace uniquanf {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string Fetch(int port, const std::string& request) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  shutdown(fd, SHUT_WR);
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
    answer.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  return answer;
}

TEST(HttpEndpointTest, AnswersWhatItHasAndRefusesTheRest) {
  HttpEndpoint endpoint({{"/healthz", [] { return HttpResponse{503, "hangs\n"}; }}});
  ASSERT_TRUE(endpoint.Start("127.0.0.1:0").ok());
  EXPECT_THAT(Fetch(endpoint.port(), "GET /healthz?x=1 HTTP/1.1\r\nHost: h\r\n\r\n"),
              AllOf(HasSubstr("HTTP/1.1 503 "), HasSubstr("Content-Length: 6"),
                    HasSubstr("\r\n\r\nhangs\n")));
  EXPECT_THAT(Fetch(endpoint.port(), "GET /other HTTP/1.1\r\n\r\n"), HasSubstr(" 404 "));
  EXPECT_THAT(Fetch(endpoint.port(), "POST /healthz HTTP/1.1\r\n\r\n"), HasSubstr(" 405 "));
  EXPECT_THAT(Fetch(endpoint.port(), "nonsense\r\n\r\n"), HasSubstr(" 400 "));
  EXPECT_THAT(Fetch(endpoint.port(), std::string(20000, 'x')), HasSubstr(" 400 "));
}

TEST(HttpEndpointTest, BadAddressesAreNamed) {
  HttpEndpoint first({}), second({}), third({});
  EXPECT_EQ(ErrorReason(first.Start("nowhere")), "INVALID_FLAG");
  ASSERT_TRUE(second.Start("127.0.0.1:0").ok());
  EXPECT_EQ(ErrorReason(third.Start("127.0.0.1:" + std::to_string(second.port()))),
            "LISTEN_FAILED");
}

TEST(LogTest, RecordsAreOneLineWhateverTheyHold) {
  const absl::Time time = absl::FromUnixSeconds(0);
  EXPECT_EQ(FormatRecord(false, time, LogLevel::kInfo, "task done",
                         {{"task", "jobs/j"}, {"reason", ""}, {"error", "a \"b\"\nc"}}),
            "1970-01-01T00:00:00.000Z info task done task=jobs/j error=\"a \\\"b\\\"\\nc\"");
  EXPECT_EQ(FormatRecord(true, time, LogLevel::kError, "x\ny", {{"path", "\xff"}}),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"error\",\"message\":\"x\\ny\","
            "\"path\":\"\xEF\xBF\xBD\"}");
}

TEST(WorkerTelemetryTest, CountsWithoutNamingJobs) {
  prometheus::Registry registry;
  int num_ready = 0;
  WorkerTelemetry telemetry(&registry, [&] { ++num_ready; });
  v1::TaskAssignment assignment;
  assignment.set_task("jobs/secret/tasks/layer-0001");
  assignment.set_kind(v1::Task::LAYER);
  telemetry.OnTaskStarted(0, assignment);
  telemetry.OnTaskReturned(0, assignment, absl::OkStatus(), absl::Seconds(2));
  telemetry.OnSynchronized(absl::UnavailableError("no"), absl::Seconds(1), {});
  EXPECT_EQ(num_ready, 0);
  EXPECT_FALSE(telemetry.connected());
  telemetry.OnSynchronized(absl::OkStatus(), absl::Seconds(1), {.num_running = 1});
  telemetry.OnSynchronized(absl::OkStatus(), absl::Seconds(1), {.num_running = 1});
  EXPECT_EQ(num_ready, 1);
  EXPECT_TRUE(telemetry.connected());
  const std::string text = prometheus::TextSerializer().Serialize(registry.Collect());
  EXPECT_THAT(text, HasSubstr("uniquanf_worker_tasks_total{code=\"OK\",kind=\"layer\"} 1"));
  EXPECT_THAT(text, HasSubstr("uniquanf_worker_synchronize_total{code=\"UNAVAILABLE\"} 1"));
  EXPECT_THAT(text, HasSubstr("uniquanf_worker_slots_busy 1"));
  EXPECT_THAT(text, Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace uniquanf
