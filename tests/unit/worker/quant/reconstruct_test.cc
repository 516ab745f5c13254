// Schedules, and the reconstruction of a small random block.
#include "worker/quant/reconstruct.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <vector>

#include "common/base/status.h"
#include "worker/block/block_traits.h"
#include "worker/quant/step_schedule.h"

namespace uniquanf::quant {
namespace {

TEST(EpochOrderTest, IsAPermutationThatDependsOnSeedAndEpochOnly) {
  const std::vector<int64_t> order = EpochOrder(7, 0, 50, true);
  EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), 50u);
  EXPECT_EQ(order, EpochOrder(7, 0, 50, true));
  EXPECT_NE(order, EpochOrder(7, 1, 50, true));
  EXPECT_NE(order, EpochOrder(8, 0, 50, true));
  EXPECT_EQ(EpochOrder(7, 3, 3, false), (std::vector<int64_t>{0, 1, 2}));
}

TEST(EpochOrderTest, EveryPlaceIsEquallyLikely) {
  int counts[4][4] = {};
  for (int64_t epoch = 0; epoch < 4000; ++epoch) {
    const std::vector<int64_t> order = EpochOrder(1, epoch, 4, true);
    for (int place = 0; place < 4; ++place) ++counts[place][order[place]];
  }
  for (const auto& row : counts) {
    for (int count : row) EXPECT_NEAR(count, 1000, 130);
  }
}

TEST(StepScheduleTest, BatchesRunOnAcrossEpochs) {
  ReconstructOptions options;
  options.num_steps = 4;
  options.batch_size = 3;
  options.shuffle = false;
  StepSchedule schedule(options, 4, false);
  std::vector<int64_t> visited;
  for (int step = 0; step < 4; ++step) {
    const ops::StepParams params = schedule.Next();
    EXPECT_EQ(params.draw, static_cast<uint64_t>(step));
    visited.insert(visited.end(), params.sequence_index, params.sequence_index + 3);
  }
  EXPECT_EQ(visited, (std::vector<int64_t>{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}));
}

TEST(StepScheduleTest, RatesAnnealAndMappingsAlternate) {
  ReconstructOptions options;
  options.num_steps = 4;
  StepSchedule schedule(options, 2, false);
  const Mapping mappings[] = {Mapping::kLocal, Mapping::kKeep, Mapping::kLocal, Mapping::kKeep};
  const double cosines[] = {1, (1 + std::sqrt(0.5)) / 2, 0.5, (1 - std::sqrt(0.5)) / 2};
  for (int step = 0; step < 4; ++step) {
    const ops::StepParams params = schedule.Next();
    EXPECT_FLOAT_EQ(params.uniform_learning_rate, 5e-3 * cosines[step]);
    EXPECT_FLOAT_EQ(params.binary_learning_rate, 5e-4 * cosines[step]);
    EXPECT_FLOAT_EQ(params.bias_correction1, 1 - std::pow(0.9, step + 1));
    EXPECT_FLOAT_EQ(params.bias_correction2, 1 - std::pow(0.999, step + 1));
    EXPECT_EQ(params.mapping, static_cast<int32_t>(mappings[step])) << "step " << step;
  }
  options.num_steps = 3;
  StepSchedule direct(options, 2, true);
  EXPECT_EQ(direct.Next().mapping, static_cast<int32_t>(Mapping::kDirect));
  EXPECT_EQ(direct.Next().mapping, static_cast<int32_t>(Mapping::kDirect));
  EXPECT_EQ(direct.Next().mapping, static_cast<int32_t>(Mapping::kKeep));
}

TEST(StepScheduleTest, PartsFollowOneAnotherWithoutASeam) {
  ReconstructOptions options;
  options.num_steps = 9;
  options.batch_size = 2;
  options.seed = 5;
  StepSchedule whole(options, 4, false);
  for (const auto& [first, end] : {std::pair{0, 3}, {3, 7}, {7, 9}}) {
    options.first_step = first;
    options.end_step = end;
    StepSchedule part(options, 4, false);
    for (int step = first; step < end; ++step) {
      ops::StepParams want = whole.Next();
      // The pass after a part's last step is the next part's first.
      if (step + 1 == end) want.mapping = static_cast<int32_t>(Mapping::kKeep);
      const ops::StepParams got = part.Next();
      EXPECT_EQ(std::memcmp(&got, &want, sizeof(got)), 0) << "step " << step;
    }
  }
}

constexpr int64_t kSequences = 5, kLength = 8, kHidden = 32;

class ReconstructTest : public testing::Test {
 protected:
  void SetUp() override {
    BlockTraits traits;
    traits.hidden_size = kHidden;
    traits.mlp.size = 48;
    traits.attention.num_heads = 4;
    traits.attention.num_kv_heads = 2;
    traits.attention.head_dim = 8;
    block_ = BuildBlock(traits);
    Reset(NewCpuBackend({2}));
  }

  void Reset(std::unique_ptr<Backend> backend) {
    states_.clear();
    states_.resize(block_.num_linears());
    weights_ = BlockWeights();
    rope_ = RopeTables();
    x_fp_ = Tensor();
    x_q_ = Tensor();
    y_fp_ = Tensor();
    backend_ = std::move(backend);
    uint32_t seed = 1;
    for (const TensorSpec& tensor : block_.tensors) {
      const bool linear = tensor.role == TensorRole::kLinear;
      weights_.push_back(linear ? Random(tensor.shape, 0.2f, seed++)
                                : Random(tensor.shape, 0.1f, seed++, 1.0f));
    }
    rope_.push_back({Random({kLength, 4}, 0.0f, 1, 1.0f), Random({kLength, 4}, 0.0f, 1, 0.0f)});
    x_fp_ = Random({kSequences, kLength, kHidden}, 1.0f, 100);
    x_q_ = Random({kSequences, kLength, kHidden}, 1.0f, 100);
    y_fp_ = Random({kSequences, kLength, kHidden}, 0.0f, 1);
    auto runner = *BlockRunner::Create(backend_.get(), block_, DType::kFloat32, kSequences, kLength,
                                       &rope_, false);
    Tensor x = Random({kSequences * kLength, kHidden}, 1.0f, 100);
    Tensor y = Random({kSequences * kLength, kHidden}, 0.0f, 1);
    runner->Forward(weights_, x, &y);
    ASSERT_TRUE(y_fp_.CopyFromFloats(y.f32()).ok());
  }

  Tensor& Weight(int l) { return weights_[block_.linears[l]]; }

  Tensor Random(const Shape& shape, float deviation, uint32_t seed, float mean = 0) {
    Tensor tensor = *Tensor::Allocate(backend_.get(), DType::kFloat32, shape);
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal(0, 1);
    for (int64_t i = 0; i < tensor.num_elements(); ++i) {
      tensor.f32()[i] = mean + deviation * normal(engine);
    }
    return tensor;
  }

  absl::StatusOr<ReconstructResult> Run(const ReconstructOptions& options,
                                        TrainedParts trained = {},
                                        const std::function<bool()>& cancelled = nullptr) {
    std::vector<QuantizerState*> pointers(block_.num_linears());
    for (int l = 0; l < block_.num_linears(); ++l) {
      if (l == skipped_) continue;
      if (options.first_step > 0) {  // goes on from where the part before ended
        pointers[l] = &states_[l];
        continue;
      }
      const Tensor& w = Weight(l);
      states_[l] = *NewQuantizerState(
          backend_.get(), *Tensor::FromFloats(backend_.get(), DType::kFloat32, w.shape(), w.f32()),
          3, 16, trained, optimizer_state_);
      states_[l].rounding_seed = static_cast<uint32_t>(l);
      if (trained.binary) {
        InitializeUnified(backend_.get(), {}, &states_[l]);
      } else {
        InitializeUniform(backend_.get(), {}, &states_[l]);
      }
      pointers[l] = &states_[l];
    }
    BlockActivations activations = {&x_fp_, &x_q_, &y_fp_};
    return ReconstructBlock(
        backend_.get(), block_, rope_, options, activations, &weights_, pointers,
        [this](const ReconstructProgress& progress) { reports_.push_back(progress); }, cancelled);
  }

  static ReconstructOptions Options(int64_t num_steps) {
    ReconstructOptions options;
    options.num_steps = num_steps;
    options.seed = 3;
    return options;
  }

  std::unique_ptr<Backend> backend_;
  BlockSpec block_;
  BlockWeights weights_;
  RopeTables rope_;
  Tensor x_fp_, x_q_, y_fp_;
  std::vector<QuantizerState> states_;
  std::vector<ReconstructProgress> reports_;
  int skipped_ = -1;
  OptimizerState optimizer_state_ = OptimizerState::kF32;
};

TEST_F(ReconstructTest, LowersTheLossAndLeavesTheFinalWeights) {
  auto result = Run(Options(100));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->losses.size(), 100u);
  EXPECT_LT(result->final_loss, 0.7 * result->initial_loss);
  for (int l = 0; l < block_.num_linears(); ++l) {
    Tensor w_hat = Random(Weight(l).shape(), 0, 1);
    Forward(backend_.get(), Mapping::kKeep, &states_[l], &w_hat);
    EXPECT_EQ(*w_hat.ToFloats(), *Weight(l).ToFloats());
  }
  ASSERT_EQ(reports_.size(), 7u);  // after 16, 32, ..., 96 and 100 steps
  EXPECT_EQ(reports_[0].step, 16);
  EXPECT_EQ(reports_[6].step, 100);
  double sum = 0;
  for (int i = 0; i < 16; ++i) sum += result->losses[i];
  EXPECT_FLOAT_EQ(reports_[0].loss, sum / 16);
}

TEST_F(ReconstructTest, PartsGiveTheBitsOfOneRun) {
  for (const auto& [binary, optimizer_state] : {std::pair{true, OptimizerState::kF32},
                                                {false, OptimizerState::kF32},
                                                {true, OptimizerState::kBf16},
                                                {false, OptimizerState::kBf16}}) {
    optimizer_state_ = optimizer_state;
    ReconstructOptions options = Options(30);
    const auto whole = Run(options, {true, binary});
    ASSERT_TRUE(whole.ok()) << whole.status();
    std::vector<std::vector<float>> weights;
    for (int l = 0; l < block_.num_linears(); ++l) weights.push_back(*Weight(l).ToFloats());
    Reset(NewCpuBackend({2}));
    std::vector<float> losses;
    for (const auto& [first, end] : {std::pair{0, 7}, {7, 20}, {20, 30}}) {
      options.first_step = first;
      options.end_step = end;
      const auto part = Run(options, {true, binary});
      ASSERT_TRUE(part.ok()) << part.status();
      EXPECT_EQ(part->losses.size(), static_cast<size_t>(end - first));
      losses.insert(losses.end(), part->losses.begin(), part->losses.end());
    }
    EXPECT_EQ(losses, whole->losses);
    for (int l = 0; l < block_.num_linears(); ++l) {
      EXPECT_EQ(*Weight(l).ToFloats(), weights[l]);
    }
    Reset(NewCpuBackend({2}));
  }
}

// Other paths than with float32 moments, which end as low.
TEST_F(ReconstructTest, CompactStatesTrainAsWell) {
  const auto full = Run(Options(100));
  ASSERT_TRUE(full.ok()) << full.status();
  Reset(NewCpuBackend({2}));
  optimizer_state_ = OptimizerState::kBf16;
  const auto compact = Run(Options(100));
  ASSERT_TRUE(compact.ok()) << compact.status();
  EXPECT_EQ(compact->initial_loss, full->initial_loss);
  EXPECT_NE(compact->losses, full->losses);
  // Over 24 seeds the ratio was 1.003 with a deviation of 0.037.
  EXPECT_NEAR(compact->final_loss, full->final_loss, 0.15 * full->final_loss);
  for (int l = 0; l < block_.num_linears(); ++l) {
    Tensor w_hat = Random(Weight(l).shape(), 0, 1);
    Forward(backend_.get(), Mapping::kKeep, &states_[l], &w_hat);
    EXPECT_EQ(*w_hat.ToFloats(), *Weight(l).ToFloats());
  }
}

TEST_F(ReconstructTest, FlexRoundLowersTheLossWithEquallySpacedLevels) {
  auto result = Run(Options(100), {true, false});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_LT(result->final_loss, 0.8 * result->initial_loss);
  EXPECT_EQ(states_[0].alpha.f32()[0], -2.0f);
  EXPECT_EQ(states_[0].alpha.f32()[2], -0.5f);
}

TEST_F(ReconstructTest, BatchesOfSeveralSequencesWork) {
  ReconstructOptions options = Options(60);
  options.batch_size = 3;
  auto result = Run(options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_LT(result->final_loss, 0.7 * result->initial_loss);
}

TEST(MicroBatchTest, IsTheLargestDivisorOfTheBatchWithinTheLimit) {
  EXPECT_EQ(MicroBatchSize(1, 100000), 1);
  EXPECT_EQ(MicroBatchSize(8, 2048), 1);
  EXPECT_EQ(MicroBatchSize(8, 1024), 2);
  EXPECT_EQ(MicroBatchSize(8, 700), 2);
  EXPECT_EQ(MicroBatchSize(9, 512), 3);
  EXPECT_EQ(MicroBatchSize(7, 512), 1);
  EXPECT_EQ(MicroBatchSize(64, 32), 64);
}

// Float32 sums in another order: the first steps agree closely, and nothing is left out or counted
// twice in the later ones.
TEST_F(ReconstructTest, MicroBatchesMakeTheStepOfTheWholeBatch) {
  ReconstructOptions options = Options(12);
  options.batch_size = 4;
  options.input_prob = 0;
  std::vector<float> whole;
  for (int micro_batch : {4, 2, 1}) {
    Reset(NewCpuBackend({2}));
    options.micro_batch_size = micro_batch;
    const auto result = Run(options);
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->losses.size(), 12u);
    if (whole.empty()) whole = result->losses;
    for (int step = 0; step < 12; ++step) {
      EXPECT_NEAR(result->losses[step], whole[step], (step < 2 ? 1e-5 : 2e-2) * whole[step])
          << micro_batch << " at once, step " << step;
    }
  }
}

TEST_F(ReconstructTest, MicroBatchesDrawTheirOwnMixing) {
  ReconstructOptions options = Options(4);
  options.batch_size = 4;
  options.micro_batch_size = 2;
  const auto first = Run(options);
  ASSERT_TRUE(first.ok()) << first.status();
  Reset(NewCpuBackend({1}));
  const auto again = Run(options);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(first->losses, again->losses);
}

TEST_F(ReconstructTest, SameSeedGivesTheSameBitsOnAnyNumberOfThreads) {
  auto first = Run(Options(20));
  ASSERT_TRUE(first.ok());
  const std::vector<float> first_weights = *Weight(6).ToFloats();
  Reset(NewCpuBackend({1}));
  auto second = Run(Options(20));
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(first->losses, second->losses);
  EXPECT_EQ(first->final_loss, second->final_loss);
  EXPECT_EQ(first_weights, *Weight(6).ToFloats());
  Reset(NewCpuBackend({1}));
  ReconstructOptions options = Options(20);
  options.seed = 4;
  auto third = Run(options);
  ASSERT_TRUE(third.ok());
  EXPECT_NE(first->losses, third->losses);
}

TEST_F(ReconstructTest, SkippedLayersKeepTheirWeights) {
  skipped_ = block_.FindLinear("self_attn.v_proj");
  const std::vector<float> before = *Weight(skipped_).ToFloats();
  auto result = Run(Options(10));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*Weight(skipped_).ToFloats(), before);
}

// Rates at which three steps only do harm.
TEST_F(ReconstructTest, KeepsABetterStart) {
  ASSERT_TRUE(Run(Options(0)).ok());
  std::vector<std::vector<float>> start;
  for (int l = 0; l < block_.num_linears(); ++l) start.push_back(Weight(l).ToFloats().value());
  Reset(NewCpuBackend({2}));
  ReconstructOptions options = Options(3);
  options.uniform_learning_rate = 0.3;
  const auto harmed = Run(options);
  ASSERT_TRUE(harmed.ok()) << harmed.status();
  ASSERT_GT(harmed->final_loss, harmed->initial_loss);
  EXPECT_FALSE(harmed->kept_start);
  Reset(NewCpuBackend({2}));
  options.keep_better_start = true;
  const auto kept = Run(options);
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_TRUE(kept->kept_start);
  EXPECT_EQ(kept->final_loss, kept->initial_loss);
  for (int l = 0; l < block_.num_linears(); ++l) {
    EXPECT_EQ(Weight(l).ToFloats().value(), start[l]) << "linear " << l;
    // And so do the states, of which the stored form is made.
    Tensor w_hat = Random(Weight(l).shape(), 0, 1);
    Forward(backend_.get(), Mapping::kKeep, &states_[l], &w_hat);
    EXPECT_EQ(w_hat.ToFloats().value(), start[l]) << "linear " << l;
  }
  Reset(NewCpuBackend({2}));
  options = Options(100);
  options.keep_better_start = true;
  const auto trained = Run(options);
  ASSERT_TRUE(trained.ok()) << trained.status();
  EXPECT_FALSE(trained->kept_start);
  EXPECT_LT(trained->final_loss, trained->initial_loss);
}

TEST_F(ReconstructTest, NoStepsOnlyMeasures) {
  auto result = Run(Options(0));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->initial_loss, result->final_loss);
  EXPECT_GT(result->initial_loss, 0);
}

TEST_F(ReconstructTest, CancellationStopsBeforeTheNextStep) {
  int num_asked = 0;
  auto result = Run(Options(50), {}, [&] { return ++num_asked > 5; });
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(num_asked, 6);
}

TEST_F(ReconstructTest, DivergenceIsAnError) {
  y_fp_.f32()[17] = std::numeric_limits<float>::infinity();
  auto result = Run(Options(50));
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(ErrorReason(result.status()), "LOSS_NOT_FINITE");
}

}  // namespace
}  // namespace uniquanf::quant
