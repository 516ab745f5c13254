// Working objects that a task misses: which inputs have to be made again.
#include "worker/task/lost_inputs.h"

#include "common/base/status.h"
#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/worker/task/task_fixture.h"
#include "worker/task/content_store.h"
#include "worker/task/layer_result.h"
#include "worker/task/plan.h"

namespace uniquanf {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class LostInputsTest : public TaskTest {
 protected:
  // A plan and two layers, done.
  void RunTwoLayers() {
    model_.Write(spec_.model_uri);
    const auto prepared = RunPrepare(spec_, env_);
    ASSERT_THAT(prepared, IsOk());
    plan_sha256_ = prepared->plan_sha256;
    for (int layer = 0; layer < 2; ++layer) {
      const auto outcome = RunLayer(spec_, plan_sha256_, layer, layers_, env_);
      ASSERT_THAT(outcome, IsOk());
      layers_.push_back(outcome->result_sha256);
    }
  }
  std::string Read(const std::string& sha256) {
    return *GetContent(env_.work.get(), sha256, 1 << 20);
  }
  std::string ShardOf(int layer) {
    return LayerResult::FromJson(Read(layers_[layer]))->shard_sha256;
  }
  std::vector<std::string> Find(const std::string& suspect) {
    return *FindLostInputs(env_.work.get(), plan_sha256_, layers_, suspect);
  }
  void Remove(const std::string& sha256) {
    ASSERT_THAT(env_.work->Delete(ContentKey(sha256)), IsOk());
  }

  std::string plan_sha256_;
  std::vector<std::string> layers_;
};

TEST_F(LostInputsTest, NothingIsLostWhereAllIsThere) {
  RunTwoLayers();
  EXPECT_THAT(Find("aa"), IsEmpty());
}

TEST_F(LostInputsTest, TheErrorOfReadingNamesTheObject) {
  RunTwoLayers();
  Remove(layers_[0]);
  const absl::Status status = GetContent(env_.work.get(), layers_[0], 1 << 20).status();
  EXPECT_EQ(WorkObjectOf(status), layers_[0]);
  EXPECT_EQ(WorkObjectOf(Annotate(status, "context")), layers_[0]);
  EXPECT_EQ(WorkObjectOf(NoteWorkObject(absl::UnavailableError("x"), layers_[0])), "")
      << "a store that does not answer has lost nothing";
}

TEST_F(LostInputsTest, EveryInputIsFoundThroughWhichSomethingIsMissing) {
  RunTwoLayers();
  Remove(ShardOf(1));
  Remove(layers_[0]);
  EXPECT_THAT(Find(layers_[0]), ElementsAre(layers_[0], layers_[1]));
  Remove(Plan::FromJson(Read(plan_sha256_))->calibration_sha256);
  EXPECT_THAT(Find(layers_[0]), ElementsAre(plan_sha256_, layers_[0], layers_[1]));
}

TEST_F(LostInputsTest, ADamagedObjectIsDeletedSoThatItIsMadeAgain) {
  RunTwoLayers();
  const std::string shard = ShardOf(0);
  std::string bytes = *env_.work->Read(ContentKey(shard), 1 << 28);
  bytes[bytes.size() / 2] ^= 1;
  WriteOptions overwrite;
  ASSERT_THAT(env_.work->Write(ContentKey(shard), bytes, overwrite), IsOk());
  EXPECT_THAT(Find(shard), ElementsAre(layers_[0]));
  EXPECT_TRUE(absl::IsNotFound(env_.work->Stat(ContentKey(shard)).status()));
  // Cut short, it is noticed without being read.
  const std::string other = ShardOf(1);
  ASSERT_THAT(env_.work->Write(ContentKey(other), "short", overwrite), IsOk());
  EXPECT_THAT(Find("aa"), ElementsAre(layers_[0], layers_[1]));
}

TEST_F(LostInputsTest, FinalizeNamesAShardThatIsGone) {
  RunTwoLayers();
  const std::string shard = ShardOf(0);
  Remove(shard);
  const auto outcome = RunFinalize(spec_, plan_sha256_, layers_, env_);
  EXPECT_EQ(WorkObjectOf(outcome.status()), shard) << outcome.status();
}

}  // namespace
}  // namespace uniquanf
