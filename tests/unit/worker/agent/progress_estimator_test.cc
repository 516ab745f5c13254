#include "worker/agent/progress_estimator.h"

#include "common/rpc/time_proto.h"
#include "gtest/gtest.h"

namespace uniquanf {
namespace {

TEST(ProgressEstimatorTest, RemainingFollowsThePaceOfThePhase) {
  ProgressEstimator estimator;
  EXPECT_FALSE(
      estimator.Update({"reconstructing", 0, 100, 1.5}, absl::Seconds(10)).has_remaining());
  const v1::TaskProgress at_20 =
      estimator.Update({"reconstructing", 20, 100, 1.2}, absl::Seconds(14));
  EXPECT_EQ(DurationFromProto(at_20.remaining()), absl::Seconds(16));
  EXPECT_EQ(at_20.phase(), "reconstructing");
  EXPECT_EQ(at_20.step(), 20);
  EXPECT_EQ(at_20.num_steps(), 100);
  EXPECT_EQ(at_20.loss(), 1.2);
  // A new phase starts without an estimate.
  EXPECT_FALSE(estimator.Update({"storing", 3, 0, 0}, absl::Seconds(15)).has_remaining());
}

TEST(ProgressEstimatorTest, APhaseThatStartsInTheMiddleCountsItsOwnSteps) {
  ProgressEstimator estimator;
  estimator.Update({"evaluating", 50, 100, 0}, absl::Seconds(0));
  const v1::TaskProgress progress = estimator.Update({"evaluating", 75, 100, 0}, absl::Seconds(5));
  EXPECT_EQ(DurationFromProto(progress.remaining()), absl::Seconds(5));
}

}  // namespace
}  // namespace uniquanf
