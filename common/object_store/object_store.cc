#include "common/object_store/object_store.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "common/object_store/object_key.h"

namespace uniquanf {
namespace {

absl::Status InvalidKey(absl::string_view key, absl::string_view problem) {
  return InvalidInput(
      "INVALID_OBJECT_KEY",
      absl::StrCat("object key \"", absl::CHexEscape(key.substr(0, 200)), "\": ", problem));
}

}  // namespace

absl::Status ValidateObjectKey(absl::string_view key) {
  if (key.empty()) return InvalidKey(key, "a key must not be empty");
  if (key.size() > 1000) return InvalidKey(key, "a key has at most 1000 bytes");
  for (const char c : key) {
    if (c < 0x20 || c > 0x7E) return InvalidKey(key, "only printable ASCII is allowed");
  }
  for (const absl::string_view segment : absl::StrSplit(key, '/')) {
    if (segment.empty() || segment == "." || segment == "..") {
      return InvalidKey(key, "must be relative, without empty, \".\" or \"..\" segments");
    }
    if (absl::StartsWith(segment, ".tmp-")) {
      return InvalidKey(key, "segments that start with \".tmp-\" are reserved");
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateWriteOptions(const WriteOptions& options) {
  if (options.expected_sha256.empty() || IsSha256Hex(options.expected_sha256)) {
    return absl::OkStatus();
  }
  return InvalidInput("INVALID_DIGEST", absl::StrCat("expected_sha256 must be 64 lower-case hex "
                                                     "digits, not \"",
                                                     options.expected_sha256, "\""));
}

absl::Status ObjectTooLarge(absl::string_view object, uint64_t size_bytes, uint64_t max_bytes) {
  return MakeError(
      absl::StatusCode::kOutOfRange, "OBJECT_TOO_LARGE",
      absl::StrCat(object, " has ", size_bytes, " bytes; at most ", max_bytes, " are read here"));
}

absl::Status ObjectTooShort(absl::string_view object, uint64_t actual_bytes, uint64_t offset,
                            uint64_t size_bytes) {
  return MakeError(absl::StatusCode::kOutOfRange, "OBJECT_TOO_SHORT",
                   absl::StrCat(object, " ends at byte ", actual_bytes, "; ", size_bytes,
                                " bytes at offset ", offset, " were asked for"));
}

absl::Status ObjectChanged(absl::string_view object) {
  return MakeError(absl::StatusCode::kAborted, "OBJECT_CHANGED",
                   absl::StrCat(object, " was replaced meanwhile"));
}

absl::Status ObjectStore::ReadVersionAt(absl::string_view key, absl::string_view version,
                                        uint64_t offset, uint64_t size_bytes, char* out) {
  const absl::Status read = ReadAt(key, offset, size_bytes, out);
  UQ_ASSIGN_OR_RETURN(const ObjectInfo after, Stat(key));
  if (after.version != version) return ObjectChanged(absl::StrCat(uri(), "/", key));
  return read;
}

absl::StatusOr<std::string> ObjectStore::Read(absl::string_view key, uint64_t max_bytes) {
  UQ_ASSIGN_OR_RETURN(const ObjectInfo info, Stat(key));
  if (info.size_bytes > max_bytes) {
    return ObjectTooLarge(absl::StrCat(uri(), "/", key), info.size_bytes, max_bytes);
  }
  std::string data(info.size_bytes, '\0');
  if (!data.empty()) UQ_RETURN_IF_ERROR(ReadAt(key, 0, data.size(), data.data()));
  return data;
}

absl::Status ObjectStore::Write(absl::string_view key, absl::string_view data,
                                const WriteOptions& options) {
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectWriter> writer, NewWriter(key, options));
  UQ_RETURN_IF_ERROR(writer->Append(data));
  return writer->Commit();
}

}  // namespace uniquanf
