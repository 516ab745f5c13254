// Tests of the choice among starts: never worse than the method's own, nor than round to nearest,
// by the weighted error, for all bits and groups, and the same bits on any number of threads.
#include "worker/quant/start.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

namespace uniquanf::quant {
namespace {

constexpr int64_t kOutputs = 24, kInputs = 96;

std::vector<float> Normal(int64_t count, float deviation, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

// Weights with a few far outliers a row, inputs of which some are large.
std::vector<float> Weights() {
  std::vector<float> w = Normal(kOutputs * kInputs, 0.02f, 1);
  for (int64_t row = 0; row < kOutputs; ++row) w[row * kInputs + row % kInputs] *= 12;
  return w;
}
std::vector<float> Importance() {
  std::vector<float> m = Normal(kInputs, 1, 2);
  for (int64_t k = 0; k < kInputs; ++k) m[k] = m[k] * m[k] * (k % 17 == 3 ? 100.0f : 1.0f);
  return m;
}

class StartTest : public testing::Test {
 protected:
  StartTest() { Reset(2); }
  void Reset(int num_threads) { backend_ = NewCpuBackend({num_threads}); }

  Tensor Upload(const Shape& shape, const std::vector<float>& values) {
    return Tensor::FromFloats(backend_.get(), DType::kFloat32, shape, values.data()).value();
  }
  QuantizerState NewState(int bits, int64_t group_size, bool uniform) {
    QuantizerState state = NewQuantizerState(backend_.get(), Upload({kOutputs, kInputs}, Weights()),
                                             bits, group_size, {})
                               .value();
    if (uniform) {
      InitializeUniform(backend_.get(), {}, &state);
    } else {
      InitializeUnified(backend_.get(), {}, &state);
    }
    return state;
  }
  // Σ m (w − ŵ)² of every group, in double.
  std::vector<double> Errors(QuantizerState* state) {
    Tensor w_hat = Upload({kOutputs, kInputs}, Weights());
    Forward(backend_.get(), Mapping::kKeep, state, &w_hat);
    const std::vector<float> w = Weights(), m = Importance();
    std::vector<double> errors(w.size() / state->group_size);
    for (size_t i = 0; i < w.size(); ++i) {
      const double error = static_cast<double>(w[i]) - w_hat.f32()[i];
      errors[i / state->group_size] += m[i % kInputs] * error * error;
    }
    return errors;
  }
  void Choose(UniformStarts allowed, QuantizerState* state) {
    ChooseStarts(backend_.get(), allowed, Upload({kInputs}, Importance()), state);
  }

  std::unique_ptr<Backend> backend_;
};

TEST_F(StartTest, NoGroupIsWorseThanTheMethodsStartOrRoundToNearest) {
  for (int bits = kMinBits; bits <= kMaxBits; ++bits) {
    for (const int64_t group_size : {int64_t{16}, int64_t{48}, kInputs}) {
      QuantizerState rounded = NewState(bits, group_size, /*uniform=*/true);
      QuantizerState state = NewState(bits, group_size, /*uniform=*/false);
      const std::vector<double> nearest = Errors(&rounded), own = Errors(&state);
      Choose(UniformStarts::kAll, &state);
      const std::vector<double> chosen = Errors(&state);
      double sum = 0, least = 0;
      for (size_t group = 0; group < chosen.size(); ++group) {
        EXPECT_LE(chosen[group], own[group] * 1.0001) << bits << " bits, group " << group;
        EXPECT_LE(chosen[group], nearest[group] * 1.0001) << bits << " bits, group " << group;
        sum += chosen[group];
        least += std::min(own[group], nearest[group]);
      }
      // Clipping brings something on such weights where a row has few levels for its outlier.
      if (bits >= 3 && bits <= 4) {
        EXPECT_LT(sum, least);
      }
    }
  }
}

TEST_F(StartTest, WholeZeroPointsStayWhole) {
  for (const int bits : {2, 4, 8}) {
    QuantizerState state = NewState(bits, 48, /*uniform=*/true);
    Choose(UniformStarts::kWholeZeroPoints, &state);
    bool some_clipped = false;
    QuantizerState rounded = NewState(bits, 48, /*uniform=*/true);
    for (int64_t group = 0; group < state.zero_point.num_elements(); ++group) {
      const float zero = state.zero_point.f32()[group];
      EXPECT_EQ(zero, std::nearbyint(zero));
      EXPECT_EQ(state.alpha.f32()[group * bits + bits - 1], -0.5f);
      some_clipped =
          some_clipped || state.log_delta.f32()[group] < rounded.log_delta.f32()[group] - 0.01f;
    }
    if (bits == 2) {
      EXPECT_TRUE(some_clipped);
    }
  }
}

TEST_F(StartTest, NoneLeavesTheStateAlone) {
  QuantizerState state = NewState(3, 48, /*uniform=*/false), same = NewState(3, 48, false);
  Choose(UniformStarts::kNone, &state);
  EXPECT_EQ(std::memcmp(state.alpha.data(), same.alpha.data(), same.alpha.size_bytes()), 0);
}

TEST_F(StartTest, SameBitsOnAnyNumberOfThreads) {
  std::vector<float> log_delta, sums;
  std::vector<uint8_t> codes;
  for (const int num_threads : {1, 2, 5}) {
    Reset(num_threads);
    QuantizerState state = NewState(3, kInputs, /*uniform=*/false);
    Choose(UniformStarts::kAll, &state);
    const Tensor input = Upload({50, kInputs}, Normal(50 * kInputs, 1, 7));
    Tensor sum = Upload({kInputs}, std::vector<float>(kInputs));
    AddSquares(backend_.get(), input, &sum);
    AddSquares(backend_.get(), input, &sum);
    std::vector<float> now_log_delta = state.log_delta.ToFloats().value();
    std::vector<float> now_sums = sum.ToFloats().value();
    std::vector<uint8_t> now_codes(state.codes.u8(), state.codes.u8() + state.codes.num_elements());
    if (num_threads > 1) {
      EXPECT_EQ(now_log_delta, log_delta);
      EXPECT_EQ(now_sums, sums);
      EXPECT_EQ(now_codes, codes);
    }
    log_delta = now_log_delta;
    sums = now_sums;
    codes = now_codes;
  }
  const std::vector<float> values = Normal(50 * kInputs, 1, 7);
  for (int64_t k = 0; k < kInputs; ++k) {
    double expected = 0;
    for (int64_t t = 0; t < 50; ++t)
      expected += 2.0 * values[t * kInputs + k] * values[t * kInputs + k];
    EXPECT_NEAR(sums[k], expected, 1e-4 * expected);
  }
}

TEST(LearningRateScaleTest, FollowsTheStepAboveFourBits) {
  for (int bits = kMinBits; bits <= 4; ++bits) EXPECT_EQ(LearningRateScale(bits), 1.0f);
  EXPECT_EQ(LearningRateScale(5), 1.0f / 4);
  for (int bits = 6; bits <= kMaxBits; ++bits) EXPECT_EQ(LearningRateScale(bits), 1.0f / 16);
}

}  // namespace
}  // namespace uniquanf::quant
