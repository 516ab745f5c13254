#include "worker/task/content_store.h"

#include "common/base/digest.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

class ContentStoreTest : public ::testing::Test {
 protected:
  TempDir dir_;
  std::shared_ptr<ObjectStore> store_ = *OpenObjectStore(dir_.path());
};

TEST_F(ContentStoreTest, ReturnsWhatWasPut) {
  const auto sha256 = PutContent(store_.get(), "hello");
  ASSERT_THAT(sha256, IsOk());
  EXPECT_EQ(*sha256, Sha256Hex("hello"));
  EXPECT_EQ(*GetContent(store_.get(), *sha256, 100), "hello");
}

TEST_F(ContentStoreTest, DamagedObjectIsDataLoss) {
  const std::string sha256 = *PutContent(store_.get(), "hello");
  ASSERT_THAT(store_->Write(ContentKey(sha256), "hellO"), IsOk());
  EXPECT_THAT(GetContent(store_.get(), sha256, 100),
              FailsWith(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH"));
}

TEST_F(ContentStoreTest, CopyChecksTheDigest) {
  ASSERT_THAT(store_->Write("a", "bytes"), IsOk());
  EXPECT_THAT(CopyObject(store_.get(), "a", store_.get(), "b", Sha256Hex("bytes")), IsOk());
  EXPECT_EQ(*store_->Read("b", 100), "bytes");
  EXPECT_THAT(CopyObject(store_.get(), "a", store_.get(), "c", Sha256Hex("other")),
              FailsWith(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH"));
  EXPECT_FALSE(store_->Stat("c").ok());
}

TEST_F(ContentStoreTest, OverlayHidesAndAddsObjects) {
  ASSERT_THAT(store_->Write("a", "below"), IsOk());
  ASSERT_THAT(store_->Write("c", "below"), IsOk());
  const auto overlay = NewOverlayStore(store_, {{"a", "above"}, {"b", "above"}});
  EXPECT_EQ(*overlay->Read("a", 100), "above");
  EXPECT_EQ(*overlay->Read("c", 100), "below");
  std::vector<std::string> keys;
  const auto listed = overlay->List({});
  ASSERT_THAT(listed, IsOk());
  for (const ObjectInfo& object : listed->objects) keys.push_back(object.key);
  EXPECT_EQ(keys, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_FALSE(overlay->Write("d", "x").ok());
  char byte;
  EXPECT_THAT(overlay->ReadAt("a", 5, 1, &byte),
              FailsWith(absl::StatusCode::kOutOfRange, "OBJECT_TOO_SHORT"));
}

}  // namespace
}  // namespace uniquanf
