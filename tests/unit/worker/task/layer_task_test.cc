#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/unit/worker/task/task_fixture.h"
#include "worker/task/content_store.h"
#include "worker/task/layer_result.h"
#include "worker/task/plan.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;

class LayerTaskTest : public TaskTest {
 protected:
  absl::StatusOr<std::vector<std::string>> RunLayers(const TaskEnvironment& env) {
    UQ_ASSIGN_OR_RETURN(const PrepareOutcome prepared, RunPrepare(spec_, env));
    plan_sha256_ = prepared.plan_sha256;
    std::vector<std::string> results;
    for (int layer = 0; layer < prepared.num_layers; ++layer) {
      UQ_ASSIGN_OR_RETURN(const LayerOutcome outcome,
                          RunLayer(spec_, plan_sha256_, layer, results, env));
      results.push_back(outcome.result_sha256);
    }
    return results;
  }
  // The layers' results of every round. `by_round`: round after round, else layer after layer.
  absl::StatusOr<std::vector<std::vector<std::string>>> RunRounds(const TaskEnvironment& env,
                                                                  bool by_round) {
    UQ_ASSIGN_OR_RETURN(const PrepareOutcome prepared, RunPrepare(spec_, env));
    plan_sha256_ = prepared.plan_sha256;
    const int num_rounds = prepared.num_rounds, num_layers = prepared.num_layers;
    std::vector<std::vector<std::string>> results(num_rounds);
    for (int i = 0; i < num_rounds * num_layers; ++i) {
      const int round = by_round ? i / num_layers : i % num_rounds;
      const int layer = by_round ? i % num_layers : i / num_rounds;
      std::vector<std::string> earlier = results[round];
      if (round > 0) earlier.push_back(results[round - 1][layer]);
      UQ_ASSIGN_OR_RETURN(const LayerOutcome outcome,
                          RunLayer(spec_, plan_sha256_, layer, earlier, env, round));
      results[round].push_back(outcome.result_sha256);
    }
    return results;
  }
  LayerResult Result(const std::string& sha256) {
    return *LayerResult::FromJson(*GetContent(env_.work.get(), sha256, 1 << 20));
  }
  std::string plan_sha256_;
};

TEST_F(LayerTaskTest, ReconstructionLowersTheOutputError) {
  spec_.epochs = 10;
  model_.Write(spec_.model_uri);
  const auto results = RunLayers(env_);
  ASSERT_THAT(results, IsOk());
  for (const std::string& sha256 : *results) {
    const LayerResult result = Result(sha256);
    EXPECT_LT(result.final_loss, result.initial_loss) << "layer " << result.layer;
    EXPECT_EQ(result.modules.size(), 7u);
  }
}

// Inputs of one token are as correlated as inputs can be: the starts that are the best by each
// group's own error are then often worse for the block than rounding is.
TEST_F(LayerTaskTest, NoLayerIsStoredWorseThanRoundedToNearest) {
  WriteTokenFile(spec_.calibration_uri, {{"input_ids", RandomTokens({4, 32}, 1, 1)}});
  spec_.uniform_learning_rate = 0;
  spec_.binary_learning_rate = 0;
  const auto error = [this](QuantizationMethod method, Initialization initialization) {
    spec_.method = method;
    spec_.initialization = initialization;
    spec_.output_uri += "x";
    const PrepareOutcome prepared = *RunPrepare(spec_, env_);
    return RunLayer(spec_, prepared.plan_sha256, 0, {}, env_)->final_loss;
  };
  int num_rounded = 0;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    spec_.model_uri = absl::StrCat(dir_.path(), "/model", seed);
    FixtureModel::Make("llama", seed).Write(spec_.model_uri);
    for (const int bits : {3, 5, 6, 8}) {
      SCOPED_TRACE(absl::StrCat("seed ", seed, ", ", bits, " bits"));
      spec_.bits = bits;
      // Untrained, it is the rounded layer.
      const double rounded = error(QuantizationMethod::kFlexround, Initialization::kPlain);
      const double stored = error(QuantizationMethod::kUniquanf, Initialization::kActivationAware);
      EXPECT_LE(stored, rounded * (1 + 1e-6));
      num_rounded += stored == rounded;
    }
  }
  EXPECT_GT(num_rounded, 0);
}

TEST_F(LayerTaskTest, BytesDoNotDependOnTheActivationCache) {
  model_.Write(spec_.model_uri);
  const auto cached = RunLayers(env_);
  ASSERT_THAT(cached, IsOk());
  TaskEnvironment uncached = env_;
  uncached.cache = nullptr;
  EXPECT_EQ(*RunLayers(uncached), *cached);
}

TEST_F(LayerTaskTest, BytesDoNotDependOnTheThreadCount) {
  model_.Write(spec_.model_uri);
  const auto two_threads = RunLayers(env_);
  ASSERT_THAT(two_threads, IsOk());
  for (int threads : {1, 3}) {
    const std::unique_ptr<Backend> backend = NewCpuBackend({.num_threads = threads});
    const std::unique_ptr<ActivationCache> cache = NewActivationCache();
    TaskEnvironment env = env_;
    env.backend = backend.get();
    env.cache = cache.get();
    EXPECT_EQ(*RunLayers(env), *two_threads) << threads << " threads";
  }
}

TEST_F(LayerTaskTest, BytesDoNotDependOnWhereActivationsLie) {
  spec_.batch_size = 2;
  model_.Write(spec_.model_uri);
  const auto on_device = RunLayers(env_);
  ASSERT_THAT(on_device, IsOk());
  cache_->Clear();
  env_.activations = ActivationPlacement::kHost;
  EXPECT_EQ(*RunLayers(env_), *on_device);
}

TEST_F(LayerTaskTest, SeedChangesTheBytes) {
  model_.Write(spec_.model_uri);
  const auto first = RunLayers(env_);
  ASSERT_THAT(first, IsOk());
  spec_.seed = 1;
  EXPECT_NE((*RunLayers(env_))[0], (*first)[0]);
}

TEST_F(LayerTaskTest, NanWeightNamesTensorAndIndex) {
  model_.tensors["model.layers.1.mlp.gate_proj.weight"].values[77] =
      std::numeric_limits<float>::quiet_NaN();
  model_.Write(spec_.model_uri);
  EXPECT_THAT(RunLayers(env_), FailsWith(absl::StatusCode::kInvalidArgument, "WEIGHT_NOT_FINITE",
                                         HasSubstr("model.layers.1.mlp.gate_proj.weight")));
}

TEST_F(LayerTaskTest, ChangedModelIsNoticed) {
  model_.Write(spec_.model_uri);
  const auto prepared = RunPrepare(spec_, env_);
  ASSERT_THAT(prepared, IsOk());
  model_.config["rope_theta"] = 500000.0;
  model_.Write(spec_.model_uri);
  EXPECT_THAT(RunLayer(spec_, prepared->plan_sha256, 0, {}, env_),
              FailsWith(absl::StatusCode::kFailedPrecondition, "MODEL_CHANGED"));
}

TEST_F(LayerTaskTest, MissingEarlierResultIsAnError) {
  model_.Write(spec_.model_uri);
  const auto prepared = RunPrepare(spec_, env_);
  ASSERT_THAT(prepared, IsOk());
  EXPECT_FALSE(RunLayer(spec_, prepared->plan_sha256, 1, {}, env_).ok());
}

TEST_F(LayerTaskTest, CancelStopsAndLeavesNoResult) {
  model_.Write(spec_.model_uri);
  const auto prepared = RunPrepare(spec_, env_);
  ASSERT_THAT(prepared, IsOk());
  int polls = 0;
  env_.stop = [&polls] { return ++polls > 3; };
  EXPECT_EQ(RunLayer(spec_, prepared->plan_sha256, 0, {}, env_).status().code(),
            absl::StatusCode::kCancelled);
}

TEST_F(LayerTaskTest, IndependentLayersMayRunInAnyOrder) {
  spec_.input_prob = 0;
  model_.Write(spec_.model_uri);
  const auto in_order = RunLayers(env_);
  ASSERT_THAT(in_order, IsOk());
  cache_->Clear();
  EXPECT_EQ(RunLayer(spec_, plan_sha256_, 1, {}, env_)->result_sha256, (*in_order)[1]);
  EXPECT_EQ(RunLayer(spec_, plan_sha256_, 0, {}, env_)->result_sha256, (*in_order)[0]);
}

TEST_F(LayerTaskTest, PipelinedBytesDependNeitherOnTheOrderNorOnTheCache) {
  spec_.schedule = LayerSchedule::kPipelined;
  spec_.pipeline_rounds = 3;
  model_.Write(spec_.model_uri);
  const auto by_round = RunRounds(env_, true);
  ASSERT_THAT(by_round, IsOk());
  ASSERT_EQ(by_round->size(), 3u);
  cache_->Clear();
  EXPECT_EQ(*RunRounds(env_, false), *by_round);
  TaskEnvironment uncached = env_;
  uncached.cache = nullptr;
  EXPECT_EQ(*RunRounds(uncached, true), *by_round);
  EXPECT_NE(Result((*by_round)[2][1]).shard_sha256, Result((*by_round)[1][1]).shard_sha256);
  EXPECT_THAT(RunFinalize(spec_, plan_sha256_, by_round->back(), env_), IsOk());
}

// The first layer's inputs are the same in every round, so cutting its run changes nothing.
TEST_F(LayerTaskTest, RoundsGiveTheFirstLayerTheBytesOfOneRun) {
  for (const auto& [method, optimizer_state] :
       {std::pair{QuantizationMethod::kUniquanf, OptimizerState::kF32},
        {QuantizationMethod::kFlexround, OptimizerState::kF32},
        {QuantizationMethod::kUniquanf, OptimizerState::kBf16}}) {
    spec_.method = method;
    spec_.optimizer_state = optimizer_state;
    spec_.schedule = LayerSchedule::kSequential;
    model_.Write(spec_.model_uri);
    const auto sequential = RunLayers(env_);
    ASSERT_THAT(sequential, IsOk());
    spec_.schedule = LayerSchedule::kPipelined;
    spec_.pipeline_rounds = 3;
    const auto pipelined = RunRounds(env_, true);
    ASSERT_THAT(pipelined, IsOk());
    const LayerResult want = Result((*sequential)[0]), got = Result(pipelined->back()[0]);
    EXPECT_EQ(got.shard_sha256, want.shard_sha256);
    EXPECT_EQ(got.initial_loss, want.initial_loss);
    EXPECT_EQ(got.final_loss, want.final_loss);
    EXPECT_EQ(got.loss_curve, want.loss_curve);
    EXPECT_EQ(got.state_sha256, "") << "nobody goes on from the last round";
  }
}

TEST_F(LayerTaskTest, ARoundNeedsTheLayersResultOfTheRoundBefore) {
  spec_.schedule = LayerSchedule::kPipelined;
  model_.Write(spec_.model_uri);
  const auto results = RunRounds(env_, true);
  ASSERT_THAT(results, IsOk());
  EXPECT_THAT(RunLayer(spec_, plan_sha256_, 0, {}, env_, 1),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_LAYER_RESULT"));
  EXPECT_THAT(RunLayer(spec_, plan_sha256_, 0, {(*results)[0][0]}, env_, 2),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_LAYER_RESULT"));
  EXPECT_THAT(RunLayer(spec_, plan_sha256_, 0, {}, env_, 4),
              FailsWith(absl::StatusCode::kInvalidArgument, "ROUND_OUT_OF_RANGE"));
  EXPECT_THAT(RunFinalize(spec_, plan_sha256_, (*results)[2], env_),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_LAYER_RESULT"));
}

TEST_F(LayerTaskTest, EveryRoundHasAStepAndThereIsOneWhereLayersAreIndependent) {
  spec_.schedule = LayerSchedule::kPipelined;
  spec_.pipeline_rounds = 64;
  model_.Write(spec_.model_uri);
  EXPECT_EQ(RunPrepare(spec_, env_)->num_rounds, 7);  // 2 epochs of 4 sequences, two steps last
  spec_.input_prob = 0;
  EXPECT_EQ(RunPrepare(spec_, env_)->num_rounds, 1);
}

TEST(PlanTest, TheLastOfSeveralRoundsTakesAllInputsFromTheQuantizedModel) {
  Plan plan;
  plan.num_samples = 4;
  plan.spec.input_prob = 0.5;
  EXPECT_EQ(InputProb(plan, 0), 0.5) << "sequential";
  plan.spec.schedule = LayerSchedule::kPipelined;
  plan.spec.pipeline_rounds = 3;
  EXPECT_EQ(InputProb(plan, 0), 0.5);
  EXPECT_EQ(InputProb(plan, 1), 0.5);
  EXPECT_EQ(InputProb(plan, 2), 1.0);
  plan.spec.pipeline_rounds = 1;
  EXPECT_EQ(InputProb(plan, 0), 0.5);
}

TEST(PlanTest, RoundsFollowOneAnotherAndTheLastIsTwiceAsLong) {
  Plan plan;
  plan.num_samples = 64;
  plan.spec.epochs = 5;
  EXPECT_EQ(RoundSteps(plan, 0), (std::pair<int64_t, int64_t>{0, 320})) << "sequential";
  plan.spec.schedule = LayerSchedule::kPipelined;
  plan.spec.pipeline_rounds = 4;
  EXPECT_EQ(RoundSteps(plan, 0), (std::pair<int64_t, int64_t>{0, 64}));
  EXPECT_EQ(RoundSteps(plan, 2), (std::pair<int64_t, int64_t>{128, 192}));
  EXPECT_EQ(RoundSteps(plan, 3), (std::pair<int64_t, int64_t>{192, 320}));
  for (int epochs : {1, 2, 3, 20}) {
    for (int samples : {1, 2, 5, 64}) {
      for (int rounds = 1; rounds <= 64; ++rounds) {
        plan.num_samples = samples;
        plan.spec.epochs = epochs;
        plan.spec.pipeline_rounds = rounds;
        int64_t at = 0;
        for (int round = 0; round < NumRounds(plan); ++round) {
          const auto [first, end] = RoundSteps(plan, round);
          EXPECT_EQ(first, at);
          EXPECT_GT(end, first) << epochs << " x " << samples << ", round " << round;
          at = end;
        }
        EXPECT_EQ(at, epochs * samples);
      }
    }
  }
}

TEST_F(LayerTaskTest, OverridesAreObeyed) {
  ModuleOverride keep, fine;
  keep.pattern = "*layers.0.self_attn.*";
  keep.full_precision = true;
  fine.pattern = "*.down_proj";
  fine.bits = 5;
  fine.group_size = 32;
  spec_.overrides = {keep, fine};
  model_.Write(spec_.model_uri);
  const auto results = RunLayers(env_);
  ASSERT_THAT(results, IsOk());
  for (const ModuleResult& module : Result((*results)[0]).modules) {
    EXPECT_EQ(module.quantized, module.name.find("self_attn") == std::string::npos) << module.name;
    if (module.name.find("down_proj") != std::string::npos) {
      EXPECT_EQ(module.bits, 5);
      EXPECT_EQ(module.group_size, 32);
    }
  }
}

// Rows that are constant, all zero, or hold one huge value; groups of one weight.
TEST_F(LayerTaskTest, DegenerateWeightsGiveFiniteResults) {
  auto& q = model_.tensors["model.layers.0.self_attn.q_proj.weight"].values;
  std::fill(q.begin(), q.begin() + 64, 0.0f);
  std::fill(q.begin() + 64, q.begin() + 128, 0.3f);
  auto& up = model_.tensors["model.layers.0.mlp.up_proj.weight"].values;
  up[5] = 30000.0f;
  std::fill(model_.tensors["model.layers.1.mlp.down_proj.weight"].values.begin(),
            model_.tensors["model.layers.1.mlp.down_proj.weight"].values.end(), 0.0f);
  model_.Write(spec_.model_uri);
  for (int64_t group_size : {int64_t{0}, int64_t{1}, int64_t{16}}) {
    spec_.group_size = group_size;
    cache_->Clear();
    const auto results = RunLayers(env_);
    ASSERT_THAT(results, IsOk()) << "group size " << group_size;
    for (const std::string& sha256 : *results) {
      const LayerResult result = Result(sha256);
      EXPECT_TRUE(std::isfinite(result.final_loss));
      for (const ModuleResult& module : result.modules) {
        EXPECT_TRUE(std::isfinite(module.weight_error)) << module.name;
      }
    }
  }
}

}  // namespace
}  // namespace uniquanf
