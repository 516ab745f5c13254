#include "server/service/watch_updates.h"

#include <utility>

namespace uniquanf::server {
namespace {
// Few, so that a look through them is cheap: watchers of one job come one after another.
constexpr size_t kMaxKept = 16;
// Of tasks in one message, which clients refuse beyond 4 MiB.
constexpr size_t kMaxTaskBytes = 1 << 20;
}  // namespace

std::optional<WatchUpdates::Update> WatchUpdates::After(uint64_t job, int64_t version,
                                                        int64_t tasks_version, NameForm form) {
  const std::shared_ptr<const Job> now = published_->FindJob(job);
  if (now == nullptr) return std::nullopt;
  if (now->version <= version) return Update{{}, IsFinal(now->state)};
  {
    absl::MutexLock lock(&mutex_);
    for (const Made& made : made_) {
      if (made.job == job && made.version == now->version && made.tasks_version == tasks_version &&
          made.form == form) {
        return made.update;
      }
    }
  }
  // Two threads may make the same one at a time; either will do.
  const std::optional<JobView> view = published_->Find(job);
  if (!view.has_value()) return std::nullopt;
  Update update{{}, IsFinal(view->job->state)};
  auto response = std::make_shared<v1::WatchJobResponse>();
  JobToProto(*view, form, response->mutable_job());
  size_t num_bytes = 0;
  for (const auto& task : view->tasks) {
    if (task->version <= tasks_version) continue;
    if (num_bytes > kMaxTaskBytes) {
      auto next = std::make_shared<v1::WatchJobResponse>();
      *next->mutable_job() = response->job();
      response->set_more(true);
      update.responses.push_back(std::move(response));
      response = std::move(next);
      num_bytes = 0;
    }
    v1::Task* proto = response->add_tasks();
    TaskToProto(response->job().name(), *task, proto);
    num_bytes += proto->ByteSizeLong();
  }
  update.responses.push_back(std::move(response));
  absl::MutexLock lock(&mutex_);
  ++num_made_;
  made_.push_front({job, tasks_version, view->job->version, form, update});
  if (made_.size() > kMaxKept) made_.pop_back();
  return update;
}

int64_t WatchUpdates::num_made() const {
  absl::MutexLock lock(&mutex_);
  return num_made_;
}

}  // namespace uniquanf::server
