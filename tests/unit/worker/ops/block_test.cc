#include "worker/block/block.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "tests/unit/worker/ops/block_reference.h"
#include "worker/block/block_traits.h"

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
  BlockTraits traits;
};

std::vector<Family> Families() {
  BlockTraits llama;
  llama.hidden_size = 48;
  llama.mlp.size = 80;
  llama.attention.num_heads = 4;
  llama.attention.num_kv_heads = 2;
  llama.attention.head_dim = 32;  // num_heads · head_dim is not hidden_size
  BlockTraits mistral = llama, qwen2 = llama, qwen3 = llama, biased = llama, heads = llama;
  mistral.attention.window = 5;
  qwen2.attention.qkv_bias = true;
  qwen3.attention.head_norm = AttentionTraits::HeadNorm::kShared;
  biased.attention.qkv_bias = biased.attention.o_bias = biased.mlp.bias = true;
  heads.attention.num_kv_heads = 4;
  heads.attention.head_dim = 12;
  return {{"Llama", llama},       {"MistralWindow", mistral}, {"Qwen2Bias", qwen2},
          {"Qwen3QkNorm", qwen3}, {"LlamaAllBiases", biased}, {"LlamaMultiHead", heads}};
}

// One block with random weights, input and upstream gradient on a device.
struct BlockOnDevice {
  BlockOnDevice(Backend* backend, DType act, const BlockTraits& traits, int64_t batch,
                int64_t seq_len)
      : backend(backend), traits(traits), spec(BuildBlock(traits)), batch(batch), seq_len(seq_len) {
    uint64_t seed = 100;
    for (const TensorSpec& tensor : spec.tensors) {
      const int64_t count = tensor.num_elements();
      if (tensor.role == TensorRole::kLinear) {
        const double deviation = 1 / std::sqrt(double(tensor.num_inputs()));
        weights.push_back(
            Upload(backend, act, tensor.shape, RandomFloats(count, ++seed, deviation)));
        gradients.push_back(Empty(backend, act, tensor.shape));
        continue;
      }
      const bool bias = tensor.stored.name.find(".bias") != std::string::npos;
      std::vector<float> values = RandomFloats(count, ++seed, bias ? 0.5 : 0.2);
      for (float& value : values) value += bias ? 0 : 1;
      weights.push_back(Upload(backend, DType::kFloat32, tensor.shape, values));
    }
    const AttentionTraits& config = traits.attention;
    const int64_t half = config.head_dim / 2;
    std::vector<float> cosines, sines;
    for (int64_t position = 0; position < seq_len; ++position) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = position * std::pow(10000.0, -double(i) / half);
        cosines.push_back(static_cast<float>(std::cos(angle)));
        sines.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    rope.push_back({Upload(backend, DType::kFloat32, {seq_len, half}, cosines),
                    Upload(backend, DType::kFloat32, {seq_len, half}, sines)});
    const int64_t elements = batch * seq_len * traits.hidden_size;
    const Shape shape = {batch * seq_len, traits.hidden_size};
    x = Upload(backend, act, shape, RandomFloats(elements, 1));
    dy = Upload(backend, act, shape, RandomFloats(elements, 2));
    y = Empty(backend, act, shape);
    dx = Empty(backend, act, shape);
  }

  std::unique_ptr<BlockRunner> Runner(bool with_backward) {
    auto runner =
        BlockRunner::Create(backend, spec, x.dtype(), batch, seq_len, &rope, with_backward);
    EXPECT_TRUE(runner.ok()) << runner.status();
    return *std::move(runner);
  }

  BlockValues HostWeights() const {
    BlockValues values;
    for (const Tensor& tensor : weights) values.push_back(Values(tensor));
    return values;
  }

  Vector Reference(const BlockValues& values, const Vector& input) const {
    return reference::BlockForward(traits, values, input, Values(rope[0].cos), Values(rope[0].sin),
                                   batch, seq_len);
  }

  Backend* backend;
  BlockTraits traits;
  BlockSpec spec;
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
      BlockOnDevice setup(backend_.get(), act_, family.traits, batch, seq_len);
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
    BlockOnDevice setup(backend_.get(), act_, family.traits, 2, 9);
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
    for (int l = 0; l < setup.spec.num_linears(); ++l) {
      check(&values[setup.spec.linears[l]], setup.gradients[l],
            setup.spec.linear(l).module.c_str());
    }
    check(&x, setup.dx, "x");
  }
}

TEST_P(BlockTest, WeightsMayChangeOnceTheirGradientIsReported) {
  BlockOnDevice setup(backend_.get(), act_, Families()[0].traits, 1, 33);
  std::unique_ptr<BlockRunner> runner = setup.Runner(true);
  runner->Forward(setup.weights, setup.x, &setup.y);
  runner->Backward(setup.weights, setup.dy, /*accumulate=*/false, &setup.gradients, &setup.dx,
                   nullptr);
  std::vector<Vector> expected = {Values(setup.dx)};
  for (const Tensor& gradient : setup.gradients) expected.push_back(Values(gradient));

  runner->Forward(setup.weights, setup.x, &setup.y);
  std::vector<int> reported;
  runner->Backward(setup.weights, setup.dy, /*accumulate=*/false, &setup.gradients, &setup.dx,
                   [&](int l) {
                     reported.push_back(l);
                     Tensor& weight = setup.weights[setup.spec.linears[l]];
                     ASSERT_TRUE(backend_->FillZero(weight.data(), weight.size_bytes()).ok());
                   });
  EXPECT_EQ(reported.size(), static_cast<size_t>(setup.spec.num_linears()));
  std::vector<Vector> actual = {Values(setup.dx)};
  for (const Tensor& gradient : setup.gradients) actual.push_back(Values(gradient));
  EXPECT_EQ(actual, expected);
}

TEST_P(BlockTest, EmptyGradientsAreSkippedAndInputGradientIsOptional) {
  BlockOnDevice setup(backend_.get(), act_, Families()[0].traits, 1, 7);
  std::unique_ptr<BlockRunner> runner = setup.Runner(true);
  runner->Forward(setup.weights, setup.x, &setup.y);
  runner->Backward(setup.weights, setup.dy, /*accumulate=*/false, &setup.gradients, &setup.dx,
                   nullptr);
  const int q = setup.spec.FindLinear("self_attn.q_proj");
  const Vector expected = Values(setup.gradients[q]);
  BlockGradients only_q(setup.spec.num_linears());
  only_q[q] = Empty(backend_.get(), act_, setup.spec.linear(q).shape);
  std::vector<int> reported;
  runner->Forward(setup.weights, setup.x, &setup.y);
  runner->Backward(setup.weights, setup.dy, /*accumulate=*/false, &only_q, nullptr,
                   [&](int l) { reported.push_back(l); });
  EXPECT_EQ(reported, std::vector<int>{q});
  EXPECT_EQ(Values(only_q[q]), expected);
}

TEST_P(BlockTest, BytesAreThoseAllocated) {
  BlockOnDevice setup(backend_.get(), act_, Families()[3].traits, 2, 33);
  for (bool with_backward : {false, true}) {
    const uint64_t before = backend_->memory().allocated_bytes;
    std::unique_ptr<BlockRunner> runner = setup.Runner(with_backward);
    const uint64_t allocated = backend_->memory().allocated_bytes - before;
    const uint64_t planned = BlockRunnerBytes(*backend_, setup.spec, act_, 2, 33, with_backward);
    EXPECT_GE(allocated, planned);
    EXPECT_LE(allocated, planned + 64 * 512) << "at most an alignment for each buffer";
  }
}

// GPTQ's Hessian and the like need what each layer multiplies.
TEST_P(BlockTest, ObserverSeesTheInputOfEveryLinearLayer) {
  BlockOnDevice setup(backend_.get(), act_, Families()[0].traits, 1, 7);
  std::unique_ptr<BlockRunner> runner = setup.Runner(false);
  std::vector<Vector> seen(setup.spec.num_linears());
  runner->set_observer([&](int l, const Tensor& input) { seen[l] = Values(input); });
  runner->Forward(setup.weights, setup.x, &setup.y);
  for (int l = 0; l < setup.spec.num_linears(); ++l) {
    EXPECT_EQ(seen[l].size(), static_cast<size_t>(7 * setup.spec.linear(l).num_inputs())) << l;
  }
  auto of = [&](const char* module) { return seen[setup.spec.FindLinear(module)]; };
  EXPECT_EQ(of("self_attn.q_proj"), of("self_attn.v_proj"));
  EXPECT_EQ(of("mlp.gate_proj"), of("mlp.up_proj"));
  EXPECT_NE(of("self_attn.q_proj"), of("mlp.gate_proj"));
}

INSTANTIATE_TEST_SUITE_P(Devices, BlockTest, testing::ValuesIn(reference::DeviceCases()),
                         [](const auto& info) { return reference::DeviceCaseName(info.param); });

TEST(BlockThreadCountTest, ForwardAndBackwardGiveTheSameBytes) {
  BlockTraits traits;
  traits.hidden_size = 192;
  traits.mlp.size = 512;
  traits.attention.num_heads = 6;
  traits.attention.num_kv_heads = 2;
  traits.attention.head_dim = 32;
  std::vector<std::vector<Vector>> runs;
  for (int num_threads : {1, 2, 3}) {
    std::unique_ptr<Backend> backend = NewCpuBackend({.num_threads = num_threads});
    BlockOnDevice setup(backend.get(), DType::kFloat32, traits, 1, 512);
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
