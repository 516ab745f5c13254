// g3 of the goldens: reconstruction of one block of examples/tiny in fp32, in file order, without
// input mixing. Losses are chaotic once codes flip, so only the first ones are compared closely.
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <numeric>
#include <string>
#include <vector>

#include "common/object_store/local_store.h"
#include "common/safetensors/safetensors.h"
#include "tests/golden/golden_file.h"
#include "worker/block/block.h"
#include "worker/model/model_config.h"
#include "worker/quant/quantizer.h"
#include "worker/quant/reconstruct.h"

namespace uniquanf::golden {
namespace {

constexpr char kModel[] = UNIQUANF_SOURCE_DIR "/examples/tiny";

class ReconstructGoldenTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    backend_ = MakeBackend(GetParam());
    ASSERT_NE(backend_, nullptr);
    file_ = GoldenFile::Open();
    ASSERT_NE(file_, nullptr);
    auto store = OpenLocalStore(kModel);
    ASSERT_TRUE(store.ok()) << store.status();
    auto json = (*store)->Read("config.json", 1 << 20);
    ASSERT_TRUE(json.ok()) << json.status();
    auto config = ParseModelConfig(*json);
    ASSERT_TRUE(config.ok()) << config.status();
    model_ = *config;
    auto weights = SafetensorsFile::Open(*store, "model.safetensors");
    ASSERT_TRUE(weights.ok()) << weights.status();
    weights_ = *weights;
  }

  Tensor LoadTensor(int layer, const std::string& name) {
    auto info = weights_->Find(model_.LayerPrefix(layer) + name);
    EXPECT_TRUE(info.ok()) << info.status();
    std::vector<float> values(info->num_elements());
    EXPECT_TRUE(weights_->ReadFloat(*info, values.data()).ok());
    return Upload(values, info->shape);
  }

  BlockWeights LoadBlock(int layer) {
    BlockWeights block;
    for (const TensorSpec& tensor : model_.blocks[layer].tensors) {
      block.push_back(LoadTensor(layer, tensor.stored.name));
    }
    return block;
  }

  Tensor Upload(const std::vector<float>& values, const Shape& shape) {
    auto tensor = Tensor::FromFloats(backend_.get(), DType::kFloat32, shape, values.data());
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    return *std::move(tensor);
  }

  // The initialized quantizer of one layer, compared with the golden's.
  quant::QuantizerState NewState(const std::string& prefix, Tensor weight) {
    const Array alpha = file_->Read(prefix + "init_alpha");
    const Array scale = file_->Read(prefix + "init_scale");
    const auto num_groups = static_cast<int64_t>(scale.values.size());
    const int bits = static_cast<int>(alpha.values.size() / num_groups);
    const int64_t group_size = weight.num_elements() / num_groups;
    auto state = quant::NewQuantizerState(backend_.get(), std::move(weight), bits, group_size, {});
    EXPECT_TRUE(state.ok()) << state.status();
    quant::InitializeUnified(backend_.get(), {}, &*state);
    std::vector<float> delta = *state->log_delta.ToFloats();
    for (float& value : delta) value = std::exp(value);
    EXPECT_LE(RelativeDifference(delta, scale, 1, {}).largest, 1e-5) << prefix;
    EXPECT_LE(RelativeDifference(*state->zero_point.ToFloats(),
                                 file_->Read(prefix + "init_zero_point"), 1, {})
                  .largest,
              1e-5)
        << prefix;
    // A weight within rounding of the border between two levels may fall to either side, and the
    // alternating update then settles elsewhere. The CPU adds in the order that made the goldens
    // and agrees in every group; a GPU does not, and this happens to one group in some thousands.
    const int64_t num_allowed = backend_->kind() == DeviceKind::kCpu ? 0 : num_groups / 100;
    EXPECT_LE(NumRowsOff(*state->alpha.ToFloats(), alpha, bits), num_allowed) << prefix;
    return *std::move(state);
  }

  static int64_t NumRowsOff(const std::vector<float>& actual, const Array& expected,
                            int64_t columns) {
    int64_t num_off = 0;
    for (size_t begin = 0; begin < actual.size(); begin += columns) {
      double largest = 0, difference = 0;
      for (size_t i = begin; i < begin + columns; ++i) {
        largest = std::max(largest, std::fabs(expected.values[i]));
        difference = std::max(difference, std::fabs(actual[i] - expected.values[i]));
      }
      if (!(difference <= 1e-5 * largest)) ++num_off;
    }
    return num_off;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<GoldenFile> file_;
  ModelConfig model_;
  std::shared_ptr<const SafetensorsFile> weights_;
};

double Mean(const double* begin, const double* end) {
  return std::accumulate(begin, end, 0.0) / static_cast<double>(end - begin);
}

TEST_P(ReconstructGoldenTest, LossesAndWeightsMatch) {
  const int layer = static_cast<int>(file_->Read("g3.layer").values.at(0));
  const Array input = file_->Read("g3.hidden_in"), target = file_->Read("g3.fp_out");
  const Tensor x = Upload(input.floats(), input.shape), y = Upload(target.floats(), target.shape);
  ASSERT_LT(layer, model_.num_layers);
  const BlockSpec& block = model_.blocks[layer];
  auto rope = MakeRopeTables(backend_.get(), model_.ropes, input.shape[1]);
  ASSERT_TRUE(rope.ok()) << rope.status();
  const std::vector<std::string> cases = file_->NamesBetween("g3.", ".loss");
  ASSERT_FALSE(cases.empty());
  for (const std::string& name : cases) {
    SCOPED_TRACE(name);
    BlockWeights weights = LoadBlock(layer);
    std::vector<quant::QuantizerState> states(block.num_linears());
    std::vector<quant::QuantizerState*> state_pointers;
    for (int l = 0; l < block.num_linears(); ++l) {
      const TensorSpec& linear = block.linear(l);
      states[l] =
          NewState("g3." + name + "." + linear.module + ".", LoadTensor(layer, linear.stored.name));
      state_pointers.push_back(&states[l]);
    }
    const Array expected = file_->Read("g3." + name + ".loss");
    const auto num_steps = static_cast<int64_t>(expected.values.size());
    ASSERT_GE(num_steps, 8);
    quant::ReconstructOptions options;
    options.num_steps = num_steps;
    options.input_prob = 0;
    options.shuffle = false;
    quant::BlockActivations activations;
    activations.x_fp = &x;
    activations.y_fp = &y;
    auto result = quant::ReconstructBlock(backend_.get(), block, *rope, options, activations,
                                          &weights, state_pointers, nullptr, nullptr);
    ASSERT_TRUE(result.ok()) << result.status();
    const std::vector<double> losses(result->losses.begin(), result->losses.end());
    ASSERT_EQ(losses.size(), expected.values.size());

    double first = 0;
    for (int step = 0; step < 4; ++step) {
      const double error = std::fabs(losses[step] / expected.values[step] - 1);
      EXPECT_LE(error, 0.01) << "loss before step " << step;
      first = std::max(first, error);
    }
    const double last = Mean(&losses[num_steps - 8], &losses[0] + num_steps);
    const double expected_last =
        Mean(&expected.values[num_steps - 8], &expected.values[0] + num_steps);
    EXPECT_NEAR(last / expected_last, 1, 0.05);
    double worst_step = 0;
    for (int64_t step = 0; step < num_steps; ++step) {
      worst_step = std::max(worst_step, std::fabs(losses[step] / expected.values[step] - 1));
    }
    std::cout << GetParam() << " " << name << ": first losses within " << first
              << ", any loss within " << worst_step << ", last eight " << last << " (expected "
              << expected_last << ")\n";

    for (int l = 0; l < block.num_linears(); ++l) {
      const std::string& module = block.linear(l).module;
      const std::vector<float> w_hat = *weights[block.linears[l]].ToFloats();
      const Array golden = file_->Read("g3." + name + "." + module + ".w_hat");
      ASSERT_EQ(w_hat.size(), golden.values.size());
      double squares = 0, square_errors = 0;
      int64_t num_close = 0;
      for (size_t i = 0; i < w_hat.size(); ++i) {
        const double error = w_hat[i] - golden.values[i];
        squares += golden.values[i] * golden.values[i];
        square_errors += error * error;
        num_close += std::fabs(error) <= 0.01 * std::fabs(golden.values[i]) + 1e-6;
      }
      const double close = static_cast<double>(num_close) / static_cast<double>(w_hat.size());
      const double distance = std::sqrt(square_errors / squares);
      std::cout << "  " << module << ": " << 100 * close
                << "% of weights within 1%, relative distance " << distance << "\n";
      EXPECT_GE(close, 0.5) << module;
      EXPECT_LE(distance, 0.3) << module;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ReconstructGoldenTest, testing::ValuesIn(DeviceNames()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace uniquanf::golden
