#include "worker/task/content_store.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "common/base/digest.h"
#include "common/base/status.h"
#include "worker/task/lost_inputs.h"

namespace uniquanf {
namespace {

constexpr uint64_t kCopyPieceBytes = 8 << 20;

class OverlayStore : public ObjectStore {
 public:
  OverlayStore(std::shared_ptr<ObjectStore> base, std::map<std::string, std::string> overlay)
      : base_(std::move(base)), overlay_(std::move(overlay)) {}

  std::string uri() const override { return base_->uri(); }

  absl::StatusOr<ObjectInfo> Stat(absl::string_view key) override {
    const auto it = overlay_.find(std::string(key));
    if (it == overlay_.end()) return base_->Stat(key);
    ObjectInfo info;
    info.key = it->first;
    info.size_bytes = it->second.size();
    return info;
  }

  absl::Status ReadAt(absl::string_view key, uint64_t offset, uint64_t size_bytes,
                      char* out) override {
    const auto it = overlay_.find(std::string(key));
    if (it == overlay_.end()) return base_->ReadAt(key, offset, size_bytes, out);
    const std::string& bytes = it->second;
    if (offset > bytes.size() || size_bytes > bytes.size() - offset) {
      return MakeError(absl::StatusCode::kOutOfRange, "OBJECT_TOO_SHORT",
                       absl::StrCat(key, " ends before byte ", offset + size_bytes));
    }
    std::memcpy(out, bytes.data() + offset, size_bytes);
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<ObjectWriter>> NewWriter(absl::string_view key,
                                                          const WriteOptions& options) override {
    return ReadOnly();
  }
  absl::Status Delete(absl::string_view key) override { return ReadOnly(); }

  absl::StatusOr<ListResult> List(const ListOptions& options) override {
    UQ_ASSIGN_OR_RETURN(ListResult result, base_->List(options));
    for (const auto& [key, bytes] : overlay_) {
      if (key.compare(0, options.prefix.size(), options.prefix) != 0) continue;
      if (key <= options.start_after) continue;
      if (result.truncated && key > result.objects.back().key) continue;
      ObjectInfo info;
      info.key = key;
      info.size_bytes = bytes.size();
      auto at =
          std::lower_bound(result.objects.begin(), result.objects.end(), key,
                           [](const ObjectInfo& a, const std::string& b) { return a.key < b; });
      if (at != result.objects.end() && at->key == key) {
        *at = info;
      } else {
        result.objects.insert(at, info);
      }
    }
    return result;
  }

 private:
  static absl::Status ReadOnly() {
    return MakeError(absl::StatusCode::kInternal, "READ_ONLY_STORE",
                     "an overlay store is read-only");
  }
  std::shared_ptr<ObjectStore> base_;
  std::map<std::string, std::string> overlay_;
};

}  // namespace

std::string ContentKey(absl::string_view sha256) { return absl::StrCat("objects/", sha256); }

absl::StatusOr<std::string> PutContent(ObjectStore* store, absl::string_view bytes) {
  const std::string sha256 = Sha256Hex(bytes);
  const std::string key = ContentKey(sha256);
  const absl::StatusOr<ObjectInfo> existing = store->Stat(key);
  if (existing.ok() && existing->size_bytes == bytes.size()) return sha256;
  WriteOptions options;
  options.expected_sha256 = sha256;
  UQ_RETURN_IF_ERROR(store->Write(key, bytes, options));
  return sha256;
}

absl::StatusOr<std::string> GetContent(ObjectStore* store, absl::string_view sha256,
                                       uint64_t max_bytes) {
  absl::StatusOr<std::string> read = store->Read(ContentKey(sha256), max_bytes);
  if (!read.ok()) return NoteWorkObject(read.status(), std::string(sha256));
  std::string bytes = *std::move(read);
  if (Sha256Hex(bytes) != sha256) {
    return NoteWorkObject(
        MakeError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                  absl::StrCat(store->uri(), "/", ContentKey(sha256),
                               " does not hold the bytes its name promises; it was damaged")),
        std::string(sha256));
  }
  return bytes;
}

absl::Status CopyObject(ObjectStore* from, absl::string_view from_key, ObjectStore* to,
                        absl::string_view to_key, absl::string_view sha256) {
  UQ_ASSIGN_OR_RETURN(const ObjectInfo info, from->Stat(from_key));
  WriteOptions options;
  options.expected_sha256 = std::string(sha256);
  UQ_ASSIGN_OR_RETURN(std::unique_ptr<ObjectWriter> writer, to->NewWriter(to_key, options));
  std::vector<char> piece(std::min(info.size_bytes, kCopyPieceBytes));
  for (uint64_t offset = 0; offset < info.size_bytes;) {
    const uint64_t size = std::min(info.size_bytes - offset, kCopyPieceBytes);
    UQ_RETURN_IF_ERROR(from->ReadAt(from_key, offset, size, piece.data()));
    UQ_RETURN_IF_ERROR(writer->Append(absl::string_view(piece.data(), size)));
    offset += size;
  }
  return writer->Commit();
}

absl::Status StringWriter::Append(absl::string_view data) {
  bytes_.append(data.data(), data.size());
  return absl::OkStatus();
}

std::shared_ptr<ObjectStore> NewOverlayStore(std::shared_ptr<ObjectStore> base,
                                             std::map<std::string, std::string> overlay) {
  return std::make_shared<OverlayStore>(std::move(base), std::move(overlay));
}

}  // namespace uniquanf
