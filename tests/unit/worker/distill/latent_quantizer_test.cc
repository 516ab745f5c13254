// Distillation's quantizer against its definition and finite differences.
#include "worker/quant/latent_quantizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "common/artifact/layout.h"
#include "worker/backend/backend.h"

namespace uniquanf::quant {
namespace {

std::vector<float> Normal(int64_t count, float deviation, uint32_t seed) {
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
const Case kCases[] = {{2, 5, 48, 48},   {3, 4, 64, 16}, {3, 3, 35, 7},
                       {4, 3, 600, 300}, {5, 2, 33, 33}, {8, 2, 520, 260}};

// Scales such as training leaves, and random codes.
UnifiedLinear Stored(const Case& c) {
  UnifiedLinear stored;
  stored.bits = c.bits;
  stored.num_outputs = c.rows;
  stored.num_inputs = c.columns;
  stored.group_size = c.group_size;
  const int64_t groups = c.rows * c.columns / c.group_size;
  std::mt19937 engine(7);
  for (int64_t k = 0; k < c.rows * c.columns; ++k) {
    stored.codes.push_back(static_cast<uint8_t>(engine() % (1 << c.bits)));
  }
  const std::vector<float> noise = Normal(groups * (c.bits + 1), 0.1f, 8);
  for (int64_t g = 0; g < groups; ++g) {
    for (int i = 0; i < c.bits; ++i) {
      stored.alpha.push_back(0.02f * static_cast<float>(1 << (c.bits - 1 - i)) *
                             (1 + noise[g * (c.bits + 1) + i]));
    }
    stored.shift.push_back(0.01f * noise[g * (c.bits + 1) + c.bits]);
  }
  return stored;
}

double LevelOf(const std::vector<float>& alpha, size_t group, int bits, int code) {
  double level = 0;
  for (int i = 0; i < bits; ++i) {
    level += (code >> (bits - 1 - i)) & 1 ? -alpha[group * bits + i] : alpha[group * bits + i];
  }
  return level;
}

std::vector<uint8_t> Codes(const LatentState& state) {
  return {state.codes.u8(), state.codes.u8() + state.codes.num_elements()};
}

class LatentQuantizerTest : public testing::Test {
 protected:
  LatentState Start(const Case& c) {
    auto state = StartLatents(backend_.get(), Stored(c), Weight(c).data());
    EXPECT_TRUE(state.ok()) << state.status();
    return *std::move(state);
  }
  static std::vector<float> Weight(const Case& c) {
    return Normal(c.rows * c.columns, 0.03f * static_cast<float>(1 << (c.bits - 2)), 9);
  }
  Tensor Room(const Case& c) {
    return *Tensor::Allocate(backend_.get(), DType::kFloat32, {c.rows, c.columns});
  }
  std::unique_ptr<Backend> backend_ = NewCpuBackend({2});
};

TEST_F(LatentQuantizerTest, StartsAtWhatIsStoredAndAsNearToTheWeightsAsItsCodesAllow) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << "bits " << c.bits << " group " << c.group_size);
    const UnifiedLinear stored = Stored(c);
    const std::vector<float> weight = Weight(c);
    LatentState state = Start(c);
    Tensor w_hat = Room(c);
    ForwardLatents(backend_.get(), &state, &w_hat);
    EXPECT_EQ(Codes(state), stored.codes);
    auto unified = UnifyLatents(backend_.get(), state);
    ASSERT_TRUE(unified.ok());
    EXPECT_EQ(unified->codes, stored.codes);
    const std::vector<float> values = *w_hat.ToFloats(), u = *state.latent.ToFloats(),
                             delta = *state.delta.ToFloats();
    int num_free = 0;
    for (size_t k = 0; k < values.size(); ++k) {
      const size_t g = k / c.group_size;
      const double expected = LevelOf(stored.alpha, g, c.bits, stored.codes[k]) + stored.shift[g];
      ASSERT_NEAR(values[k], expected, 2e-6 * (1 << c.bits));
      const double wished = (weight[k] - stored.shift[g]) / delta[g];
      num_free += std::abs(u[k] - wished) < 1e-3 * (1 + std::abs(wished));
    }
    EXPECT_GT(num_free, 0);
  }
}

TEST_F(LatentQuantizerTest, CodesAreTheNearestOfAllLevels) {
  for (const Case& c : kCases) {
    LatentState state = Start(c);
    const std::vector<float> u = Normal(c.rows * c.columns, static_cast<float>(1 << c.bits) / 3, 3);
    ASSERT_TRUE(state.latent.CopyFromFloats(u.data()).ok());
    Tensor w_hat = Room(c);
    ForwardLatents(backend_.get(), &state, &w_hat);
    const std::vector<float> alpha = *state.alpha.ToFloats();
    const std::vector<uint8_t> codes = Codes(state);
    for (size_t k = 0; k < u.size(); ++k) {
      double best = INFINITY;
      for (int code = 0; code < (1 << c.bits); ++code) {
        best = std::min(best, std::abs(u[k] - LevelOf(alpha, k / c.group_size, c.bits, code)));
      }
      ASSERT_NEAR(std::abs(u[k] - LevelOf(alpha, k / c.group_size, c.bits, codes[k])), best, 1e-5);
    }
  }
}

// α and β by finite differences of Σ G ŵ with the codes kept; u by its definition.
TEST_F(LatentQuantizerTest, GradientsAreThoseOfTheFormulas) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << "bits " << c.bits << " group " << c.group_size);
    LatentState state = Start(c);
    std::vector<float> u = *state.latent.ToFloats();
    const std::vector<float> far = Normal(static_cast<int64_t>(u.size()), 1.0f, 4);
    for (size_t k = 0; k < u.size(); ++k) u[k] += far[k];
    ASSERT_TRUE(state.latent.CopyFromFloats(u.data()).ok());
    Tensor w_hat = Room(c);
    ForwardLatents(backend_.get(), &state, &w_hat);
    const std::vector<float> up = Normal(static_cast<int64_t>(u.size()), 1.0f, 5);
    const Tensor upstream =
        *Tensor::FromFloats(backend_.get(), DType::kFloat32, {c.rows, c.columns}, up.data());
    auto gradients = NewLatentGradients(backend_.get(), state);
    ASSERT_TRUE(gradients.ok());
    BackwardLatents(backend_.get(), state, upstream, &*gradients);
    const std::vector<float> alpha = *state.alpha.ToFloats(), beta = *state.beta.ToFloats(),
                             delta = *state.delta.ToFloats();
    const std::vector<uint8_t> codes = Codes(state);
    const auto loss = [&](const std::vector<float>& a, const std::vector<float>& b) {
      double sum = 0;
      for (size_t k = 0; k < up.size(); ++k) {
        const size_t g = k / c.group_size;
        sum += static_cast<double>(up[k]) * delta[g] * (LevelOf(a, g, c.bits, codes[k]) + b[g]);
      }
      return sum;
    };
    const std::vector<float> d_alpha = *gradients->alpha.ToFloats(),
                             d_beta = *gradients->beta.ToFloats(),
                             d_latent = *gradients->latent.ToFloats();
    for (size_t i = 0; i < alpha.size(); ++i) {
      std::vector<float> moved = alpha;
      moved[i] = alpha[i] + 0.5f;  // linear: any step will do
      ASSERT_NEAR(d_alpha[i], (loss(moved, beta) - loss(alpha, beta)) / (moved[i] - alpha[i]),
                  2e-5);
    }
    for (size_t i = 0; i < beta.size(); ++i) {
      std::vector<float> moved = beta;
      moved[i] = beta[i] + 0.5f;
      ASSERT_NEAR(d_beta[i], (loss(alpha, moved) - loss(alpha, beta)) / (moved[i] - beta[i]), 2e-5);
    }
    int num_filtered = 0;
    for (size_t k = 0; k < u.size(); ++k) {
      const size_t g = k / c.group_size;
      double threshold = INFINITY;
      for (int i = 0; i < c.bits; ++i) {
        threshold = std::min<double>(threshold, std::abs(alpha[g * c.bits + i]));
      }
      const double distance = std::abs(u[k] - LevelOf(alpha, g, c.bits, codes[k]));
      if (std::abs(distance - threshold) < 1e-4) continue;
      num_filtered += distance > threshold;
      ASSERT_NEAR(d_latent[k], distance > threshold ? 0.0 : delta[g] * up[k], 1e-6);
    }
    EXPECT_GT(num_filtered, 0);
  }
}

TEST_F(LatentQuantizerTest, AnUpdateIsAdamOfTheGradientsAndTheNextForwardPass) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << "bits " << c.bits << " group " << c.group_size);
    LatentState state = Start(c);
    Tensor w_hat = Room(c);
    ForwardLatents(backend_.get(), &state, &w_hat);
    const LatentStep step = {0.01f, 0.003f, 0.1f, 0.01f};
    std::vector<double> m(state.latent.num_elements()), v(m.size());
    std::vector<double> m_beta(state.beta.num_elements()), v_beta(m_beta.size());
    std::vector<float> u = *state.latent.ToFloats(), beta = *state.beta.ToFloats();
    for (int i = 0; i < 3; ++i) {
      const std::vector<float> up = Normal(state.latent.num_elements(), 1.0f, 20 + i);
      const Tensor upstream =
          *Tensor::FromFloats(backend_.get(), DType::kFloat32, {c.rows, c.columns}, up.data());
      auto gradients = NewLatentGradients(backend_.get(), state);
      BackwardLatents(backend_.get(), state, upstream, &*gradients);
      UpdateLatents(backend_.get(), step, upstream, &state, &w_hat);
      const auto adam = [&](const std::vector<float>& gradient, double rate,
                            std::vector<double>* m1, std::vector<double>* v1,
                            std::vector<float>* p) {
        for (size_t k = 0; k < p->size(); ++k) {
          (*m1)[k] = 0.9 * (*m1)[k] + 0.1 * gradient[k];
          (*v1)[k] = 0.99 * (*v1)[k] + 0.01 * gradient[k] * gradient[k];
          (*p)[k] -=
              static_cast<float>(rate / 0.1 * (*m1)[k] / (std::sqrt((*v1)[k] / 0.01) + 1e-8));
        }
      };
      adam(*gradients->latent.ToFloats(), step.latent_rate, &m, &v, &u);
      adam(*gradients->beta.ToFloats(), step.scale_rate, &m_beta, &v_beta, &beta);
      const std::vector<float> now = *state.latent.ToFloats(), now_beta = *state.beta.ToFloats();
      for (size_t k = 0; k < u.size(); ++k) ASSERT_NEAR(now[k], u[k], 1e-4 * (1 + std::abs(u[k])));
      for (size_t k = 0; k < beta.size(); ++k) ASSERT_NEAR(now_beta[k], beta[k], 1e-4);
      const std::vector<float> after = *w_hat.ToFloats();
      const std::vector<uint8_t> codes = Codes(state);
      ForwardLatents(backend_.get(), &state, &w_hat);
      EXPECT_EQ(after, *w_hat.ToFloats());
      EXPECT_EQ(codes, Codes(state));
    }
  }
}

TEST_F(LatentQuantizerTest, GroupsOfEqualWeightsStayFinite) {
  UnifiedLinear stored = Stored({3, 1, 32, 32});
  for (float& alpha : stored.alpha) alpha = 0;
  stored.shift[0] = 0.3f;
  const std::vector<float> weight(32, 0.3f);
  auto state = StartLatents(backend_.get(), stored, weight.data());
  ASSERT_TRUE(state.ok());
  Tensor w_hat = *Tensor::Allocate(backend_.get(), DType::kFloat32, {1, 32});
  ForwardLatents(backend_.get(), &*state, &w_hat);
  const std::vector<float> start = *w_hat.ToFloats();
  for (const float value : start) EXPECT_NEAR(value, 0.3f, 1e-6f);
  const Tensor upstream =
      *Tensor::FromFloats(backend_.get(), DType::kFloat32, {1, 32}, weight.data());
  UpdateLatents(backend_.get(), {0.01f, 0.01f, 0.1f, 0.01f}, upstream, &*state, &w_hat);
  const std::vector<float> after = *w_hat.ToFloats();
  for (const float value : after) EXPECT_TRUE(std::isfinite(value));
}

// The quantizer on CUDA does what it does on the CPU: the start to the bit, updates within what
// other orders of sums make. A latent on the border between two cells may fall to either side.
TEST_F(LatentQuantizerTest, DevicesAgree) {
  if (NumCudaDevices() == 0) GTEST_SKIP() << "no CUDA device";
  auto cuda = NewCudaBackend(0);
  ASSERT_TRUE(cuda.ok()) << cuda.status();
  const LatentStep step = {0.01f, 0.003f, 0.1f, 0.01f};
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << "bits " << c.bits << " group " << c.group_size);
    struct Run {
      std::vector<float> w_hat, latent, alpha, beta, d_latent, d_alpha, d_beta;
    } runs[2];
    for (int i = 0; i < 2; ++i) {
      Backend* const backend = i == 0 ? backend_.get() : cuda->get();
      auto state = StartLatents(backend, Stored(c), Weight(c).data());
      ASSERT_TRUE(state.ok()) << state.status();
      Tensor w_hat = *Tensor::Allocate(backend, DType::kFloat32, {c.rows, c.columns});
      ForwardLatents(backend, &*state, &w_hat);
      auto unified = UnifyLatents(backend, *state);
      ASSERT_TRUE(unified.ok());
      EXPECT_EQ(unified->codes, Stored(c).codes);
      for (int k = 0; k < 3; ++k) {
        const std::vector<float> up = Normal(c.rows * c.columns, 1.0f, 20 + k);
        const Tensor upstream =
            *Tensor::FromFloats(backend, DType::kFloat32, {c.rows, c.columns}, up.data());
        if (k == 0) {
          auto gradients = NewLatentGradients(backend, *state);
          ASSERT_TRUE(gradients.ok());
          BackwardLatents(backend, *state, upstream, &*gradients);
          runs[i].d_latent = *gradients->latent.ToFloats();
          runs[i].d_alpha = *gradients->alpha.ToFloats();
          runs[i].d_beta = *gradients->beta.ToFloats();
        }
        UpdateLatents(backend, step, upstream, &*state, &w_hat);
      }
      runs[i].w_hat = *w_hat.ToFloats();
      runs[i].latent = *state->latent.ToFloats();
      runs[i].alpha = *state->alpha.ToFloats();
      runs[i].beta = *state->beta.ToFloats();
    }
    const auto expect_near = [](const std::vector<float>& a, const std::vector<float>& b,
                                double tolerance, size_t num_exceptions) {
      ASSERT_EQ(a.size(), b.size());
      size_t num_apart = 0;
      for (size_t k = 0; k < a.size(); ++k) {
        num_apart += !(std::abs(a[k] - b[k]) <= tolerance * (1 + std::abs(a[k])));
      }
      EXPECT_LE(num_apart, num_exceptions);
    };
    const size_t few = 1 + runs[0].latent.size() / 200;
    expect_near(runs[0].d_latent, runs[1].d_latent, 1e-5, few);
    expect_near(runs[0].d_alpha, runs[1].d_alpha, 1e-4, 0);
    expect_near(runs[0].d_beta, runs[1].d_beta, 1e-4, 0);
    expect_near(runs[0].alpha, runs[1].alpha, 2e-4, 0);
    expect_near(runs[0].beta, runs[1].beta, 2e-4, 0);
    expect_near(runs[0].latent, runs[1].latent, 1e-4, few);
    expect_near(runs[0].w_hat, runs[1].w_hat, 1e-4, few);
  }
}

TEST(UnpackTest, PacksAgainToTheSame) {
  for (const Case& c : kCases) {
    const PackedLinear packed = Pack(Stored(c));
    const UnifiedLinear unpacked = Unpack(packed);
    EXPECT_EQ(unpacked.codes, Stored(c).codes);
    const PackedLinear again = Pack(unpacked);
    EXPECT_EQ(again.qweight, packed.qweight);
    EXPECT_EQ(again.alpha, packed.alpha);
    EXPECT_EQ(again.beta, packed.beta);
  }
}

}  // namespace
}  // namespace uniquanf::quant
