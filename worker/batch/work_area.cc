#include "worker/batch/work_area.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "common/object_store/caching_store.h"
#include "common/spec/spec_flags.h"

namespace uniquanf::batch {
namespace {

std::string JournalKey(const std::string& plan_sha256, const TaskKey& task) {
  const char* const kind = task.kind == TaskKind::kDistill ? "distill-" : "";
  return absl::StrCat("journal/", plan_sha256, "/", kind, task.layer, "-", task.round);
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkArea>> WorkArea::Open(const std::string& work_uri,
                                                         const std::string& output_uri,
                                                         std::shared_ptr<ObjectCache> cache) {
  std::unique_ptr<WorkArea> area(new WorkArea());
  const std::string output = AbsoluteUri(output_uri);
  area->uri_ = AbsoluteUri(work_uri);
  if (work_uri.empty()) {
    if (!absl::StartsWith(output, "file://")) {
      return InvalidInput(
          "INVALID_FLAG",
          absl::StrCat("the output ", output,
                       " is not a local directory; name a place for work in progress "
                       "with --work DIR"));
    }
    area->uri_ = absl::StrCat(absl::StripSuffix(output, "/"), ".partial");
  }
  UQ_ASSIGN_OR_RETURN(area->store_, OpenObjectStoreThrough(area->uri_, std::move(cache)));
  if (!absl::StartsWith(area->uri_, "file://")) return area;

  area->local_path_ = area->uri_.substr(strlen("file://"));
  std::error_code error;
  area->created_ = std::filesystem::create_directories(area->local_path_, error);
  if (error) {
    return MakeError(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED",
                     absl::StrCat("cannot create ", area->local_path_, ": ", error.message()));
  }
  if (area->created_) {
    std::filesystem::permissions(area->local_path_, std::filesystem::perms::owner_all, error);
  }
  const std::string lock = absl::StrCat(area->local_path_, "/lock");
  area->lock_fd_ = open(lock.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (area->lock_fd_ < 0) {
    return MakeError(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED",
                     absl::StrCat("cannot write in ", area->local_path_, ": ", strerror(errno)));
  }
  if (flock(area->lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    return FailedPrecondition("WORK_IN_USE",
                              absl::StrCat("another process is working in ", area->local_path_,
                                           "; wait for it, or choose another --output or --work"));
  }
  return area;
}

WorkArea::~WorkArea() {
  if (lock_fd_ >= 0) close(lock_fd_);
}

std::string WorkArea::Finished(const std::string& plan_sha256, const TaskKey& task) const {
  return store_->Read(JournalKey(plan_sha256, task), 1024).value_or("");
}

absl::Status WorkArea::RecordFinished(const std::string& plan_sha256, const TaskKey& task,
                                      const std::string& result_sha256) {
  return store_->Write(JournalKey(plan_sha256, task), result_sha256);
}

bool WorkArea::HasProgress() const {
  ListOptions options;
  options.prefix = "journal/";
  options.max_results = 1;
  const auto listed = store_->List(options);
  return listed.ok() && !listed->objects.empty();
}

absl::Status WorkArea::Remove() {
  if (!local_path_.empty()) {
    std::error_code error;
    std::filesystem::remove_all(local_path_, error);
    if (!error) return absl::OkStatus();
    return MakeError(absl::StatusCode::kInternal, "WORK_NOT_REMOVED",
                     absl::StrCat("cannot remove ", local_path_, ": ", error.message()));
  }
  for (;;) {
    UQ_ASSIGN_OR_RETURN(const ListResult listed, store_->List({}));
    for (const ObjectInfo& object : listed.objects) UQ_RETURN_IF_ERROR(store_->Delete(object.key));
    if (!listed.truncated) return absl::OkStatus();
  }
}

}  // namespace uniquanf::batch
