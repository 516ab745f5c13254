#include "worker/block/block.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "tests/unit/worker/ops/block_reference.h"

namespace uniquanf {
namespace {

using reference::BlockValues;
using reference::DeviceCase;
using reference::Dot;
using reference::Empty;
using reference::RandomFloats;
using reference::Upload;
using reference::Values;
using reference::Vector;

struct Family {
  const char* name;
  BlockConfig config;
};

std::vector<Family> Families() {
  BlockConfig llama;
  llama.hidden_size = 48;
  llama.intermediate_size = 80;
  llama.num_heads = 4;
  llama.num_kv_heads = 2;
  llama.head_dim = 32;  // num_heads · head_dim is not hidden_size
  BlockConfig mistral = llama, qwen2 = llama, qwen3 = llama, biased = llama, heads = llama;
  mistral.window = 5;
  qwen2.qkv_bias = true;
  qwen3.qk_norm = true;
  biased.qkv_bias = biased.o_bias = biased.mlp_bias = true;
  heads.num_kv_heads = 4;
  heads.head_dim = 12;
  return {{"Llama", llama},       {"MistralWindow", mistral}, {"Qwen2Bias", qwen2},
          {"Qwen3QkNorm", qwen3}, {"LlamaAllBiases", biased}, {"LlamaMultiHead", heads}};
}

// One block with random weights, input and upstream gradient on a device.
struct BlockOnDevice {
  BlockOnDevice(Backend* backend, DType act, const BlockConfig& config, int64_t batch,
                int64_t seq_len)
      : backend(backend), config(config), batch(batch), seq_len(seq_len) {
    uint64_t seed = 100;
    for (Linear linear : kAllLinears) {
      const auto [n, k] = config.LinearShape(linear);
      const int i = static_cast<int>(linear);
      weights.linear[i] =
          Upload(backend, act, {n, k}, RandomFloats(n * k, ++seed, 1 / std::sqrt(double(k))));
      gradients[i] = Empty(backend, act, {n, k});
      if (config.HasBias(linear)) {
        weights.bias[i] = Upload(backend, DType::kFloat32, {n}, RandomFloats(n, ++seed, 0.5));
      }
    }
    auto norm = [&](int64_t width) {
      std::vector<float> values = RandomFloats(width, ++seed, 0.2);
      for (float& value : values) value += 1;
      return Upload(backend, DType::kFloat32, {width}, values);
    };
    weights.input_norm = norm(config.hidden_size);
    weights.post_norm = norm(config.hidden_size);
    if (config.qk_norm) {
      weights.q_norm = norm(config.head_dim);
      weights.k_norm = norm(config.head_dim);
    }
    const int64_t half = config.head_dim / 2;
    std::vector<float> cosines, sines;
    for (int64_t position = 0; position < seq_len; ++position) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = position * std::pow(10000.0, -double(i) / half);
        cosines.push_back(static_cast<float>(std::cos(angle)));
        sines.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    rope.cos = Upload(backend, DType::kFloat32, {seq_len, half}, cosines);
    rope.sin = Upload(backend, DType::kFloat32, {seq_len, half}, sines);
    const int64_t elements = batch * seq_len * config.hidden_size;
    const Shape shape = {batch * seq_len, config.hidden_size};
    x = Upload(backend, act, shape, RandomFloats(elements, 1));
    dy = Upload(backend, act, shape, RandomFloats(elements, 2));
    y = Empty(backend, act, shape);
    dx = Empty(backend, act, shape);
  }

  std::unique_ptr<BlockRunner> Runner(bool with_backward) {
    auto runner =
        BlockRunner::Create(backend, config, x.dtype(), batch, seq_len, &rope, with_backward);
    EXPECT_TRUE(runner.ok()) << runner.status();
    return *std::move(runner);
  }

  BlockValues HostWeights() const {
    BlockValues values;
    for (int i = 0; i < kNumLinears; ++i) {
      values.linear[i] = Values(weights.linear[i]);
      if (!weights.bias[i].empty()) values.bias[i] = Values(weights.bias[i]);
    }
    values.input_norm = Values(weights.input_norm);
    values.post_norm = Values(weights.post_norm);
    if (config.qk_norm) {
      values.q_norm = Values(weights.q_norm);
      values.k_norm = Values(weights.k_norm);
    }
    return values;
  }

  Vector Reference(const BlockValues& values, const Vector& input) const {
    return reference::BlockForward(config, values, input, Values(rope.cos), Values(rope.sin), batch,
                                   seq_len);
  }

  Backend* backend;
  BlockConfig config;
  int64_t batch, seq_len;
  BlockWeights weights;
  BlockGradients gradients;
  RopeTables rope;
  Tensor x, y, dx, dy;
};

class BlockTest : public testing::TestWithParam<DeviceCase> {
 protected:
  std::unique_ptr<Backend> backend_ = reference::MakeBackend(GetParam().kind);
  DType act_ = GetParam().act;
};

TEST_P(BlockTest, ForwardMatchesReferenceForEveryFamily) {
  for (const Family& family : Families()) {
    for (auto [batch, seq_len] : std::vector<std::pair<int, int>>{{1, 1}, {1, 33}, {3, 7}}) {
      SCOPED_TRACE(testing::Message() << family.name << " batch " << batch << " L " << seq_len);
      BlockOnDevice setup(backend_.get(), act_, family.config, batch, seq_len);
      const Vector expected = setup.Reference(setup.HostWeights(), Values(setup.x));
      for (bool with_backward : {false, true}) {
        setup.Runner(with_backward)->Forward(setup.weights, setup.x, &setup.y);
        reference::ExpectClose(Values(setup.y), expected, act_, 4, "y", 24);
      }
    }
  }
}

// ⟨gradient, direction⟩ against the central difference of ⟨dy, y⟩ along random directions, the
// forward pass in double precision.
TEST_P(BlockTest, GradientsMatchFiniteDifferencesForEveryFamily) {
  constexpr double kStep = 1e-4;
  for (const Family& family : Families()) {
    SCOPED_TRACE(family.name);
    BlockOnDevice setup(backend_.get(), act_, family.config, 2, 9);
    std::unique_ptr<BlockRunner> runner = setup.Runner(true);
    runner->Forward(setup.weights, setup.x, &setup.y);
    runner->Backward(setup.weights, setup.dy, /*accumulate=*/false, &setup.gradients, &setup.dx,
                     nullptr);
    BlockValues values = setup.HostWeights();
    Vector x = Values(setup.x);
    const Vector dy = Values(setup.dy);

    auto check = [&](Vector* parameter, const Tensor& gradient, const char* name) {
      const Vector saved = *parameter, computed = Values(gradient);
      for (uint64_t seed = 1; seed <= 4; ++seed) {
        const std::vector<float> floats = RandomFloats(saved.size(), 1000 + seed);
        const Vector direction(floats.begin(), floats.end());
        double sides[2];
        for (int side = 0; side < 2; ++side) {
          for (size_t i = 0; i < saved.size(); ++i) {
            (*parameter)[i] = saved[i] + (side == 0 ? kStep : -kStep) * direction[i];
          }
          sides[side] = Dot(dy, setup.Reference(values, x));
        }
        *parameter = saved;
        const double expected = (sides[0] - sides[1]) / (2 * kStep);
        // The product with a random direction is as large as the gradient's norm.
        const double scale = std::sqrt(Dot(computed, computed));
        EXPECT_NEAR(Dot(computed, direction), expected,
                    (4 * reference::Epsilon(act_) + 1e-5) * scale)
            << name << " direction seed " << 1000 + seed;
      }
    };
    for (Linear linear : kAllLinears) {
      const int i = static_cast<int>(linear);
      check(&values.linear[i], setup.gradients[i], LinearName(linear));
    }
    check(&x, setup.dx, "x");
  }
}

TEST_P(BlockTest, WeightsMayChangeOnceTheirGradientIsReported) {
  BlockOnDevice setup(backend_.get(), act_, Families()[0].config, 1, 33);
  std::unique_ptr<BlockRunner> runner = setup.Runner(true);
  runner->Forward(setup.weights, setup.x, &setup.y);
  runner->Backward(setup.weights, setup.dy, /*accumulate=*/false, &setup.gradients, &setup.dx,
                   nullptr);
  std::vector<Vector> expected = {Values(setup.dx)};
  for (const Tensor& gradient : setup.gradients) expected.push_back(Values(gradient));

  runner->Forward(setup.weights, setup.x, &setup.y);
  std::vector<Linear> reported;
  runner->Backward(setup.weights, setup.dy, /*accumulate=*/false, &setup.gradients, &setup.dx,
                   [&](Linear linear) {
                     reported.push_back(linear);
                     Tensor& weight = setup.weights.linear[static_cast<int>(linear)];
                     ASSERT_TRUE(backend_->FillZero(weight.data(), weight.size_bytes()).ok());
                   });
  EXPECT_EQ(reported.size(), static_cast<size_t>(kNumLinears));
  std::vector<Vector> actual = {Values(setup.dx)};
  for (const Tensor& gradient : setup.gradients) actual.push_back(Values(gradient));
  EXPECT_EQ(actual, expected);
}

TEST_P(BlockTest, EmptyGradientsAreSkippedAndInputGradientIsOptional) {
  BlockOnDevice setup(backend_.get(), act_, Families()[0].config, 1, 7);
  std::unique_ptr<BlockRunner> runner = setup.Runner(true);
  runner->Forward(setup.weights, setup.x, &setup.y);
  runner->Backward(setup.weights, setup.dy, /*accumulate=*/false, &setup.gradients, &setup.dx,
                   nullptr);
  const Vector expected = Values(setup.gradients[static_cast<int>(Linear::kQ)]);
  BlockGradients only_q;
  const auto [n, k] = setup.config.LinearShape(Linear::kQ);
  only_q[static_cast<int>(Linear::kQ)] = Empty(backend_.get(), act_, {n, k});
  std::vector<Linear> reported;
  runner->Forward(setup.weights, setup.x, &setup.y);
  runner->Backward(setup.weights, setup.dy, /*accumulate=*/false, &only_q, nullptr,
                   [&](Linear linear) { reported.push_back(linear); });
  EXPECT_EQ(reported, std::vector<Linear>{Linear::kQ});
  EXPECT_EQ(Values(only_q[static_cast<int>(Linear::kQ)]), expected);
}

TEST_P(BlockTest, BytesAreThoseAllocated) {
  BlockOnDevice setup(backend_.get(), act_, Families()[3].config, 2, 33);
  for (bool with_backward : {false, true}) {
    const uint64_t before = backend_->memory().allocated_bytes;
    std::unique_ptr<BlockRunner> runner = setup.Runner(with_backward);
    const uint64_t allocated = backend_->memory().allocated_bytes - before;
    const uint64_t planned = BlockRunnerBytes(*backend_, setup.config, act_, 2, 33, with_backward);
    EXPECT_GE(allocated, planned);
    EXPECT_LE(allocated, planned + 64 * 512) << "at most an alignment for each buffer";
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, BlockTest, testing::ValuesIn(reference::DeviceCases()),
                         [](const auto& info) { return reference::DeviceCaseName(info.param); });

TEST(BlockThreadCountTest, ForwardAndBackwardGiveTheSameBytes) {
  BlockConfig config;
  config.hidden_size = 192;
  config.intermediate_size = 512;
  config.num_heads = 6;
  config.num_kv_heads = 2;
  config.head_dim = 32;
  std::vector<std::vector<Vector>> runs;
  for (int num_threads : {1, 2, 3}) {
    std::unique_ptr<Backend> backend = NewCpuBackend({.num_threads = num_threads});
    BlockOnDevice setup(backend.get(), DType::kFloat32, config, 1, 512);
    std::unique_ptr<BlockRunner> runner = setup.Runner(true);
    runner->Forward(setup.weights, setup.x, &setup.y);
    runner->Backward(setup.weights, setup.dy, /*accumulate=*/false, &setup.gradients, &setup.dx,
                     nullptr);
    std::vector<Vector> run = {Values(setup.y), Values(setup.dx)};
    for (const Tensor& gradient : setup.gradients) run.push_back(Values(gradient));
    runs.push_back(std::move(run));
  }
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_EQ(runs[0], runs[2]);
}

}  // namespace
}  // namespace uniquanf
