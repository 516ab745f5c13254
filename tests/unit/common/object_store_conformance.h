// What every object store does, as a test suite over a factory. A store's test file says
//     INSTANTIATE_TEST_SUITE_P(Local, ObjectStoreConformance, ::testing::Values(MyFactory));
// where the factory makes a fresh, empty store (and keeps what it needs alive through the deleter).
#ifndef UNIQUANF_TESTS_UNIT_COMMON_OBJECT_STORE_CONFORMANCE_H_
#define UNIQUANF_TESTS_UNIT_COMMON_OBJECT_STORE_CONFORMANCE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/object_store/object_store.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {

using StoreFactory = std::function<std::shared_ptr<ObjectStore>()>;

class ObjectStoreConformance : public ::testing::TestWithParam<StoreFactory> {
 protected:
  void SetUp() override {
    store_ = GetParam()();
    ASSERT_NE(store_, nullptr);
  }
  std::string MustRead(absl::string_view key) {
    absl::StatusOr<std::string> data = store_->Read(key, 1 << 30);
    EXPECT_OK(data);
    return data.ok() ? *data : "";
  }
  std::vector<std::string> Keys(const ListOptions& options = {}) {
    absl::StatusOr<ListResult> result = store_->List(options);
    EXPECT_OK(result);
    std::vector<std::string> keys;
    if (result.ok()) {
      for (const ObjectInfo& info : result->objects) keys.push_back(info.key);
    }
    return keys;
  }
  std::shared_ptr<ObjectStore> store_;
};

TEST_P(ObjectStoreConformance, ReadsBackWhatWasWritten) {
  ASSERT_OK(store_->Write("dir/object", "hello"));
  EXPECT_EQ(MustRead("dir/object"), "hello");
  ASSERT_OK_AND_ASSIGN(const ObjectInfo info, store_->Stat("dir/object"));
  EXPECT_EQ(info.key, "dir/object");
  EXPECT_EQ(info.size_bytes, 5u);
  EXPECT_GT(info.modified, absl::FromUnixSeconds(1'600'000'000));
}

TEST_P(ObjectStoreConformance, EmptyObjectsExist) {
  ASSERT_OK(store_->Write("empty", ""));
  EXPECT_EQ(MustRead("empty"), "");
  char unused;
  EXPECT_OK(store_->ReadAt("empty", 0, 0, &unused));
}

TEST_P(ObjectStoreConformance, BinaryAndLargeObjectsAreKept) {
  std::string data(20 << 20, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 2654435761u >> 13);
  ASSERT_OK_AND_ASSIGN(auto writer, store_->NewWriter("large", {}));
  for (size_t at = 0; at < data.size(); at += 3'000'000) {
    ASSERT_OK(writer->Append(absl::string_view(data).substr(at, 3'000'000)));
  }
  ASSERT_OK(writer->Commit());
  EXPECT_EQ(Sha256Hex(MustRead("large")), Sha256Hex(data));
  std::string part(1'000'001, '\0');
  ASSERT_OK(store_->ReadAt("large", 9'999'999, part.size(), part.data()));
  EXPECT_EQ(part, data.substr(9'999'999, part.size()));
}

TEST_P(ObjectStoreConformance, WritesReplace) {
  ASSERT_OK(store_->Write("key", "a longer first version"));
  ASSERT_OK(store_->Write("key", "second"));
  EXPECT_EQ(MustRead("key"), "second");
}

TEST_P(ObjectStoreConformance, ConditionalWriteRefusesToReplace) {
  WriteOptions options;
  options.if_absent = true;
  ASSERT_OK(store_->Write("key", "first", options));
  EXPECT_THAT(store_->Write("key", "second", options),
              FailsWith(absl::StatusCode::kAlreadyExists, "OBJECT_EXISTS"));
  EXPECT_EQ(MustRead("key"), "first");
}

TEST_P(ObjectStoreConformance, ExactlyOneOfManyConditionalWritesWins) {
  constexpr int kWriters = 8;
  std::atomic<int> num_won{0}, num_refused{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kWriters; ++i) {
    threads.emplace_back([&, i] {
      WriteOptions options;
      options.if_absent = true;
      const absl::Status status = store_->Write("contended", std::string(1000, 'a' + i), options);
      if (status.ok()) ++num_won;
      if (absl::IsAlreadyExists(status)) ++num_refused;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_won, 1);
  EXPECT_EQ(num_refused, kWriters - 1);
  const std::string data = MustRead("contended");
  EXPECT_EQ(data, std::string(1000, data[0]));
}

TEST_P(ObjectStoreConformance, DigestMismatchLeavesNothing) {
  WriteOptions options;
  options.expected_sha256 = Sha256Hex("right");
  EXPECT_THAT(store_->Write("key", "wrong", options),
              FailsWith(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH"));
  EXPECT_THAT(store_->Stat("key"), FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
  EXPECT_OK(store_->Write("key", "right", options));
  options.expected_sha256 = "abc";
  EXPECT_FALSE(store_->Write("key", "right", options).ok());
}

TEST_P(ObjectStoreConformance, UncommittedWriterLeavesNothing) {
  {
    ASSERT_OK_AND_ASSIGN(auto writer, store_->NewWriter("dir/key", {}));
    ASSERT_OK(writer->Append("partial"));
    EXPECT_THAT(store_->Stat("dir/key"),
                FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
    EXPECT_THAT(Keys(), ::testing::IsEmpty());
  }
  EXPECT_THAT(store_->Stat("dir/key"), FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
  EXPECT_THAT(Keys(), ::testing::IsEmpty());
}

TEST_P(ObjectStoreConformance, MissingObjectsAreNotFound) {
  char unused[4];
  EXPECT_THAT(store_->Stat("none"), FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND",
                                              ::testing::HasSubstr("none")));
  EXPECT_THAT(store_->Read("a/none", 10),
              FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
  EXPECT_THAT(store_->ReadAt("none", 0, 1, unused),
              FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
  ASSERT_OK(store_->Write("dir/object", "x"));
  EXPECT_THAT(store_->Stat("dir"), FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
}

TEST_P(ObjectStoreConformance, ReadsBeyondTheEndAreRefused) {
  ASSERT_OK(store_->Write("key", "12345"));
  char out[8];
  EXPECT_OK(store_->ReadAt("key", 3, 2, out));
  EXPECT_EQ(std::string(out, 2), "45");
  const auto too_short = FailsWith(absl::StatusCode::kOutOfRange, "OBJECT_TOO_SHORT");
  EXPECT_THAT(store_->ReadAt("key", 3, 3, out), too_short);
  EXPECT_THAT(store_->ReadAt("key", 6, 1, out), too_short);
  EXPECT_THAT(store_->ReadAt("key", UINT64_MAX, 2, out), too_short);
  EXPECT_THAT(store_->Read("key", 4), FailsWith(absl::StatusCode::kOutOfRange, "OBJECT_TOO_LARGE"));
  EXPECT_OK(store_->Read("key", 5));
}

TEST_P(ObjectStoreConformance, BadKeysAreRefused) {
  const std::string too_long(1001, 'k');
  for (const std::string& key :
       {std::string(), std::string("/a"), std::string("a/"), std::string("a//b"), std::string("."),
        std::string("../a"), std::string("a/../b"), std::string("a/./b"), std::string("a\nb"),
        std::string("a\0b", 3), std::string("\xc3\xa4"), std::string("d/.tmp-x"), too_long}) {
    const auto invalid = FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_OBJECT_KEY");
    EXPECT_THAT(store_->Stat(key), invalid) << key;
    EXPECT_THAT(store_->Read(key, 1), invalid) << key;
    EXPECT_THAT(store_->NewWriter(key, {}), invalid) << key;
    EXPECT_THAT(store_->Delete(key), invalid) << key;
  }
}

TEST_P(ObjectStoreConformance, UnusualKeysWork) {
  for (const char* key : {"a b", "a+b=c:d", "%41", "a&b?c#d", "~x!$'()*,;@[]", "...", "-"}) {
    ASSERT_OK(store_->Write(key, key)) << key;
    EXPECT_EQ(MustRead(key), key);
  }
  EXPECT_THAT(Keys(), ::testing::SizeIs(7));
}

TEST_P(ObjectStoreConformance, ListsInByteOrderOfWholeKeys) {
  for (const char* key : {"b/x", "a", "b-x", "b.x", "b0", "b/y/z", "c"}) {
    ASSERT_OK(store_->Write(key, key));
  }
  EXPECT_THAT(Keys(), ::testing::ElementsAre("a", "b-x", "b.x", "b/x", "b/y/z", "b0", "c"));
}

TEST_P(ObjectStoreConformance, ListsByPrefix) {
  for (const char* key : {"job/1/a", "job/10/b", "job/1b", "jobs", "x"}) {
    ASSERT_OK(store_->Write(key, key));
  }
  ListOptions options;
  options.prefix = "job/1";
  EXPECT_THAT(Keys(options), ::testing::ElementsAre("job/1/a", "job/10/b", "job/1b"));
  options.prefix = "job/1/";
  EXPECT_THAT(Keys(options), ::testing::ElementsAre("job/1/a"));
  options.prefix = "none";
  EXPECT_THAT(Keys(options), ::testing::IsEmpty());
}

TEST_P(ObjectStoreConformance, ListsInPages) {
  std::vector<std::string> expected;
  for (int i = 10; i < 33; ++i) {
    expected.push_back(absl::StrCat("dir", i % 3, "/", i));
    ASSERT_OK(store_->Write(expected.back(), "x"));
  }
  std::sort(expected.begin(), expected.end());
  std::vector<std::string> seen;
  ListOptions options;
  options.max_results = 5;
  for (int page = 0; page < 10; ++page) {
    ASSERT_OK_AND_ASSIGN(const ListResult result, store_->List(options));
    for (const ObjectInfo& info : result.objects) seen.push_back(info.key);
    EXPECT_LE(result.objects.size(), 5u);
    if (!result.truncated) break;
    options.start_after = result.objects.back().key;
  }
  EXPECT_EQ(seen, expected);
}

TEST_P(ObjectStoreConformance, DeleteIsIdempotent) {
  ASSERT_OK(store_->Write("dir/a", "x"));
  ASSERT_OK(store_->Write("dir/b", "x"));
  EXPECT_OK(store_->Delete("dir/a"));
  EXPECT_OK(store_->Delete("dir/a"));
  EXPECT_OK(store_->Delete("never/was"));
  EXPECT_THAT(Keys(), ::testing::ElementsAre("dir/b"));
  ASSERT_OK(store_->Write("dir/a", "again"));
  EXPECT_EQ(MustRead("dir/a"), "again");
}

TEST_P(ObjectStoreConformance, PrefixedViewSeesOnlyItsOwn) {
  const std::shared_ptr<ObjectStore> view = NewPrefixedStore(store_, "jobs/j1");
  ASSERT_OK(store_->Write("jobs/j10", "other"));
  ASSERT_OK(view->Write("a/b", "mine"));
  ASSERT_OK(view->Write("c", "mine too"));
  EXPECT_EQ(MustRead("jobs/j1/a/b"), "mine");
  ListOptions options;
  options.max_results = 1;
  ASSERT_OK_AND_ASSIGN(const ListResult first, view->List(options));
  ASSERT_EQ(first.objects.size(), 1u);
  EXPECT_EQ(first.objects[0].key, "a/b");
  EXPECT_TRUE(first.truncated);
  options.start_after = "a/b";
  ASSERT_OK_AND_ASSIGN(const ListResult second, view->List(options));
  ASSERT_EQ(second.objects.size(), 1u);
  EXPECT_EQ(second.objects[0].key, "c");
  EXPECT_FALSE(second.truncated);
  ASSERT_OK_AND_ASSIGN(const ObjectInfo info, view->Stat("c"));
  EXPECT_EQ(info.key, "c");
  EXPECT_EQ(view->uri(), absl::StrCat(store_->uri(), "/jobs/j1"));
  for (const char* key : {"../j10", "", "/c"}) {
    EXPECT_THAT(view->Stat(key),
                FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_OBJECT_KEY"));
  }
}

TEST_P(ObjectStoreConformance, ConcurrentWritersNeverMixTheirBytes) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 10; ++round) {
        EXPECT_OK(store_->Write("shared", std::string(100'000 + i, 'a' + i)));
      }
    });
  }
  std::atomic<bool> done{false};
  std::thread reader([&] {
    while (!done) {
      const absl::StatusOr<std::string> data = store_->Read("shared", 1 << 20);
      if (absl::IsNotFound(data.status())) continue;
      // A reader that opened the old object may find it replaced between two requests.
      if (absl::IsOutOfRange(data.status())) continue;
      EXPECT_OK(data);
      if (data.ok()) {
        EXPECT_EQ(*data, std::string(data->size(), (*data)[0]));
      }
    }
  });
  for (std::thread& thread : threads) thread.join();
  done = true;
  reader.join();
}

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_UNIT_COMMON_OBJECT_STORE_CONFORMANCE_H_
