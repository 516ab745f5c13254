#include "worker/task/output.h"

#include <optional>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;

class OutputTest : public ::testing::Test {
 protected:
  TempDir dir_;
  const std::string uri_ = dir_.path() + "/out";
  std::shared_ptr<ObjectStore> store_ = *OpenObjectStore(uri_);
};

TEST_F(OutputTest, MissingDirectoryIsFree) { EXPECT_THAT(CheckOutputIsFree(uri_, "p"), IsOk()); }

TEST_F(OutputTest, AnythingThereIsRefusedByName) {
  ASSERT_THAT(store_->Write("notes.txt", "mine"), IsOk());
  EXPECT_THAT(CheckOutputIsFree(uri_, "p"),
              FailsWith(absl::StatusCode::kAlreadyExists, "OUTPUT_EXISTS", HasSubstr("notes.txt")));
  EXPECT_EQ(*store_->Read("notes.txt", 100), "mine");
}

TEST_F(OutputTest, ClaimIsForOnePlan) {
  ASSERT_THAT(ClaimOutput(store_.get(), "plan-a"), IsOk());
  EXPECT_THAT(ClaimOutput(store_.get(), "plan-a"), IsOk());
  EXPECT_THAT(CheckOutputIsFree(uri_, "plan-a"), IsOk());
  EXPECT_THAT(ClaimOutput(store_.get(), "plan-b"),
              FailsWith(absl::StatusCode::kAlreadyExists, "OUTPUT_EXISTS"));
  EXPECT_THAT(
      CheckOutputIsFree(uri_, "plan-b"),
      FailsWith(absl::StatusCode::kAlreadyExists, "OUTPUT_EXISTS", HasSubstr("another job")));
}

TEST_F(OutputTest, PublishingTwiceTheSameManifestIsOne) {
  ASSERT_THAT(ClaimOutput(store_.get(), "plan"), IsOk());
  ASSERT_THAT(PublishManifest(store_.get(), "{}", std::nullopt), IsOk());
  EXPECT_FALSE(store_->Stat(kOutputMarkerKey).ok());
  EXPECT_THAT(PublishManifest(store_.get(), "{}", std::nullopt), IsOk());
  EXPECT_THAT(PublishManifest(store_.get(), "{\"other\":1}", std::nullopt),
              FailsWith(absl::StatusCode::kAlreadyExists, "OUTPUT_EXISTS"));
  EXPECT_EQ(*store_->Read("manifest.json", 100), "{}");
}

TEST_F(OutputTest, AbandonRemovesOnlyItsOwnUnfinishedWork) {
  ASSERT_THAT(ClaimOutput(store_.get(), "plan"), IsOk());
  ASSERT_THAT(store_->Write("shard", "x"), IsOk());
  ASSERT_THAT(AbandonOutput(uri_, "other"), IsOk());
  EXPECT_TRUE(store_->Stat("shard").ok());
  ASSERT_THAT(AbandonOutput(uri_, "plan"), IsOk());
  EXPECT_TRUE(store_->List({})->objects.empty());

  ASSERT_THAT(ClaimOutput(store_.get(), "plan"), IsOk());
  ASSERT_THAT(PublishManifest(store_.get(), "{}", std::nullopt), IsOk());
  ASSERT_THAT(AbandonOutput(uri_, "plan"), IsOk());
  EXPECT_TRUE(store_->Stat("manifest.json").ok());
}

// The publisher was killed between the manifest and the removal of its marker.
TEST_F(OutputTest, MarkerBesideAManifestIsALeftover) {
  ASSERT_THAT(ClaimOutput(store_.get(), "plan"), IsOk());
  ASSERT_THAT(store_->Write(kManifestKey, "{}"), IsOk());
  EXPECT_THAT(CheckOutputIsFree(uri_, "plan"), IsOk()) << "its own finalize goes on";
  EXPECT_THAT(CheckOutputIsFree(uri_, "other"),
              FailsWith(absl::StatusCode::kAlreadyExists, "OUTPUT_EXISTS",
                        HasSubstr("already holds an artifact")));
  ASSERT_THAT(AbandonOutput(uri_, "plan"), IsOk());
  EXPECT_TRUE(store_->Stat(kManifestKey).ok());
  EXPECT_FALSE(store_->Stat(kOutputMarkerKey).ok());
}

}  // namespace
}  // namespace uniquanf
