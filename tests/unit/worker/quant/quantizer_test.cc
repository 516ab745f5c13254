// The quantizer against plain scalar code and against its own definitions.
#include "worker/quant/quantizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "common/artifact/layout.h"
#include "worker/backend/backend.h"

namespace uniquanf::quant {
namespace {

constexpr uint32_t kSeed = 20250603;

std::vector<float> Normal(int64_t count, float deviation, uint32_t seed = kSeed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

struct Case {
  int bits;
  int64_t rows, columns, group_size;
};

class QuantizerTest : public testing::Test {
 protected:
  QuantizerState Make(const std::vector<float>& w, const Case& c, TrainedParts trained = {},
                      Backend* backend = nullptr) {
    if (backend == nullptr) backend = backend_.get();
    auto weight = Tensor::FromFloats(backend, DType::kFloat32, {c.rows, c.columns}, w.data());
    auto state = NewQuantizerState(backend, *std::move(weight), c.bits, c.group_size, trained);
    EXPECT_TRUE(state.ok()) << state.status();
    return *std::move(state);
  }
  // Initialized, and moved off the initialization so that every term of the formulas counts.
  QuantizerState MakePerturbed(const std::vector<float>& w, const Case& c,
                               Backend* backend = nullptr) {
    if (backend == nullptr) backend = backend_.get();
    QuantizerState state = Make(w, c, {}, backend);
    InitializeUnified(backend, {}, &state);
    const std::vector<float> s2 = Normal(c.rows * c.columns, 0.05f, kSeed + 1);
    EXPECT_TRUE(state.log_scale_weight.CopyFromFloats(s2.data()).ok());
    const int64_t groups = c.rows * state.groups_per_row();
    const std::vector<float> s3 = Normal(groups, 0.05f, kSeed + 2);
    EXPECT_TRUE(state.log_scale_group.CopyFromFloats(s3.data()).ok());
    const std::vector<float> shift = Normal(groups, 0.1f, kSeed + 3);
    EXPECT_TRUE(state.shift.CopyFromFloats(shift.data()).ok());
    return state;
  }
  Tensor Like(const QuantizerState& state, const std::vector<float>& values) {
    return *Tensor::FromFloats(state.weight.backend(), DType::kFloat32, state.weight.shape(),
                               values.data());
  }
  static std::vector<float> Floats(const Tensor& tensor) { return *tensor.ToFloats(); }
  static std::vector<uint8_t> Codes(const QuantizerState& state) {
    return {state.codes.u8(), state.codes.u8() + state.codes.num_elements()};
  }

  std::unique_ptr<Backend> backend_ = NewCpuBackend({2});
};

const Case kCases[] = {{2, 5, 48, 48}, {3, 4, 64, 16},  {3, 3, 35, 7},  {4, 3, 600, 300},
                       {5, 2, 33, 33}, {6, 2, 96, 32},  {7, 2, 40, 40}, {8, 2, 520, 520},
                       {3, 6, 8, 1},   {2, 1, 300, 100}};

// L(c) in double precision.
double LevelOf(const std::vector<float>& alpha, size_t group, int bits, int code) {
  double level = 0;
  for (int i = 0; i < bits; ++i) {
    level += (code >> (bits - 1 - i)) & 1 ? -alpha[group * bits + i] : alpha[group * bits + i];
  }
  return level;
}

TEST_F(QuantizerTest, MappingFollowsThePeriod) {
  EXPECT_EQ(MappingForPass(1, 2), Mapping::kDirect);
  EXPECT_EQ(MappingForPass(2, 2), Mapping::kLocal);
  EXPECT_EQ(MappingForPass(3, 2), Mapping::kKeep);
  EXPECT_EQ(MappingForPass(6, 3), Mapping::kLocal);
  EXPECT_EQ(MappingForPass(1, 1), Mapping::kDirect);
  EXPECT_EQ(MappingForPass(2, 1), Mapping::kLocal);
}

TEST_F(QuantizerTest, ForwardMatchesTheFormulas) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << "bits " << c.bits << " group " << c.group_size);
    const std::vector<float> w = Normal(c.rows * c.columns, 0.02f);
    QuantizerState state = MakePerturbed(w, c);
    Tensor w_hat = Like(state, w);
    for (const Mapping mapping : {Mapping::kDirect, Mapping::kKeep, Mapping::kLocal}) {
      // Moved levels give the local mapping something to do.
      std::vector<float> alpha = Floats(state.alpha);
      for (float& value : alpha) value *= mapping == Mapping::kDirect ? 1.0f : 0.93f;
      ASSERT_TRUE(state.alpha.CopyFromFloats(alpha.data()).ok());
      const std::vector<uint8_t> before = Codes(state);
      Forward(backend_.get(), mapping, &state, &w_hat);
      const std::vector<uint8_t> codes = Codes(state);
      const std::vector<float> log_delta = Floats(state.log_delta),
                               s2 = Floats(state.log_scale_weight),
                               s3 = Floats(state.log_scale_group), zero = Floats(state.zero_point),
                               shift = Floats(state.shift), out = Floats(w_hat);
      const double half = ((1 << c.bits) - 1) / 2.0;
      for (size_t k = 0; k < w.size(); ++k) {
        const size_t g = k / c.group_size;
        const double u =
            w[k] / std::exp(double{log_delta[g]} + s2[k] + s3[g]) + zero[g] - shift[g] - half;
        int first = 0, last = (1 << c.bits) - 1;
        if (mapping == Mapping::kKeep) first = last = before[k];
        if (mapping == Mapping::kLocal) {
          first = std::max(before[k] - 1, first);
          last = std::min(before[k] + 1, last);
        }
        double nearest = INFINITY;
        for (int code = first; code <= last; ++code) {
          nearest = std::min(nearest, std::fabs(u - LevelOf(alpha, g, c.bits, code)));
        }
        ASSERT_GE(codes[k], first);
        ASSERT_LE(codes[k], last);
        const double level = LevelOf(alpha, g, c.bits, codes[k]);
        ASSERT_NEAR(std::fabs(u - level), nearest, 1e-4) << "weight " << k;
        const double expected =
            (level + shift[g] + half - zero[g]) * std::exp(double{log_delta[g]});
        ASSERT_NEAR(out[k], expected,
                    2e-6 * ((1 << c.bits) + std::fabs(zero[g])) * std::exp(log_delta[g]));
      }
    }
  }
}

// One group with Δ = 1, z_U = half range and z_B = 0: u = w.
TEST_F(QuantizerTest, TiesGoToTheLowerCodeAndToTheFirstNeighbour) {
  const std::vector<float> w = {0, 0.5f, -0.5f, 1.0f, -1.0f, 3, -3, 0};
  QuantizerState state = Make(w, {2, 1, 8, 8});
  const float zero = 0, half = 1.5f, alpha[2] = {1, 0.5f};  // levels 1.5, 0.5, −0.5, −1.5
  ASSERT_TRUE(state.log_delta.CopyFromFloats(&zero).ok());
  ASSERT_TRUE(state.zero_point.CopyFromFloats(&half).ok());
  ASSERT_TRUE(state.shift.CopyFromFloats(&zero).ok());
  ASSERT_TRUE(state.alpha.CopyFromFloats(alpha).ok());
  Tensor w_hat = Like(state, w);
  Forward(backend_.get(), Mapping::kDirect, &state, &w_hat);
  EXPECT_EQ(Codes(state), (std::vector<uint8_t>{1, 1, 2, 0, 2, 0, 3, 1}));
  EXPECT_EQ(Floats(w_hat), (std::vector<float>{0.5f, 0.5f, -0.5f, 1.5f, -0.5f, 1.5f, -1.5f, 0.5f}));
  // Local: only one step, clipped at both ends; a tie keeps the lower neighbour.
  const std::vector<uint8_t> start = {2, 3, 0, 1, 3, 3, 0, 1};
  std::memcpy(state.codes.u8(), start.data(), start.size());
  Forward(backend_.get(), Mapping::kLocal, &state, &w_hat);
  EXPECT_EQ(Codes(state), (std::vector<uint8_t>{1, 2, 1, 0, 2, 2, 1, 1}));
}

TEST_F(QuantizerTest, TieBetweenEqualLevelsTakesTheLowerCode) {
  const std::vector<float> w = {-0.2f, 0.2f, 0.0f};
  QuantizerState state = Make(w, {2, 1, 3, 3});
  const float zero = 0, half = 1.5f, alpha[2] = {0.5f, 0.5f};  // levels 1, 0, 0, −1
  ASSERT_TRUE(state.log_delta.CopyFromFloats(&zero).ok());
  ASSERT_TRUE(state.zero_point.CopyFromFloats(&half).ok());
  ASSERT_TRUE(state.alpha.CopyFromFloats(alpha).ok());
  Tensor w_hat = Like(state, w);
  Forward(backend_.get(), Mapping::kDirect, &state, &w_hat);
  EXPECT_EQ(Codes(state), (std::vector<uint8_t>{1, 1, 1}));
}

TEST_F(QuantizerTest, BackwardMatchesTheFormulas) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << "bits " << c.bits << " group " << c.group_size);
    const std::vector<float> w = Normal(c.rows * c.columns, 0.02f);
    const std::vector<float> up = Normal(c.rows * c.columns, 1.0f, kSeed + 7);
    QuantizerState state = MakePerturbed(w, c);
    Tensor w_hat = Like(state, w);
    Forward(backend_.get(), Mapping::kDirect, &state, &w_hat);
    Gradients gradients = *NewGradients(backend_.get(), state);
    Backward(backend_.get(), state, Like(state, up), &gradients);
    const std::vector<float> log_delta = Floats(state.log_delta),
                             s2 = Floats(state.log_scale_weight),
                             s3 = Floats(state.log_scale_group), zero = Floats(state.zero_point),
                             shift = Floats(state.shift), alpha = Floats(state.alpha),
                             out = Floats(w_hat), d = Floats(gradients.log_scale_weight);
    const std::vector<uint8_t> codes = Codes(state);
    const double half = ((1 << c.bits) - 1) / 2.0;
    int64_t num_filtered = 0;
    for (size_t g = 0; g < log_delta.size(); ++g) {
      std::vector<double> alpha_sums(c.bits);
      double threshold = INFINITY, d_sum = 0, delta_sum = 0, scale = 0;
      for (int i = 0; i < c.bits; ++i)
        threshold = std::min<double>(threshold, std::fabs(alpha[g * c.bits + i]));
      for (size_t k = g * c.group_size; k < (g + 1) * c.group_size; ++k) {
        const double scaled = w[k] / std::exp(double{log_delta[g]} + s2[k] + s3[g]);
        const double distance =
            std::fabs(scaled + zero[g] - shift[g] - half - LevelOf(alpha, g, c.bits, codes[k]));
        // Within rounding of the threshold either side is right: take the code's.
        const bool kept =
            std::fabs(distance - threshold) < 1e-4 ? d[k] != 0 : distance <= threshold;
        num_filtered += !kept;
        const double passed = kept ? std::exp(double{log_delta[g]}) * up[k] : 0;
        const double expected = -passed * scaled;
        ASSERT_NEAR(d[k], expected, 1e-5 * std::fabs(expected) + 1e-12);
        d_sum += expected;
        delta_sum += expected + double{up[k]} * out[k];
        scale += std::fabs(expected) + std::fabs(up[k] * out[k]) + std::fabs(passed);
        for (int i = 0; i < c.bits; ++i) {
          alpha_sums[i] += (codes[k] >> (c.bits - 1 - i)) & 1 ? -passed : passed;
        }
      }
      ASSERT_NEAR(Floats(gradients.log_scale_group)[g], d_sum, 1e-5 * scale);
      ASSERT_NEAR(Floats(gradients.log_delta)[g], delta_sum, 1e-5 * scale);
      for (int i = 0; i < c.bits; ++i) {
        ASSERT_NEAR(Floats(gradients.alpha)[g * c.bits + i], alpha_sums[i], 1e-5 * scale);
      }
    }
    // Single-weight groups have no spread and nothing to filter.
    if (c.bits <= 3 && c.group_size > 16) {
      EXPECT_GT(num_filtered, 0);
    }
  }
}

// With the codes kept, ŵ is linear in α; where no weight is filtered the estimator is exact there.
TEST_F(QuantizerTest, AlphaGradientIsTheNumericDerivative) {
  const Case c = {3, 2, 32, 32};
  const std::vector<float> w = Normal(c.rows * c.columns, 0.02f);
  const std::vector<float> up = Normal(c.rows * c.columns, 1.0f, kSeed + 7);
  QuantizerState state = Make(w, c);
  InitializeUnified(backend_.get(), {}, &state);
  // Levels wide enough for every weight to be kept: |u − L| <= min |α|.
  std::vector<float> wide = Floats(state.alpha);
  for (size_t i = 0; i < wide.size(); ++i) wide[i] = std::ldexp(0.55f, 2 - static_cast<int>(i % 3));
  ASSERT_TRUE(state.alpha.CopyFromFloats(wide.data()).ok());
  Tensor w_hat = Like(state, w);
  Forward(backend_.get(), Mapping::kDirect, &state, &w_hat);
  Gradients gradients = *NewGradients(backend_.get(), state);
  Backward(backend_.get(), state, Like(state, up), &gradients);
  const std::vector<float> alpha = Floats(state.alpha), analytic = Floats(gradients.alpha);
  const auto loss = [&](const std::vector<float>& at) {
    EXPECT_TRUE(state.alpha.CopyFromFloats(at.data()).ok());
    Forward(backend_.get(), Mapping::kKeep, &state, &w_hat);
    const std::vector<float> out = Floats(w_hat);
    double sum = 0;
    for (size_t k = 0; k < out.size(); ++k) sum += double{up[k]} * out[k];
    return sum;
  };
  for (size_t i = 0; i < alpha.size(); ++i) {
    std::vector<float> plus = alpha, minus = alpha;
    plus[i] += 0.125f;
    minus[i] -= 0.125f;
    const double numeric = (loss(plus) - loss(minus)) / 0.25;
    EXPECT_NEAR(analytic[i], numeric, 1e-4 * (1 + std::fabs(numeric))) << "alpha " << i;
  }
}

struct AdamReference {
  static void Step(float learning_rate, const ops::StepParams& params, const std::vector<float>& g,
                   Tensor* p, Tensor* m, Tensor* v) {
    const float inverse_sqrt = 1.0f / std::sqrt(params.bias_correction2);
    const float step_size = learning_rate / params.bias_correction1;
    for (size_t i = 0; i < g.size(); ++i) {
      float& first = m->f32()[i];
      float& second = v->f32()[i];
      first = first + static_cast<float>(1 - 0.9) * (g[i] - first);
      second = second * 0.999f + static_cast<float>(1 - 0.999) * g[i] * g[i];
      p->f32()[i] -= step_size * first / (std::sqrt(second) * inverse_sqrt + 1e-8f);
    }
  }
};

void ExpectSameBits(const Tensor& a, const Tensor& b, const char* what) {
  ASSERT_EQ(a.size_bytes(), b.size_bytes());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size_bytes()), 0) << what;
}

TEST_F(QuantizerTest, FusedStepEqualsBackwardThenAdamThenForward) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << "bits " << c.bits << " group " << c.group_size);
    const std::vector<float> w = Normal(c.rows * c.columns, 0.02f);
    QuantizerState fused = MakePerturbed(w, c), plain = MakePerturbed(w, c);
    Tensor fused_w_hat = Like(fused, w), plain_w_hat = Like(plain, w);
    Forward(backend_.get(), Mapping::kDirect, &fused, &fused_w_hat);
    Forward(backend_.get(), Mapping::kDirect, &plain, &plain_w_hat);
    Gradients gradients = *NewGradients(backend_.get(), plain);
    for (int step = 0; step < 4; ++step) {
      const Tensor up = Like(plain, Normal(c.rows * c.columns, 0.01f, kSeed + 10 + step));
      ops::StepParams params = {};
      params.uniform_learning_rate = 5e-3f;
      params.binary_learning_rate = 5e-4f;
      params.bias_correction1 = static_cast<float>(1 - std::pow(0.9, step + 1));
      params.bias_correction2 = static_cast<float>(1 - std::pow(0.999, step + 1));
      const Mapping mapping = step == 3 ? Mapping::kDirect : MappingForPass(step + 2, 2);
      params.mapping = static_cast<int32_t>(mapping);
      UpdateAndForward(backend_.get(), &params, up, &fused, &fused_w_hat);

      Backward(backend_.get(), plain, up, &gradients);
      AdamReference::Step(5e-3f, params, Floats(gradients.log_delta), &plain.log_delta,
                          &plain.m_log_delta, &plain.v_log_delta);
      AdamReference::Step(5e-3f, params, Floats(gradients.log_scale_group), &plain.log_scale_group,
                          &plain.m_log_scale_group, &plain.v_log_scale_group);
      AdamReference::Step(5e-3f, params, Floats(gradients.log_scale_weight),
                          &plain.log_scale_weight, &plain.m_log_scale_weight,
                          &plain.v_log_scale_weight);
      AdamReference::Step(5e-4f, params, Floats(gradients.alpha), &plain.alpha, &plain.m_alpha,
                          &plain.v_alpha);
      Forward(backend_.get(), mapping, &plain, &plain_w_hat);
      ExpectSameBits(fused.log_delta, plain.log_delta, "log delta");
      ExpectSameBits(fused.log_scale_weight, plain.log_scale_weight, "s2");
      ExpectSameBits(fused.log_scale_group, plain.log_scale_group, "s3");
      ExpectSameBits(fused.alpha, plain.alpha, "alpha");
      ExpectSameBits(fused.codes, plain.codes, "codes");
      ExpectSameBits(fused_w_hat, plain_w_hat, "w_hat");
    }
  }
}

TEST_F(QuantizerTest, UntrainedPartsStayAsTheyAre) {
  const Case c = {3, 4, 64, 32};
  const std::vector<float> w = Normal(c.rows * c.columns, 0.02f);
  for (const bool uniform : {true, false}) {
    QuantizerState state = Make(w, c, {uniform, !uniform});
    InitializeUniform(backend_.get(), {}, &state);
    Tensor w_hat = Like(state, w);
    Forward(backend_.get(), Mapping::kDirect, &state, &w_hat);
    const auto alpha = Floats(state.alpha), delta = Floats(state.log_delta),
               s2 = Floats(state.log_scale_weight), s3 = Floats(state.log_scale_group);
    ops::StepParams params = {};
    params.uniform_learning_rate = params.binary_learning_rate = 1e-2f;
    params.bias_correction1 = 0.1f;
    params.bias_correction2 = 0.001f;
    UpdateAndForward(backend_.get(), &params, Like(state, Normal(w.size(), 1.0f)), &state, &w_hat);
    EXPECT_EQ(Floats(state.alpha) == alpha, uniform);
    EXPECT_EQ(Floats(state.log_delta) == delta, !uniform);
    EXPECT_EQ(Floats(state.log_scale_weight) == s2, !uniform);
    EXPECT_EQ(Floats(state.log_scale_group) == s3, !uniform);
  }
}

TEST_F(QuantizerTest, UniformInitializationRoundsToNearestMinMax) {
  for (const int bits : {2, 3, 4, 8}) {
    const Case c = {bits, 3, 96, 48};
    const std::vector<float> w = Normal(c.rows * c.columns, 0.02f);
    QuantizerState state = Make(w, c);
    InitializeUniform(backend_.get(), {}, &state);
    Tensor w_hat = Like(state, w);
    Forward(backend_.get(), Mapping::kKeep, &state, &w_hat);
    const std::vector<float> out = Floats(w_hat);
    for (size_t begin = 0; begin < w.size(); begin += c.group_size) {
      const auto [min, max] =
          std::minmax_element(w.begin() + begin, w.begin() + begin + c.group_size);
      const float delta = (*max - *min) / ((1 << bits) - 1);
      for (size_t k = begin; k < begin + c.group_size; ++k) {
        const float zero_point = std::nearbyint(-*min / delta), last = (1 << bits) - 1;
        const float code = std::clamp(std::round(w[k] / delta) + zero_point, 0.0f, last);
        ASSERT_NEAR(out[k], delta * (code - zero_point), 1e-3 * delta);
      }
    }
  }
}

TEST_F(QuantizerTest, LearnedLevelsFitBetterThanUniformOnes) {
  const Case c = {3, 8, 256, 256};
  const std::vector<float> w = Normal(c.rows * c.columns, 0.02f);
  const auto error = [&](auto initialize) {
    QuantizerState state = Make(w, c);
    initialize(backend_.get(), InitOptions(), &state);
    Tensor w_hat = Like(state, w);
    Forward(backend_.get(), Mapping::kKeep, &state, &w_hat);
    double sum = 0;
    const std::vector<float> out = Floats(w_hat);
    for (size_t k = 0; k < w.size(); ++k) sum += std::pow(w[k] - out[k], 2);
    return sum;
  };
  const double uniform = error(InitializeUniform);
  EXPECT_LT(error(InitializeUnified), 0.7 * uniform);
  EXPECT_LT(error(InitializeAlternating), 0.7 * uniform);
}

TEST_F(QuantizerTest, DegenerateWeightsStayFiniteAndClose) {
  // A fitted level may lie somewhat beyond the largest weight, so the largest floats are left out.
  const float big = 1e38f;
  const std::vector<std::vector<float>> rows = {
      std::vector<float>(32, 0.0f),
      std::vector<float>(32, 0.3f),
      std::vector<float>(32, -1e30f),
      std::vector<float>(32, big),
      std::vector<float>(32, 1e-40f),
      {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
       2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2},
      {-big, big, 0, 1, -1, 1e30f, -1e30f, 0, 0, 0, 0, 0, 0, 0, 0, 0,
       0,    0,   0, 0, 0,  0,     0,      0, 0, 0, 0, 0, 0, 0, 0, 0},
      {1e4f, 0.01f, 0.02f, -0.01f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
       0,    0,     0,     0,      0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
      {1e-40f, -1e-40f, 1e-38f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
       0,      0,       0,      0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}};
  std::vector<float> w;
  for (const auto& row : rows) w.insert(w.end(), row.begin(), row.end());
  for (const int bits : {2, 3, 4, 8}) {
    for (const int64_t group_size : {int64_t{32}, int64_t{8}, int64_t{1}}) {
      for (const int grid_steps : {0, 1, 5}) {
        for (auto initialize : {InitializeUnified, InitializeUniform, InitializeAlternating}) {
          SCOPED_TRACE(testing::Message()
                       << bits << " bits, groups of " << group_size << ", G = " << grid_steps);
          QuantizerState state = Make(w, {bits, static_cast<int64_t>(rows.size()), 32, group_size});
          initialize(backend_.get(), {grid_steps, 15}, &state);
          Tensor w_hat = Like(state, w);
          Forward(backend_.get(), Mapping::kDirect, &state, &w_hat);
          for (const Tensor* t : std::initializer_list<const Tensor*>{
                   &state.log_delta, &state.zero_point, &state.shift, &state.alpha, &w_hat}) {
            const std::vector<float> values = Floats(*t);
            for (size_t i = 0; i < values.size(); ++i) {
              ASSERT_TRUE(std::isfinite(values[i])) << "element " << i << " of " << values.size();
            }
          }
          const std::vector<float> out = Floats(w_hat);
          for (int k = 0; k < 64; ++k) ASSERT_NEAR(out[k], w[k], 1e-4) << "constant rows";
          const UnifiedLinear unified = *Unify(backend_.get(), state);
          for (float value : unified.alpha) ASSERT_TRUE(std::isfinite(value));
          for (float value : unified.shift) ASSERT_TRUE(std::isfinite(value));
        }
      }
    }
  }
}

TEST_F(QuantizerTest, UnifiedParametersGiveTheSameWeights) {
  for (const Case& c : kCases) {
    const std::vector<float> w = Normal(c.rows * c.columns, 0.02f);
    QuantizerState state = MakePerturbed(w, c);
    Tensor w_hat = Like(state, w);
    Forward(backend_.get(), Mapping::kDirect, &state, &w_hat);
    const UnifiedLinear unified = *Unify(backend_.get(), state);
    const std::vector<float> out = Floats(w_hat);
    for (size_t k = 0; k < w.size(); ++k) {
      const size_t g = k / c.group_size;
      const double value = LevelOf(unified.alpha, g, c.bits, unified.codes[k]) + unified.shift[g];
      double scale = std::fabs(unified.shift[g]);
      for (int i = 0; i < c.bits; ++i) scale += std::fabs(unified.alpha[g * c.bits + i]);
      ASSERT_NEAR(out[k], value, 1e-6 * scale);
    }
  }
}

// The stored scales [N, Gr, n] and [N, Gr] on the device, as WriteStored takes them.
std::pair<Tensor, Tensor> StoredScales(Backend* backend, const QuantizerState& state,
                                       UnifiedLinear unified) {
  for (float& value : unified.alpha) value = StoredScale(value);
  for (float& value : unified.shift) value = StoredScale(value);
  return {*Tensor::FromFloats(backend, DType::kFloat32, state.alpha.shape(), unified.alpha.data()),
          *Tensor::FromFloats(backend, DType::kFloat32, state.shift.shape(), unified.shift.data())};
}

TEST_F(QuantizerTest, StoredWeightsAreTheBitsOfThePackedLayer) {
  for (const Case& c : kCases) {
    const std::vector<float> w = Normal(c.rows * c.columns, 0.02f);
    QuantizerState state = MakePerturbed(w, c);
    Tensor stored = Like(state, w);
    Forward(backend_.get(), Mapping::kDirect, &state, &stored);
    const UnifiedLinear unified = *Unify(backend_.get(), state);
    const auto [alpha, beta] = StoredScales(backend_.get(), state, unified);
    WriteStored(backend_.get(), CodesOf(state), alpha, beta, &stored);
    std::vector<float> expected(w.size());
    Dequantize(Pack(unified), expected.data());
    EXPECT_EQ(Floats(stored), expected) << c.bits << " bits, groups of " << c.group_size;
  }
}

TEST_F(QuantizerTest, BitsDoNotDependOnTheNumberOfThreads) {
  const Case c = {3, 300, 256, 64};
  const std::vector<float> w = Normal(c.rows * c.columns, 0.02f);
  std::vector<std::vector<float>> results;
  for (const int num_threads : {1, 2, 5}) {
    const std::unique_ptr<Backend> backend = NewCpuBackend({num_threads});
    QuantizerState state = MakePerturbed(w, c, backend.get());
    Tensor w_hat = Like(state, w);
    Forward(backend.get(), Mapping::kDirect, &state, &w_hat);
    ops::StepParams params = {};
    params.uniform_learning_rate = 5e-3f;
    params.binary_learning_rate = 5e-4f;
    params.bias_correction1 = 0.1f;
    params.bias_correction2 = 0.001f;
    params.mapping = static_cast<int32_t>(Mapping::kLocal);
    UpdateAndForward(backend.get(), &params, Like(state, Normal(w.size(), 0.01f)), &state, &w_hat);
    std::vector<float> all = Floats(w_hat);
    for (const Tensor* t : {&state.log_delta, &state.alpha, &state.log_scale_weight}) {
      const std::vector<float> values = Floats(*t);
      all.insert(all.end(), values.begin(), values.end());
    }
    results.push_back(all);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST_F(QuantizerTest, StateBytesCountWhatIsAllocated) {
  const Case c = {4, 64, 256, 64};
  const std::vector<float> w = Normal(c.rows * c.columns, 0.02f);
  const uint64_t before = backend_->memory().allocated_bytes;
  const QuantizerState state = Make(w, c);
  const uint64_t allocated =
      backend_->memory().allocated_bytes - before - state.weight.size_bytes();
  const uint64_t planned = QuantizerStateBytes(*backend_, c.rows, c.columns, c.bits, c.group_size);
  EXPECT_GE(allocated, planned);
  EXPECT_LE(allocated, planned + 16 * 256);  // each allocation is rounded up
}

}  // namespace
}  // namespace uniquanf::quant
