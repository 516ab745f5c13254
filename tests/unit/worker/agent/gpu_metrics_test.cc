#include "worker/agent/gpu_metrics.h"

#include <prometheus/text_serializer.h>

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Scrape(const prometheus::Registry& registry) {
  return prometheus::TextSerializer().Serialize(registry.Collect());
}

TEST(GpuMetricsTest, SaysWhatTheDriverTellsOfEachSlotsDevice) {
  prometheus::Registry registry;
  GpuMetrics metrics(&registry, OpenGpuMonitor({"0000:03:00.0", "0000:02:00.0", "0000:01:00.0",
                                                "0000:09:00.0", ""},
                                               UNIQUANF_FAKE_NVML));
  metrics.Update();
  const std::string text = Scrape(registry);
  EXPECT_THAT(text, HasSubstr("uniquanf_worker_gpu_memory_used_bytes{gpu=\"0\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("uniquanf_worker_gpu_memory_total_bytes{gpu=\"0\"} 85899345920\n"));
  EXPECT_THAT(text, HasSubstr("uniquanf_worker_gpu_utilization_ratio{gpu=\"0\"} 0.75\n"));
  EXPECT_THAT(text, HasSubstr("uniquanf_worker_gpu_memory_used_bytes{gpu=\"1\"} 2\n"));
  EXPECT_THAT(text, Not(HasSubstr("uniquanf_worker_gpu_utilization_ratio{gpu=\"1\"}")));
  // A slice's numbers would be those of the whole device; the last two nobody knows.
  for (const char* gpu : {"{gpu=\"2\"}", "{gpu=\"3\"}", "{gpu=\"4\"}"}) {
    EXPECT_THAT(text, Not(HasSubstr(gpu)));
  }
}

TEST(GpuMonitorTest, ReadsClockAndPower) {
  const auto monitor =
      OpenGpuMonitor({"0000:03:00.0", "0000:02:00.0", "0000:01:00.0"}, UNIQUANF_FAKE_NVML);
  ASSERT_NE(monitor, nullptr);
  const std::vector<GpuSample> samples = monitor->Read();
  ASSERT_EQ(samples.size(), 3u);
  EXPECT_EQ(samples[0].sm_clock_mhz, 1410);
  EXPECT_EQ(samples[0].power_watts, 697.25);
  for (const int i : {1, 2}) {
    EXPECT_EQ(samples[i].sm_clock_mhz, std::nullopt) << i;
    EXPECT_EQ(samples[i].power_watts, std::nullopt) << i;
  }
}

TEST(GpuMetricsTest, WithoutADeviceThereAreNoSeries) {
  prometheus::Registry registry;
  GpuMetrics metrics(&registry, OpenGpuMonitor({}, UNIQUANF_FAKE_NVML));
  metrics.Update();
  EXPECT_THAT(Scrape(registry), Not(HasSubstr("uniquanf_worker_gpu_memory_used_bytes{")));
}

TEST(GpuMetricsTest, AMachineWithoutTheDriversLibraryHasNoMonitor) {
  EXPECT_EQ(OpenGpuMonitor({"0000:01:00.0"}, "libnot-there.so.1"), nullptr);
  EXPECT_EQ(OpenGpuMonitor({"0000:01:00.0"}, "libc.so.6"), nullptr) << "another library";
}

}  // namespace
}  // namespace uniquanf
