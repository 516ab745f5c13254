// Windows of layers that are distilled: what they bring, and that their bytes depend on nothing
// else.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/unit/worker/task/task_fixture.h"
#include "worker/distill/window.h"
#include "worker/model/language_model.h"
#include "worker/quant/quantizer.h"
#include "worker/task/content_store.h"
#include "worker/task/lost_inputs.h"
#include "worker/task/window_memory.h"
#include "worker/task/window_result.h"

namespace uniquanf {
namespace {

class WindowTaskTest : public TaskTest {
 protected:
  WindowTaskTest() {
    model_.Write(spec_.model_uri);
    spec_.bits = 2;
    spec_.epochs = 1;
    spec_.distill_window = 1;
    spec_.distill_steps = 30;
    spec_.distill_batch_size = 2;
    spec_.distill_learning_rate = 0.02;
    spec_.distill_scale_learning_rate = 0.005;
  }

  // Prepares and quantizes the layers.
  void RunLayers(const TaskEnvironment& env) {
    const auto prepared = RunPrepare(spec_, env);
    ASSERT_OK(prepared);
    plan_ = prepared->plan_sha256;
    num_layers_ = prepared->num_layers;
    layers_.clear();
    for (int layer = 0; layer < num_layers_; ++layer) {
      const auto outcome = RunLayer(spec_, plan_, layer, layers_, env);
      ASSERT_OK(outcome);
      layers_.push_back(outcome->result_sha256);
    }
  }
  // What the window at `first` is given after `before`.
  std::vector<std::string> Inputs(std::vector<std::string> before, int first) const {
    before.insert(before.end(), layers_.begin() + first, layers_.end());
    return before;
  }
  std::vector<std::string> RunWindows(const TaskEnvironment& env) {
    std::vector<std::string> windows;
    for (int first = 0; first < num_layers_; first += spec_.distill_window) {
      const auto outcome = RunWindow(spec_, plan_, first, Inputs(windows, first), env);
      EXPECT_OK(outcome);
      if (!outcome.ok()) return windows;
      windows.push_back(outcome->result_sha256);
    }
    return windows;
  }
  WindowResult Load(const std::string& digest) {
    return *WindowResult::FromJson(*GetContent(env_.work.get(), digest, 1 << 20));
  }

  std::string plan_;
  int num_layers_ = 0;
  std::vector<std::string> layers_;
};

TEST_F(WindowTaskTest, LowersTheDivergenceAndTheNextOneStartsFromWhatIsStored) {
  RunLayers(env_);
  const std::vector<std::string> windows = RunWindows(env_);
  ASSERT_EQ(windows.size(), 2u);
  const WindowResult first = Load(windows[0]), second = Load(windows[1]);
  EXPECT_GT(first.best_step, 0);
  EXPECT_LT(first.final_divergence, 0.97 * first.initial_divergence);
  EXPECT_LT(second.final_divergence, second.initial_divergence);
  EXPECT_EQ(second.initial_divergence, first.final_divergence);
  EXPECT_FALSE(first.layers[0].changed_vectors.empty());
  const auto outcome = RunFinalize(spec_, plan_, windows, env_);
  ASSERT_OK(outcome);
  ASSERT_EQ(outcome->report.windows.size(), 2u);
  EXPECT_EQ(outcome->report.windows[1].final_divergence, second.final_divergence);
}

TEST_F(WindowTaskTest, BytesDependNeitherOnTheCacheNorOnThreads) {
  RunLayers(env_);
  const std::vector<std::string> expected = RunWindows(env_);
  ASSERT_EQ(expected.size(), 2u);
  TaskEnvironment other = env_;
  const std::unique_ptr<Backend> single = NewCpuBackend({.num_threads = 1});
  other.backend = single.get();
  other.cache = nullptr;
  EXPECT_EQ(RunWindows(other), expected);
}

TEST_F(WindowTaskTest, FurtherSequencesCount) {
  RunLayers(env_);
  const std::vector<std::string> before = RunWindows(env_);
  spec_.distillation_uri = dir_.path() + "/further.safetensors";
  WriteTokenFile(spec_.distillation_uri, {{"input_ids", RandomTokens({6, 40}, 128, 5)}});
  RunLayers(env_);
  const std::vector<std::string> after = RunWindows(env_);
  ASSERT_EQ(after.size(), 2u);
  EXPECT_NE(Load(after[0]).loss_curve, Load(before[0]).loss_curve);
}

TEST_F(WindowTaskTest, AWindowThatOnlyGetsWorseStaysWhatItWas) {
  spec_.distill_learning_rate = 1;
  spec_.distill_scale_learning_rate = 1;
  spec_.distill_steps = 2;
  spec_.distill_window = 2;
  RunLayers(env_);
  const std::vector<std::string> windows = RunWindows(env_);
  ASSERT_EQ(windows.size(), 1u);
  const WindowResult result = Load(windows[0]);
  ASSERT_EQ(result.best_step, 0);
  EXPECT_EQ(result.final_divergence, result.initial_divergence);
  ASSERT_EQ(result.layers.size(), 2u);
  for (int layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(
        result.layers[layer].ToJson(),
        LayerResult::FromJson(*GetContent(env_.work.get(), layers_[layer], 1 << 20))->ToJson());
  }
}

TEST_F(WindowTaskTest, WrongInputsAreNamed) {
  RunLayers(env_);
  EXPECT_THAT(RunWindow(spec_, plan_, 0, {layers_[0]}, env_).status(),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_LAYER_RESULT"));
  EXPECT_THAT(RunWindow(spec_, plan_, 1, {layers_[0], layers_[1]}, env_).status(),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_WINDOW_RESULT"));
  EXPECT_THAT(RunWindow(spec_, plan_, 5, layers_, env_).status(),
              FailsWith(absl::StatusCode::kInvalidArgument, "WINDOW_OUT_OF_RANGE"));
}

TEST_F(WindowTaskTest, CancelStopsIt) {
  RunLayers(env_);
  TaskEnvironment env = env_;
  bool stop = false;
  env.progress = [&stop](const TaskStepProgress& progress) {
    stop = stop || absl::string_view(progress.phase) == "distilling";
  };
  env.stop = [&stop] { return stop; };
  spec_.distill_steps = 30;
  EXPECT_TRUE(absl::IsCancelled(RunWindow(spec_, plan_, 0, layers_, env).status()));
}

TEST_F(WindowTaskTest, AShardThatIsGoneIsLaidToItsWindow) {
  RunLayers(env_);
  const std::vector<std::string> windows = RunWindows(env_);
  ASSERT_EQ(windows.size(), 2u);
  const std::string shard = Load(windows[0]).layers[0].shard_sha256;
  ASSERT_OK(env_.work->Delete(ContentKey(shard)));
  const auto lost = FindLostInputs(env_.work.get(), plan_, windows, shard);
  ASSERT_OK(lost);
  EXPECT_EQ(*lost, std::vector<std::string>{windows[0]});
}

TEST_F(WindowTaskTest, TooLittleMemoryIsToldBeforeItStarts) {
  RunLayers(env_);
  const Plan plan = *Plan::FromJson(*GetContent(env_.work.get(), plan_, 1 << 20));
  const auto checkpoint = *Checkpoint::Open(*OpenObjectStore(spec_.model_uri), false);
  const ModelConfig& config = checkpoint->config();
  const WindowMemory memory = EstimateWindowMemory(plan, config, 0, *env_.backend, env_.act);
  AvailableMemory available;
  available.device_bytes = memory.fixed_bytes + memory.step_bytes - 1;
  const auto refused = PlanWindowMemory(plan, config, 0, available, env_);
  EXPECT_THAT(refused.status(), FailsWith(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY"));
  available.device_bytes += 1;
  EXPECT_EQ(*PlanWindowMemory(plan, config, 0, available, env_), false);
  available.device_bytes += memory.kept_bytes;
  EXPECT_EQ(*PlanWindowMemory(plan, config, 0, available, env_), true);
  available.host_bytes = memory.hidden_bytes;
  EXPECT_THAT(PlanWindowMemory(plan, config, 0, available, env_).status(),
              FailsWith(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY"));
}

TEST(WindowResultTest, ReadsWhatItWritesAndNothingElse) {
  WindowResult result;
  result.plan_sha256 = "p";
  result.first_layer = 4;
  result.initial_divergence = 0.5;
  result.final_divergence = std::nan("");
  result.best_step = 7;
  result.loss_curve = {1, 0.5};
  LayerResult layer;
  layer.plan_sha256 = "p";
  layer.layer = 4;
  layer.changed_vectors = {"input_layernorm.weight"};
  result.layers = {layer};
  const std::string json = result.ToJson();
  EXPECT_TRUE(IsWindowResult(json));
  EXPECT_FALSE(IsWindowResult(layer.ToJson()));
  const auto read = WindowResult::FromJson(json);
  ASSERT_OK(read);
  EXPECT_EQ(read->ToJson(), json);
  result.layers[0].layer = 5;
  EXPECT_THAT(WindowResult::FromJson(result.ToJson()).status(),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_WINDOW_RESULT"));
  result.layers.clear();
  EXPECT_FALSE(WindowResult::FromJson(result.ToJson()).ok());
  for (size_t size = 0; size < json.size(); ++size) {
    EXPECT_FALSE(WindowResult::FromJson(json.substr(0, size)).ok()) << size;
  }
}

// A trainer over the fixture's model, whose layers are rounded to few bits.
class TrainerTest : public TaskTest {
 protected:
  TrainerTest() { model_.Write(spec_.model_uri); }

  void Start(bool keep_activations, int64_t num_steps, double latent_rate, double scale_rate) {
    checkpoint_ = *Checkpoint::Open(*OpenObjectStore(spec_.model_uri), false);
    const ModelConfig& config = checkpoint_->config();
    rope_ = *MakeRopeTables(backend_.get(), config.ropes, 32);
    const std::vector<int32_t> tokens = RandomTokens({4, 32}, 128, 1).ids;
    x_ = *EmbedSequences(backend_.get(), *checkpoint_, DType::kFloat32,
                         SequenceBuffer::Placement::kHost, tokens, 4, 32);
    target_ = *x_.Clone();
    layers_.clear();
    for (int layer = 0; layer < config.num_layers; ++layer) {
      const BlockSpec& block = config.blocks[layer];
      HostBlock host = *checkpoint_->LoadBlock(layer);
      distill::WindowLayer& window = layers_.emplace_back();
      window.block = &block;
      window.weights = *UploadBlock(backend_.get(), block, DType::kFloat32, host);
      ASSERT_OK(ForwardBlock(backend_.get(), block, rope_, window.weights, target_, &target_, {}));
      for (int l = 0; l < block.num_linears(); ++l) {
        const TensorSpec& linear = block.linear(l);
        Tensor& weight = window.weights[block.linears[l]];
        auto state = quant::NewQuantizerState(
            backend_.get(),
            *Tensor::FromFloats(backend_.get(), DType::kFloat32, linear.shape,
                                host[block.linears[l]].data()),
            3, linear.num_inputs(), {});
        ASSERT_OK(state);
        quant::InitializeUnified(backend_.get(), {}, &*state);
        quant::Forward(backend_.get(), quant::Mapping::kDirect, &*state, &weight);
        if (layer > 0) continue;
        window.states.push_back(std::make_unique<quant::LatentState>(*quant::StartLatents(
            backend_.get(), *quant::Unify(backend_.get(), *state), host[block.linears[l]].data())));
      }
    }
    data_.x = &x_;
    data_.target = &target_;
    data_.judges = {0, 1};
    data_.training.clear();
    for (int64_t i = 0; i < 2 * num_steps; ++i) data_.training.push_back(i % 2);
    distill::WindowOptions options;
    options.num_steps = num_steps;
    options.batch_size = 2;
    options.latent_rate = latent_rate;
    options.scale_rate = scale_rate;
    options.keep_activations = keep_activations;
    trainer_ = *distill::WindowTrainer::Create(backend_.get(), *checkpoint_, DType::kFloat32, rope_,
                                               options, &data_, &layers_);
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  RopeTables rope_;
  SequenceBuffer x_, target_;
  std::vector<distill::WindowLayer> layers_;
  distill::WindowData data_;
  std::unique_ptr<distill::WindowTrainer> trainer_;
};

TEST_F(TrainerTest, SharedMemoryGivesTheSameBits) {
  Start(/*keep_activations=*/true, 6, 0.02, 0.005);
  const auto kept = trainer_->Train(nullptr, nullptr);
  ASSERT_OK(kept);
  Start(/*keep_activations=*/false, 6, 0.02, 0.005);
  const auto shared = trainer_->Train(nullptr, nullptr);
  ASSERT_OK(shared);
  EXPECT_EQ(kept->losses, shared->losses);
  EXPECT_EQ(kept->best_divergence, shared->best_divergence);
  EXPECT_LT(kept->losses.back(), kept->losses.front());
}

// Adam's first step goes against the sign of the gradient, which finite differences of the judges'
// divergence give: they judge what is trained on.
TEST_F(TrainerTest, GainsStepAgainstTheirGradient) {
  Start(true, 1, /*latent_rate=*/0, /*scale_rate=*/1e-6);
  int num_compared = 0;
  for (const int tensor : distill::TrainedGains(*layers_[0].block)) {
    const std::vector<float> start = *layers_[0].weights[tensor].ToFloats();
    std::vector<double> slopes;
    for (size_t i = 0; i < start.size(); i += 5) {
      std::vector<float> moved = start;
      double at[2];
      for (const int side : {0, 1}) {
        moved[i] = start[i] + (side == 0 ? -0.05f : 0.05f);
        ASSERT_OK(layers_[0].weights[tensor].CopyFromFloats(moved.data()));
        at[side] = *trainer_->Judge();
      }
      slopes.push_back((at[1] - at[0]) / 0.1);
    }
    ASSERT_OK(layers_[0].weights[tensor].CopyFromFloats(start.data()));
    const auto trained = trainer_->Train(nullptr, nullptr);
    ASSERT_OK(trained);
    if (trained->best_step == 0) GTEST_SKIP() << "the step was not kept";
    const std::vector<float> after = *layers_[0].weights[tensor].ToFloats();
    for (size_t s = 0; s < slopes.size(); ++s) {
      if (std::abs(slopes[s]) < 1e-3) continue;
      const float change = after[5 * s] - start[5 * s];
      EXPECT_LT(change * slopes[s], 0) << "gain " << 5 * s << " of tensor " << tensor;
      ++num_compared;
    }
    Start(true, 1, 0, 1e-6);
  }
  EXPECT_GT(num_compared, 3);
}

}  // namespace
}  // namespace uniquanf
