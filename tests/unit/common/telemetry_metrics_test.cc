// Metrics that server and worker share.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "common/base/version.h"
#include "common/telemetry/process_metrics.h"
#include "common/telemetry/store_metrics.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;

std::string Scrape(const prometheus::Registry& registry) {
  return prometheus::TextSerializer().Serialize(registry.Collect());
}
// Of the series with this name and these labels; -1: there is none.
double Value(const prometheus::Registry& registry, const std::string& series) {
  const std::string text = Scrape(registry);
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    double value = 0;
    if (absl::ConsumePrefix(&line, absl::StrCat(series, " ")) && absl::SimpleAtod(line, &value)) {
      return value;
    }
  }
  return -1;
}

TEST(ProcessMetricsTest, SaysWhatTheProcessIsAndTakes) {
  prometheus::Registry registry;
  ProcessMetrics metrics(&registry, "uniquanf-test");
  EXPECT_THAT(Scrape(registry),
              HasSubstr(absl::StrCat("uniquanf_build_info{program=\"uniquanf-test\",protocol=\"",
                                     kProtocolVersion, "\",version=\"")));
  EXPECT_GT(Value(registry, "process_resident_memory_bytes"), 1 << 20);
  EXPECT_GT(Value(registry, "process_virtual_memory_bytes"),
            Value(registry, "process_resident_memory_bytes"));
  EXPECT_EQ(Value(registry, "process_max_fds"), static_cast<double>(sysconf(_SC_OPEN_MAX)));
  const double age = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()) -
                     Value(registry, "process_start_time_seconds");
  EXPECT_GT(age, -2);
  EXPECT_LT(age, 3600);
}

TEST(ProcessMetricsTest, FollowsWhatChanges) {
  prometheus::Registry registry;
  ProcessMetrics metrics(&registry, "uniquanf-test");
  const double files = Value(registry, "process_open_fds");
  const double resident = Value(registry, "process_resident_memory_bytes");
  const double cpu = Value(registry, "process_cpu_seconds_total");
  std::vector<int> opened;
  for (int i = 0; i < 5; ++i) opened.push_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  std::vector<char> memory(64 << 20, 1);
  volatile uint64_t sum = 0;
  do {
    for (const char byte : memory) sum = sum + static_cast<uint64_t>(byte);
    metrics.Update();
  } while (Value(registry, "process_cpu_seconds_total") < cpu + 0.01);
  EXPECT_EQ(Value(registry, "process_open_fds"), files + 5);
  EXPECT_GT(Value(registry, "process_resident_memory_bytes"), resident + (32 << 20));
  for (const int file : opened) close(file);
  metrics.Update();
  EXPECT_EQ(Value(registry, "process_open_fds"), files);
}

// A counter that appears at 1 has not increased, for an alert.
TEST(StoreMetricsTest, EveryOperationIsThereFromTheStart) {
  prometheus::Registry registry;
  StoreMetrics metrics(&registry);
  for (const char* operation : {"stat", "read", "write", "list", "delete"}) {
    EXPECT_EQ(Value(registry, absl::StrCat("uniquanf_object_store_errors_total{operation=\"",
                                           operation, "\"}")),
              0);
    EXPECT_EQ(Value(registry, absl::StrCat("uniquanf_object_store_seconds_count{operation=\"",
                                           operation, "\"}")),
              0);
  }
}

TEST(StoreMetricsTest, CountsTimeOfAllAndFailuresOfTheStore) {
  prometheus::Registry registry;
  StoreMetrics metrics(&registry);
  metrics.OnStoreOperation(StoreOperation::kRead, absl::Seconds(2), absl::OkStatus());
  metrics.OnStoreOperation(StoreOperation::kRead, absl::Seconds(1), absl::NotFoundError(""));
  metrics.OnStoreOperation(StoreOperation::kRead, absl::Seconds(4), absl::UnavailableError(""));
  EXPECT_EQ(Value(registry, "uniquanf_object_store_seconds_count{operation=\"read\"}"), 3);
  EXPECT_EQ(Value(registry, "uniquanf_object_store_seconds_sum{operation=\"read\"}"), 7);
  EXPECT_EQ(Value(registry, "uniquanf_object_store_errors_total{operation=\"read\"}"), 1);
  EXPECT_EQ(Value(registry, "uniquanf_object_store_errors_total{operation=\"write\"}"), 0);
}

}  // namespace
}  // namespace uniquanf
