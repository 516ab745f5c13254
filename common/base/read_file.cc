#include "common/base/read_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf {

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (file == nullptr) return NotFound("FILE_NOT_READABLE", std::strerror(errno));
  std::string contents;
  char buffer[16384];
  size_t size = 0;
  while ((size = std::fread(buffer, 1, sizeof(buffer), file.get())) > 0) {
    contents.append(buffer, size);
    if (contents.size() <= max_bytes) continue;
    return MakeError(absl::StatusCode::kOutOfRange, "FILE_TOO_LARGE",
                     absl::StrCat("it has more than ", max_bytes, " bytes"));
  }
  // A directory can be opened; reading it fails.
  if (std::ferror(file.get()) != 0) return NotFound("FILE_NOT_READABLE", std::strerror(errno));
  return contents;
}

}  // namespace uniquanf
