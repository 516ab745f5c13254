#include "worker/task/layer_result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "absl/strings/str_replace.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

LayerResult Sample() {
  LayerResult result;
  result.plan_sha256 = "p";
  result.layer = 3;
  result.round = 1;
  result.shard_sha256 = "s";
  result.shard_size_bytes = 77;
  result.environment = "cpu";
  result.initial_loss = 0.5;
  result.final_loss = 0.25;
  result.loss_curve = {0.1f, 0.3f};
  result.modules.resize(1);
  result.modules[0].name = "m";
  result.modules[0].quantized = true;
  result.modules[0].bits = 3;
  return result;
}

TEST(LayerResultTest, ReadsBack) {
  ASSERT_OK_AND_ASSIGN(const LayerResult read, LayerResult::FromJson(Sample().ToJson()));
  EXPECT_EQ(read.ToJson(), Sample().ToJson());
  EXPECT_EQ(read.loss_curve, Sample().loss_curve);
  EXPECT_EQ(read.modules.at(0).bits, 3);
}

// A job whose loss overflowed must still say so in its report, and not fail in the next task.
TEST(LayerResultTest, LossesThatAreNoFiniteNumbersReadBackAsNan) {
  LayerResult result = Sample();
  result.initial_loss = std::numeric_limits<double>::infinity();
  result.final_loss = kNan;
  result.loss_curve[1] = std::numeric_limits<float>::infinity();
  result.modules[0].weight_error = kNan;
  ASSERT_OK_AND_ASSIGN(const LayerResult read, LayerResult::FromJson(result.ToJson()));
  EXPECT_TRUE(std::isnan(read.initial_loss));
  EXPECT_TRUE(std::isnan(read.final_loss));
  EXPECT_EQ(read.loss_curve.at(0), 0.1f);
  EXPECT_TRUE(std::isnan(read.loss_curve.at(1)));
  EXPECT_TRUE(std::isnan(read.modules.at(0).weight_error));
}

TEST(LayerResultTest, DamageIsNamed) {
  const auto refuse = [](const char* from, const char* to, const char* message) {
    const std::string json = absl::StrReplaceAll(Sample().ToJson(), {{from, to}});
    EXPECT_THAT(LayerResult::FromJson(json),
                FailsWith(kInvalid, "INVALID_LAYER_RESULT", HasSubstr(message)))
        << json;
  };
  refuse("{", "", "not valid JSON");
  refuse("\"uniquanf_layer_result\":1", "\"uniquanf_layer_result\":2", "version 2");
  refuse("\"layer\":3", "\"layer\":\"3\"", "layer must be an integer");
  refuse("\"layer\":3,", "", "layer is missing");
  refuse("\"layer\":3", "\"layer\":3,\"more\":1", "unknown field more");
  refuse("\"bits\":3", "\"bits\":null", "modules[0].bits");
  refuse("[0.1", "[\"x\",0.1", "loss_curve must be an array of numbers");
}

}  // namespace
}  // namespace uniquanf
