#include "worker/task/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;

Plan Sample() {
  Plan plan;
  plan.spec.schedule = LayerSchedule::kPipelined;
  plan.device = "cpu";
  plan.arithmetic = "f32";
  plan.num_layers = 2;
  plan.num_samples = 8;
  plan.sequence_length = 16;
  return plan;
}

TEST(PlanTest, ReadsBack) {
  ASSERT_OK_AND_ASSIGN(const Plan read, Plan::FromJson(Sample().ToJson()));
  EXPECT_EQ(read.ToJson(), Sample().ToJson());
  EXPECT_EQ(RoundSteps(read, NumRounds(read) - 1).second, NumSteps(read));
}

// Where the state means something else, its numbers would be taken for what they are not.
TEST(PlanTest, GoesOnOnlyWithItsKindOfOptimizerState) {
  EXPECT_THAT(Sample().ToJson(), testing::Not(HasSubstr("optimizer_state")))
      << "the bytes of before";
  Plan plan = Sample();
  plan.spec.optimizer_state = OptimizerState::kBf16;
  ASSERT_OK_AND_ASSIGN(const Plan read, Plan::FromJson(plan.ToJson()));
  EXPECT_EQ(read.spec.optimizer_state, OptimizerState::kBf16);
  auto json = nlohmann::ordered_json::parse(plan.ToJson());
  json["optimizer_state_version"] = 2;
  EXPECT_THAT(Plan::FromJson(json.dump()),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_PLAN",
                        HasSubstr("optimizer state has version 2; this one knows 1")));
}

// Steps are epochs · samples / batch size: nothing that a plan says may overflow or divide by 0.
TEST(PlanTest, RefusesNumbersThatNoJobHas) {
  auto json = nlohmann::ordered_json::parse(Sample().ToJson());
  json["spec"]["batch_size"] = 0;
  EXPECT_THAT(Plan::FromJson(json.dump()), FailsWith(absl::StatusCode::kInvalidArgument,
                                                     "INVALID_PLAN", HasSubstr("batch_size")));
  for (const char* name :
       {"num_layers", "num_samples", "sequence_length", "num_evaluation_tokens"}) {
    for (const int64_t value : {int64_t{-1}, int64_t{1} << 41}) {
      json = nlohmann::ordered_json::parse(Sample().ToJson());
      json[name] = value;
      EXPECT_THAT(Plan::FromJson(json.dump()),
                  FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_PLAN", HasSubstr(name)));
    }
  }
}

}  // namespace
}  // namespace uniquanf
