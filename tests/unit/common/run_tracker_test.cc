// Recordings of real runs, made with `uniquanf-batch quantize --record-progress`, replayed: what
// was estimated is compared with what happened.
#include "common/job/run_tracker.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "gtest/gtest.h"

namespace uniquanf {
namespace {

std::string ReadAll(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

struct Sample {
  double at = 0, fraction = 0;
  std::optional<double> remaining;
};

std::vector<Sample> Replay(const std::string& lines) {
  std::vector<Sample> samples;
  const absl::Status status = ReplayRun(lines, [&](RunTracker* tracker, absl::Duration at) {
    const TimeEstimate estimate = tracker->Estimate(at);
    Sample& sample = samples.emplace_back();
    sample.at = absl::ToDoubleSeconds(at);
    sample.fraction = estimate.fraction;
    if (estimate.remaining.has_value()) {
      sample.remaining = absl::ToDoubleSeconds(*estimate.remaining);
    }
  });
  EXPECT_TRUE(status.ok()) << status;
  return samples;
}

// The last sample at or before the part `part` of the run.
const Sample& At(const std::vector<Sample>& samples, double part) {
  const double time = part * samples.back().at;
  const auto after =
      std::upper_bound(samples.begin(), samples.end(), time,
                       [](double value, const Sample& sample) { return value < sample.at; });
  return after == samples.begin() ? *after : *(after - 1);
}

class RecordedRunTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    samples_ = Replay(ReadAll(std::filesystem::path(UNIQUANF_SOURCE_DIR) /
                              "tests/unit/common/testdata/progress" / GetParam()));
    ASSERT_FALSE(samples_.empty());
  }
  void ExpectWithin(double part, double factor) {
    const Sample& sample = At(samples_, part);
    const double really = samples_.back().at - sample.at;
    ASSERT_TRUE(sample.remaining.has_value()) << "at " << part;
    EXPECT_LE(*sample.remaining, really * factor) << "at " << part << " of " << samples_.back().at;
    EXPECT_GE(*sample.remaining, really / factor) << "at " << part << " of " << samples_.back().at;
  }
  std::vector<Sample> samples_;
};

TEST_P(RecordedRunTest, TheFractionNeverFallsAndIsNeverWholeBeforeTheEnd) {
  double last = 0;
  for (const Sample& sample : samples_) {
    ASSERT_GE(sample.fraction, last) << "at " << sample.at;
    ASSERT_LT(sample.fraction, 1) << "at " << sample.at;
    last = sample.fraction;
  }
  EXPECT_GT(last, 0.9);
}

TEST_P(RecordedRunTest, TheTimeLeftIsRight) {
  ExpectWithin(0.25, 2.0);
  ExpectWithin(0.5, 1.3);
  ExpectWithin(0.9, 1.3);
}

std::vector<std::string> Recordings() {
  std::vector<std::string> names;
  const std::filesystem::path folder =
      std::filesystem::path(UNIQUANF_SOURCE_DIR) / "tests/unit/common/testdata/progress";
  std::error_code none;  // a folder that is missing has no recordings
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    if (entry.path().extension() == ".jsonl") names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(RecordedRunTest);
INSTANTIATE_TEST_SUITE_P(Recordings, RecordedRunTest, testing::ValuesIn(Recordings()),
                         [](const auto& info) {
                           std::string name = info.param.substr(0, info.param.find('.'));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(ReplayRunTest, NamesTheLineThatIsWrong) {
  const auto ignore = [](RunTracker*, absl::Duration) {};
  EXPECT_EQ(ReplayRun("", ignore), absl::OkStatus());
  const absl::Status status = ReplayRun(
      "{\"at\":0,\"event\":\"start\",\"node\":0}\n{\"at\":1,\"event\":\"start\",\"node\":7}",
      ignore);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_NE(status.message().find("line 2"), std::string::npos) << status;
  EXPECT_FALSE(ReplayRun("{}", ignore).ok());
  EXPECT_FALSE(ReplayRun("nonsense", ignore).ok());
}

}  // namespace
}  // namespace uniquanf
