// What writers that are gone left in a local store.
#include <errno.h>
#include <fcntl.h>

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/object_store/local_path.h"
#include "common/object_store/local_store.h"

namespace uniquanf {

absl::StatusOr<std::string> local::AbsoluteRoot(absl::string_view root) {
  if (root.empty() || absl::StrContains(root, absl::string_view("\0", 1))) {
    return InvalidInput("INVALID_URI", "a local store needs a directory, and the path is empty");
  }
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(std::string(root), error);
  if (error) {
    return InvalidInput("INVALID_URI",
                        absl::StrCat("cannot resolve ", root, ": ", error.message()));
  }
  // lexically_normal would turn "link/../x" into "x": keep ".." as the system reads it.
  std::string text = path.string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

absl::StatusOr<int> SweepTemporaries(absl::string_view root, absl::Duration min_age) {
  UQ_ASSIGN_OR_RETURN(const std::string path, local::AbsoluteRoot(root));
  const int64_t age_seconds = absl::ToInt64Seconds(min_age);
  std::error_code error;
  int num_removed = 0;
  std::vector<std::string> directories = {path};
  while (!directories.empty()) {
    const std::string directory = std::move(directories.back());
    directories.pop_back();
    local::FileDescriptor fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) {
      if (errno == ENOENT || errno == ENOTDIR) continue;
      return local::ErrnoToStatus(errno, "sweep", directory);
    }
    num_removed += local::SweepDirectory(fd.get(), age_seconds);
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
      if (!entry.is_symlink(error) && entry.is_directory(error)) {
        directories.push_back(entry.path().string());
      }
    }
  }
  return num_removed;
}

}  // namespace uniquanf
