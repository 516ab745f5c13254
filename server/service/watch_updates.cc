#include "server/service/watch_updates.h"

#include <utility>

#include "server/service/converters.h"

namespace uniquanf::server {
namespace {
// Few, so that a look through them is cheap: watchers of one job come one after another.
constexpr size_t kMaxKept = 16;
}  // namespace

std::optional<WatchUpdates::Update> WatchUpdates::After(uint64_t job, int64_t version,
                                                        int64_t tasks_version) {
  const std::shared_ptr<const Job> now = published_->FindJob(job);
  if (now == nullptr) return std::nullopt;
  if (now->version <= version) return Update{nullptr, IsFinal(now->state)};
  {
    absl::MutexLock lock(&mutex_);
    for (const Made& made : made_) {
      if (made.job == job && made.version == now->version && made.tasks_version == tasks_version) {
        return made.update;
      }
    }
  }
  // Two threads may make the same one at a time; either will do.
  const std::optional<JobView> view = published_->Find(job);
  if (!view.has_value()) return std::nullopt;
  auto response = std::make_shared<v1::WatchJobResponse>();
  JobToProto(*view, response->mutable_job());
  for (const auto& task : view->tasks) {
    if (task->version > tasks_version) TaskToProto(view->job->id, *task, response->add_tasks());
  }
  Update update{std::move(response), IsFinal(view->job->state)};
  absl::MutexLock lock(&mutex_);
  ++num_made_;
  made_.push_front({job, tasks_version, view->job->version, update});
  if (made_.size() > kMaxKept) made_.pop_back();
  return update;
}

int64_t WatchUpdates::num_made() const {
  absl::MutexLock lock(&mutex_);
  return num_made_;
}

}  // namespace uniquanf::server
