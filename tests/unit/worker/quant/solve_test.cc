// Tests of methods that solve a layer from its inputs' moments, of uniform grids, and of scaling
// channels: what they promise by their own measure, and that the block's function stays.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "common/safetensors/float_conversion.h"
#include "worker/block/block_traits.h"
#include "worker/quant/channel_search.h"
#include "worker/quant/folding.h"
#include "worker/quant/input_moments.h"
#include "worker/quant/method.h"
#include "worker/quant/uniform_grids.h"

namespace uniquanf::quant {
namespace {

constexpr int64_t kOutputs = 20, kInputs = 96, kTokens = 400;

std::vector<float> Normal(int64_t count, float deviation, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

// Moments of correlated inputs, some large, one never there.
InputMoments Moments() {
  const std::vector<float> z = Normal(kTokens * kInputs, 1, 3);
  InputMoments moments;
  moments.width = kInputs;
  moments.matrix.resize(kInputs * kInputs);
  std::vector<float> x(kInputs);
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t k = 0; k < kInputs; ++k) {
      x[k] = z[t * kInputs + k] + 0.8f * z[t * kInputs + (k * 7) % kInputs];
      if (k % 13 == 2) x[k] *= 6;
      if (k == 5) x[k] = 0;
    }
    for (int64_t i = 0; i < kInputs; ++i) {
      for (int64_t k = 0; k < kInputs; ++k) {
        moments.matrix[i * kInputs + k] += x[i] * x[k] / (40.0f * kTokens);
      }
    }
  }
  return moments;
}

class SolveTest : public testing::Test {
 protected:
  QuantizerState NewState(int bits, int64_t group_size) {
    const std::vector<float> weights = Normal(kOutputs * kInputs, 0.05f, 1);
    Tensor tensor =
        Tensor::FromFloats(backend_.get(), DType::kFloat32, {kOutputs, kInputs}, weights.data())
            .value();
    return NewQuantizerState(backend_.get(), std::move(tensor), bits, group_size,
                             {.uniform = true, .binary = false})
        .value();
  }
  std::vector<float> Values(QuantizerState* state) {
    Tensor w_hat = Tensor::Allocate(backend_.get(), DType::kFloat32, {kOutputs, kInputs}).value();
    Forward(backend_.get(), Mapping::kKeep, state, &w_hat);
    return w_hat.ToFloats().value();
  }
  // tr(D M Dᵀ)
  double OutputError(QuantizerState* state) {
    const std::vector<float> w = state->weight.ToFloats().value(), w_hat = Values(state);
    const InputMoments moments = Moments();
    double error = 0;
    for (int64_t row = 0; row < kOutputs; ++row) {
      for (int64_t i = 0; i < kInputs; ++i) {
        for (int64_t k = 0; k < kInputs; ++k) {
          error += (static_cast<double>(w[row * kInputs + i]) - w_hat[row * kInputs + i]) *
                   moments.matrix[i * kInputs + k] *
                   (static_cast<double>(w[row * kInputs + k]) - w_hat[row * kInputs + k]);
        }
      }
    }
    return error;
  }

  std::unique_ptr<Backend> backend_ = NewCpuBackend({.num_threads = 2});
};

TEST_F(SolveTest, TheFactorIsThatOfTheDampedInverse) {
  const InputMoments moments = Moments();
  const InverseFactor factor = FactorInverse(moments.matrix, kInputs).value();
  double mean = 0;
  for (int64_t k = 0; k < kInputs; ++k) mean += moments.matrix[k * kInputs + k] / kInputs;
  for (int64_t k = 1; k < kInputs; ++k) {
    EXPECT_GE(moments.matrix[factor.order[k - 1] * kInputs + factor.order[k - 1]],
              moments.matrix[factor.order[k] * kInputs + factor.order[k]]);
  }
  // A·UᵀU = 1.
  std::vector<double> inverse(kInputs * kInputs);
  for (int64_t i = 0; i < kInputs; ++i) {
    for (int64_t j = 0; j < kInputs; ++j) {
      for (int64_t k = 0; k <= std::min(i, j); ++k) {
        inverse[i * kInputs + j] +=
            static_cast<double>(factor.upper[k * kInputs + i]) * factor.upper[k * kInputs + j];
      }
    }
  }
  for (int64_t i = 0; i < kInputs; ++i) {
    for (int64_t j = 0; j < kInputs; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < kInputs; ++k) {
        double a = moments.matrix[factor.order[i] * kInputs + factor.order[k]];
        if (i == k) a = (a == 0 ? mean : a) + 0.01 * mean;
        sum += a * inverse[k * kInputs + j];
      }
      EXPECT_NEAR(sum, i == j ? 1 : 0, 1e-3) << i << " " << j;
    }
  }
}

TEST_F(SolveTest, GptqLosesLessInTheOutputThanRoundToNearest) {
  const Method& gptq = MethodOf(QuantizationMethod::kGptq);
  for (int bits = kMinBits; bits <= kMaxBits; ++bits) {
    for (const int64_t group_size : {int64_t{32}, kInputs}) {
      QuantizerState rounded = NewState(bits, group_size), solved = NewState(bits, group_size);
      InitializeUniform(backend_.get(), {}, &rounded);
      InputMoments moments = Moments();
      ASSERT_TRUE(gptq.solve(Levels::kAny, &moments, &solved).ok());
      EXPECT_LT(OutputError(&solved), 0.8 * OutputError(&rounded)) << bits << " " << group_size;
    }
  }
}

TEST_F(SolveTest, GridsHoldAWholeZeroPointAndFp16HoldsTheGrids) {
  for (const Levels levels : {Levels::kUniform, Levels::kSymmetric}) {
    for (int bits = kMinBits; bits <= kMaxBits; ++bits) {
      QuantizerState state = NewState(bits, 32);
      ASSERT_TRUE(StartOnGrids(levels, /*search=*/bits < 6, {}, &state).ok());
      const UnifiedLinear unified = Unify(backend_.get(), state).value();
      const float middle = std::ldexp(1.0f, bits - 1);
      for (int64_t group = 0; group < state.zero_point.num_elements(); ++group) {
        const float zero = state.zero_point.f32()[group];
        EXPECT_EQ(zero, std::nearbyint(zero));
        EXPECT_GE(zero, 0);
        EXPECT_LE(zero, 2 * middle - 1);
        if (levels == Levels::kSymmetric) {
          EXPECT_EQ(zero, middle);
        }
        if (bits > 5) continue;
        // Stored without rounding: the last scale, times an odd number, is the shift.
        const float half =
            Float16ToFloat(FloatToFloat16(std::fabs(unified.alpha[group * bits + bits - 1])));
        const float shift = Float16ToFloat(FloatToFloat16(unified.shift[group]));
        EXPECT_EQ(shift, half * (2 * middle - 1 - 2 * zero)) << bits << " bits, group " << group;
      }
    }
  }
}

BlockTraits SmallTraits(float added) {
  BlockTraits traits;
  traits.hidden_size = 32;
  traits.norm.added = added;
  traits.attention.num_heads = 4;
  traits.attention.num_kv_heads = 2;
  traits.attention.head_dim = 8;
  traits.mlp.size = 48;
  return traits;
}

struct HostBlockOf {
  explicit HostBlockOf(const BlockSpec& spec) {
    for (size_t t = 0; t < spec.tensors.size(); ++t) {
      values.push_back(Normal(spec.tensors[t].num_elements(), 0.1f, static_cast<uint32_t>(t)));
      const bool is_norm = spec.tensors[t].role == TensorRole::kVector;
      const float added = spec.tensors[t].stored.added;
      for (float& value : values.back()) {
        if (is_norm) value += 1 - added;
        value = Bfloat16ToFloat(FloatToBfloat16(value)) + added;
      }
    }
    scaled.spec = &spec;
    scaled.original = &values;
    scaled.quantized.assign(spec.tensors.size(), true);
    scaled.stored = [](int, float value) { return Bfloat16ToFloat(FloatToBfloat16(value)); };
  }
  std::vector<std::vector<float>> values;
  ScaledBlock scaled;
};

TEST_F(SolveTest, SitesOfALlamaBlock) {
  const BlockSpec spec = BuildBlock(SmallTraits(0));
  const std::vector<FoldSite> sites = FindFoldSites(spec);
  ASSERT_EQ(sites.size(), 4u);  // v to o, up to down, two norms
  const auto module = [&](int tensor) { return spec.tensors[tensor].module; };
  EXPECT_EQ(module(sites[0].rows), "self_attn.v_proj");
  ASSERT_EQ(sites[0].columns.size(), 1u);
  EXPECT_EQ(module(sites[0].columns[0]), "self_attn.o_proj");
  // Heads 2 and 3 read the second key/value head.
  EXPECT_EQ(sites[0].ChannelOf(3 * 8 + 5), 8 + 5);
  EXPECT_EQ(sites[0].ChannelOf(1 * 8 + 5), 5);
  EXPECT_EQ(module(sites[1].rows), "mlp.up_proj");
  EXPECT_EQ(sites[2].columns.size(), 3u);
  EXPECT_EQ(sites[3].columns.size(), 2u);
  const std::vector<int> shared = SharedInputs(spec);
  EXPECT_EQ(shared, (std::vector<int>{0, 0, 0, 3, 4, 4, 6}));
}

TEST_F(SolveTest, OutliersAreFoldedAndNothingElse) {
  const BlockSpec spec = BuildBlock(SmallTraits(0));
  HostBlockOf block(spec);
  std::vector<std::vector<float>> squares;
  for (int l = 0; l < spec.num_linears(); ++l) {
    squares.emplace_back(spec.linear(l).num_inputs(), 2.0f);
  }
  EXPECT_EQ(FoldOutliers(squares, &block.scaled), 0);
  EXPECT_TRUE(block.scaled.changed.empty());
  // Large inputs alone are none.
  const int down = spec.FindLinear("mlp.down_proj"), tensor = spec.linears[down];
  squares[down][7] *= 0x1p14f;
  EXPECT_EQ(FoldOutliers(squares, &block.scaled), 0);
  // With weights that are small for it they are.
  for (int64_t row = 0; row < 32; ++row) block.values[tensor][row * 48 + 7] *= 0x1p-7f;
  EXPECT_EQ(FoldOutliers(squares, &block.scaled), 1);
  EXPECT_EQ(block.scaled.changed.size(), 2u);  // up's rows, down's columns
  const int up = spec.linears[spec.FindLinear("mlp.up_proj")];
  const float scale = block.scaled.values(tensor)[7] / block.values[tensor][7];
  EXPECT_GE(scale, 0x1p5f);
  EXPECT_LE(scale, 0x1p8f);
  EXPECT_EQ(block.scaled.values(up)[7 * 32 + 3] * scale, block.values[up][7 * 32 + 3]);
  EXPECT_EQ(block.scaled.values(up)[6 * 32 + 3], block.values[up][6 * 32 + 3]);
  // A module in full precision is left alone, and what it would have taken back with it.
  HostBlockOf other(spec);
  other.values = block.values;
  other.scaled.quantized[up] = false;
  EXPECT_EQ(FoldOutliers(squares, &other.scaled), 0);
}

TEST_F(SolveTest, NormsThatAddOneAreScaledOnlyWhereThatIsExact) {
  const BlockSpec spec = BuildBlock(SmallTraits(1));
  HostBlockOf block(spec);
  FoldSite site = FindFoldSites(spec)[3];
  std::vector<float>& norm = block.values[site.vectors[0]];
  norm[0] = 1 + 3.0f;  // stored as w = 3: 4 / 2 = 1 + 1
  std::vector<float> scales(32, 2.0f);
  const int64_t num_scaled = ScaleChannels(site, /*adjust=*/false, &scales, &block.scaled);
  EXPECT_GE(num_scaled, 1);
  EXPECT_EQ(scales[0], 2.0f);
  for (int64_t c = 0; c < 32; ++c) {
    const float now = block.scaled.values(site.vectors[0])[c];
    EXPECT_EQ(now * scales[c], norm[c]);
    EXPECT_EQ(Bfloat16ToFloat(FloatToBfloat16(now - 1)) + 1, now);
  }
  // Adjusted scales undo exactly what was stored.
  HostBlockOf again(spec);
  std::vector<float> free(32, 1.37f);
  ScaleChannels(site, /*adjust=*/true, &free, &again.scaled);
  const int gate = site.columns[0];
  for (int64_t c = 0; c < 32; ++c) {
    const float now = again.scaled.values(site.vectors[0])[c];
    EXPECT_NEAR(free[c], 1.37f, 0.02f);
    EXPECT_NEAR(now * again.scaled.values(gate)[c],
                again.values[site.vectors[0]][c] * again.values[gate][c], 1e-6);
  }
}

TEST_F(SolveTest, WeightsBeyondFp16AreBroughtBack) {
  const BlockSpec spec = BuildBlock(SmallTraits(0));
  HostBlockOf block(spec);
  std::vector<std::vector<float>> squares;
  for (int l = 0; l < spec.num_linears(); ++l) {
    squares.emplace_back(spec.linear(l).num_inputs(), 2.0f);
  }
  const FoldSite site = FindFoldSites(spec)[3];
  for (float& value : block.values[site.vectors[0]]) value *= 0x1p24f;
  for (const int tensor : site.columns) {
    for (float& value : block.values[tensor]) value *= 0x1p-24f;
  }
  EXPECT_EQ(FoldOutliers(squares, &block.scaled), 32);
  for (const int tensor : site.columns) {
    float largest = 0;
    for (const float value : block.scaled.values(tensor)) {
      largest = std::max(largest, std::fabs(value));
    }
    EXPECT_GT(largest, 0.1f);
    EXPECT_LT(largest, 4.0f);
  }
}

TEST_F(SolveTest, TheSearchNeverLosesAgainstNoScales) {
  const BlockSpec spec = BuildBlock(SmallTraits(0));
  HostBlockOf block(spec);
  const FoldSite site = FindFoldSites(spec)[3];
  InputMoments moments;
  moments.width = 32;
  moments.matrix.resize(32 * 32);
  for (int64_t k = 0; k < 32; ++k) moments.matrix[k * 33] = k % 11 == 3 ? 1.0f : 0.003f;
  std::vector<ScaledLinear> linears;
  for (const int tensor : site.columns) linears.push_back({tensor, 3, 32, &moments});
  const std::vector<float> scales =
      SearchScales(backend_.get(), DType::kFloat32, Levels::kAny, site, block.scaled, linears)
          .value();
  const auto error = [&](const std::vector<float>& s) {
    double sum = 0;
    for (const ScaledLinear& linear : linears) {
      std::vector<float> w = block.values[linear.tensor];
      for (size_t i = 0; i < w.size(); ++i) w[i] *= s[i % 32];
      const std::vector<UniformGrid> grids = FindGrids(w, 32, 3, 32, Levels::kAny, false, {});
      for (size_t i = 0; i < w.size(); ++i) {
        const UniformGrid& grid = grids[i / 32];
        const double d =
            block.values[linear.tensor][i] - grid.Value(grid.Code(w[i], 7)) / s[i % 32];
        sum += d * d * moments.matrix[i % 32 * 33];
      }
    }
    return sum;
  };
  EXPECT_LT(error(scales), 0.9 * error(std::vector<float>(32, 1.0f)));
  EXPECT_GT(scales[3], scales[4]);
}

}  // namespace
}  // namespace uniquanf::quant
