// The optimizer's state in fewer bytes: its roundings, and steps with it on the CPU against plain
// code.
#include "worker/quant/compact_state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "worker/backend/backend.h"
#include "worker/block/block_traits.h"
#include "worker/quant/gradient_memory.h"
#include "worker/quant/quantizer.h"

namespace uniquanf::quant {
namespace {

constexpr uint32_t kSeed = 20261127;

std::vector<float> Normal(int64_t count, float deviation, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

float RoundedMoment(float moment, uint32_t random) {
  return std::bit_cast<float>(AddRounding(std::bit_cast<uint32_t>(moment), random) & 0xFFFF0000u);
}

TEST(CompactStateTest, MomentsKeepTheirMeans) {
  for (const float moment : {1.0f + 0x1p-9f, 3.1e-5f, -0.7123f, 1e-20f, 0x1p-133f}) {
    double sum[2] = {}, both = 0;
    int up[2] = {};
    constexpr int kDraws = 200000;
    for (int i = 0; i < kDraws; ++i) {
      const uint32_t block = RoundingBlock(RoundingKey(7, i % 10), i / 40);
      const uint32_t word = 2 * static_cast<uint32_t>(i / 10 % 4);
      bool is_up[2];
      for (const int which : {0, 1}) {
        const float rounded = RoundedMoment(moment, RoundingWord(block, word + which));
        sum[which] += rounded;
        is_up[which] = std::fabs(rounded) > std::fabs(moment);
        up[which] += is_up[which];
      }
      both += is_up[0] && is_up[1];
    }
    const double unit = std::fabs(std::bit_cast<float>(
                            (std::bit_cast<uint32_t>(moment) & 0x7FFF0000u) + 0x10000u)) -
                        std::bit_cast<float>(std::bit_cast<uint32_t>(moment) & 0x7FFF0000u);
    for (const double total : sum) EXPECT_NEAR(total / kDraws, moment, 0.01 * unit) << moment;
    // First and second moments are rounded independently.
    const double p = static_cast<double>(up[0]) / kDraws, q = static_cast<double>(up[1]) / kDraws;
    EXPECT_NEAR(both / kDraws, p * q, 0.01) << moment;
  }
  EXPECT_EQ(RoundedMoment(INFINITY, 0xFFFFFFFFu), INFINITY);
  EXPECT_EQ(RoundedMoment(1.5f, 0xFFFFFFFFu), 1.5f) << "what fits is kept";
}

TEST(CompactStateTest, NeighboursStepsAndTensorsDrawDifferentBits) {
  std::vector<uint32_t> words;
  for (const uint32_t seed : {1u, 2u}) {
    for (const uint64_t step : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32}) {
      for (const uint64_t index : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32}) {
        for (uint32_t word = 0; word < 8; ++word) {
          words.push_back(RoundingWord(RoundingBlock(RoundingKey(seed, step), index), word));
        }
      }
    }
  }
  std::sort(words.begin(), words.end());
  EXPECT_EQ(std::unique(words.begin(), words.end()), words.end());
}

TEST(CompactStateTest, ScalesKeepTheirUpperBits) {
  for (const int bits : {2, 4, 8}) {
    for (const float scale : {0.1f, -0.1f, 1.0f, -3.7e-3f, 0.0f, 0x1.FFFFFEp-1f}) {
      const uint32_t rounded = RoundScale(std::bit_cast<uint32_t>(scale), bits);
      EXPECT_EQ(rounded & CodeMask(bits), 0u);
      EXPECT_NEAR(std::bit_cast<float>(rounded), scale, std::ldexp(std::fabs(scale), bits - 24));
    }
  }
  EXPECT_EQ(std::bit_cast<float>(RoundScale(std::bit_cast<uint32_t>(INFINITY), 4)), INFINITY);
}

struct Case {
  int bits;
  int64_t rows, columns, group_size;
};
const Case kCases[] = {{2, 5, 48, 48}, {3, 4, 64, 16},   {3, 3, 35, 7}, {4, 3, 600, 300},
                       {5, 2, 33, 33}, {8, 2, 520, 520}, {3, 6, 8, 1},  {2, 1, 300, 100}};

class CompactStepTest : public testing::Test {
 protected:
  QuantizerState Make(const Case& c, const std::vector<float>& w, OptimizerState optimizer_state,
                      Backend* backend) {
    Tensor weight =
        Tensor::FromFloats(backend, DType::kFloat32, {c.rows, c.columns}, w.data()).value();
    QuantizerState state =
        NewQuantizerState(backend, std::move(weight), c.bits, c.group_size, {}, optimizer_state)
            .value();
    state.rounding_seed = 99;
    InitializeUnified(backend, {}, &state);
    return state;
  }
  QuantizerState Make(const Case& c, const std::vector<float>& w, OptimizerState optimizer_state) {
    return Make(c, w, optimizer_state, backend_.get());
  }
  static Tensor Like(const QuantizerState& state, const std::vector<float>& values) {
    return Tensor::FromFloats(state.weight.backend(), DType::kFloat32, state.weight.shape(),
                              values.data())
        .value();
  }
  std::vector<uint8_t> Codes(const QuantizerState& state) {
    return CodesOf(backend_.get(), state).value();
  }
  static ops::StepParams Params(int step, Mapping mapping) {
    ops::StepParams params = {};
    params.draw = step;
    params.uniform_learning_rate = 5e-3f;
    params.binary_learning_rate = 5e-4f;
    params.bias_correction1 = static_cast<float>(1 - std::pow(0.9, step + 1));
    params.bias_correction2 = static_cast<float>(1 - std::pow(0.999, step + 1));
    params.mapping = static_cast<int32_t>(mapping);
    return params;
  }
  std::unique_ptr<Backend> backend_ = NewCpuBackend({2});
};

TEST_F(CompactStepTest, StartsWhereTheOtherStateStarts) {
  for (const Case& c : kCases) {
    const std::vector<float> w = Normal(c.rows * c.columns, 0.02f, kSeed);
    const QuantizerState plain = Make(c, w, OptimizerState::kF32);
    const QuantizerState compact = Make(c, w, OptimizerState::kBf16);
    EXPECT_TRUE(compact.codes.empty());
    EXPECT_EQ(Codes(compact), Codes(plain));
    const UnifiedLinear a = Unify(backend_.get(), plain).value();
    const UnifiedLinear b = Unify(backend_.get(), compact).value();
    EXPECT_EQ(a.alpha, b.alpha);
    EXPECT_EQ(a.shift, b.shift);
    EXPECT_EQ(a.codes, b.codes);
  }
}

// A step is Backward, Adam with rounding, and Forward, on arrays of their own.
TEST_F(CompactStepTest, StepsEqualPlainCode) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << "bits " << c.bits << " group " << c.group_size);
    const int64_t count = c.rows * c.columns;
    const std::vector<float> w = Normal(count, 0.02f, kSeed);
    QuantizerState compact = Make(c, w, OptimizerState::kBf16);
    QuantizerState plain = Make(c, w, OptimizerState::kF32);
    Tensor compact_w_hat = Like(compact, w), plain_w_hat = Like(plain, w);
    std::vector<float> m(count), v(count);
    Gradients gradients = NewGradients(backend_.get(), plain).value();
    for (int step = 0; step < 5; ++step) {
      const Tensor up = Like(plain, Normal(count, 0.01f, kSeed + 10 + step));
      const Mapping mapping = step == 3 ? Mapping::kDirect : MappingForPass(step + 2, 2);
      const ops::StepParams params = Params(step, mapping);
      Backward(backend_.get(), plain, up, &gradients);
      const std::vector<float> d = gradients.log_scale_weight.ToFloats().value();
      std::vector<float> s2 = plain.log_scale_weight.ToFloats().value();
      const float step_size = params.uniform_learning_rate / params.bias_correction1;
      const float inverse_sqrt = 1.0f / std::sqrt(params.bias_correction2);
      for (int64_t k = 0; k < count; ++k) {
        m[k] += static_cast<float>(1 - 0.9) * (d[k] - m[k]);
        v[k] = v[k] * 0.999f + static_cast<float>(1 - 0.999) * d[k] * d[k];
        s2[k] -= step_size * m[k] / (std::sqrt(v[k]) * inverse_sqrt + 1e-8f);
        s2[k] = std::bit_cast<float>(RoundScale(std::bit_cast<uint32_t>(s2[k]), c.bits));
        const uint32_t block = RoundingBlock(RoundingKey(99, step), k / 4);
        m[k] = RoundedMoment(m[k], RoundingWord(block, 2 * (k % 4)));
        v[k] = RoundedMoment(v[k], RoundingWord(block, 2 * (k % 4) + 1));
      }
      // Everything but s2 and its moments.
      const ops::StepParams keep = Params(step, Mapping::kKeep);
      UpdateAndForward(backend_.get(), &keep, up, &plain, &plain_w_hat);
      ASSERT_TRUE(plain.log_scale_weight.CopyFromFloats(s2.data()).ok());
      Forward(backend_.get(), mapping, &plain, &plain_w_hat);
      UpdateAndForward(backend_.get(), &params, up, &compact, &compact_w_hat);

      EXPECT_EQ(compact.m_log_scale_weight.ToFloats().value(), m);
      EXPECT_EQ(compact.v_log_scale_weight.ToFloats().value(), v);
      EXPECT_EQ(compact.log_delta.ToFloats().value(), plain.log_delta.ToFloats().value());
      EXPECT_EQ(compact.alpha.ToFloats().value(), plain.alpha.ToFloats().value());
      std::vector<float> scales = compact.log_scale_weight.ToFloats().value();
      for (float& scale : scales) {
        scale = std::bit_cast<float>(std::bit_cast<uint32_t>(scale) & ~CodeMask(c.bits));
      }
      EXPECT_EQ(scales, s2);
      EXPECT_EQ(Codes(compact), Codes(plain));
      EXPECT_EQ(compact_w_hat.ToFloats().value(), plain_w_hat.ToFloats().value());
    }
  }
}

// To the nearest, a second moment would stay where it is.
TEST_F(CompactStepTest, SecondMomentsDecayWithoutGradients) {
  const Case c = {4, 8, 512, 512};
  const std::vector<float> w = Normal(c.rows * c.columns, 0.02f, kSeed);
  QuantizerState state = Make(c, w, OptimizerState::kBf16);
  Tensor w_hat = Like(state, w);
  const std::vector<float> start(w.size(), 1e-6f);
  ASSERT_TRUE(state.v_log_scale_weight.CopyFromFloats(start.data()).ok());
  const double before = state.v_log_scale_weight.ToFloats().value()[0];
  const Tensor zeros = Like(state, std::vector<float>(w.size()));
  for (int step = 0; step < 1000; ++step) {
    const ops::StepParams params = Params(step, Mapping::kKeep);
    UpdateAndForward(backend_.get(), &params, zeros, &state, &w_hat);
  }
  double sum = 0;
  const std::vector<float> second = state.v_log_scale_weight.ToFloats().value();
  for (const float v : second) sum += v;
  const double expected = before * std::pow(0.999, 1000);
  EXPECT_NEAR(sum / static_cast<double>(w.size()), expected, 0.01 * expected);
}

TEST_F(CompactStepTest, BitsDoNotDependOnTheNumberOfThreads) {
  const Case c = {3, 300, 256, 64};
  const std::vector<float> w = Normal(c.rows * c.columns, 0.02f, kSeed);
  std::vector<std::vector<uint8_t>> results;
  for (const int num_threads : {1, 2, 5}) {
    const std::unique_ptr<Backend> backend = NewCpuBackend({num_threads});
    QuantizerState state = Make(c, w, OptimizerState::kBf16, backend.get());
    Tensor w_hat = Like(state, w);
    for (int step = 0; step < 3; ++step) {
      const ops::StepParams params = Params(step, Mapping::kLocal);
      UpdateAndForward(backend.get(), &params, Like(state, Normal(w.size(), 0.01f, kSeed + step)),
                       &state, &w_hat);
    }
    std::vector<uint8_t> all;
    for (const Tensor* t : {&state.log_scale_weight, &state.m_log_scale_weight,
                            &state.v_log_scale_weight, &state.alpha, &w_hat}) {
      const auto* bytes = static_cast<const uint8_t*>(t->data());
      all.insert(all.end(), bytes, bytes + t->size_bytes());
    }
    results.push_back(all);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST_F(CompactStepTest, StateBytesCountWhatIsAllocated) {
  const Case c = {4, 64, 256, 64};
  const std::vector<float> w = Normal(c.rows * c.columns, 0.02f, kSeed);
  const uint64_t before = backend_->memory().allocated_bytes;
  const QuantizerState state = Make(c, w, OptimizerState::kBf16);
  const uint64_t allocated =
      backend_->memory().allocated_bytes - before - state.weight.size_bytes();
  const uint64_t planned = QuantizerStateBytes(*backend_, c.rows, c.columns, c.bits, c.group_size,
                                               OptimizerState::kBf16);
  EXPECT_GE(allocated, planned);
  EXPECT_LE(allocated, planned + 16 * 256);  // each allocation is rounded up
  EXPECT_EQ(planned + 5 * w.size(), QuantizerStateBytes(*backend_, c.rows, c.columns, c.bits,
                                                        c.group_size, OptimizerState::kF32));
}

// Two layers of more than kLargestAsideUpdate weights, and smaller ones.
TEST(GradientMemoryTest, LargeLayersShareIt) {
  BlockTraits traits;
  traits.hidden_size = 256;
  traits.mlp.size = 5000;
  traits.attention.num_heads = traits.attention.num_kv_heads = 4;
  traits.attention.head_dim = 64;
  const BlockSpec block = BuildBlock(traits);
  const std::unique_ptr<Backend> backend = NewCpuBackend({1});
  QuantizerState state;
  std::vector<QuantizerState*> states(block.num_linears(), &state);
  const int untrained = block.FindLinear(traits.attention.o);
  states[untrained] = nullptr;
  const uint64_t before = backend->memory().allocated_bytes;
  Tensor shared;
  BlockGradients gradients(block.num_linears());
  ASSERT_TRUE(
      AllocateGradients(backend.get(), block, states, DType::kFloat32, &shared, &gradients).ok());
  std::vector<const void*> own;
  for (int l = 0; l < block.num_linears(); ++l) {
    if (l == untrained) {
      EXPECT_TRUE(gradients[l].empty());
      continue;
    }
    EXPECT_EQ(gradients[l].shape(), block.linear(l).shape);
    if (block.linear(l).num_elements() > kLargestAsideUpdate) {
      EXPECT_EQ(gradients[l].data(), shared.data());
      EXPECT_LE(gradients[l].size_bytes(), shared.size_bytes());
    } else {
      own.push_back(gradients[l].data());
    }
  }
  own.push_back(shared.data());
  std::sort(own.begin(), own.end());
  EXPECT_EQ(own.size(), 4u);  // q, k, v and the shared one
  EXPECT_EQ(std::unique(own.begin(), own.end()), own.end());
  const uint64_t allocated = backend->memory().allocated_bytes - before;
  const auto untrained_bytes =
      static_cast<uint64_t>(block.linear(untrained).num_elements()) * sizeof(float);
  EXPECT_EQ(allocated + untrained_bytes, GradientBytes(block, DType::kFloat32, /*sums=*/false));
  EXPECT_GT(GradientBytes(block, DType::kBfloat16, /*sums=*/true),
            GradientBytes(block, DType::kFloat32, /*sums=*/true));
}

}  // namespace
}  // namespace uniquanf::quant
