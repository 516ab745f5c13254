#include <utility>

#include "common/base/status.h"
#include "common/object_store/store_observer.h"

namespace uniquanf {
namespace {

class ObservedWriter : public ObjectWriter {
 public:
  ObservedWriter(std::unique_ptr<ObjectWriter> writer, std::shared_ptr<StoreObserver> observer,
                 const Clock* clock, absl::Duration spent)
      : writer_(std::move(writer)), observer_(std::move(observer)), clock_(clock), spent_(spent) {}

  absl::Status Append(absl::string_view data) override {
    const absl::Duration start = clock_->Monotonic();
    const absl::Status status = writer_->Append(data);
    spent_ += clock_->Monotonic() - start;
    if (!status.ok()) Tell(status);
    return status;
  }
  absl::Status Commit() override {
    const absl::Duration start = clock_->Monotonic();
    const absl::Status status = writer_->Commit();
    spent_ += clock_->Monotonic() - start;
    Tell(status);
    return status;
  }

 private:
  // Once: a writer may be asked on after an error.
  void Tell(const absl::Status& status) {
    if (!std::exchange(told_, true)) {
      observer_->OnStoreOperation(StoreOperation::kWrite, spent_, status);
    }
  }

  const std::unique_ptr<ObjectWriter> writer_;
  const std::shared_ptr<StoreObserver> observer_;
  const Clock* const clock_;
  absl::Duration spent_;
  bool told_ = false;
};

class ObservedStore : public ObjectStore {
 public:
  ObservedStore(std::shared_ptr<ObjectStore> store, std::shared_ptr<StoreObserver> observer,
                const Clock* clock)
      : store_(std::move(store)), observer_(std::move(observer)), clock_(clock) {}

  std::string uri() const override { return store_->uri(); }
  absl::StatusOr<ObjectInfo> Stat(absl::string_view key) override {
    return Observe(StoreOperation::kStat, [&] { return store_->Stat(key); });
  }
  absl::Status ReadAt(absl::string_view key, uint64_t offset, uint64_t size_bytes,
                      char* out) override {
    return Observe(StoreOperation::kRead,
                   [&] { return store_->ReadAt(key, offset, size_bytes, out); });
  }
  absl::Status ReadVersionAt(absl::string_view key, absl::string_view version, uint64_t offset,
                             uint64_t size_bytes, char* out) override {
    return Observe(StoreOperation::kRead,
                   [&] { return store_->ReadVersionAt(key, version, offset, size_bytes, out); });
  }
  absl::StatusOr<std::string> Read(absl::string_view key, uint64_t max_bytes) override {
    return Observe(StoreOperation::kRead, [&] { return store_->Read(key, max_bytes); });
  }
  absl::StatusOr<std::unique_ptr<ObjectWriter>> NewWriter(absl::string_view key,
                                                          const WriteOptions& options) override {
    const absl::Duration start = clock_->Monotonic();
    absl::StatusOr<std::unique_ptr<ObjectWriter>> writer = store_->NewWriter(key, options);
    const absl::Duration spent = clock_->Monotonic() - start;
    if (!writer.ok()) {
      observer_->OnStoreOperation(StoreOperation::kWrite, spent, writer.status());
      return writer;
    }
    return std::make_unique<ObservedWriter>(*std::move(writer), observer_, clock_, spent);
  }
  absl::Status Write(absl::string_view key, absl::string_view data,
                     const WriteOptions& options) override {
    return Observe(StoreOperation::kWrite, [&] { return store_->Write(key, data, options); });
  }
  absl::StatusOr<ListResult> List(const ListOptions& options) override {
    return Observe(StoreOperation::kList, [&] { return store_->List(options); });
  }
  absl::Status Delete(absl::string_view key) override {
    return Observe(StoreOperation::kDelete, [&] { return store_->Delete(key); });
  }

 private:
  static const absl::Status& StatusOf(const absl::Status& status) { return status; }
  template <typename T>
  static const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
    return result.status();
  }
  template <typename Operation>
  auto Observe(StoreOperation operation, const Operation& run) -> decltype(run()) {
    const absl::Duration start = clock_->Monotonic();
    auto result = run();
    observer_->OnStoreOperation(operation, clock_->Monotonic() - start, StatusOf(result));
    return result;
  }

  const std::shared_ptr<ObjectStore> store_;
  const std::shared_ptr<StoreObserver> observer_;
  const Clock* const clock_;
};

}  // namespace

const char* StoreOperationName(StoreOperation operation) {
  switch (operation) {
    case StoreOperation::kStat:
      return "stat";
    case StoreOperation::kRead:
      return "read";
    case StoreOperation::kWrite:
      return "write";
    case StoreOperation::kList:
      return "list";
    case StoreOperation::kDelete:
      return "delete";
  }
  return "";
}

bool IsStoreFailure(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:  // the object is another one by now
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kCancelled:
      return false;
    default:
      return true;
  }
}

std::shared_ptr<ObjectStore> NewObservedStore(std::shared_ptr<ObjectStore> store,
                                              std::shared_ptr<StoreObserver> observer,
                                              const Clock* clock) {
  return std::make_shared<ObservedStore>(std::move(store), std::move(observer), clock);
}

}  // namespace uniquanf
