#include "common/job/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace uniquanf {
namespace {

TEST(JobReportTest, JsonHasEveryMemberAndNullForWhatIsNotKnownOrNoNumber) {
  JobReport report;
  report.perplexity_after = std::nan("");
  report.num_evaluation_tokens = 5;
  report.duration = absl::Milliseconds(1500);
  report.warnings = {"w"};
  report.layers.push_back({2, 0.5, INFINITY, 3, absl::Seconds(7)});
  report.windows.push_back({4, 2, 0.25, NAN, absl::Seconds(3)});
  EXPECT_EQ(
      ToJson(report).dump(),
      R"({"perplexity_before":null,"perplexity_after":null,"num_evaluation_tokens":5,)"
      R"("quality":null,"model_size_bytes":0,"artifact_size_bytes":0,"average_bits":0.0,)"
      R"("duration_seconds":1.5,"warnings":["w"],"layers":[{"layer":2,"bits":3,)"
      R"("initial_loss":0.5,"final_loss":null,"duration_seconds":7.0}],"windows":[{"first_layer":4,)"
      R"("num_layers":2,"initial_divergence":0.25,"final_divergence":null,)"
      R"("duration_seconds":3.0}]})");
}

TEST(JobReportTest, QualityIsTold) {
  JobReport report;
  report.quality = QualityReport{0.25, 0.5, 9, std::nullopt, "v", {{"p", "b", "a"}}};
  EXPECT_EQ(ToJson(report)["quality"].dump(),
            R"({"verdict":"v","divergence":0.25,"same_top_token":0.5,"num_compared_tokens":9,)"
            R"("baseline_perplexity":null,)"
            R"("texts":[{"prompt":"p","before":"b","after":"a"}]})");
}

}  // namespace
}  // namespace uniquanf
