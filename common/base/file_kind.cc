#include "common/base/file_kind.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace uniquanf {

std::string DescribeFileKind(absl::string_view bytes) {
  if (absl::StartsWith(bytes, "version https://git-lfs")) {
    return "a Git LFS pointer, not the file itself: run \"git lfs pull\" where it was cloned";
  }
  if (absl::StartsWith(bytes, "\x1F\x8B")) return "a gzip file: unpack it";
  if (absl::StartsWith(bytes, "\x28\xB5\x2F\xFD")) return "a zstd file: unpack it";
  if (absl::StartsWith(bytes, "PAR1")) return "a Parquet file: convert it to JSON Lines";
  if (absl::StartsWith(bytes, "ARROW1")) return "an Arrow file: convert it to JSON Lines";
  if (absl::StartsWith(bytes, "GGUF")) return "a GGUF file: give the original checkpoint";
  if (absl::StartsWith(bytes, "PK\x03\x04")) {
    return "a zip archive (PyTorch writes those): unpack it, or convert it to safetensors";
  }
  if (absl::StartsWith(bytes, "\x80\x02") || absl::StartsWith(bytes, "\x80\x04")) {
    return "a pickled Python file: convert it to safetensors";
  }
  if (absl::StartsWith(bytes, "\x93NUMPY")) return "a NumPy file: convert it to safetensors";
  if (absl::StartsWith(bytes, "%PDF")) return "a PDF file: give its text";
  if (absl::StartsWith(bytes, "BZh")) return "a bzip2 file: unpack it";
  if (absl::StartsWith(bytes,
                       "\xFD"
                       "7zXZ"))
    return "an xz file: unpack it";
  if (absl::StartsWith(bytes, "\x89HDF")) {
    return "an HDF5 file: give the checkpoint in safetensors";
  }
  if (bytes.size() >= 16 && bytes.find_first_not_of('\0') == absl::string_view::npos) {
    return "empty where it begins, all zeros: a download that did not finish";
  }
  if (bytes.size() > 8 && bytes[8] == '{' && bytes.substr(5, 3) == absl::string_view("\0\0\0", 3)) {
    return "a safetensors file";
  }
  const absl::string_view text = absl::StripLeadingAsciiWhitespace(bytes);
  if (absl::StartsWithIgnoreCase(text, "<!doctype html") ||
      absl::StartsWithIgnoreCase(text, "<html")) {
    return "a web page: was it downloaded from the page that shows the file?";
  }
  return "";
}

}  // namespace uniquanf
