#include "common/object_store/piece_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "common/object_store/local_path.h"

namespace uniquanf {
namespace {

using local::ErrnoToStatus;
using local::FileDescriptor;
using local::kTemporaryPrefix;

constexpr absl::string_view kMagic = "UQPIECE1";
constexpr size_t kDigestDigits = 64;
constexpr size_t kHeaderBytes = 8 + kDigestDigits;
constexpr uint64_t kBlockBytes = 4096;
constexpr absl::Duration kPauseAfterFailedWrite = absl::Minutes(1);
constexpr int64_t kStaleAgeSeconds = 3600;

uint64_t OnDisk(uint64_t file_bytes) {
  return (file_bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}

std::string DigestOf(const std::string& id, absl::string_view bytes) {
  Sha256 sha256;
  sha256.Update(id);
  sha256.Update(bytes);
  return sha256.FinishHex();
}

bool ReadExactly(int fd, char* out, size_t size, off_t offset) {
  while (size > 0) {
    const ssize_t got = pread(fd, out, size, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    out += got;
    offset += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

bool WriteExactly(int fd, absl::string_view data) {
  while (!data.empty()) {
    const ssize_t written = write(fd, data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    data.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

// The folder must be this user's own: whoever may write there decides what is read.
absl::Status MakeRoot(const std::string& root) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(root).parent_path(), error);
  if (mkdir(root.c_str(), 0700) == 0) return absl::OkStatus();
  if (errno != EEXIST) return ErrnoToStatus(errno, "make the cache directory", root);
  struct stat info;
  if (lstat(root.c_str(), &info) != 0) return ErrnoToStatus(errno, "stat", root);
  if (S_ISDIR(info.st_mode) && info.st_uid == geteuid()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED",
                   absl::StrCat(root, " is not a directory of this user's; give another one"));
}

struct StoredPiece {
  std::string path;
  uint64_t size_bytes;
  absl::Time used;
};

// The pieces below `root`; adds the sizes of temporary files to *other_bytes.
std::vector<StoredPiece> ListPieces(const std::string& root, uint64_t* other_bytes) {
  std::vector<StoredPiece> pieces;
  for (int i = 0; i < 256; ++i) {
    const std::string directory = absl::StrCat(root, "/", absl::Hex(i, absl::kZeroPad2));
    DIR* const stream = opendir(directory.c_str());
    if (stream == nullptr) continue;
    local::SweepDirectory(dirfd(stream), kStaleAgeSeconds);
    while (const dirent* entry = readdir(stream)) {
      struct stat info;
      if (fstatat(dirfd(stream), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
      if (!S_ISREG(info.st_mode)) continue;
      const uint64_t size_bytes = OnDisk(static_cast<uint64_t>(info.st_size));
      if (absl::StartsWith(entry->d_name, kTemporaryPrefix)) {
        *other_bytes += size_bytes;
      } else {
        pieces.push_back({absl::StrCat(directory, "/", entry->d_name), size_bytes,
                          absl::TimeFromTimespec(info.st_mtim)});
      }
    }
    closedir(stream);
  }
  return pieces;
}

}  // namespace

PieceFiles::PieceFiles(const std::string& directory, uint64_t max_bytes, const Clock* clock,
                       OnProblem on_problem)
    : root_(absl::StrCat(directory, "/pieces-v1")),
      max_bytes_(max_bytes),
      clock_(clock),
      on_problem_(std::move(on_problem)),
      ids_(NewRandomIdGenerator()) {
  absl::MutexLock lock(&mutex_);
  if (const absl::Status made = MakeRoot(root_); !made.ok()) {
    ReportOnce(&reported_write_, made);
    no_writes_before_ = clock_->Monotonic() + kPauseAfterFailedWrite;
    return;
  }
  CountAndEvict(0);
}

std::string PieceFiles::PathOf(const std::string& id) const {
  return absl::StrCat(root_, "/", id.substr(0, 2), "/", id.substr(2));
}

std::optional<std::string> PieceFiles::Get(const std::string& id, uint64_t size_bytes) {
  const std::string path = PathOf(id);
  const FileDescriptor fd(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat info;
  if (!fd.valid() || fstat(fd.get(), &info) != 0 || info.st_uid != geteuid()) return std::nullopt;
  std::string header(kHeaderBytes, '\0');
  std::string bytes(size_bytes, '\0');
  if (static_cast<uint64_t>(info.st_size) == kHeaderBytes + size_bytes &&
      ReadExactly(fd.get(), header.data(), header.size(), 0) &&
      ReadExactly(fd.get(), bytes.data(), bytes.size(), kHeaderBytes) &&
      header == absl::StrCat(kMagic, DigestOf(id, bytes))) {
    // The time of use; where it cannot be set, eviction knows no better than the time of writing.
    const timespec now = absl::ToTimespec(clock_->Now());
    const timespec times[2] = {now, now};
    (void)futimens(fd.get(), times);
    return bytes;
  }
  ++damaged_;
  ReportOnce(&reported_damage_,
             MakeError(absl::StatusCode::kDataLoss, "CACHE_DAMAGED",
                       absl::StrCat("the cached piece ", path,
                                    " is damaged; it is read from the store again")));
  unlink(path.c_str());
  return std::nullopt;
}

void PieceFiles::Put(const std::string& id, absl::string_view bytes) {
  const uint64_t file_bytes = OnDisk(kHeaderBytes + bytes.size());
  if (file_bytes > max_bytes_ || !Writable()) return;
  {
    // Counted before it is written, so that writers at the same time do not exceed the limit.
    absl::MutexLock lock(&mutex_);
    if (stored_bytes_ + reserved_bytes_ + file_bytes > max_bytes_ ||
        written_since_count_ > max_bytes_ / 16) {
      CountAndEvict(file_bytes);
    }
    reserved_bytes_ += file_bytes;
    written_since_count_ += file_bytes;
  }
  const absl::Status written = Write(id, bytes);
  {
    absl::MutexLock lock(&mutex_);
    reserved_bytes_ -= file_bytes;
    if (written.ok()) {
      stored_bytes_ += file_bytes;
      return;
    }
    no_writes_before_ = clock_->Monotonic() + kPauseAfterFailedWrite;
  }
  ++failed_writes_;
  ReportOnce(&reported_write_, written);
}

absl::Status PieceFiles::Write(const std::string& id, absl::string_view bytes) {
  UQ_RETURN_IF_ERROR(MakeRoot(root_));  // somebody may have removed it
  const std::string path = PathOf(id);
  const std::string directory = path.substr(0, path.rfind('/'));
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoToStatus(errno, "make the cache directory", directory);
  }
  const std::string temporary =
      absl::StrCat(directory, "/", kTemporaryPrefix, ids_->NewId("t").substr(2));
  FileDescriptor fd(
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoToStatus(errno, "write the cache's", temporary);
  (void)flock(fd.get(), LOCK_EX | LOCK_NB);  // against being swept as a dead process's
  if (!WriteExactly(fd.get(), absl::StrCat(kMagic, DigestOf(id, bytes))) ||
      !WriteExactly(fd.get(), bytes) || rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    unlink(temporary.c_str());
    return ErrnoToStatus(error, "write the cache's", path);
  }
  const timespec now = absl::ToTimespec(clock_->Now());
  const timespec times[2] = {now, now};
  (void)futimens(fd.get(), times);
  // Some file systems (NFS) report a full disk only now; the digest would find out too.
  if (const int error = fd.Close(); error != 0) {
    unlink(path.c_str());
    return ErrnoToStatus(error, "write the cache's", path);
  }
  return absl::OkStatus();
}

void PieceFiles::CountAndEvict(uint64_t wanted_bytes) {
  wanted_bytes += reserved_bytes_;
  uint64_t total = 0;
  std::vector<StoredPiece> pieces = ListPieces(root_, &total);
  for (const StoredPiece& piece : pieces) total += piece.size_bytes;
  if (total + wanted_bytes > max_bytes_) {
    std::sort(pieces.begin(), pieces.end(), [](const StoredPiece& a, const StoredPiece& b) {
      return std::tie(a.used, a.path) < std::tie(b.used, b.path);
    });
    // Some room to spare, so that not every piece has to count.
    const uint64_t limit = max_bytes_ - max_bytes_ / 8;
    for (const StoredPiece& piece : pieces) {
      if (total + wanted_bytes <= limit) break;
      // Gone already: another process evicts too.
      if (unlink(piece.path.c_str()) == 0) {
        ++evictions_;
      } else if (errno != ENOENT) {
        continue;
      }
      total -= piece.size_bytes;
    }
  }
  stored_bytes_ = total;
  written_since_count_ = 0;
}

bool PieceFiles::Writable() const {
  absl::MutexLock lock(&mutex_);
  return clock_->Monotonic() >= no_writes_before_;
}

PieceFilesCounts PieceFiles::counts() const {
  absl::MutexLock lock(&mutex_);
  return {evictions_, damaged_, failed_writes_, stored_bytes_};
}

void PieceFiles::ReportOnce(std::atomic<bool>* reported, const absl::Status& problem) {
  if (!reported->exchange(true) && on_problem_) on_problem_(problem);
}

}  // namespace uniquanf
