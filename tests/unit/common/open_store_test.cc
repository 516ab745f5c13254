// Tests of URIs and object locations.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/object_store/object_store.h"
#include "common/object_store/store_schemes.h"
#include "tests/support/faulty_store.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(OpenObjectStoreTest, FileUrisAndPathsNameTheSameStore) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(const auto by_uri, OpenObjectStore("file://" + dir.path() + "/"));
  ASSERT_OK_AND_ASSIGN(const auto by_path, OpenObjectStore(dir.path()));
  EXPECT_EQ(by_uri->uri(), "file://" + dir.path());
  EXPECT_EQ(by_path->uri(), by_uri->uri());
  ASSERT_OK(by_uri->Write("a", "x"));
  EXPECT_EQ(*by_path->Read("a", 10), "x");
}

TEST(OpenObjectStoreTest, BadUrisAreRefused) {
  for (const char* uri : {"", "file://", "file://relative/dir", "gs://bucket", "http://host/x"}) {
    EXPECT_THAT(OpenObjectStore(uri), FailsWith(kInvalid, "INVALID_URI")) << uri;
  }
}

TEST(StoreSchemesTest, EveryRowIsFoundByItsUrisAndNamedInMessages) {
  for (const StoreScheme& scheme : StoreSchemes()) {
    const std::string uri = absl::StrCat(scheme.root, "place/x");
    EXPECT_EQ(FindStoreScheme(uri), &scheme);
    EXPECT_TRUE(IsCompleteStoreUri(uri));
    EXPECT_TRUE(absl::StartsWith(scheme.form, scheme.root)) << scheme.form;
    EXPECT_THAT(std::string(OpenObjectStore("").status().message()),
                ::testing::HasSubstr(scheme.form));
    EXPECT_THAT(std::string(OpenObjectStore("gs://bucket").status().message()),
                ::testing::HasSubstr(scheme.form));
  }
  for (const char* uri : {"", "place/x", "/place/x", "gs://bucket/x", "file://relative/x"}) {
    EXPECT_FALSE(IsCompleteStoreUri(uri)) << uri;
  }
}

TEST(OpenObjectLocationTest, SplitsAtTheLastSlash) {
  ASSERT_OK_AND_ASSIGN(const ObjectLocation uri, OpenObjectLocation("file:///data/dir/x.st"));
  EXPECT_EQ(uri.store->uri(), "file:///data/dir");
  EXPECT_EQ(uri.key, "x.st");
  ASSERT_OK_AND_ASSIGN(const ObjectLocation root, OpenObjectLocation("/x.st"));
  EXPECT_EQ(root.store->uri(), "file:///");
  ASSERT_OK_AND_ASSIGN(const ObjectLocation root_uri, OpenObjectLocation("file:///x.st"));
  EXPECT_EQ(root_uri.store->uri(), "file:///");
  EXPECT_EQ(root_uri.key, "x.st");
  ASSERT_OK_AND_ASSIGN(const ObjectLocation bare, OpenObjectLocation("x.st"));
  EXPECT_EQ(bare.key, "x.st");
  for (const char* bad : {"", "/", "dir/", "file:///", "file://x", "s3://bucket", "s3://"}) {
    EXPECT_THAT(OpenObjectLocation(bad), FailsWith(kInvalid, "INVALID_URI")) << bad;
  }
  EXPECT_THAT(OpenObjectLocation("dir/.."), FailsWith(kInvalid, "INVALID_OBJECT_KEY"));
}

TEST(FaultyStoreTest, EveryOperationCanFailAndIsPassedOnOtherwise) {
  TempDir dir;
  const auto store = OpenObjectStore(dir.path()).value();
  int num_operations = 0;
  const auto counting = NewFaultyStore(store, FailNth(0, absl::OkStatus(), &num_operations));
  ASSERT_OK(counting->Write("a", "x"));
  EXPECT_EQ(num_operations, 3);  // open, append, commit
  ASSERT_OK(store->Delete("a"));
  for (int n = 1; n <= num_operations; ++n) {
    const auto faulty = NewFaultyStore(store, FailNth(n, Unavailable("TEST", "as told")));
    EXPECT_THAT(faulty->Write("a", "x"), FailsWith(absl::StatusCode::kUnavailable, "TEST")) << n;
    EXPECT_TRUE(dir.Files().empty()) << n;
  }
}

}  // namespace
}  // namespace uniquanf
