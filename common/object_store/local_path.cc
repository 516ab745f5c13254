#include "common/object_store/local_path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"

namespace uniquanf::local {
namespace {

std::string ErrorText(int error) {
  char buffer[128] = "";
  return strerror_r(error, buffer, sizeof(buffer));
}

// `path` with links resolved, or "".
std::string RealPath(const std::string& path) {
  char buffer[PATH_MAX];
  return realpath(path.c_str(), buffer) == nullptr ? "" : std::string(buffer);
}

bool IsBelow(absl::string_view path, absl::string_view directory) {
  return directory == "/" || (absl::StartsWith(path, directory) && path.size() > directory.size() &&
                              path[directory.size()] == '/');
}

// Where the descriptor's file is. One that was replaced since reads as "<path> (deleted)", which is
// as good here; realpath would look for that name.
std::string PathOf(int fd) {
  char buffer[PATH_MAX];
  const ssize_t length =
      readlink(absl::StrCat("/proc/self/fd/", fd).c_str(), buffer, sizeof(buffer));
  return std::string(buffer, length > 0 ? length : 0);
}

// Whether the descriptor's file is in the store, decided after it was opened, so that no link can
// be swapped in between check and use.
bool LiesInStore(int fd, const std::string& root) {
  const std::string path = PathOf(fd);
  const std::string real_root = RealPath(root);
  if (path.empty() || real_root.empty()) return false;
  if (IsBelow(path, real_root)) return true;
  // .../models--name/snapshots/<revision> may link into .../models--name/blobs.
  const size_t revision = real_root.rfind('/');
  if (revision == std::string::npos || revision == 0) return false;
  const absl::string_view parent = absl::string_view(real_root).substr(0, revision);
  constexpr absl::string_view kSnapshots = "/snapshots";
  if (!absl::EndsWith(parent, kSnapshots)) return false;
  const absl::string_view model = parent.substr(0, parent.size() - kSnapshots.size());
  return IsBelow(path, absl::StrCat(model, "/blobs"));
}

absl::Status ConflictError(absl::string_view object) {
  return FailedPrecondition("OBJECT_KEY_CONFLICT",
                            absl::StrCat(object,
                                         ": a part of its path is an object itself; choose "
                                         "another name or remove that file"));
}

// Makes `path` and its parents (below "/" or the working directory), links allowed.
absl::Status MakeRoot(const std::string& path, absl::string_view object,
                      std::optional<uint32_t> mode) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    const bool made = mkdir(part.c_str(), 0777) == 0;
    if (made && mode.has_value() && chmod(part.c_str(), *mode) != 0) {
      return ErrnoToStatus(errno, absl::StrCat("set the mode of ", part, " for"), object);
    }
    if (!made && errno != EEXIST) {
      struct stat info;  // a read-only or forbidden parent of a directory that exists is fine
      const int error = errno;
      if (error == ENOTDIR) return ConflictError(object);
      if (stat(part.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
        return ErrnoToStatus(error, absl::StrCat("make the directory ", part, " for"), object);
      }
    }
    if (slash == std::string::npos) return absl::OkStatus();
  }
}

// openat2(2): resolved below `base`, whatever links and mount points there are in `path`.
FileDescriptor OpenBeneath(int base, const std::string& path, int flags, uint64_t resolve) {
  struct open_how how = {};
  how.flags = static_cast<uint64_t>(flags);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | resolve;
  // EAGAIN: something was renamed while the kernel followed a "..", and it cannot tell.
  constexpr int kMaxTries = 128;
  for (int i = 0;; ++i) {
    const long fd = syscall(SYS_openat2, base, path.c_str(), &how, sizeof(how));
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR) || i == kMaxTries) {
      return FileDescriptor(static_cast<int>(fd));
    }
  }
}

// A mount point leads out of a directory, but not out of everything.
uint64_t Mounts(const LocalConfinement& confinement) {
  return confinement.directory == "/" ? 0 : RESOLVE_NO_XDEV;
}

}  // namespace

int FileDescriptor::Close() {
  const int fd = std::exchange(fd_, -1);
  return fd >= 0 && close(fd) != 0 ? errno : 0;
}

absl::Status ErrnoToStatus(int error, absl::string_view action, absl::string_view object) {
  const std::string message = absl::StrCat("cannot ", action, " ", object, ": ", ErrorText(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return NotFound("OBJECT_NOT_FOUND", message);
    case EACCES:
    case EPERM:
    case EROFS:
      return MakeError(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED",
                       absl::StrCat(message, "; check the owner and mode of the directory"));
    case ELOOP:
      return MakeError(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED",
                       absl::StrCat(message, "; symbolic links are not followed here"));
    case EXDEV:
      return MakeError(absl::StatusCode::kPermissionDenied, "DATA_NOT_ALLOWED",
                       absl::StrCat("cannot ", action, " ", object,
                                    ": a link or a mount point leads out of what the server's "
                                    "policy allows; for a mount it must name a prefix of its own"));
    case ENOSYS:
      return FailedPrecondition("OPENAT2_MISSING",
                                absl::StrCat(message, "; tenants' files need Linux 5.6"));
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return MakeError(absl::StatusCode::kResourceExhausted, "STORAGE_FULL",
                       absl::StrCat(message, "; free some space or choose another place"));
    case ENAMETOOLONG:
      return InvalidInput("INVALID_OBJECT_KEY", message);
    case EISDIR:
    case ENOTEMPTY:
      return ConflictError(object);
    default:
      return Unavailable("STORE_UNAVAILABLE", message);
  }
}

FileDescriptor StoreRoot::OpenConfined(absl::string_view relative, int flags) const {
  // The directory that the policy names: the operator's, links in its own path included.
  FileDescriptor base(
      open(confinement_->directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK));
  if (!base.valid()) return base;
  std::string path = below_;
  if (!relative.empty()) absl::StrAppend(&path, path.empty() ? "" : "/", relative);
  if (path.empty()) path.push_back('.');
  const uint64_t links = confinement_->follows_links ? 0 : RESOLVE_NO_SYMLINKS;
  return OpenBeneath(base.get(), path, flags, links | Mounts(*confinement_));
}

bool StoreRoot::IsWithheld(int fd) const {
  const std::string path = PathOf(fd);
  return path.empty() || std::any_of(confinement_->withheld.begin(), confinement_->withheld.end(),
                                     [&path](const std::string& directory) {
                                       const std::string real = RealPath(directory);
                                       return !real.empty() && IsBelow(path, real);
                                     });
}

absl::StatusOr<FileDescriptor> StoreRoot::OpenObject(absl::string_view key,
                                                     absl::string_view object, int flags) const {
  const std::string path = absl::StrCat(path_, "/", key);
  // O_NONBLOCK: opening a FIFO must not hang; it does nothing to regular files. O_PATH opens
  // nothing, and openat2 takes no other flags beside it.
  flags |= (flags & O_PATH) != 0 ? O_CLOEXEC : O_CLOEXEC | O_NONBLOCK;
  FileDescriptor fd = confinement_.has_value() ? OpenConfined(key, flags)
                                               : FileDescriptor(open(path.c_str(), flags));
  if (!fd.valid()) return ErrnoToStatus(errno, "open", object);
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return ErrnoToStatus(errno, "stat", object);
  if (!S_ISREG(info.st_mode)) {
    return NotFound("OBJECT_NOT_FOUND", absl::StrCat(object, " is not a regular file"));
  }
  if (confinement_.has_value()) {
    if (confinement_->withheld.empty() || !IsWithheld(fd.get())) return fd;
    return ErrnoToStatus(EXDEV, "open", object);
  }
  if (!LiesInStore(fd.get(), path_)) {
    return MakeError(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED",
                     absl::StrCat(object, " is a symbolic link that leads out of ", path_));
  }
  return fd;
}

FileDescriptor StoreRoot::OpenDirectory(absl::string_view directory) const {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  while (!directory.empty() && directory.back() == '/') directory.remove_suffix(1);
  if (confinement_.has_value()) return OpenConfined(directory, kFlags);
  return FileDescriptor(open(absl::StrCat(path_, "/", directory).c_str(), kFlags));
}

absl::StatusOr<FileDescriptor> StoreRoot::OpenParentForWrite(
    absl::string_view key, absl::string_view object, std::optional<uint32_t> directory_mode) const {
  const std::string& root = confinement_.has_value() ? confinement_->directory : path_;
  UQ_RETURN_IF_ERROR(MakeRoot(root, object, directory_mode));
  FileDescriptor directory(open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) {
    return errno == ENOTDIR ? ConflictError(object) : ErrnoToStatus(errno, "open", object);
  }
  std::vector<std::string> segments;
  if (confinement_.has_value() && !below_.empty()) {
    segments = absl::StrSplit(below_, '/');
  }
  for (const absl::string_view segment : absl::StrSplit(key, '/')) segments.emplace_back(segment);
  segments.pop_back();
  for (const std::string& segment : segments) {
    const bool made = mkdirat(directory.get(), segment.c_str(), 0777) == 0;
    if (!made && errno != EEXIST) {
      return ErrnoToStatus(errno, absl::StrCat("make the directory ", segment, " for"), object);
    }
    constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    FileDescriptor next = confinement_.has_value()
                              ? OpenBeneath(directory.get(), segment, kFlags,
                                            RESOLVE_NO_SYMLINKS | Mounts(*confinement_))
                              : FileDescriptor(openat(directory.get(), segment.c_str(), kFlags));
    if (!next.valid()) {
      const int error = errno;
      struct stat info;
      if (error == ENOTDIR &&
          fstatat(directory.get(), segment.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) {
        return S_ISLNK(info.st_mode) ? ErrnoToStatus(ELOOP, "write", object)
                                     : ConflictError(object);
      }
      return ErrnoToStatus(error, "open the directory of", object);
    }
    if (made && directory_mode.has_value() && fchmod(next.get(), *directory_mode) != 0) {
      return ErrnoToStatus(errno, absl::StrCat("set the mode of ", segment, " for"), object);
    }
    if (made && fsync(directory.get()) != 0) return ErrnoToStatus(errno, "sync", object);
    directory = std::move(next);
  }
  return directory;
}

int SweepDirectory(int directory_fd, int64_t min_age_seconds) {
  // A second descriptor, since closedir closes the one it walks.
  const int copy = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return 0;
  DIR* directory = fdopendir(copy);
  if (directory == nullptr) {
    close(copy);
    return 0;
  }
  int num_removed = 0;
  while (const dirent* entry = readdir(directory)) {
    if (!absl::StartsWith(entry->d_name, kTemporaryPrefix)) continue;
    FileDescriptor fd(
        openat(directory_fd, entry->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat info;
    if (!fd.valid() || fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    if (time(nullptr) - info.st_mtime < min_age_seconds) continue;
    if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) continue;  // its writer lives
    if (unlinkat(directory_fd, entry->d_name, 0) == 0) ++num_removed;
  }
  closedir(directory);
  return num_removed;
}

}  // namespace uniquanf::local
