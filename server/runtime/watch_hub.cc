#include "server/runtime/watch_hub.h"

#include <utility>
#include <vector>

#include "absl/time/clock.h"

namespace uniquanf::server {
namespace {
constexpr absl::Duration kTick = absl::Seconds(1);
}  // namespace

WatchHub::WatchHub() : thread_([this] { Run(); }) {}

WatchHub::~WatchHub() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

void WatchHub::Add(uint64_t job, std::shared_ptr<JobWatcher> watcher) {
  bool shutdown;
  {
    absl::MutexLock lock(&mutex_);
    JobWatcher* key = watcher.get();
    if (watchers_[job].emplace(key, watcher).second) ++num_watchers_;
    shutdown = shutdown_;
  }
  if (shutdown) watcher->OnShutdown();
}

void WatchHub::Remove(uint64_t job, JobWatcher* watcher) {
  std::shared_ptr<JobWatcher> last;  // let go outside the lock
  absl::MutexLock lock(&mutex_);
  const auto it = watchers_.find(job);
  if (it == watchers_.end()) return;
  const auto found = it->second.find(watcher);
  if (found == it->second.end()) return;
  last = std::move(found->second);
  it->second.erase(found);
  --num_watchers_;
  if (it->second.empty()) watchers_.erase(it);
}

void WatchHub::JobsChanged(const std::set<uint64_t>& jobs) {
  absl::MutexLock lock(&mutex_);
  for (const uint64_t job : jobs) {
    if (watchers_.count(job) > 0) changed_.insert(job);
  }
  if (!jobs.empty() && watchers_.count(kAllJobs) > 0) changed_.insert(kAllJobs);
}

void WatchHub::AllChanged() {
  absl::MutexLock lock(&mutex_);
  for (const auto& [job, watchers] : watchers_) changed_.insert(job);
}

void WatchHub::Shutdown() {
  {
    absl::MutexLock lock(&mutex_);
    shutdown_ = true;
  }
  EndStreams();
}

void WatchHub::EndStreams() {
  std::vector<std::shared_ptr<JobWatcher>> all;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [job, watchers] : watchers_) {
      for (const auto& [key, watcher] : watchers) all.push_back(watcher);
    }
  }
  for (const auto& watcher : all) watcher->OnShutdown();
}

int64_t WatchHub::num_watchers() const {
  absl::MutexLock lock(&mutex_);
  return num_watchers_;
}

void WatchHub::Run() {
  const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stop_ || !changed_.empty();
  };
  absl::Time next_tick = absl::Now() + kTick;
  while (true) {
    std::vector<std::shared_ptr<JobWatcher>> due, all;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithDeadline(absl::Condition(&has_work), next_tick);
      if (stop_) return;
      if (absl::Now() >= next_tick) {
        next_tick = absl::Now() + kTick;
        for (const auto& [job, watchers] : watchers_) {
          for (const auto& [key, watcher] : watchers) all.push_back(watcher);
        }
      }
      for (const uint64_t job : changed_) {
        const auto it = watchers_.find(job);
        if (it == watchers_.end()) continue;
        for (const auto& [key, watcher] : it->second) due.push_back(watcher);
      }
      changed_.clear();
    }
    for (const auto& watcher : due) watcher->OnJobChanged();
    for (const auto& watcher : all) watcher->OnTick();
  }
}

}  // namespace uniquanf::server
