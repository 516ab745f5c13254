#include "common/object_store/local_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "common/base/crash_point.h"
#include "common/base/digest.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/object_store/local_path.h"
#include "common/object_store/object_key.h"

namespace uniquanf {
namespace {

using local::ErrnoToStatus;
using local::FileDescriptor;
using local::kTemporaryPrefix;

constexpr int64_t kStaleAgeSeconds = 3600;

class LocalWriter : public ObjectWriter {
 public:
  LocalWriter(std::string object, std::string name, WriteOptions options, FileDescriptor directory,
              std::string temporary, FileDescriptor file)
      : object_(std::move(object)),
        name_(std::move(name)),
        options_(std::move(options)),
        directory_(std::move(directory)),
        temporary_(std::move(temporary)),
        file_(std::move(file)) {}

  ~LocalWriter() override { RemoveTemporary(); }

  absl::Status Append(absl::string_view data) override {
    if (!status_.ok()) return status_;
    if (!options_.expected_sha256.empty()) sha256_.Update(data);
    while (!data.empty()) {
      const ssize_t written = write(file_.get(), data.data(), data.size());
      if (written < 0) {
        if (errno == EINTR) continue;
        return status_ = ErrnoToStatus(errno, "write", object_);
      }
      data.remove_prefix(written);
    }
    return absl::OkStatus();
  }

  absl::Status Commit() override {
    if (status_.ok()) status_ = DoCommit();
    RemoveTemporary();
    absl::Status result = std::move(status_);
    status_ = absl::FailedPreconditionError("the writer was committed before");
    return result;
  }

 private:
  absl::Status DoCommit() {
    if (!options_.expected_sha256.empty()) {
      const std::string actual = sha256_.FinishHex();
      if (actual != options_.expected_sha256) {
        return MakeError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                         absl::StrCat(object_, ": the bytes hash to ", actual, ", not to ",
                                      options_.expected_sha256));
      }
    }
    if (fsync(file_.get()) != 0) return ErrnoToStatus(errno, "sync", object_);
    UQ_CRASH_POINT("local_store.before_rename");
    UQ_RETURN_IF_ERROR(options_.if_absent ? RenameIfAbsent() : Rename());
    UQ_CRASH_POINT("local_store.after_rename");
    // Some file systems (NFS) report a full disk only now; it is in place but may be incomplete.
    if (const int error = file_.Close(); error != 0) {
      unlinkat(directory_.get(), name_.c_str(), 0);
      return ErrnoToStatus(error, "close", object_);
    }
    if (fsync(directory_.get()) != 0) {
      return Unavailable("STORE_UNAVAILABLE", absl::StrCat("cannot sync the directory of ", object_,
                                                           ": ", strerror(errno)));
    }
    return absl::OkStatus();
  }

  absl::Status Rename() {
    if (renameat(directory_.get(), temporary_.c_str(), directory_.get(), name_.c_str()) != 0) {
      return ErrnoToStatus(errno, "publish", object_);
    }
    temporary_.clear();
    return absl::OkStatus();
  }

  absl::Status RenameIfAbsent() {
    if (syscall(SYS_renameat2, directory_.get(), temporary_.c_str(), directory_.get(),
                name_.c_str(), RENAME_NOREPLACE) == 0) {
      temporary_.clear();
      return absl::OkStatus();
    }
    int error = errno;
    if (error == EINVAL || error == ENOSYS) {  // NFS and some others: a hard link does the same
      error = linkat(directory_.get(), temporary_.c_str(), directory_.get(), name_.c_str(), 0) == 0
                  ? 0
                  : errno;
    }
    if (error == 0) return absl::OkStatus();
    if (error == EEXIST) {
      return MakeError(absl::StatusCode::kAlreadyExists, "OBJECT_EXISTS",
                       absl::StrCat(object_, " exists already"));
    }
    return ErrnoToStatus(error, "publish", object_);
  }

  void RemoveTemporary() {
    if (temporary_.empty()) return;
    unlinkat(directory_.get(), temporary_.c_str(), 0);
    temporary_.clear();
  }

  const std::string object_;  // for messages
  const std::string name_;    // last segment of the key
  const WriteOptions options_;
  FileDescriptor directory_;
  std::string temporary_;  // name in the directory; empty once renamed or removed
  FileDescriptor file_;
  Sha256 sha256_;
  absl::Status status_;  // the first error; later calls repeat it
};

class LocalStore : public ObjectStore {
 public:
  LocalStore(local::StoreRoot root, std::optional<uint32_t> directory_mode)
      : root_(std::move(root)), directory_mode_(directory_mode), ids_(NewRandomIdGenerator()) {}

  std::string uri() const override { return absl::StrCat("file://", root_.path()); }

  absl::StatusOr<ObjectInfo> Stat(absl::string_view key) override {
    UQ_RETURN_IF_ERROR(ValidateObjectKey(key));
    UQ_ASSIGN_OR_RETURN(FileDescriptor fd, root_.OpenObject(key, NameOf(key), O_PATH));
    struct stat info;
    if (fstat(fd.get(), &info) != 0) return ErrnoToStatus(errno, "stat", NameOf(key));
    return ToObjectInfo(std::string(key), info);
  }

  absl::Status ReadAt(absl::string_view key, uint64_t offset, uint64_t size_bytes,
                      char* out) override {
    UQ_RETURN_IF_ERROR(ValidateObjectKey(key));
    UQ_ASSIGN_OR_RETURN(FileDescriptor fd, root_.OpenObject(key, NameOf(key), O_RDONLY));
    return ReadRange(fd, key, offset, size_bytes, out);
  }

  absl::Status ReadVersionAt(absl::string_view key, absl::string_view version, uint64_t offset,
                             uint64_t size_bytes, char* out) override {
    UQ_RETURN_IF_ERROR(ValidateObjectKey(key));
    UQ_ASSIGN_OR_RETURN(FileDescriptor fd, root_.OpenObject(key, NameOf(key), O_RDONLY));
    const absl::Status read = ReadRange(fd, key, offset, size_bytes, out);
    struct stat info;  // after reading: a file that is written in place shows it
    if (fstat(fd.get(), &info) != 0) return ErrnoToStatus(errno, "stat", NameOf(key));
    if (VersionOf(info) != version) return ObjectChanged(NameOf(key));
    return read;
  }

  absl::StatusOr<std::string> Read(absl::string_view key, uint64_t max_bytes) override {
    UQ_RETURN_IF_ERROR(ValidateObjectKey(key));
    UQ_ASSIGN_OR_RETURN(FileDescriptor fd, root_.OpenObject(key, NameOf(key), O_RDONLY));
    struct stat info;
    if (fstat(fd.get(), &info) != 0) return ErrnoToStatus(errno, "stat", NameOf(key));
    const uint64_t size_bytes = static_cast<uint64_t>(info.st_size);
    if (size_bytes > max_bytes) return ObjectTooLarge(NameOf(key), size_bytes, max_bytes);
    std::string data(size_bytes, '\0');
    UQ_RETURN_IF_ERROR(ReadRange(fd, key, 0, size_bytes, data.data()));
    return data;
  }

  absl::StatusOr<std::unique_ptr<ObjectWriter>> NewWriter(absl::string_view key,
                                                          const WriteOptions& options) override {
    UQ_RETURN_IF_ERROR(ValidateObjectKey(key));
    UQ_RETURN_IF_ERROR(ValidateWriteOptions(options));
    const std::string object = NameOf(key);
    // Another process may remove the directory while it is empty (see Delete): make it again.
    for (int attempt = 0;; ++attempt) {
      absl::StatusOr<FileDescriptor> directory =
          root_.OpenParentForWrite(key, object, directory_mode_);
      if (!directory.ok()) {
        if (absl::IsNotFound(directory.status()) && attempt < 10) continue;
        return directory.status();
      }
      MaybeSweep(key, *directory);
      std::string temporary =
          absl::StrCat(kTemporaryPrefix, absl::string_view(ids_->NewId("t")).substr(2));
      FileDescriptor file(openat(directory->get(), temporary.c_str(),
                                 O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
      if (!file.valid()) {
        if ((errno == ENOENT || errno == EEXIST) && attempt < 10) continue;
        return ErrnoToStatus(errno, "write", object);
      }
      if (directory_mode_.has_value() && fchmod(file.get(), *directory_mode_ & 0666) != 0) {
        return ErrnoToStatus(errno, "set the mode of", object);
      }
      (void)flock(file.get(), LOCK_EX | LOCK_NB);  // a file system without locks: age protects
      const size_t slash = key.rfind('/');
      std::string name(slash == absl::string_view::npos ? key : key.substr(slash + 1));
      return std::make_unique<LocalWriter>(object, std::move(name), options, *std::move(directory),
                                           std::move(temporary), std::move(file));
    }
  }

  absl::StatusOr<ListResult> List(const ListOptions& options) override {
    if (options.max_results < 1 || options.max_results > 1000) {
      return InvalidInput(
          "INVALID_LIST_OPTIONS",
          absl::StrCat("max_results must be in 1..1000, not ", options.max_results));
    }
    ListResult result;
    UQ_RETURN_IF_ERROR(Walk("", options, &result));
    if (result.objects.size() > static_cast<size_t>(options.max_results)) {
      result.objects.resize(options.max_results);
      result.truncated = true;
    }
    return result;
  }

  absl::Status Delete(absl::string_view key) override {
    UQ_RETURN_IF_ERROR(ValidateObjectKey(key));
    // The directory's own resolved place decides, so that a linked directory is not reached into.
    const size_t slash = key.rfind('/');
    const std::string name(slash == absl::string_view::npos ? key : key.substr(slash + 1));
    FileDescriptor directory =
        root_.OpenDirectory(slash == absl::string_view::npos ? "" : key.substr(0, slash));
    if (!directory.valid()) {
      if (errno == ENOENT || errno == ENOTDIR) return absl::OkStatus();
      return ErrnoToStatus(errno, "delete", NameOf(key));
    }
    if (const absl::StatusOr<FileDescriptor> object = root_.OpenObject(key, NameOf(key), O_PATH);
        !object.ok() && absl::IsPermissionDenied(object.status())) {
      return object.status();
    }
    if (unlinkat(directory.get(), name.c_str(), 0) != 0) {
      if (errno == ENOENT || errno == EISDIR) return absl::OkStatus();
      return ErrnoToStatus(errno, "delete", NameOf(key));
    }
    if (fsync(directory.get()) != 0) return ErrnoToStatus(errno, "sync", NameOf(key));
    RemoveEmptyParents(key);
    return absl::OkStatus();
  }

 private:
  std::string NameOf(absl::string_view key) const { return absl::StrCat(uri(), "/", key); }

  static std::string VersionOf(const struct stat& info) {
    return absl::StrCat(info.st_ino, "-", info.st_size, "-",
                        absl::ToUnixNanos(absl::TimeFromTimespec(info.st_mtim)), "-",
                        absl::ToUnixNanos(absl::TimeFromTimespec(info.st_ctim)));
  }

  static ObjectInfo ToObjectInfo(std::string key, const struct stat& info) {
    return {std::move(key), static_cast<uint64_t>(info.st_size),
            absl::TimeFromTimespec(info.st_mtim), VersionOf(info)};
  }

  absl::Status ReadRange(const FileDescriptor& fd, absl::string_view key, uint64_t offset,
                         uint64_t size_bytes, char* out) const {
    struct stat info;
    if (fstat(fd.get(), &info) != 0) return ErrnoToStatus(errno, "stat", NameOf(key));
    const uint64_t end = static_cast<uint64_t>(info.st_size);
    if (offset > end || size_bytes > end - offset) {
      return ObjectTooShort(NameOf(key), end, offset, size_bytes);
    }
    while (size_bytes > 0) {
      const ssize_t got =
          pread(fd.get(), out, std::min<uint64_t>(size_bytes, 1 << 30), static_cast<off_t>(offset));
      if (got < 0) {
        if (errno == EINTR) continue;
        return ErrnoToStatus(errno, "read", NameOf(key));
      }
      if (got == 0) return ObjectTooShort(NameOf(key), offset, offset, size_bytes);
      out += got;
      offset += static_cast<uint64_t>(got);
      size_bytes -= static_cast<uint64_t>(got);
    }
    return absl::OkStatus();
  }

  void MaybeSweep(absl::string_view key, const FileDescriptor& directory) {
    const size_t slash = key.rfind('/');
    const std::string parent(slash == absl::string_view::npos ? "" : key.substr(0, slash));
    {
      absl::MutexLock lock(&mutex_);
      if (!swept_.insert(parent).second) return;
    }
    local::SweepDirectory(directory.get(), kStaleAgeSeconds);
  }

  void RemoveEmptyParents(absl::string_view key) {
    for (size_t slash = key.rfind('/'); slash != absl::string_view::npos;
         slash = key.substr(0, slash).rfind('/')) {
      const absl::string_view directory = key.substr(0, slash);
      const size_t above = directory.rfind('/');
      const bool is_top = above == absl::string_view::npos;
      const FileDescriptor parent = root_.OpenDirectory(is_top ? "" : directory.substr(0, above));
      const std::string name(is_top ? directory : directory.substr(above + 1));
      if (!parent.valid() || unlinkat(parent.get(), name.c_str(), AT_REMOVEDIR) != 0) return;
    }
  }

  // Adds the objects below `directory` ("" or "a/b/") in key order, up to one more than asked for.
  absl::Status Walk(const std::string& directory, const ListOptions& options, ListResult* result) {
    // Everything below starts with `directory`: skip what the prefix or the page rules out.
    if (!absl::StartsWith(directory, options.prefix) &&
        !absl::StartsWith(options.prefix, directory)) {
      return absl::OkStatus();
    }
    if (options.start_after > directory && !absl::StartsWith(options.start_after, directory)) {
      return absl::OkStatus();
    }
    UQ_ASSIGN_OR_RETURN(const std::set<std::string> names, ReadDirectory(directory));
    for (const std::string& name : names) {
      if (result->objects.size() > static_cast<size_t>(options.max_results)) break;
      const std::string key = absl::StrCat(directory, name);
      if (name.back() == '/') {
        UQ_RETURN_IF_ERROR(Walk(key, options, result));
        continue;
      }
      if (!absl::StartsWith(key, options.prefix) || key <= options.start_after) continue;
      if (!ValidateObjectKey(key).ok()) continue;  // a foreign file that no key can name
      const absl::StatusOr<ObjectInfo> info = Stat(key);
      if (info.ok()) result->objects.push_back(*info);  // else gone meanwhile, or no plain file
    }
    return absl::OkStatus();
  }

  // The entries of ROOT/directory; directories end in '/', which sorts them where their keys sort.
  absl::StatusOr<std::set<std::string>> ReadDirectory(const std::string& directory) {
    std::set<std::string> names;
    FileDescriptor fd = root_.OpenDirectory(directory);
    DIR* const stream = fd.valid() ? fdopendir(fd.get()) : nullptr;
    if (stream == nullptr) {
      if (errno == ENOENT || errno == ENOTDIR) return names;
      return ErrnoToStatus(errno, "list", absl::StrCat(uri(), "/", directory));
    }
    fd.Release();  // the stream's own now
    while (const dirent* entry = readdir(stream)) {
      const std::string name = entry->d_name;
      if (name == "." || name == ".." || absl::StartsWith(name, kTemporaryPrefix)) continue;
      struct stat info;
      if (fstatat(dirfd(stream), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
      names.insert(S_ISDIR(info.st_mode) ? name + "/" : name);
    }
    closedir(stream);
    return names;
  }

  const local::StoreRoot root_;
  const std::optional<uint32_t> directory_mode_;
  const std::unique_ptr<IdGenerator> ids_;
  absl::Mutex mutex_;
  absl::flat_hash_set<std::string> swept_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenLocalStore(
    absl::string_view root, std::optional<uint32_t> directory_mode) {
  UQ_ASSIGN_OR_RETURN(std::string path, local::AbsoluteRoot(root));
  return std::make_shared<LocalStore>(local::StoreRoot(std::move(path)), directory_mode);
}

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenConfinedLocalStore(
    absl::string_view root, LocalConfinement confinement, std::optional<uint32_t> directory_mode) {
  UQ_ASSIGN_OR_RETURN(std::string path, local::AbsoluteRoot(root));
  UQ_ASSIGN_OR_RETURN(confinement.directory, local::AbsoluteRoot(confinement.directory));
  absl::string_view below = path;
  if (!absl::ConsumePrefix(&below, confinement.directory) ||
      (!below.empty() && below[0] != '/' && confinement.directory != "/")) {
    return MakeError(absl::StatusCode::kPermissionDenied, "DATA_NOT_ALLOWED",
                     absl::StrCat("file://", path, " does not lie where it may"));
  }
  absl::ConsumePrefix(&below, "/");
  return std::make_shared<LocalStore>(
      local::StoreRoot(std::move(path), std::move(confinement), std::string(below)),
      directory_mode);
}

}  // namespace uniquanf
