#include "worker/task/memory_plan.h"

#include "tests/unit/worker/task/task_fixture.h"
#include "worker/task/content_store.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;
using Placement = SequenceBuffer::Placement;

class MemoryPlanTest : public TaskTest {
 protected:
  void SetUp() override {
    model_.Write(spec_.model_uri);
    checkpoint_ = *Checkpoint::Open(*OpenObjectStore(spec_.model_uri), false);
    plan_.spec = spec_;
    plan_.num_layers = checkpoint_->config().num_layers;
    plan_.num_samples = spec_.num_samples;
    plan_.sequence_length = spec_.sequence_length;
  }
  LayerMemory Estimate(DType act = DType::kFloat32) const {
    return EstimateLayerMemory(plan_, checkpoint_->config(), 0, *backend_, act);
  }
  absl::StatusOr<MemoryPlan> PlanFor(uint64_t available_bytes) const {
    return PlanFor(AvailableMemory{.device_bytes = available_bytes});
  }
  absl::StatusOr<MemoryPlan> PlanFor(const AvailableMemory& available) const {
    return PlanLayerMemory(plan_, checkpoint_->config(), 0, available, env_);
  }
  Placement Place(uint64_t available_bytes) const { return PlanFor(available_bytes)->activations; }

  std::unique_ptr<Checkpoint> checkpoint_;
  Plan plan_;
};

TEST_F(MemoryPlanTest, ActivationsLieOnTheDeviceWhereTheyFit) {
  const LayerMemory memory = Estimate();
  EXPECT_EQ(Place(memory.on_device()), Placement::kDevice);
  EXPECT_EQ(Place(memory.on_device() - 1), Placement::kHost);
  EXPECT_EQ(Place(memory.on_host()), Placement::kHost);
  EXPECT_EQ(PlanFor(memory.on_device() + 17)->spare_bytes, 17);
  env_.activations = ActivationPlacement::kHost;
  EXPECT_EQ(Place(memory.on_device()), Placement::kHost);
}

TEST_F(MemoryPlanTest, SaysWhatIsMissingAndWhatWouldFit) {
  plan_.sequence_length = 1000;
  EXPECT_THAT(PlanFor(Estimate().on_host() - 1),
              FailsWith(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                        HasSubstr("sequences of up to 900 tokens")));
  plan_.sequence_length = 900;
  const uint64_t enough = Estimate().on_host();
  EXPECT_EQ(Place(enough), Placement::kHost) << "the length that was named does fit";
  EXPECT_THAT(PlanFor(1), FailsWith(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                                    HasSubstr("free; use a device with more memory")));
  env_.activations = ActivationPlacement::kDevice;
  EXPECT_THAT(PlanFor(enough), FailsWith(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                                         HasSubstr("keep the activations on the host")));
}

// A container's memory holds everything of a CPU: activations do not go "to the host" there.
TEST_F(MemoryPlanTest, WhereTheDeviceIsTheHostAllOfItHasToFitTogether) {
  const LayerMemory memory = Estimate();
  AvailableMemory available;
  available.device_is_host = true;
  available.device_bytes = memory.on_device() + memory.host_bytes;
  ASSERT_THAT(PlanFor(available), IsOk());
  EXPECT_EQ(PlanFor(available)->activations, Placement::kDevice);
  EXPECT_EQ(PlanFor(available)->spare_bytes, 0u);
  --available.device_bytes;
  EXPECT_THAT(PlanFor(available), FailsWith(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                                            HasSubstr("use a worker with more memory")));
  EXPECT_EQ(LayerMemoryBytes(plan_, checkpoint_->config(), env_),
            memory.on_device() + memory.host_bytes)
      << "what the server compares with the memory that a worker announces";
}

// A GPU's container: activations that lie on the host need the host's memory.
TEST_F(MemoryPlanTest, WhatLiesOnTheHostHasToFitThere) {
  const LayerMemory memory = Estimate();
  AvailableMemory available;
  available.device_bytes = memory.on_device() - 1;
  available.host_bytes = memory.host_bytes + memory.calibration_bytes;
  ASSERT_THAT(PlanFor(available), IsOk());
  EXPECT_EQ(PlanFor(available)->activations, Placement::kHost);
  --available.host_bytes;
  EXPECT_THAT(PlanFor(available), FailsWith(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                                            HasSubstr("of host memory")));
  available.device_bytes = memory.on_device();
  ASSERT_THAT(PlanFor(available), IsOk());
  EXPECT_EQ(PlanFor(available)->activations, Placement::kDevice);
}

TEST_F(MemoryPlanTest, TheBatchCostsNoMemoryBeyondTheSumOfGradients) {
  plan_.sequence_length = 2048;
  plan_.num_samples = 64;
  const LayerMemory one = Estimate(DType::kBfloat16);
  plan_.spec.batch_size = 8;
  const LayerMemory eight = Estimate(DType::kBfloat16);
  plan_.spec.batch_size = 64;
  EXPECT_EQ(Estimate(DType::kBfloat16).on_host(), eight.on_host());
  EXPECT_EQ(eight.step_bytes, one.step_bytes);
  uint64_t num_weights = 0;
  const BlockSpec& block = checkpoint_->config().blocks[0];
  for (int l = 0; l < block.num_linears(); ++l) num_weights += block.linear(l).num_elements();
  EXPECT_EQ(eight.fixed_bytes - one.fixed_bytes, num_weights * sizeof(float));
}

TEST_F(MemoryPlanTest, CompactStatesTakeFiveBytesAWeightLess) {
  const LayerMemory full = Estimate();
  plan_.spec.optimizer_state = OptimizerState::kBf16;
  uint64_t num_weights = 0;
  const BlockSpec& block = checkpoint_->config().blocks[0];
  for (int l = 0; l < block.num_linears(); ++l) num_weights += block.linear(l).num_elements();
  EXPECT_EQ(full.fixed_bytes - Estimate().fixed_bytes, 5 * num_weights);
}

// What a task really takes stays below what was planned, for one micro-batch a step and for four.
TEST_F(MemoryPlanTest, ATaskTakesNoMoreThanPlanned) {
  spec_.sequence_length = 1024;
  WriteTokenFile(spec_.calibration_uri, {{"input_ids", RandomTokens({4, 1024}, 128, 1)}});
  model_.config["max_position_embeddings"] = 1024;
  model_.Write(spec_.model_uri);
  // Small groups: what is kept of their start counts too.
  for (const auto& [batch_size, group_size] : {std::pair{1, 0}, {4, 0}, {1, 8}}) {
    spec_.batch_size = batch_size;
    spec_.group_size = group_size;
    const auto prepared = RunPrepare(spec_, env_);
    ASSERT_THAT(prepared, IsOk());
    backend_->ResetPeak();
    ASSERT_THAT(RunLayer(spec_, prepared->plan_sha256, 0, {}, env_), IsOk());
    cache_->Clear();
    const uint64_t peak = backend_->memory().peak_allocated_bytes;
    EXPECT_LE(peak, prepared->layer_memory_bytes)
        << "batch size " << batch_size << ", groups of " << group_size;
    EXPECT_GE(peak, prepared->layer_memory_bytes / 2)
        << "batch size " << batch_size << ", groups of " << group_size;
  }
}

}  // namespace
}  // namespace uniquanf
