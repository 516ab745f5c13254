#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/object_store/object_key.h"
#include "common/object_store/object_store.h"

namespace uniquanf {
namespace {

class PrefixedStore : public ObjectStore {
 public:
  PrefixedStore(std::shared_ptr<ObjectStore> store, absl::string_view prefix)
      : store_(std::move(store)), prefix_(absl::StrCat(prefix, "/")) {}

  std::string uri() const override {
    const std::string parent = store_->uri();
    return absl::StrCat(parent, parent.back() == '/' ? "" : "/",
                        prefix_.substr(0, prefix_.size() - 1));
  }
  absl::StatusOr<ObjectInfo> Stat(absl::string_view key) override {
    UQ_ASSIGN_OR_RETURN(ObjectInfo info, store_->Stat(FullKey(key)));
    info.key = std::string(key);
    return info;
  }
  absl::Status ReadAt(absl::string_view key, uint64_t offset, uint64_t size_bytes,
                      char* out) override {
    return store_->ReadAt(FullKey(key), offset, size_bytes, out);
  }
  absl::Status ReadVersionAt(absl::string_view key, absl::string_view version, uint64_t offset,
                             uint64_t size_bytes, char* out) override {
    return store_->ReadVersionAt(FullKey(key), version, offset, size_bytes, out);
  }
  absl::StatusOr<std::string> Read(absl::string_view key, uint64_t max_bytes) override {
    return store_->Read(FullKey(key), max_bytes);
  }
  absl::StatusOr<std::unique_ptr<ObjectWriter>> NewWriter(absl::string_view key,
                                                          const WriteOptions& options) override {
    return store_->NewWriter(FullKey(key), options);
  }
  absl::Status Write(absl::string_view key, absl::string_view data,
                     const WriteOptions& options) override {
    return store_->Write(FullKey(key), data, options);
  }
  absl::StatusOr<ListResult> List(const ListOptions& options) override {
    ListOptions full = options;
    full.prefix = FullKey(options.prefix);
    // An empty start_after is below every key, and so is the bare prefix.
    full.start_after = options.start_after.empty() ? "" : FullKey(options.start_after);
    UQ_ASSIGN_OR_RETURN(ListResult result, store_->List(full));
    for (ObjectInfo& info : result.objects) info.key.erase(0, prefix_.size());
    return result;
  }
  absl::Status Delete(absl::string_view key) override { return store_->Delete(FullKey(key)); }

 private:
  // The inner store checks the whole key; a bad `key` makes a bad whole (an empty one ends in '/').
  std::string FullKey(absl::string_view key) const { return absl::StrCat(prefix_, key); }

  const std::shared_ptr<ObjectStore> store_;
  const std::string prefix_;  // ends in '/'
};

}  // namespace

std::shared_ptr<ObjectStore> NewPrefixedStore(std::shared_ptr<ObjectStore> store,
                                              absl::string_view prefix) {
  if (prefix.empty()) return store;
  return std::make_shared<PrefixedStore>(std::move(store), prefix);
}

}  // namespace uniquanf
