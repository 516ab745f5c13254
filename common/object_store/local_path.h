// File descriptors below a store's root, and errno as a status. For local_store.cc and
// piece_files.cc only.
// Thread safety: FileDescriptor is owned by one thread; functions are thread-safe.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_LOCAL_PATH_H_
#define UNIQUANF_COMMON_OBJECT_STORE_LOCAL_PATH_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/object_store/local_store.h"

namespace uniquanf::local {

// Names that start so are temporary files.
inline constexpr absl::string_view kTemporaryPrefix = ".tmp-";

// Owns a descriptor, closes it once.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    Close();
    fd_ = std::exchange(other.fd_, -1);
    return *this;
  }
  ~FileDescriptor() { Close(); }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  // The descriptor, which is the caller's to close from here on.
  int Release() { return std::exchange(fd_, -1); }
  // 0, or the errno of close(2).
  int Close();

 private:
  int fd_ = -1;
};

// The store's directory, and how files below it are reached: by paths, or, confined, by openat2(2)
// relative to the confinement's directory, so that neither links nor "/proc" nor mount points lead
// out of it, whenever they are made.
class StoreRoot {
 public:
  explicit StoreRoot(std::string path) : path_(std::move(path)) {}
  // `below`: the store's place ("" or "a/b") under the confinement's directory.
  StoreRoot(std::string path, LocalConfinement confinement, std::string below)
      : path_(std::move(path)), confinement_(std::move(confinement)), below_(std::move(below)) {}
  const std::string& path() const { return path_; }  // absolute, for messages

  // Opens ROOT/key with `flags` (O_RDONLY or O_PATH) and checks that it is a regular file that lies
  // in the store, links resolved. `object` names it in messages.
  absl::StatusOr<FileDescriptor> OpenObject(absl::string_view key, absl::string_view object,
                                            int flags) const;
  // Opens the directory that holds `key`, making it and those above it, each made durable in its
  // parent; no link is followed below the root, or, confined, below the confinement's directory.
  // `directory_mode`: of StoreOptions.
  absl::StatusOr<FileDescriptor> OpenParentForWrite(absl::string_view key, absl::string_view object,
                                                    std::optional<uint32_t> directory_mode) const;
  // Opens ROOT/directory ("": ROOT) to list it or to change its entries. Not valid: errno says why.
  FileDescriptor OpenDirectory(absl::string_view directory) const;

 private:
  FileDescriptor OpenConfined(absl::string_view relative, int flags) const;
  bool IsWithheld(int fd) const;

  std::string path_;
  std::optional<LocalConfinement> confinement_;
  std::string below_;
};

// What an errno of `action` ("write", ...) on `object` means to a user of a store.
absl::Status ErrnoToStatus(int error, absl::string_view action, absl::string_view object);

// The store's directory as an absolute path, ".." as the system reads it. INVALID_URI when empty.
absl::StatusOr<std::string> AbsoluteRoot(absl::string_view root);

// Removes stale temporaries of one directory (`directory_fd` is borrowed); returns how many.
int SweepDirectory(int directory_fd, int64_t min_age_seconds);

}  // namespace uniquanf::local

#endif  // UNIQUANF_COMMON_OBJECT_STORE_LOCAL_PATH_H_
