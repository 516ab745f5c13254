// The cache in front of a store: the conformance suite; what is fetched and what is not; versions;
// bounds; damage; full and forbidden disks; readers at the same time, in one process and in two.
#include "common/object_store/caching_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "common/object_store/cache_flags.h"
#include "common/object_store/local_store.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/common/object_store_conformance.h"

namespace uniquanf {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kPiece = 1000;
constexpr uint64_t kFile = 4096;  // what a piece takes on the disk

std::string Pattern(size_t size_bytes, int variant = 0) {
  std::string data(size_bytes, '\0');
  for (size_t i = 0; i < data.size(); ++i) {
    data[i] = static_cast<char>(((i + variant) * 2654435761u) >> 11);
  }
  return data;
}

class ManualClock : public Clock {
 public:
  absl::Time Now() const override { return absl::FromUnixSeconds(1'700'000'000) + Monotonic(); }
  absl::Duration Monotonic() const override { return absl::Nanoseconds(ns_.load()); }
  void Advance(absl::Duration by) { ns_ += absl::ToInt64Nanoseconds(by); }

 private:
  std::atomic<int64_t> ns_{0};
};

// Counts what is asked of a store. Versions are its own, so that they are as exact as S3's.
class CountingStore : public ObjectStore {
 public:
  explicit CountingStore(std::shared_ptr<ObjectStore> store) : store_(std::move(store)) {}
  std::string uri() const override { return store_->uri(); }
  absl::StatusOr<ObjectInfo> Stat(absl::string_view key) override {
    ++num_stats;
    return store_->Stat(key);
  }
  absl::Status ReadAt(absl::string_view key, uint64_t offset, uint64_t size_bytes,
                      char* out) override {
    Count(size_bytes);
    return store_->ReadAt(key, offset, size_bytes, out);
  }
  absl::Status ReadVersionAt(absl::string_view key, absl::string_view version, uint64_t offset,
                             uint64_t size_bytes, char* out) override {
    Count(size_bytes);
    return store_->ReadVersionAt(key, version, offset, size_bytes, out);
  }
  absl::StatusOr<std::unique_ptr<ObjectWriter>> NewWriter(absl::string_view key,
                                                          const WriteOptions& options) override {
    return store_->NewWriter(key, options);
  }
  absl::StatusOr<ListResult> List(const ListOptions& options) override {
    return store_->List(options);
  }
  absl::Status Delete(absl::string_view key) override { return store_->Delete(key); }

  std::atomic<int> num_reads{0}, num_stats{0};
  std::atomic<uint64_t> num_bytes{0};
  std::function<void()> before_read;

 private:
  void Count(uint64_t size_bytes) {
    if (size_bytes == 0) return;  // asks whether the object is there
    ++num_reads;
    num_bytes += size_bytes;
    if (before_read) before_read();
  }
  const std::shared_ptr<ObjectStore> store_;
};

// ---- Conformance

std::shared_ptr<ObjectStore> NewCachedStore(uint64_t piece_bytes, uint64_t max_bytes) {
  auto dir = std::make_shared<TempDir>();
  ObjectCacheOptions options;
  options.directory = dir->File("cache");
  options.piece_bytes = piece_bytes;
  options.max_bytes = max_bytes;
  const std::shared_ptr<ObjectStore> store =
      NewCachingStore(OpenLocalStore(dir->File("store")).value(),
                      std::make_shared<ObjectCache>(std::move(options)));
  ObjectStore* const raw = store.get();
  return std::shared_ptr<ObjectStore>(raw, [dir, store](ObjectStore*) {});
}

INSTANTIATE_TEST_SUITE_P(Cached, ObjectStoreConformance,
                         ::testing::Values([] { return NewCachedStore(4 << 20, 1 << 30); }));
// Every read spans pieces, and pieces are evicted all the time.
INSTANTIATE_TEST_SUITE_P(CachedInSmallPieces, ObjectStoreConformance,
                         ::testing::Values([] { return NewCachedStore(60'000, 1 << 20); }));
INSTANTIATE_TEST_SUITE_P(CachedWithoutRoom, ObjectStoreConformance,
                         ::testing::Values([] { return NewCachedStore(4 << 20, 100); }));

// ---- What is asked of the store

class CachingStoreTest : public ::testing::Test {
 protected:
  std::shared_ptr<ObjectCache> NewCache(uint64_t max_bytes = 1 << 20,
                                        const std::string& directory = "") {
    ObjectCacheOptions options;
    options.directory = directory.empty() ? dir_.File("cache") : directory;
    options.piece_bytes = kPiece;
    options.max_bytes = max_bytes;
    options.num_recent_pieces = 1;
    options.clock = &clock_;
    options.on_problem = [this](const absl::Status& problem) {
      absl::MutexLock lock(&problems_mutex_);
      problems_.push_back(std::string(problem.message()));
    };
    return std::make_shared<ObjectCache>(std::move(options));
  }
  // As another process, or the same one after a restart, would see it.
  std::shared_ptr<ObjectStore> NewStore() { return NewCachingStore(remote_, NewCache()); }
  std::string MustRead(ObjectStore* store, uint64_t offset, uint64_t size_bytes) {
    std::string data(size_bytes, '\0');
    EXPECT_OK(store->ReadAt("key", offset, size_bytes, data.data()));
    return data;
  }
  // Paths of the cached pieces.
  std::vector<std::string> Pieces() const {
    std::vector<std::string> pieces;
    for (const std::string& file : dir_.Files()) {
      if (absl::StrContains(file, "cache/pieces-v1/")) pieces.push_back(dir_.File(file));
    }
    return pieces;
  }
  uint64_t BytesOnDisk() const { return Pieces().size() * kFile; }

  TempDir dir_;
  ManualClock clock_;
  absl::Mutex problems_mutex_;
  std::vector<std::string> problems_;
  const std::shared_ptr<ObjectStore> local_ = OpenLocalStore(dir_.File("store")).value();
  const std::shared_ptr<CountingStore> remote_ = std::make_shared<CountingStore>(local_);
  const std::string data_ = Pattern(10'500);
};

TEST_F(CachingStoreTest, RandomReadsAreRightAndEveryPieceIsFetchedOnce) {
  ASSERT_OK(local_->Write("key", data_));
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  const std::shared_ptr<ObjectStore> store = NewStore();
  for (int i = 0; i < 500; ++i) {
    const uint64_t offset = random() % (data_.size() + 1);
    const uint64_t size_bytes = random() % (data_.size() - offset + 1);
    ASSERT_EQ(MustRead(store.get(), offset, size_bytes), data_.substr(offset, size_bytes));
  }
  EXPECT_EQ(MustRead(store.get(), 0, data_.size()), data_);
  EXPECT_EQ(remote_->num_bytes, data_.size());
  EXPECT_EQ(remote_->num_reads, 11);
}

TEST_F(CachingStoreTest, OnlyThePiecesOfTheRangeAreFetched) {
  ASSERT_OK(local_->Write("key", data_));
  EXPECT_EQ(MustRead(NewStore().get(), 2990, 20), data_.substr(2990, 20));
  EXPECT_EQ(remote_->num_bytes, 2 * kPiece);
}

TEST_F(CachingStoreTest, ASecondProcessAsksForNoBytes) {
  ASSERT_OK(local_->Write("key", data_));
  ASSERT_OK_AND_ASSIGN(const std::string first, NewStore()->Read("key", 1 << 20));
  EXPECT_EQ(first, data_);
  const std::shared_ptr<ObjectCache> cache = NewCache();
  ASSERT_OK_AND_ASSIGN(const std::string second,
                       NewCachingStore(remote_, cache)->Read("key", 1 << 20));
  EXPECT_EQ(second, data_);
  EXPECT_EQ(remote_->num_bytes, data_.size());
  const ObjectCacheCounts counts = cache->counts();
  EXPECT_EQ(counts.hits, 11u);
  EXPECT_EQ(counts.misses, 0u);
  EXPECT_EQ(counts.hit_bytes, data_.size());
  EXPECT_EQ(counts.fetched_bytes, 0u);
  EXPECT_EQ(counts.files.stored_bytes, 11 * kFile);
}

TEST_F(CachingStoreTest, MissesAreCountedAndErrorsOfTheStorePass) {
  ASSERT_OK(local_->Write("key", data_));
  const std::shared_ptr<ObjectCache> cache = NewCache();
  const auto store = NewCachingStore(remote_, cache);
  MustRead(store.get(), 0, 1500);
  EXPECT_EQ(cache->counts().misses, 2u);
  EXPECT_EQ(cache->counts().fetched_bytes, 2 * kPiece);
  char out;
  EXPECT_THAT(store->ReadAt("none", 0, 1, &out),
              FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
  std::filesystem::remove(dir_.File("store/key"));
  EXPECT_THAT(store->ReadAt("key", 5000, 1, &out),
              FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
}

// ---- Versions

TEST_F(CachingStoreTest, AChangedObjectIsNeverServedStaleAfterItWasOpened) {
  for (int variant = 0; variant < 5; ++variant) {
    // Written by others, with the same size.
    ASSERT_OK(local_->Write("key", Pattern(10'500, variant)));
    // A new task's store, and one that stays open.
    static std::shared_ptr<ObjectStore> open;
    if (variant == 0) open = NewStore();
    for (const auto& store : {NewStore(), open}) {
      ASSERT_OK_AND_ASSIGN(const ObjectInfo info, store->Stat("key"));
      EXPECT_EQ(MustRead(store.get(), 500, 9000), Pattern(10'500, variant).substr(500, 9000));
      ASSERT_OK_AND_ASSIGN(const std::string whole, store->Read("key", 1 << 20));
      EXPECT_EQ(whole, Pattern(10'500, variant));
    }
    if (variant == 4) open.reset();
  }
}

TEST_F(CachingStoreTest, AnOpenObjectIsLookedAtAgainAfterAWhile) {
  ASSERT_OK(local_->Write("key", data_));
  const auto store = NewStore();
  MustRead(store.get(), 0, 3000);
  ASSERT_OK(local_->Write("key", Pattern(10'500, 1)));
  clock_.Advance(absl::Seconds(9));
  MustRead(store.get(), 0, 3000);
  EXPECT_EQ(remote_->num_stats, 1);
  clock_.Advance(absl::Seconds(2));
  EXPECT_EQ(MustRead(store.get(), 0, 3000), Pattern(10'500, 1).substr(0, 3000));
  EXPECT_EQ(remote_->num_stats, 2);
}

TEST_F(CachingStoreTest, OneReadNeverMixesVersions) {
  ASSERT_OK(local_->Write("key", data_));
  const auto store = NewStore();
  MustRead(store.get(), 0, 3000);  // the first pieces of the old version are there
  ASSERT_OK(local_->Write("key", Pattern(10'500, 1)));
  EXPECT_EQ(MustRead(store.get(), 0, 6000), Pattern(10'500, 1).substr(0, 6000));
}

TEST_F(CachingStoreTest, AnObjectThatChangesAllTheTimeIsReadPastTheCache) {
  ASSERT_OK(local_->Write("key", data_));
  absl::Mutex mutex;  // pieces are read side by side
  int variant = 0;
  remote_->before_read = [&] {
    absl::MutexLock lock(&mutex);
    ASSERT_OK(local_->Write("key", Pattern(900, ++variant)));
  };
  const auto store = NewStore();
  ASSERT_OK_AND_ASSIGN(const std::string read, store->Read("key", 1 << 20));
  EXPECT_EQ(read, Pattern(900, variant));
}

TEST_F(CachingStoreTest, WritesThroughTheStoreAreSeenAtOnce) {
  const auto store = NewStore();
  for (int variant = 0; variant < 3; ++variant) {
    ASSERT_OK(store->Write("key", Pattern(2000, variant)));
    EXPECT_EQ(MustRead(store.get(), 0, 2000), Pattern(2000, variant));
    ASSERT_OK_AND_ASSIGN(auto writer, store->NewWriter("key", {}));
    ASSERT_OK(writer->Append(Pattern(2000, variant + 10)));
    ASSERT_OK(writer->Commit());
    EXPECT_EQ(MustRead(store.get(), 0, 2000), Pattern(2000, variant + 10));
  }
  ASSERT_OK(store->Delete("key"));
  char out;
  EXPECT_THAT(store->ReadAt("key", 0, 1, &out),
              FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
}

// ---- Bounds

TEST_F(CachingStoreTest, ItNeverGrowsBeyondItsSize) {
  ASSERT_OK(local_->Write("key", Pattern(100 * kPiece)));
  const auto cache = NewCache(16 * kFile);
  const auto store = NewCachingStore(remote_, cache);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(MustRead(store.get(), i * kPiece, kPiece),
              Pattern(100 * kPiece).substr(i * kPiece, kPiece));
    ASSERT_LE(BytesOnDisk(), 16 * kFile) << i;
    ASSERT_GE(BytesOnDisk(), std::min(i + 1, 14) * kFile) << i;
  }
  EXPECT_EQ(cache->counts().files.evictions, 100 - Pieces().size());
  EXPECT_EQ(cache->counts().files.stored_bytes, BytesOnDisk());
}

TEST_F(CachingStoreTest, TheLeastRecentlyUsedPieceGoesFirst) {
  ASSERT_OK(local_->Write("key", Pattern(100 * kPiece)));
  const auto store = NewCachingStore(remote_, NewCache(16 * kFile));
  const auto read = [&](int piece) {
    clock_.Advance(absl::Milliseconds(1));
    MustRead(store.get(), piece * kPiece, kPiece);
  };
  for (int i = 0; i < 16; ++i) read(i);
  read(0);
  read(1);
  read(16);  // evicts some of the oldest, not 0 and 1
  remote_->num_reads = 0;
  read(0);
  read(1);
  for (int i = 8; i <= 16; ++i) read(i);
  EXPECT_EQ(remote_->num_reads, 0);
  read(2);
  EXPECT_EQ(remote_->num_reads, 1);
}

TEST_F(CachingStoreTest, ASmallerSizeAppliesAtTheNextStart) {
  ASSERT_OK(local_->Write("key", Pattern(20 * kPiece)));
  ASSERT_OK(NewStore()->Read("key", 1 << 20));
  EXPECT_EQ(Pieces().size(), 20u);
  NewCache(8 * kFile);
  EXPECT_LE(Pieces().size(), 8u);
}

TEST_F(CachingStoreTest, TwoProcessesStayBoundedTogether) {
  ASSERT_OK(local_->Write("key", Pattern(400 * kPiece)));
  const auto a = NewCachingStore(remote_, NewCache(32 * kFile));
  const auto b = NewCachingStore(remote_, NewCache(32 * kFile));
  for (int i = 0; i < 200; ++i) {
    MustRead(a.get(), i * kPiece, kPiece);
    MustRead(b.get(), (200 + i) * kPiece, kPiece);
    ASSERT_LE(BytesOnDisk(), (32 + 2 + 1) * kFile) << i;
  }
}

TEST_F(CachingStoreTest, ForeignFilesAreLeftAlone) {
  std::filesystem::create_directories(dir_.File("cache/aa"));
  WriteFile(dir_.File("cache/thesis.tex"), std::string(100'000, 'x'));
  WriteFile(dir_.File("cache/aa/photo"), std::string(100'000, 'x'));
  ASSERT_OK(local_->Write("key", Pattern(20 * kPiece)));
  const auto store = NewCachingStore(remote_, NewCache(4 * kFile));
  MustRead(store.get(), 0, 20 * kPiece);
  EXPECT_TRUE(std::filesystem::exists(dir_.File("cache/thesis.tex")));
  EXPECT_TRUE(std::filesystem::exists(dir_.File("cache/aa/photo")));
}

TEST_F(CachingStoreTest, APieceThatIsEvictedWhileItIsReadIsReadWhole) {
  ASSERT_OK(local_->Write("key", Pattern(60 * kPiece)));
  const auto cache = NewCache(8 * kFile);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const auto store = NewCachingStore(remote_, cache);
      for (int i = 0; i < 300; ++i) {
        const int piece = (i * 7 + t * 13) % 60;
        EXPECT_EQ(MustRead(store.get(), piece * kPiece, kPiece),
                  Pattern(60 * kPiece).substr(piece * kPiece, kPiece));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(BytesOnDisk(), 8 * kFile);
  EXPECT_EQ(cache->counts().files.damaged, 0u);
  EXPECT_THAT(problems_, IsEmpty());
}

// ---- Damage

TEST_F(CachingStoreTest, DamagedPiecesAreFetchedAgain) {
  ASSERT_OK(local_->Write("key", data_));
  ASSERT_OK(NewStore()->Read("key", 1 << 20));
  const std::vector<std::string> pieces = Pieces();
  ASSERT_EQ(pieces.size(), 11u);
  const auto flip = [](const std::string& path, size_t at) {
    std::string bytes = ReadFile(path);
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    WriteFile(path, bytes);
  };
  flip(pieces[0], 0);                               // magic
  flip(pieces[1], 20);                              // digest
  flip(pieces[2], 300);                             // bytes
  std::filesystem::resize_file(pieces[3], 500);     // torn
  std::filesystem::resize_file(pieces[4], 0);       // never reached the disk
  WriteFile(pieces[5], ReadFile(pieces[5]) + "x");  // longer
  WriteFile(pieces[6], std::string(ReadFile(pieces[6]).size(), '\0'));
  WriteFile(pieces[7], ReadFile(pieces[8]));  // another piece's, whole
  remote_->num_bytes = 0;
  const auto cache = NewCache();
  ASSERT_OK_AND_ASSIGN(const std::string read,
                       NewCachingStore(remote_, cache)->Read("key", 1 << 20));
  EXPECT_EQ(read, data_);
  EXPECT_EQ(cache->counts().files.damaged, 8u);
  EXPECT_EQ(cache->counts().misses, 8u);
  EXPECT_THAT(problems_, ElementsAre(HasSubstr("is damaged")));  // once
  // Mended.
  remote_->num_bytes = 0;
  ASSERT_OK(NewStore()->Read("key", 1 << 20));
  EXPECT_EQ(remote_->num_bytes, 0u);
}

TEST_F(CachingStoreTest, LeftoversOfKilledProcessesAreRemoved) {
  ASSERT_OK(local_->Write("key", data_));
  ASSERT_OK(NewStore()->Read("key", 1 << 20));
  const std::string folder = std::filesystem::path(Pieces()[0]).parent_path();
  for (const char* name : {"/.tmp-old", "/.tmp-young"}) WriteFile(folder + name, "half a piece");
  std::filesystem::last_write_time(
      folder + "/.tmp-old", std::filesystem::file_time_type::clock::now() - std::chrono::hours(2));
  NewCache();
  EXPECT_FALSE(std::filesystem::exists(folder + "/.tmp-old"));
  EXPECT_TRUE(std::filesystem::exists(folder + "/.tmp-young"));
}

// ---- Disks that do not want to

TEST_F(CachingStoreTest, AFullDiskCostsOnlySpeed) {
  TinyDisk disk(64 << 10);
  if (!disk.mounted()) GTEST_SKIP() << "needs the right to mount a tmpfs";
  ASSERT_OK(local_->Write("key", Pattern(100 * kPiece)));
  const auto cache = NewCache(1 << 20, disk.path());
  const auto store = NewCachingStore(remote_, cache);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 100; ++i) {
      EXPECT_EQ(MustRead(store.get(), i * kPiece, 10),
                Pattern(100 * kPiece).substr(i * kPiece, 10));
    }
  }
  EXPECT_THAT(problems_, ElementsAre(HasSubstr("space")));  // once
  EXPECT_EQ(cache->counts().files.failed_writes, 1u);
  EXPECT_GT(cache->counts().hits, 0u);  // what fitted serves
  EXPECT_EQ(cache->counts().files.damaged, 0u);
  // What cannot be kept is not fetched beyond what is asked for.
  remote_->num_bytes = 0;
  MustRead(store.get(), 99 * kPiece, 10);
  EXPECT_EQ(remote_->num_bytes, 10u);
  // After a minute it tries again, and says nothing more.
  clock_.Advance(absl::Seconds(61));
  for (int i = 0; i < 100; ++i) MustRead(store.get(), i * kPiece, 10);
  EXPECT_EQ(cache->counts().files.failed_writes, 2u);
  EXPECT_EQ(problems_.size(), 1u);
}

TEST_F(CachingStoreTest, AnUnusableDirectoryCostsOnlySpeed) {
  ASSERT_OK(local_->Write("key", data_));
  WriteFile(dir_.File("file"), "");
  for (const std::string& directory : {dir_.File("file"), std::string("/proc/none")}) {
    problems_.clear();
    const auto store = NewCachingStore(remote_, NewCache(1 << 20, directory));
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(MustRead(store.get(), 100, 9000), data_.substr(100, 9000));
      ASSERT_OK_AND_ASSIGN(const std::string whole, store->Read("key", 1 << 20));
      EXPECT_EQ(whole, data_);
      clock_.Advance(absl::Minutes(2));
    }
    EXPECT_EQ(problems_.size(), 1u) << directory;
  }
}

TEST_F(CachingStoreTest, SomebodyElsesDirectoryIsNotTrusted) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to make a directory of somebody else";
  ASSERT_OK(local_->Write("key", data_));
  ASSERT_OK(NewStore()->Read("key", 1 << 20));
  ASSERT_EQ(chown(dir_.File("cache/pieces-v1").c_str(), 12345, 12345), 0);
  remote_->num_bytes = 0;
  const auto store = NewStore();
  EXPECT_EQ(MustRead(store.get(), 0, 10'500), data_);
  EXPECT_THAT(problems_, ElementsAre(HasSubstr("not a directory of this user's")));
}

TEST_F(CachingStoreTest, ARemovedDirectoryIsMadeAgain) {
  ASSERT_OK(local_->Write("key", data_));
  const auto store = NewStore();
  MustRead(store.get(), 0, 5000);
  std::filesystem::remove_all(dir_.File("cache"));
  EXPECT_EQ(MustRead(store.get(), 0, 10'500), data_);
  EXPECT_GE(Pieces().size(), 10u);
  EXPECT_THAT(problems_, IsEmpty());
}

// ---- At the same time

TEST_F(CachingStoreTest, ReadersOfOnePieceFetchItOnce) {
  ASSERT_OK(local_->Write("key", data_));
  const auto cache = NewCache();
  constexpr int kReaders = 8;
  std::atomic<int> num_waiting{0};
  // The fetch ends when every reader has come as far as asking for the piece.
  remote_->before_read = [&] {
    while (num_waiting < kReaders) std::this_thread::yield();
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kReaders; ++i) {
    threads.emplace_back([&] {
      const auto store = NewCachingStore(remote_, cache);  // each task has its own
      EXPECT_OK(store->Stat("key"));
      ++num_waiting;
      EXPECT_EQ(MustRead(store.get(), 3100, 500), data_.substr(3100, 500));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(remote_->num_reads, 1);
  EXPECT_EQ(cache->counts().misses, 1u);
  EXPECT_EQ(cache->counts().hits, kReaders - 1u);
}

TEST_F(CachingStoreTest, AFailedFetchFailsThoseWhoWaitedAndNobodyLater) {
  ASSERT_OK(local_->Write("key", data_));
  const auto cache = NewCache();
  const std::string id(64, 'a');
  absl::Notification waiting, fail;
  std::thread first([&] {
    EXPECT_THAT(cache
                    ->Get(id, 10, 10,
                          [&](char*) {
                            waiting.Notify();
                            fail.WaitForNotification();
                            return absl::UnavailableError("the store is away");
                          })
                    .status(),
                FailsWith(absl::StatusCode::kUnavailable, ""));
  });
  waiting.WaitForNotification();
  fail.Notify();
  first.join();
  ASSERT_OK_AND_ASSIGN(const ObjectCache::Piece piece, cache->Get(id, 10, 10, [](char* out) {
    std::fill(out, out + 10, 'x');
    return absl::OkStatus();
  }));
  EXPECT_EQ(*piece, "xxxxxxxxxx");
}

absl::Status Fill(char* out) {
  std::fill(out, out + 10, 'x');
  return absl::OkStatus();
}

// Tasks share the cache: that one is cancelled while it fetches is no error of another's.
TEST_F(CachingStoreTest, WhoWaitedForAnInterruptedFetchFetchesItself) {
  const auto cache = NewCache();
  const std::string id(64, 'a');
  absl::Notification fetching, fail;
  std::thread first([&] {
    const auto fetch = [&](char*) {
      fetching.Notify();
      fail.WaitForNotification();
      return absl::CancelledError("interrupted");
    };
    EXPECT_EQ(cache->Get(id, 10, 10, fetch).status().code(), absl::StatusCode::kCancelled);
  });
  fetching.WaitForNotification();
  std::thread second([&] {
    const auto piece = cache->Get(id, 10, 10, Fill);
    ASSERT_OK(piece);
    EXPECT_EQ(**piece, "xxxxxxxxxx");
  });
  absl::SleepFor(absl::Milliseconds(50));  // mostly it waits by then; it must be right either way
  fail.Notify();
  first.join();
  second.join();
}

TEST_F(CachingStoreTest, WaitingForWhatAnotherFetchesCanBeInterrupted) {
  const auto cache = NewCache();
  const std::string id(64, 'a');
  absl::Notification fetching, go_on;
  std::thread first([&] {
    const auto fetch = [&](char* out) {
      fetching.Notify();
      go_on.WaitForNotification();
      return Fill(out);
    };
    EXPECT_OK(cache->Get(id, 10, 10, fetch).status());
  });
  fetching.WaitForNotification();
  int num_asked = 0;
  EXPECT_THAT(cache->Get(id, 10, 10, Fill, [&] { return ++num_asked == 3; }).status(),
              FailsWith(absl::StatusCode::kCancelled, "REQUEST_INTERRUPTED"));
  go_on.Notify();
  first.join();
}

TEST_F(CachingStoreTest, ProcessesShareADirectoryWhileItIsEvictedAndTheyAreKilled) {
  ASSERT_OK(local_->Write("key", Pattern(60 * kPiece)));
  constexpr int kProcesses = 4;
  std::vector<pid_t> children;
  for (int p = 0; p < kProcesses; ++p) {
    const pid_t child = fork();
    if (child == 0) {
      const auto store = NewCachingStore(remote_, NewCache(8 * kFile));
      const std::string expected = Pattern(60 * kPiece);
      bool good = true;
      // The first two run until they are killed.
      for (int i = 0; i < 500 || p < 2; ++i) {
        const int piece = (i * 7 + p * 13) % 60;
        std::string data(kPiece, '\0');
        good = good && store->ReadAt("key", piece * kPiece, kPiece, data.data()).ok() &&
               data == expected.substr(piece * kPiece, kPiece);
        if (!good) break;
      }
      _exit(good ? 0 : 1);
    }
    children.push_back(child);
  }
  int status = 0;
  for (int p = 2; p < kProcesses; ++p) {
    ASSERT_EQ(waitpid(children[p], &status, 0), children[p]);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << p;
  }
  for (int p = 0; p < 2; ++p) {
    kill(children[p], SIGKILL);
    ASSERT_EQ(waitpid(children[p], &status, 0), children[p]);
    EXPECT_TRUE(WIFSIGNALED(status)) << p;
  }
  const auto cache = NewCache(8 * kFile);
  const auto store = NewCachingStore(remote_, cache);
  EXPECT_EQ(MustRead(store.get(), 0, 60 * kPiece), Pattern(60 * kPiece));
  EXPECT_EQ(cache->counts().files.damaged, 0u);
}

// ---- Opening and flags

TEST_F(CachingStoreTest, LocalStoresAreNotCached) {
  const auto cache = NewCache();
  ASSERT_OK(local_->Write("key", data_));
  ASSERT_OK_AND_ASSIGN(const auto store, OpenObjectStoreThrough(dir_.File("store"), cache));
  ASSERT_OK(store->Read("key", 1 << 20));
  EXPECT_THAT(Pieces(), IsEmpty());
  EXPECT_EQ(NewCachingStore(local_, nullptr), local_);
}

TEST(CacheFlagsTest, SizesHaveUnits) {
  EXPECT_EQ(*ParseByteSize("0"), 0u);
  EXPECT_EQ(*ParseByteSize("1048577"), 1048577u);
  EXPECT_EQ(*ParseByteSize("64KiB"), 64u << 10);
  EXPECT_EQ(*ParseByteSize("500MiB"), 500u << 20);
  EXPECT_EQ(*ParseByteSize("32GiB"), uint64_t{32} << 30);
  EXPECT_EQ(*ParseByteSize("1.5TiB"), uint64_t{3} << 39);
  for (const char* bad : {"", "GiB", "-1", "1e9", "inf", "32GB", "32 GiB", "1.5", "99999999TiB"}) {
    EXPECT_THAT(ParseByteSize(bad), FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_FLAG"))
        << bad;
  }
}

TEST(CacheFlagsTest, OffWithoutADirectoryOrSize) {
  TempDir dir;
  const auto parse = [](CacheFlags* cache, const std::vector<std::string>& arguments) {
    FlagSet flags("program", "summary");
    cache->AddTo(&flags);
    EXPECT_OK(flags.Parse(arguments));
    return cache->Check();
  };
  CacheFlags none, zero, on, useless;
  EXPECT_OK(parse(&none, {}));
  EXPECT_EQ(none.Open(1, {}), nullptr);
  EXPECT_OK(parse(&zero, {"--cache-dir=" + dir.File("c"), "--cache-size=0"}));
  EXPECT_EQ(zero.Open(1, {}), nullptr);
  EXPECT_OK(parse(&on, {"--cache-dir=" + dir.File("c"), "--cache-size=1MiB"}));
  ASSERT_NE(on.Open(1, {}), nullptr);
  EXPECT_EQ(on.Open(1, {})->options().max_bytes, 1u << 20);
  EXPECT_THAT(parse(&useless, {"--cache-size=1MiB"}),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_FLAG"));
}

}  // namespace
}  // namespace uniquanf
