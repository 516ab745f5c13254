#include "tests/support/faulty_store.h"

#include <atomic>
#include <utility>

#include "common/base/status.h"

namespace uniquanf {
namespace {

class FaultyWriter : public ObjectWriter {
 public:
  FaultyWriter(std::unique_ptr<ObjectWriter> writer, std::string key, FaultHook hook)
      : writer_(std::move(writer)), key_(std::move(key)), hook_(std::move(hook)) {}
  absl::Status Append(absl::string_view data) override {
    UQ_RETURN_IF_ERROR(hook_("append", key_));
    return writer_->Append(data);
  }
  absl::Status Commit() override {
    UQ_RETURN_IF_ERROR(hook_("commit", key_));
    return writer_->Commit();
  }

 private:
  const std::unique_ptr<ObjectWriter> writer_;
  const std::string key_;
  const FaultHook hook_;
};

class FaultyStore : public ObjectStore {
 public:
  FaultyStore(std::shared_ptr<ObjectStore> store, FaultHook hook)
      : store_(std::move(store)), hook_(std::move(hook)) {}
  std::string uri() const override { return store_->uri(); }
  absl::StatusOr<ObjectInfo> Stat(absl::string_view key) override {
    UQ_RETURN_IF_ERROR(hook_("stat", key));
    return store_->Stat(key);
  }
  absl::Status ReadAt(absl::string_view key, uint64_t offset, uint64_t size_bytes,
                      char* out) override {
    UQ_RETURN_IF_ERROR(hook_("read", key));
    return store_->ReadAt(key, offset, size_bytes, out);
  }
  absl::StatusOr<std::unique_ptr<ObjectWriter>> NewWriter(absl::string_view key,
                                                          const WriteOptions& options) override {
    UQ_RETURN_IF_ERROR(hook_("open", key));
    UQ_ASSIGN_OR_RETURN(std::unique_ptr<ObjectWriter> writer, store_->NewWriter(key, options));
    return std::make_unique<FaultyWriter>(std::move(writer), std::string(key), hook_);
  }
  absl::StatusOr<ListResult> List(const ListOptions& options) override {
    UQ_RETURN_IF_ERROR(hook_("list", options.prefix));
    return store_->List(options);
  }
  absl::Status Delete(absl::string_view key) override {
    UQ_RETURN_IF_ERROR(hook_("delete", key));
    return store_->Delete(key);
  }

 private:
  const std::shared_ptr<ObjectStore> store_;
  const FaultHook hook_;
};

}  // namespace

std::shared_ptr<ObjectStore> NewFaultyStore(std::shared_ptr<ObjectStore> store, FaultHook hook) {
  return std::make_shared<FaultyStore>(std::move(store), std::move(hook));
}

FaultHook FailNth(int nth, absl::Status error, int* num_operations) {
  auto count = std::make_shared<std::atomic<int>>(0);
  return [=](absl::string_view, absl::string_view) {
    const int current = ++*count;
    if (num_operations != nullptr) *num_operations = current;
    return current == nth ? error : absl::OkStatus();
  };
}

}  // namespace uniquanf
