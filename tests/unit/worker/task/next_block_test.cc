#include "worker/task/next_block.h"

#include <thread>

#include "tests/unit/worker/task/task_fixture.h"

namespace uniquanf {
namespace {

class NextBlockTest : public TaskTest {
 protected:
  void SetUp() override {
    model_.Write(spec_.model_uri);
    checkpoint_ = *Checkpoint::Open(*OpenObjectStore(spec_.model_uri), false);
  }
  const BlockSpec& spec(int layer) const { return checkpoint_->config().blocks[layer]; }
  void Start(int layer, bool copy) {
    next_.Start(
        "plan", layer, [this, layer] { return checkpoint_->LoadBlock(layer); }, backend_.get(),
        spec(layer), DType::kFloat32, copy);
  }
  // Polls as a task does, until the copies have been started.
  void PollUntilCopied() {
    while (next_.device_bytes() == 0) {
      next_.Poll();
      std::this_thread::yield();
    }
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  NextBlock next_;
};

TEST_F(NextBlockTest, HandsOverWhatWasReadAndCopied) {
  Start(1, /*copy=*/true);
  EXPECT_TRUE(next_.Is("plan", 1));
  PollUntilCopied();
  EXPECT_EQ(next_.device_bytes(), NextBlock::DeviceBytes(spec(1), DType::kFloat32));
  auto ready = next_.Take("plan", 1);
  ASSERT_TRUE(ready.has_value());
  ASSERT_THAT(*ready, IsOk());
  const HostBlock expected = *checkpoint_->LoadBlock(1);
  EXPECT_EQ((*ready)->host, expected);
  ASSERT_EQ((*ready)->linear.size(), spec(1).linears.size());
  for (int l = 0; l < spec(1).num_linears(); ++l) {
    EXPECT_EQ(*(*ready)->linear[l].ToFloats(), expected[spec(1).linears[l]]);
  }
  EXPECT_FALSE(next_.Is("plan", 1));
  EXPECT_EQ(next_.device_bytes(), 0u);
  next_.Poll();  // nothing is left to do
}

TEST_F(NextBlockTest, ReadsOnlyWhereThereIsNoRoomForACopy) {
  Start(0, /*copy=*/false);
  auto ready = next_.Take("plan", 0);
  ASSERT_TRUE(ready.has_value());
  ASSERT_THAT(*ready, IsOk());
  EXPECT_EQ((*ready)->host, *checkpoint_->LoadBlock(0));
  EXPECT_TRUE((*ready)->linear.empty());
  EXPECT_EQ(next_.device_bytes(), 0u);
}

TEST_F(NextBlockTest, AnotherLayerOrPlanGetsNothingAndFreesTheMemory) {
  for (const auto& [plan, layer] : {std::pair{"plan", 0}, {"another", 1}}) {
    Start(1, /*copy=*/true);
    PollUntilCopied();
    const uint64_t before = backend_->memory().allocated_bytes;
    EXPECT_FALSE(next_.Take(plan, layer).has_value());
    EXPECT_LT(backend_->memory().allocated_bytes, before);
  }
}

TEST_F(NextBlockTest, TheNextOneTakesThePlaceOfTheLast) {
  Start(0, /*copy=*/true);
  PollUntilCopied();
  Start(1, /*copy=*/true);
  EXPECT_FALSE(next_.Is("plan", 0));
  PollUntilCopied();
  auto ready = next_.Take("plan", 1);
  ASSERT_TRUE(ready.has_value());
  ASSERT_THAT(*ready, IsOk());
  EXPECT_EQ(*(*ready)->linear[0].ToFloats(), (*checkpoint_->LoadBlock(1))[spec(1).linears[0]]);
}

TEST_F(NextBlockTest, AFailedReadIsReported) {
  next_.Start(
      "plan", 1, [] { return absl::StatusOr<HostBlock>(absl::UnavailableError("no store")); },
      backend_.get(), spec(1), DType::kFloat32, /*copy=*/true);
  auto ready = next_.Take("plan", 1);
  ASSERT_TRUE(ready.has_value());
  EXPECT_EQ(ready->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(next_.device_bytes(), 0u);
}

}  // namespace
}  // namespace uniquanf
