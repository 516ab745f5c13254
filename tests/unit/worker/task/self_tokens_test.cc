// Text that a job's model writes itself: the plan, the objects, and going on after a stop.
#include "worker/task/self_tokens.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "tests/unit/worker/task/task_fixture.h"
#include "worker/task/content_store.h"
#include "worker/task/plan.h"

namespace uniquanf {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class SelfTokensTest : public TaskTest {
 protected:
  SelfTokensTest() {
    model_.Write(spec_.model_uri);
    spec_.self_samples = 70;  // two batches
    spec_.sequence_length = 24;
  }
  Plan PlanOf(const std::string& sha256) {
    return *Plan::FromJson(*GetContent(env_.work.get(), sha256, 1 << 20));
  }
  std::vector<int32_t> Tokens(const std::string& sha256) {
    return TokensFromBytes(*GetContent(env_.work.get(), sha256, 1 << 20));
  }
};

TEST_F(SelfTokensTest, AloneItIsTheCalibration) {
  spec_.calibration_uri.clear();
  const auto prepared = RunPrepare(spec_, env_);
  ASSERT_THAT(prepared, IsOk());
  const Plan plan = PlanOf(prepared->plan_sha256);
  EXPECT_EQ(plan.num_self_samples, 70);
  EXPECT_EQ(plan.num_samples, 4);
  EXPECT_EQ(plan.sequence_length, 24);
  const std::vector<int32_t> all = Tokens(plan.self_tokens_sha256);
  ASSERT_EQ(all.size(), 70u * 24);
  const std::vector<int32_t> used = Tokens(plan.calibration_sha256);
  ASSERT_EQ(used.size(), 4u * 24);
  EXPECT_TRUE(std::equal(used.begin(), used.end(), all.begin()));
  EXPECT_THAT(RunJob(), IsOk());
}

TEST_F(SelfTokensTest, BesideACalibrationItBeginsLikeIt) {
  const auto prepared = RunPrepare(spec_, env_);
  ASSERT_THAT(prepared, IsOk());
  const Plan plan = PlanOf(prepared->plan_sha256);
  spec_.self_samples = 0;
  const Plan without = PlanOf(RunPrepare(spec_, env_)->plan_sha256);
  EXPECT_EQ(plan.calibration_sha256, without.calibration_sha256);
  EXPECT_EQ(without.self_tokens_sha256, "");
  const std::vector<int32_t> given = Tokens(plan.calibration_sha256);
  const std::vector<int32_t> written = Tokens(plan.self_tokens_sha256);
  std::set<std::vector<int32_t>> parts;
  for (int row = 0; row < 4; ++row) {
    for (int at = 0; at + 16 <= 24; ++at) {
      const auto begin = given.begin() + row * 24 + at;
      parts.insert({begin, begin + 16});
    }
  }
  for (int s = 0; s < 70; ++s) {
    const auto begin = written.begin() + s * 24;
    EXPECT_EQ(parts.count({begin, begin + 16}), 1u) << s;
  }
}

TEST_F(SelfTokensTest, GoesOnWithTheBatchItWasAt) {
  const std::string whole = RunPrepare(spec_, env_)->plan_sha256;
  // Elsewhere, stopped in the middle of the second batch.
  env_.work = *OpenObjectStore(dir_.path() + "/work2");
  const std::string notes = dir_.path() + "/work2/self-text";
  int questions = 0;
  env_.stop = [&] { return std::filesystem::exists(notes) && ++questions > 3; };
  const auto stopped = RunPrepare(spec_, env_);
  EXPECT_THAT(stopped, FailsWith(absl::StatusCode::kCancelled, "TASK_CANCELLED"));
  const auto count = [&] {
    return std::distance(std::filesystem::directory_iterator(notes),
                         std::filesystem::directory_iterator());
  };
  EXPECT_EQ(count(), 1);
  env_.stop = {};
  int64_t batches = 0;
  env_.progress = [&](const TaskStepProgress& progress) {
    batches += std::string(progress.phase) == "writing text" ? 1 : 0;
  };
  const auto resumed = RunPrepare(spec_, env_);
  ASSERT_THAT(resumed, IsOk());
  EXPECT_EQ(resumed->plan_sha256, whole);
  EXPECT_EQ(count(), 2);
  EXPECT_EQ(batches, 2);
}

TEST_F(SelfTokensTest, ADamagedBatchIsWrittenAnew) {
  const std::string whole = RunPrepare(spec_, env_)->plan_sha256;
  for (const auto& note : std::filesystem::directory_iterator(dir_.path() + "/work/self-text")) {
    std::filesystem::resize_file(note.path(), 10);
  }
  EXPECT_EQ(RunPrepare(spec_, env_)->plan_sha256, whole);
}

TEST_F(SelfTokensTest, TheSeedDecides) {
  const Plan first = PlanOf(RunPrepare(spec_, env_)->plan_sha256);
  spec_.seed = 1;
  EXPECT_NE(PlanOf(RunPrepare(spec_, env_)->plan_sha256).self_tokens_sha256,
            first.self_tokens_sha256);
}

TEST_F(SelfTokensTest, NothingIsWrittenWhereNothingCalibrates) {
  spec_.method = QuantizationMethod::kRtn;
  EXPECT_EQ(PlanOf(RunPrepare(spec_, env_)->plan_sha256).self_tokens_sha256, "");
}

TEST_F(SelfTokensTest, WithoutAnyCalibrationTheJobIsRefused) {
  spec_.calibration_uri.clear();
  spec_.self_samples = 0;
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "INVALID_SPEC"));
}

}  // namespace
}  // namespace uniquanf
