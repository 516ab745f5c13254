#include "server/runtime/stored_results.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf::server {

void StoredResults::FindMissing(JobView job, Callback done) const {
  thread_.Add([this, job = std::move(job), done = std::move(done)] { done(Look(job)); });
}

absl::StatusOr<std::set<std::string>> StoredResults::Look(const JobView& job) const {
  std::set<std::string> missing;
  for (const auto& task : job.tasks) {
    if (task->state == TaskState::kSucceeded) missing.insert(task->result_sha256);
  }
  if (missing.empty()) return missing;
  if (root_ == nullptr) {
    UQ_ASSIGN_OR_RETURN(root_, OpenObjectStore(object_root_, store_options_));
  }
  ListOptions options;
  options.prefix = absl::StrCat("work/", job.job->uid, "/objects/");
  while (true) {
    const absl::StatusOr<ListResult> listed = root_->List(options);
    if (absl::IsNotFound(listed.status())) return missing;
    UQ_RETURN_IF_ERROR(listed.status());
    for (const ObjectInfo& object : listed->objects) {
      missing.erase(object.key.substr(options.prefix.size()));
    }
    if (!listed->truncated || listed->objects.empty()) return missing;
    options.start_after = listed->objects.back().key;
  }
}

}  // namespace uniquanf::server
