#include "server/service/server_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <string>

#include "common/base/clock.h"

namespace uniquanf::server {
namespace {

using testing::HasSubstr;
using testing::Not;

class NoSink : public LogSink {
 public:
  void Write(absl::string_view) override {}
};

class ServerMetricsTest : public ::testing::Test {
 protected:
  std::string Scrape() {
    return prometheus::TextSerializer().Serialize(metrics_.registry()->Collect());
  }
  NoSink sink_;
  Logger logger_{&sink_, &SystemClock(), LogFormat::kText, LogLevel::kError};
  ServerMetrics metrics_{&logger_};
};

// M1: a counter that appears at 1 has not increased, for an alert.
TEST_F(ServerMetricsTest, EveryFailureClassIsThereFromTheStart) {
  const std::string text = Scrape();
  for (const char* failure :
       {"worker_lost", "transient", "out_of_memory", "invalid_input", "internal"}) {
    EXPECT_THAT(text, HasSubstr("uniquanf_task_failures_total{class=\"" + std::string(failure) +
                                "\"} 0\n"));
  }
}

// K9, M3: the new active server exports them, and sums must not count them twice.
TEST_F(ServerMetricsTest, AServerThatStandsByExportsNoStateOfJobs) {
  const char* const gauges[] = {"uniquanf_jobs{", "uniquanf_tasks{", "uniquanf_unschedulable_jobs ",
                                "uniquanf_worker_sessions ", "uniquanf_garbage_jobs "};
  for (const char* gauge : gauges) EXPECT_THAT(Scrape(), Not(HasSubstr(gauge)));
  State state;
  state.num_jobs[static_cast<int>(JobState::kRunning)] = 3;
  for (int round = 0; round < 2; ++round) {
    metrics_.OnRecovered(state, absl::Seconds(1));
    for (const char* gauge : gauges) EXPECT_THAT(Scrape(), HasSubstr(gauge));
    EXPECT_THAT(Scrape(), HasSubstr("uniquanf_jobs{state=\"running\"} 3\n"));
    metrics_.OnStandBy();
    for (const char* gauge : gauges) EXPECT_THAT(Scrape(), Not(HasSubstr(gauge)));
    metrics_.OnStandBy();
  }
}

// Reported at the last tick, once a second at most.
TEST_F(ServerMetricsTest, TheOldestReadyTaskHasAnAge) {
  State state;
  JobEntry& waiting = state.jobs[1];
  waiting.queued_as = QueueKey{};
  state.jobs[2];  // paused
  state.ready = {
      {absl::Seconds(5), {2, 0}}, {absl::Seconds(10), {1, 0}}, {absl::Seconds(20), {1, 1}}};
  state.last_tick = absl::Seconds(70);
  metrics_.OnRecovered(state, absl::Seconds(1));
  metrics_.OnCommit(0, false, absl::ZeroDuration(), state, {});
  EXPECT_THAT(Scrape(), HasSubstr("uniquanf_oldest_ready_task_seconds 60\n"));
  state.last_tick = absl::Seconds(71);
  state.ready.clear();
  metrics_.OnCommit(3, true, absl::ZeroDuration(), state, {});
  EXPECT_THAT(Scrape(), HasSubstr("uniquanf_oldest_ready_task_seconds 0\n"));
  metrics_.OnStandBy();
  EXPECT_THAT(Scrape(), Not(HasSubstr("uniquanf_oldest_ready_task_seconds ")));
}

}  // namespace
}  // namespace uniquanf::server
