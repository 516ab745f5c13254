#include "worker/generate/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "common/base/status.h"

namespace uniquanf {
namespace {

int32_t Draw(const std::vector<float>& logits, const Sampling& sampling, uint64_t sequence,
             uint64_t position) {
  const auto id = SampleToken(logits, sampling, sequence, position);
  EXPECT_TRUE(id.ok()) << id.status();
  return id.value_or(-1);
}

TEST(SamplerTest, GreedyTakesTheFirstOfTheLargest) {
  EXPECT_EQ(Draw({1, 3, 2, 3}, {}, 0, 0), 1);
  EXPECT_EQ(Draw({-5, -7}, {}, 9, 9), 0);
}

TEST(SamplerTest, DrawsFollowTheProbabilities) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  for (const double temperature : {1.0, 0.5}) {
    Sampling sampling;
    sampling.temperature = temperature;
    sampling.seed = 3;
    std::vector<int> counts(3);
    constexpr int kDraws = 20000;
    for (int i = 0; i < kDraws; ++i) ++counts[Draw(logits, sampling, i / 100, i % 100)];
    double total = 0;
    for (float logit : logits) total += std::exp(logit / temperature);
    for (int i = 0; i < 3; ++i) {
      EXPECT_NEAR(counts[i], kDraws * std::exp(logits[i] / temperature) / total, 400) << i;
    }
  }
}

TEST(SamplerTest, TopPKeepsTheMostProbable) {
  const std::vector<float> logits = {std::log(0.2f), std::log(0.5f), std::log(0.3f)};
  Sampling sampling;
  sampling.temperature = 1;
  const auto drawn = [&](double top_p) {
    sampling.top_p = top_p;
    std::map<int32_t, int> counts;
    for (int i = 0; i < 3000; ++i) ++counts[Draw(logits, sampling, 0, i)];
    return counts;
  };
  EXPECT_EQ(drawn(0.4).size(), 1u);
  EXPECT_EQ(drawn(0.4).count(1), 1u);
  const auto two = drawn(0.7);
  EXPECT_EQ(two.size(), 2u);
  EXPECT_EQ(two.count(0), 0u);
  EXPECT_NEAR(two.at(1), 3000 * 0.5 / 0.8, 150);
  EXPECT_EQ(drawn(0.99).size(), 3u);
}

TEST(SamplerTest, TopPOfManyEqualTokens) {
  Sampling sampling;
  sampling.temperature = 1;
  sampling.top_p = 0.5;
  const std::vector<float> logits(1000, 1.0f);
  for (int i = 0; i < 500; ++i) EXPECT_LT(Draw(logits, sampling, 1, i), 500);
}

TEST(SamplerTest, DrawsDependOnSeedSequenceAndPositionAlone) {
  std::vector<float> logits;
  for (int s = 0; s < 3; ++s) {
    for (int i = 0; i < 500; ++i) logits.push_back(std::sin(static_cast<float>(i)));
  }
  Sampling sampling;
  sampling.temperature = 1;
  sampling.seed = 8;
  const auto together = SampleTokens(logits, 3, sampling, 4, 7);
  ASSERT_TRUE(together.ok()) << together.status();
  const std::vector<float> one(logits.begin(), logits.begin() + 500);
  for (int s = 0; s < 3; ++s) EXPECT_EQ((*together)[s], Draw(one, sampling, 4 + s, 7));
  std::map<int32_t, int> by_seed;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    sampling.seed = seed;
    ++by_seed[Draw(one, sampling, 4, 7)];
  }
  EXPECT_GT(by_seed.size(), 20u);
}

TEST(SamplerTest, BrokenLogitsAreNamed) {
  for (const float broken :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    const auto id = SampleToken(std::vector<float>{1, broken, 2}, {}, 0, 5);
    EXPECT_EQ(ErrorReason(id.status()), "LOGITS_NOT_FINITE");
  }
}

}  // namespace
}  // namespace uniquanf
