#include "worker/distill/window_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

namespace uniquanf::distill {
namespace {

TEST(WindowScheduleTest, JudgesDoNotTrainAndCalibrationCountsFourfoldBesideOtherText) {
  const Pool pool = MakePool(64, 100);
  EXPECT_EQ(pool.judges, (std::vector<int64_t>{156, 157, 158, 159, 160, 161, 162, 163}));
  std::map<int64_t, int> counts;
  for (const int64_t s : pool.training) ++counts[s];
  EXPECT_EQ(counts.size(), 64u + 92u);
  for (const auto& [sequence, count] : counts) EXPECT_EQ(count, sequence < 64 ? 4 : 1);
  // The calibration judges where there is little else.
  EXPECT_EQ(MakePool(64, 31).judges, (std::vector<int64_t>{56, 57, 58, 59, 60, 61, 62, 63}));
  EXPECT_EQ(MakePool(64, 31).training.size(), 4u * 56 + 31);
  EXPECT_EQ(MakePool(64, 0).training.size(), 56u);
}

TEST(WindowScheduleTest, FewSequencesStillTrainAndJudge) {
  EXPECT_EQ(MakePool(1, 0).training, std::vector<int64_t>{0});
  EXPECT_EQ(MakePool(1, 0).judges, std::vector<int64_t>{0});
  EXPECT_EQ(MakePool(2, 0).training, std::vector<int64_t>{0});
  EXPECT_EQ(MakePool(2, 0).judges, std::vector<int64_t>{1});
  EXPECT_EQ(MakePool(16, 0).judges.size(), 4u);
}

TEST(WindowScheduleTest, StepsGoThroughThePoolWithoutASeam) {
  const Pool pool = MakePool(9, 0);  // 7 train
  const std::vector<int64_t> sequences = StepSequences(pool, 5, 7, 3);
  ASSERT_EQ(sequences.size(), 21u);
  for (int pass = 0; pass < 3; ++pass) {
    const std::set<int64_t> seen(sequences.begin() + pass * 7, sequences.begin() + pass * 7 + 7);
    EXPECT_EQ(seen.size(), 7u);
  }
  EXPECT_EQ(sequences, StepSequences(pool, 5, 7, 3));
  EXPECT_NE(sequences, StepSequences(pool, 6, 7, 3));
}

TEST(WindowScheduleTest, RatesRiseAndFallToNothing) {
  EXPECT_NEAR(RateFactor(0, 800), 1.0 / 20, 1e-9);
  EXPECT_NEAR(RateFactor(19, 800), 1.0, 0.002);
  EXPECT_NEAR(RateFactor(400, 800), 0.5, 1e-9);
  EXPECT_LT(RateFactor(799, 800), 1e-5);
  EXPECT_NEAR(RateFactor(0, 1), 1.0, 1e-9);
  for (int64_t step = 20; step < 800; ++step) {
    EXPECT_LT(RateFactor(step, 800), RateFactor(step - 1, 800));
  }
}

TEST(WindowScheduleTest, JudgesAreAskedTwelveTimesAndAtTheEnd) {
  const std::vector<int64_t> steps = JudgedSteps(800);
  EXPECT_EQ(steps.size(), 12u);
  EXPECT_EQ(steps.back(), 800);
  EXPECT_TRUE(std::is_sorted(steps.begin(), steps.end()));
  EXPECT_EQ(JudgedSteps(3), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(JudgedSteps(1), std::vector<int64_t>{1});
}

}  // namespace
}  // namespace uniquanf::distill
