// A store that is observed does what it did, and its observer hears of every operation.
#include <tuple>
#include <vector>

#include "common/base/clock.h"
#include "common/object_store/local_store.h"
#include "common/object_store/store_observer.h"
#include "tests/support/faulty_store.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/common/object_store_conformance.h"

namespace uniquanf {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Every reading is a second later.
class CountingClock : public Clock {
 public:
  absl::Time Now() const override { return absl::UnixEpoch() + Monotonic(); }
  absl::Duration Monotonic() const override { return absl::Seconds(++num_readings_); }

 private:
  mutable std::atomic<int> num_readings_{0};
};

class Recorder : public StoreObserver {
 public:
  void OnStoreOperation(StoreOperation operation, absl::Duration duration,
                        const absl::Status& status) override {
    absl::MutexLock lock(&mutex_);
    operations_.push_back(absl::StrCat(StoreOperationName(operation), " ",
                                       absl::FormatDuration(duration), " ",
                                       absl::StatusCodeToString(status.code())));
  }
  std::vector<std::string> Take() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(operations_, {});
  }

 private:
  absl::Mutex mutex_;
  std::vector<std::string> operations_;
};

std::shared_ptr<ObjectStore> NewObservedLocalStore() {
  auto dir = std::make_shared<TempDir>();
  std::shared_ptr<ObjectStore> store =
      NewObservedStore(OpenLocalStore(dir->File("not/yet/there")).value(),
                       std::make_shared<Recorder>(), &SystemClock());
  ObjectStore* const raw = store.get();
  return std::shared_ptr<ObjectStore>(raw, [dir, store](ObjectStore*) {});
}

INSTANTIATE_TEST_SUITE_P(Observed, ObjectStoreConformance,
                         ::testing::Values(NewObservedLocalStore));

class ObservedStoreTest : public ::testing::Test {
 protected:
  std::shared_ptr<ObjectStore> Store(FaultHook hook) {
    return NewObservedStore(NewFaultyStore(OpenLocalStore(dir_.path()).value(), std::move(hook)),
                            recorder_, &clock_);
  }
  TempDir dir_;
  CountingClock clock_;
  std::shared_ptr<Recorder> recorder_ = std::make_shared<Recorder>();
};

TEST_F(ObservedStoreTest, EveryOperationIsTold) {
  const auto store = Store([](auto, auto) { return absl::OkStatus(); });
  ASSERT_OK(store->Write("a", "hello"));
  char out[2];
  ASSERT_OK(store->ReadAt("a", 1, 2, out));
  EXPECT_OK(store->Read("a", 10));
  const auto info = store->Stat("a");
  ASSERT_OK(info);
  EXPECT_OK(store->ReadVersionAt("a", info->version, 0, 1, out));
  EXPECT_OK(store->List({}));
  EXPECT_OK(store->Delete("a"));
  EXPECT_THAT(recorder_->Take(),
              ElementsAre("write 1s OK", "read 1s OK", "read 1s OK", "stat 1s OK", "read 1s OK",
                          "list 1s OK", "delete 1s OK"));
  EXPECT_FALSE(store->Stat("a").ok());
  EXPECT_THAT(recorder_->Take(), ElementsAre("stat 1s NOT_FOUND"));
}

TEST_F(ObservedStoreTest, AStreamedWriteIsOneOperationWithTheTimeInsideTheStore) {
  const auto store = Store([](auto, auto) { return absl::OkStatus(); });
  auto writer = store->NewWriter("a", {});
  ASSERT_OK(writer);
  ASSERT_OK((*writer)->Append("x"));
  clock_.Monotonic();  // the caller's own time
  ASSERT_OK((*writer)->Append("y"));
  EXPECT_THAT(recorder_->Take(), IsEmpty());
  ASSERT_OK((*writer)->Commit());
  EXPECT_THAT(recorder_->Take(), ElementsAre("write 4s OK"));
  writer = store->NewWriter("b", {});
  ASSERT_OK(writer);
  writer->reset();
  EXPECT_THAT(recorder_->Take(), IsEmpty()) << "given up by the caller";
}

TEST_F(ObservedStoreTest, AFailedWriteIsToldOnceWhereverItFails) {
  for (const char* const failing : {"open", "append", "commit"}) {
    const auto store = Store([failing](absl::string_view operation, auto) {
      return operation == failing ? absl::UnavailableError("away") : absl::OkStatus();
    });
    auto writer = store->NewWriter("a", {});
    if (writer.ok()) {
      (*writer)->Append("x").IgnoreError();
      (*writer)->Commit().IgnoreError();
    }
    const std::vector<std::string> told = recorder_->Take();
    EXPECT_THAT(told, SizeIs(1)) << failing;
    EXPECT_THAT(told[0], ::testing::EndsWith("UNAVAILABLE")) << failing;
  }
}

TEST_F(ObservedStoreTest, WhoOpensAStoreMayObserveIt) {
  StoreOptions options;
  options.observer = recorder_;
  for (const std::string& uri : {dir_.path(), "file://" + dir_.path()}) {
    const auto store = OpenObjectStore(uri, options);
    ASSERT_OK(store);
    ASSERT_OK((*store)->Write("a", "x"));
    EXPECT_THAT(recorder_->Take(), SizeIs(1)) << uri;
  }
  const auto location = OpenObjectLocation(dir_.File("a"), options);
  ASSERT_OK(location);
  ASSERT_OK(location->store->Read("a", 10));
  EXPECT_THAT(recorder_->Take(), SizeIs(1));
}

TEST(StoreFailureTest, AnswersAreNoFailures) {
  EXPECT_FALSE(IsStoreFailure(absl::OkStatus()));
  EXPECT_FALSE(IsStoreFailure(absl::NotFoundError("")));
  EXPECT_FALSE(IsStoreFailure(absl::AlreadyExistsError("")));
  EXPECT_FALSE(IsStoreFailure(absl::CancelledError("")));
  EXPECT_TRUE(IsStoreFailure(absl::UnavailableError("")));
  EXPECT_TRUE(IsStoreFailure(absl::PermissionDeniedError("")));
  EXPECT_TRUE(IsStoreFailure(absl::ResourceExhaustedError("")));
  EXPECT_TRUE(IsStoreFailure(absl::DataLossError("")));
}

}  // namespace
}  // namespace uniquanf
