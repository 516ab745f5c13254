#include "worker/text/unpack.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr size_t kChunkBytes = 1 << 18;

absl::Status TooLarge(absl::string_view name, uint64_t max_bytes) {
  return InvalidInput("TEXT_FILE_TOO_LARGE", absl::StrCat(name, " unpacks to more than ", max_bytes,
                                                          " bytes; give a part of it"));
}

absl::Status Damaged(absl::string_view name, absl::string_view kind, absl::string_view why) {
  return InvalidInput("INVALID_TEXT_FILE",
                      absl::StrCat(name, " is a damaged ", kind, " file: ", why));
}

absl::StatusOr<std::string> UnpackGzip(absl::string_view name, absl::string_view bytes,
                                       uint64_t max_bytes) {
  z_stream stream{};
  if (inflateInit2(&stream, 15 + 16) != Z_OK) return absl::InternalError("zlib does not start");
  const std::unique_ptr<z_stream, void (*)(z_stream*)> cleanup(&stream,
                                                               [](z_stream* s) { inflateEnd(s); });
  std::string out;
  std::vector<char> chunk(kChunkBytes);
  int code = Z_OK;
  size_t given = 0;
  while (true) {
    if (stream.avail_in == 0 && given < bytes.size()) {  // zlib counts in 32 bits
      const size_t size = std::min<size_t>(bytes.size() - given, 1 << 30);
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data() + given));
      stream.avail_in = static_cast<uInt>(size);
      given += size;
    }
    stream.next_out = reinterpret_cast<Bytef*>(chunk.data());
    stream.avail_out = static_cast<uInt>(chunk.size());
    code = inflate(&stream, Z_NO_FLUSH);
    out.append(chunk.data(), chunk.size() - stream.avail_out);
    if (out.size() > max_bytes) return TooLarge(name, max_bytes);
    const bool more = stream.avail_in > 0 || given < bytes.size();
    if (code == Z_STREAM_END) {
      if (!more) return out;
      if (inflateReset(&stream) != Z_OK) return absl::InternalError("zlib does not start again");
      continue;
    }
    if (code == Z_BUF_ERROR || (code == Z_OK && !more && stream.avail_out > 0)) {
      return Damaged(name, "gzip", "it ends too early; was the download complete?");
    }
    if (code != Z_OK)
      return Damaged(name, "gzip", stream.msg != nullptr ? stream.msg : "no reason");
  }
}

absl::StatusOr<std::string> UnpackZstd(absl::string_view name, absl::string_view bytes,
                                       uint64_t max_bytes) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                   ZSTD_freeDCtx);
  if (context == nullptr) return absl::InternalError("zstd does not start");
  std::string out;
  std::vector<char> chunk(kChunkBytes);
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  while (true) {
    ZSTD_outBuffer to{chunk.data(), chunk.size(), 0};
    const size_t left = ZSTD_decompressStream(context.get(), &to, &in);
    if (ZSTD_isError(left)) return Damaged(name, "zstd", ZSTD_getErrorName(left));
    out.append(chunk.data(), to.pos);
    if (out.size() > max_bytes) return TooLarge(name, max_bytes);
    if (in.pos < in.size || to.pos == to.size) continue;
    if (left != 0) return Damaged(name, "zstd", "it ends too early; was the download complete?");
    return out;
  }
}

}  // namespace

bool IsGzip(absl::string_view bytes) { return absl::StartsWith(bytes, "\x1F\x8B"); }
bool IsZstd(absl::string_view bytes) { return absl::StartsWith(bytes, "\x28\xB5\x2F\xFD"); }

absl::StatusOr<std::string> Unpack(absl::string_view name, std::string bytes, uint64_t max_bytes) {
  if (IsGzip(bytes)) return UnpackGzip(name, bytes, max_bytes);
  if (IsZstd(bytes)) return UnpackZstd(name, bytes, max_bytes);
  return bytes;
}

}  // namespace uniquanf
