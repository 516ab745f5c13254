// How good an artifact is, in figures and words; evaluation from packed weights.
#include "worker/task/quality.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "tests/unit/worker/task/task_fixture.h"
#include "worker/model/language_model.h"
#include "worker/task/tokens.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;

class QualityTest : public TaskTest {
 protected:
  QualityTest() {
    model_.Write(spec_.model_uri);
    spec_.evaluation_uri = dir_.path() + "/valid.safetensors";
    WriteTokenFile(spec_.evaluation_uri, {{"valid", RandomTokens({200}, 128, 3)}});
  }
  QualityReport Quality() {
    std::filesystem::remove_all(spec_.output_uri);
    const auto outcome = RunJob();
    EXPECT_THAT(outcome, IsOk());
    if (!outcome.ok() || !outcome->report.quality.has_value()) return {};
    perplexity_ = *outcome->report.perplexity_after;
    return *outcome->report.quality;
  }
  double perplexity_ = 0;
};

TEST_F(QualityTest, TheBaselineIsTheRoundingMethodsResult) {
  spec_.evaluation_baseline = EvaluationBaseline::kRtn;
  spec_.group_size = 16;
  spec_.overrides = {{.pattern = "*.down_proj", .bits = 4},
                     {.pattern = "*.o_proj", .full_precision = true}};
  const QualityReport quality = Quality();
  ASSERT_TRUE(quality.baseline_perplexity.has_value());
  spec_.method = QuantizationMethod::kRtn;
  Quality();
  EXPECT_NEAR(*quality.baseline_perplexity, perplexity_, 1e-9 * perplexity_);
  EXPECT_THAT(quality.verdict, HasSubstr("rounding to nearest"));
}

TEST_F(QualityTest, DivergenceFallsWithBits) {
  spec_.method = QuantizationMethod::kRtn;
  double before = INFINITY, same_before = 0;
  for (const int bits : {2, 4, 8}) {
    spec_.bits = bits;
    const QualityReport quality = Quality();
    EXPECT_EQ(quality.num_compared_tokens, 2 * 31);
    EXPECT_GE(quality.divergence, 0);
    EXPECT_LT(quality.divergence, before);
    EXPECT_GE(quality.same_top_token, same_before);
    before = quality.divergence;
    same_before = quality.same_top_token;
  }
  EXPECT_LT(before, 1e-2);
  EXPECT_GT(same_before, 0.9);
}

TEST_F(QualityTest, NothingQuantizedIsTheOriginal) {
  spec_.overrides = {{.pattern = "*", .full_precision = true}};
  const QualityReport quality = Quality();
  EXPECT_NEAR(quality.divergence, 0, 1e-6);
  EXPECT_EQ(quality.same_top_token, 1);
  EXPECT_THAT(quality.verdict, HasSubstr("as good as the original"));
}

TEST_F(QualityTest, AMissedTargetFailsTheJobAndFreesItsPlace) {
  spec_.method = QuantizationMethod::kRtn;
  spec_.bits = 2;
  spec_.max_perplexity_increase = 1e-9;
  // Which way a random model's perplexity goes is chance.
  const auto outcome = RunJob();
  spec_.max_perplexity_increase = 0;
  if (outcome.ok()) GTEST_SKIP() << "the perplexity fell";
  EXPECT_THAT(outcome, FailsWith(absl::StatusCode::kFailedPrecondition, "QUALITY_TARGET"));
  EXPECT_THAT(outcome.status().message(), HasSubstr("more bits"));
  EXPECT_FALSE(std::filesystem::exists(spec_.output_uri + "/config.json"));
  EXPECT_THAT(RunJob(), IsOk());
}

TEST_F(QualityTest, ATargetNeedsTokens) {
  spec_.max_perplexity_increase = 0.1;
  spec_.evaluation_uri.clear();
  EXPECT_THAT(RunPrepare(spec_, env_),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_SPEC"));
}

TEST_F(QualityTest, AnOriginalThatPredictsNothingIsTold) {
  const auto outcome = RunJob();
  ASSERT_THAT(outcome, IsOk());
  // Random weights on random tokens: as good as a guess.
  bool told = false;
  for (const std::string& warning : outcome->report.warnings) {
    told = told || warning.find("does not predict the evaluation tokens") != std::string::npos;
  }
  EXPECT_TRUE(told);
}

TEST_F(QualityTest, VerdictsFollowTheFigures) {
  QualityReport report;
  EXPECT_THAT(QualityVerdict({10, 10.05, 100}, report), HasSubstr("as good as"));
  EXPECT_THAT(QualityVerdict({10, 10.4, 100}, report), HasSubstr("close to"));
  EXPECT_THAT(QualityVerdict({10, 11, 100}, report), HasSubstr("noticeably worse"));
  EXPECT_THAT(QualityVerdict({10, 14, 100}, report), HasSubstr("much worse"));
  EXPECT_THAT(QualityVerdict({10, 29, 100}, report), HasSubstr("badly damaged"));
  EXPECT_THAT(QualityVerdict({10, 1e9, 100}, report), HasSubstr("unusable"));
  EXPECT_THAT(QualityVerdict({10, NAN, 100}, report), HasSubstr("unusable"));
}

// Every number of bits, rows and groups.
TEST_F(QualityTest, PackedEvaluationEqualsDequantized) {
  spec_.method = QuantizationMethod::kRtn;
  const std::string evaluation = spec_.evaluation_uri;
  spec_.evaluation_uri.clear();
  const std::vector<int32_t> tokens = *ReadEvaluationTokens(evaluation, "valid", 1, 0, 128);
  for (int bits = 2; bits <= 8; ++bits) {
    for (const int64_t group : {int64_t{0}, int64_t{8}, int64_t{32}}) {
      SCOPED_TRACE(testing::Message() << bits << " bits, group " << group);
      spec_.bits = bits;
      spec_.group_size = group;
      std::filesystem::remove_all(spec_.output_uri);
      ASSERT_THAT(RunJob(), IsOk());
      const auto artifact = Checkpoint::Open(*OpenObjectStore(spec_.output_uri), true);
      ASSERT_THAT(artifact, IsOk());
      // 20 tokens dequantize slices, 8 read the planes once a token.
      for (const int64_t window : {20, 8}) {
        PerplexityOptions options;
        options.window = window;
        const auto plain = EvaluatePerplexity(backend_.get(), **artifact, tokens, options);
        options.keep_packed = true;
        const auto packed = EvaluatePerplexity(backend_.get(), **artifact, tokens, options);
        ASSERT_THAT(packed, IsOk());
        EXPECT_NEAR(packed->mean_nll, plain->mean_nll, 1e-4);
        EXPECT_LT(packed->total_weight_bytes, plain->total_weight_bytes);
      }
    }
  }
}

}  // namespace
}  // namespace uniquanf
