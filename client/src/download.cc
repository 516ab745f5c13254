// DownloadArtifact: every file below a hidden directory first, then one rename.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/include/uniquanf/client.h"
#include "common/artifact/manifest.h"
#include "common/artifact/signature.h"
#include "common/base/digest.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/object_store/object_store.h"

namespace uniquanf {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kChunkBytes = 4 << 20;

absl::Status OutputExists(const fs::path& directory) {
  return MakeError(absl::StatusCode::kAlreadyExists, "OUTPUT_EXISTS",
                   absl::StrCat("\"", directory.string(),
                                "\" exists already, and nothing is overwritten; choose another "
                                "directory or remove it"));
}

// Ends as errno says.
absl::Status LocalError(absl::string_view doing, const fs::path& path, int error) {
  const std::string message =
      absl::StrCat("cannot ", doing, " \"", path.string(), "\": ", std::strerror(error));
  if (error == EACCES || error == EPERM || error == EROFS) {
    return MakeError(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED", message);
  }
  if (error == ENOSPC || error == EDQUOT) {
    return MakeError(absl::StatusCode::kResourceExhausted, "STORAGE_FULL", message);
  }
  return MakeError(absl::StatusCode::kFailedPrecondition, "OUTPUT_NOT_WRITABLE", message);
}

// A directory that is removed, with what is in it, unless it was put in its place.
class StagingDirectory {
 public:
  static absl::StatusOr<std::unique_ptr<StagingDirectory>> Make(const fs::path& target) {
    std::error_code error;
    if (fs::symlink_status(target, error).type() != fs::file_type::not_found) {
      return OutputExists(target);
    }
    const fs::path parent = target.parent_path();
    fs::create_directories(parent, error);
    if (error) return LocalError("create", parent, error.value());
    fs::path staging = parent / absl::StrCat(".", target.filename().string(), ".",
                                             NewRandomIdGenerator()->NewId("download"));
    if (::mkdir(staging.c_str(), 0777) != 0) return LocalError("create", staging, errno);
    return std::unique_ptr<StagingDirectory>(new StagingDirectory(staging, target));
  }
  ~StagingDirectory() {
    std::error_code ignored;
    if (!placed_) fs::remove_all(staging_, ignored);
  }

  const fs::path& path() const { return staging_; }

  absl::Status Place() {
    int result =
        ::renameat2(AT_FDCWD, staging_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE);
    if (result != 0 && (errno == EINVAL || errno == ENOSYS)) {
      // A file system without the flag: check, then rename. rename(2) itself still refuses a
      // directory that is not empty.
      std::error_code error;
      if (fs::symlink_status(target_, error).type() != fs::file_type::not_found) {
        return OutputExists(target_);
      }
      result = ::rename(staging_.c_str(), target_.c_str());
    }
    if (result != 0) {
      return errno == EEXIST || errno == ENOTEMPTY ? OutputExists(target_)
                                                   : LocalError("create", target_, errno);
    }
    placed_ = true;
    const int fd = ::open(target_.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
      ::fsync(fd);
      ::close(fd);
    }
    return absl::OkStatus();
  }

 private:
  StagingDirectory(fs::path staging, fs::path target)
      : staging_(std::move(staging)), target_(std::move(target)) {}
  const fs::path staging_, target_;
  bool placed_ = false;
};

struct FileToCopy {
  std::string path;
  uint64_t size_bytes;
  std::string sha256;  // empty: not digested
};

class Downloader {
 public:
  Downloader(std::shared_ptr<ObjectStore> from, std::shared_ptr<ObjectStore> to,
             const DownloadOptions& options)
      : from_(std::move(from)), to_(std::move(to)), options_(options) {}

  absl::Status Plan(const Manifest& manifest, const std::string& manifest_sha256) {
    for (const ManifestFile& file : manifest.files) {
      UQ_ASSIGN_OR_RETURN(const ObjectInfo info, MissingIsDataLoss(from_->Stat(file.path)));
      if (info.size_bytes != file.size_bytes) {
        return MakeError(absl::StatusCode::kDataLoss, "SIZE_MISMATCH",
                         absl::StrCat(from_->uri(), "/", file.path, " has ", info.size_bytes,
                                      " bytes, but the manifest says ", file.size_bytes));
      }
      Add({file.path, file.size_bytes, file.sha256});
    }
    std::vector<std::string> beside = manifest.attachments;
    beside.push_back(SignatureKey(manifest_sha256));
    for (const std::string& path : beside) {
      const auto info = from_->Stat(path);
      // Attachments are facts of the run, written apart; the artifact is whole without them.
      if (info.status().code() == absl::StatusCode::kNotFound) continue;
      UQ_RETURN_IF_ERROR(info.status());
      Add({path, info->size_bytes, ""});
    }
    return absl::OkStatus();
  }

  absl::Status CopyAll() {
    for (const FileToCopy& file : files_) UQ_RETURN_IF_ERROR(Copy(file));
    return absl::OkStatus();
  }

  int num_files() const { return static_cast<int>(files_.size()); }
  int64_t total_bytes() const { return progress_.bytes_total; }

 private:
  static absl::StatusOr<ObjectInfo> MissingIsDataLoss(absl::StatusOr<ObjectInfo> info) {
    if (info.status().code() != absl::StatusCode::kNotFound) return info;
    return MakeError(absl::StatusCode::kDataLoss, "FILE_MISSING",
                     absl::StrCat("the artifact is incomplete: ", info.status().message()));
  }

  void Add(FileToCopy file) {
    progress_.bytes_total += static_cast<int64_t>(file.size_bytes);
    files_.push_back(std::move(file));
  }

  absl::Status Copy(const FileToCopy& file) {
    WriteOptions write_options;
    write_options.if_absent = true;
    write_options.expected_sha256 = file.sha256;
    UQ_ASSIGN_OR_RETURN(auto writer, to_->NewWriter(file.path, write_options));
    progress_.file = file.path;
    for (uint64_t offset = 0; offset < file.size_bytes;) {
      if (options_.progress && !options_.progress(progress_)) {
        return MakeError(absl::StatusCode::kCancelled, "DOWNLOAD_CANCELLED",
                         "the download was stopped; nothing is left of it");
      }
      const uint64_t size = std::min(kChunkBytes, file.size_bytes - offset);
      buffer_.resize(size);
      UQ_RETURN_IF_ERROR(from_->ReadAt(file.path, offset, size, buffer_.data()));
      UQ_RETURN_IF_ERROR(writer->Append(buffer_));
      offset += size;
      progress_.bytes_done += static_cast<int64_t>(size);
    }
    if (options_.progress) options_.progress(progress_);
    return writer->Commit();
  }

  const std::shared_ptr<ObjectStore> from_, to_;
  const DownloadOptions& options_;
  std::vector<FileToCopy> files_;
  DownloadProgress progress_;
  std::string buffer_;
};

absl::StatusOr<std::string> ReadCheckedManifest(ObjectStore* store, const ArtifactInfo& artifact) {
  auto bytes = store->Read(kManifestKey, kMaxManifestBytes);
  if (bytes.status().code() == absl::StatusCode::kNotFound) {
    return NotFound("ARTIFACT_NOT_FOUND",
                    absl::StrCat("there is no artifact at ", artifact.uri,
                                 absl::StartsWith(artifact.uri, "file://")
                                     ? " as this machine sees it; run the download where that "
                                       "file system is mounted"
                                     : ""));
  }
  UQ_RETURN_IF_ERROR(bytes.status());
  if (!artifact.manifest_sha256.empty() && Sha256Hex(*bytes) != artifact.manifest_sha256) {
    return MakeError(
        absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
        absl::StrCat(artifact.uri, "/", kManifestKey, " has SHA-256 ", Sha256Hex(*bytes),
                     ", but the job published ", artifact.manifest_sha256));
  }
  return bytes;
}

}  // namespace

absl::StatusOr<DownloadResult> DownloadArtifact(const ArtifactInfo& artifact,
                                                absl::string_view directory,
                                                const DownloadOptions& options) {
  std::error_code error;
  fs::path target = fs::absolute(fs::path(std::string(directory)), error).lexically_normal();
  if (target.filename().empty()) target = target.parent_path();  // "dir/"
  if (directory.empty() || error || target.filename().empty()) {
    return InvalidInput("INVALID_OUTPUT",
                        absl::StrCat("\"", directory, "\" does not name a new directory"));
  }
  UQ_ASSIGN_OR_RETURN(auto from, OpenObjectStore(artifact.uri));
  UQ_ASSIGN_OR_RETURN(const std::string manifest_json, ReadCheckedManifest(from.get(), artifact));
  UQ_ASSIGN_OR_RETURN(const Manifest manifest, Manifest::FromJson(manifest_json));
  UQ_ASSIGN_OR_RETURN(auto staging, StagingDirectory::Make(target));
  UQ_ASSIGN_OR_RETURN(auto to, OpenObjectStore(staging->path().string()));
  Downloader downloader(from, to, options);
  UQ_RETURN_IF_ERROR(downloader.Plan(manifest, Sha256Hex(manifest_json)));
  UQ_RETURN_IF_ERROR(downloader.CopyAll());
  UQ_RETURN_IF_ERROR(to->Write(kManifestKey, manifest_json));
  UQ_RETURN_IF_ERROR(staging->Place());
  DownloadResult result;
  result.directory = target.string();
  result.num_files = downloader.num_files() + 1;
  result.size_bytes = downloader.total_bytes() + static_cast<int64_t>(manifest_json.size());
  return result;
}

}  // namespace uniquanf
