#include <string>

#include "common/base/clock.h"
#include "common/telemetry/logger.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "worker/agent/worker_telemetry.h"

namespace uniquanf {
namespace {

using testing::HasSubstr;
using testing::Not;

class StringSink : public LogSink {
 public:
  void Write(absl::string_view line) override { text.append(line.data(), line.size()); }
  std::string text;
};

TEST(WorkerTelemetryTest, CountsWithoutNamingJobs) {
  prometheus::Registry registry;
  StringSink sink;
  Logger logger(&sink, &SystemClock(), LogFormat::kText, LogLevel::kInfo);
  int num_ready = 0;
  WorkerTelemetry telemetry(&logger, &registry, [&] { ++num_ready; });
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
  telemetry.OnSynchronized(absl::OkStatus(), absl::Seconds(1),
                           {.num_running = 1, .num_leases_expired = 2});
  EXPECT_EQ(num_ready, 1);
  EXPECT_TRUE(telemetry.connected());
  const std::string text = prometheus::TextSerializer().Serialize(registry.Collect());
  EXPECT_THAT(text, HasSubstr("uniquanf_worker_tasks_total{code=\"OK\",kind=\"layer\"} 1"));
  EXPECT_THAT(text, HasSubstr("uniquanf_worker_synchronize_total{code=\"UNAVAILABLE\"} 1"));
  EXPECT_THAT(text, HasSubstr("uniquanf_worker_slots_busy 1"));
  EXPECT_THAT(text, HasSubstr("# TYPE uniquanf_worker_lease_expiries_total counter"));
  EXPECT_THAT(text, HasSubstr("uniquanf_worker_lease_expiries_total 2"));
  EXPECT_THAT(text, Not(HasSubstr("secret")));
  EXPECT_THAT(sink.text, HasSubstr("jobs/secret/tasks/layer-0001"));
}

}  // namespace
}  // namespace uniquanf
