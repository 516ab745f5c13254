#include "common/object_store/caching_store.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/digest.h"
#include "common/base/parallel.h"
#include "common/base/status.h"
#include "common/object_store/object_key.h"
#include "common/object_store/store_schemes.h"

namespace uniquanf {
namespace {

constexpr absl::Duration kTrustVersionFor = absl::Seconds(10);
// An object that changes under three reads in a row is read past the cache.
constexpr int kMaxAttempts = 3;

class CachingStore : public ObjectStore, public std::enable_shared_from_this<CachingStore> {
 public:
  CachingStore(std::shared_ptr<ObjectStore> store, std::shared_ptr<ObjectCache> cache,
               StopToken stop)
      : store_(std::move(store)),
        cache_(std::move(cache)),
        stop_(std::move(stop)),
        uri_(store_->uri()) {}

  std::string uri() const override { return uri_; }
  absl::StatusOr<ObjectInfo> Stat(absl::string_view key) override;
  absl::Status ReadAt(absl::string_view key, uint64_t offset, uint64_t size_bytes,
                      char* out) override;
  absl::Status ReadVersionAt(absl::string_view key, absl::string_view version, uint64_t offset,
                             uint64_t size_bytes, char* out) override {
    return store_->ReadVersionAt(key, version, offset, size_bytes, out);
  }
  absl::StatusOr<std::string> Read(absl::string_view key, uint64_t max_bytes) override;
  absl::StatusOr<std::unique_ptr<ObjectWriter>> NewWriter(absl::string_view key,
                                                          const WriteOptions& options) override;
  absl::Status Write(absl::string_view key, absl::string_view data,
                     const WriteOptions& options) override {
    const absl::Status written = store_->Write(key, data, options);
    Forget(key);
    return written;
  }
  absl::StatusOr<ListResult> List(const ListOptions& options) override {
    return store_->List(options);
  }
  absl::Status Delete(absl::string_view key) override {
    const absl::Status deleted = store_->Delete(key);
    Forget(key);
    return deleted;
  }

  // What was known of the object holds no more.
  void Forget(absl::string_view key) {
    absl::MutexLock lock(&mutex_);
    ++num_forgotten_;
    known_.erase(std::string(key));
  }

 private:
  struct Known {
    ObjectInfo info;
    absl::Duration at;  // monotonic; before the store was asked
  };

  // What is known of the object and recent enough, or else what the store says now.
  absl::StatusOr<ObjectInfo> Current(absl::string_view key);
  // REQUIRES: the range lies in the object, and the object has a version.
  absl::Status ReadPieces(const ObjectInfo& info, uint64_t offset, uint64_t size_bytes, char* out);
  // The part of piece `index` that lies in the range, to its place in `out`.
  absl::Status ReadPiece(const ObjectInfo& info, uint64_t index, uint64_t offset,
                         uint64_t size_bytes, char* out);

  const std::shared_ptr<ObjectStore> store_;
  const std::shared_ptr<ObjectCache> cache_;
  const StopToken stop_;
  const std::string uri_;
  absl::Mutex mutex_;
  uint64_t num_forgotten_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, Known> known_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<ObjectInfo> CachingStore::Stat(absl::string_view key) {
  uint64_t num_forgotten;
  {
    absl::MutexLock lock(&mutex_);
    num_forgotten = num_forgotten_;
  }
  const absl::Duration now = cache_->options().clock->Monotonic();
  absl::StatusOr<ObjectInfo> info = store_->Stat(key);
  absl::MutexLock lock(&mutex_);
  if (!info.ok()) {
    known_.erase(std::string(key));
  } else if (num_forgotten == num_forgotten_) {  // else it may have been asked before a write
    known_[std::string(key)] = {*info, now};
  }
  return info;
}

absl::StatusOr<ObjectInfo> CachingStore::Current(absl::string_view key) {
  {
    absl::MutexLock lock(&mutex_);
    const auto known = known_.find(std::string(key));
    if (known != known_.end() &&
        cache_->options().clock->Monotonic() - known->second.at < kTrustVersionFor) {
      return known->second.info;
    }
  }
  return Stat(key);
}

absl::Status CachingStore::ReadAt(absl::string_view key, uint64_t offset, uint64_t size_bytes,
                                  char* out) {
  for (int attempt = 0; attempt < kMaxAttempts && size_bytes > 0; ++attempt) {
    UQ_ASSIGN_OR_RETURN(const ObjectInfo info, Current(key));
    // Past the end: it may have grown, and if not, the store words the error.
    const bool inside = offset <= info.size_bytes && size_bytes <= info.size_bytes - offset;
    if (!inside || info.version.empty()) break;
    const absl::Status read = ReadPieces(info, offset, size_bytes, out);
    if (!absl::IsAborted(read)) return read;
    Forget(key);
  }
  const absl::Status read = store_->ReadAt(key, offset, size_bytes, out);
  if (read.ok() && size_bytes > 0) cache_->CountUncached(size_bytes);
  return read;
}

absl::StatusOr<std::string> CachingStore::Read(absl::string_view key, uint64_t max_bytes) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    UQ_ASSIGN_OR_RETURN(const ObjectInfo info, Stat(key));
    if (info.size_bytes > max_bytes) {
      return ObjectTooLarge(absl::StrCat(uri_, "/", key), info.size_bytes, max_bytes);
    }
    if (info.version.empty() || info.size_bytes == 0) break;
    std::string data(info.size_bytes, '\0');
    const absl::Status read = ReadPieces(info, 0, data.size(), data.data());
    if (read.ok()) return data;
    if (!absl::IsAborted(read)) return read;
  }
  absl::StatusOr<std::string> data = store_->Read(key, max_bytes);
  if (data.ok()) cache_->CountUncached(data->size());
  return data;
}

absl::Status CachingStore::ReadPieces(const ObjectInfo& info, uint64_t offset, uint64_t size_bytes,
                                      char* out) {
  const uint64_t piece_bytes = cache_->options().piece_bytes;
  const uint64_t first = offset / piece_bytes;
  const uint64_t num_pieces = (offset + size_bytes - 1) / piece_bytes - first + 1;
  std::vector<absl::Status> statuses(num_pieces);
  // Side by side: a request to a remote store is mostly waiting.
  ParallelRanges(static_cast<int64_t>(num_pieces), 1, [&](int64_t i, int64_t) {
    const uint64_t piece_start = (first + i) * piece_bytes;
    const uint64_t begin = std::max(offset, piece_start);
    const uint64_t end =
        std::min({offset + size_bytes, piece_start + piece_bytes, info.size_bytes});
    statuses[i] = ReadPiece(info, first + i, begin, end - begin, out + (begin - offset));
  });
  for (const absl::Status& status : statuses) UQ_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::Status CachingStore::ReadPiece(const ObjectInfo& info, uint64_t index, uint64_t offset,
                                     uint64_t size_bytes, char* out) {
  const uint64_t piece_bytes = cache_->options().piece_bytes;
  const uint64_t start = index * piece_bytes;
  const uint64_t length = std::min(piece_bytes, info.size_bytes - start);
  // Keys hold no line breaks. The time tells objects of one URI at two endpoints apart.
  const std::string id =
      Sha256Hex(absl::StrCat(uri_, "\n", info.key, "\n", info.version, "\n", info.size_bytes, "\n",
                             absl::ToUnixNanos(info.modified), "\n", piece_bytes, "\n", index));
  ObjectCache::Piece piece;
  if (cache_->CanStore()) {
    const auto fetch = [&](char* bytes) {
      return store_->ReadVersionAt(info.key, info.version, start, length, bytes);
    };
    UQ_ASSIGN_OR_RETURN(piece, cache_->Get(id, length, size_bytes, fetch, stop_));
  } else {
    piece = cache_->Find(id, length, size_bytes);
  }
  if (piece != nullptr) {
    std::memcpy(out, piece->data() + (offset - start), size_bytes);
    return absl::OkStatus();
  }
  // What is fetched cannot be kept: no more than is wanted.
  UQ_RETURN_IF_ERROR(store_->ReadVersionAt(info.key, info.version, offset, size_bytes, out));
  cache_->CountUncached(size_bytes);
  return absl::OkStatus();
}

class ForgettingWriter : public ObjectWriter {
 public:
  ForgettingWriter(std::unique_ptr<ObjectWriter> writer, std::shared_ptr<CachingStore> store,
                   std::string key)
      : writer_(std::move(writer)), store_(std::move(store)), key_(std::move(key)) {}
  absl::Status Append(absl::string_view data) override { return writer_->Append(data); }
  absl::Status Commit() override {
    const absl::Status committed = writer_->Commit();
    store_->Forget(key_);
    return committed;
  }

 private:
  const std::unique_ptr<ObjectWriter> writer_;
  const std::shared_ptr<CachingStore> store_;
  const std::string key_;
};

absl::StatusOr<std::unique_ptr<ObjectWriter>> CachingStore::NewWriter(absl::string_view key,
                                                                      const WriteOptions& options) {
  UQ_ASSIGN_OR_RETURN(std::unique_ptr<ObjectWriter> writer, store_->NewWriter(key, options));
  return std::make_unique<ForgettingWriter>(std::move(writer), shared_from_this(),
                                            std::string(key));
}

}  // namespace

std::shared_ptr<ObjectStore> NewCachingStore(std::shared_ptr<ObjectStore> store,
                                             std::shared_ptr<ObjectCache> cache, StopToken stop) {
  if (cache == nullptr) return store;
  return std::make_shared<CachingStore>(std::move(store), std::move(cache), std::move(stop));
}

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenObjectStoreThrough(
    absl::string_view uri, std::shared_ptr<ObjectCache> cache, const StoreOptions& options) {
  UQ_ASSIGN_OR_RETURN(std::shared_ptr<ObjectStore> store, OpenObjectStore(uri, options));
  const StoreScheme* const scheme = FindStoreScheme(uri);
  if (scheme == nullptr || !scheme->is_remote) return store;
  return NewCachingStore(std::move(store), std::move(cache), options.stop);
}

}  // namespace uniquanf
