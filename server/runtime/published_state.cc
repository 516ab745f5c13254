#include "server/runtime/published_state.h"

namespace uniquanf::server {
namespace {
constexpr size_t kMaxDeletions = 10000;
}  // namespace

void PublishedState::PublishJob(const State& state, uint64_t seq, Changes* changes) {
  const JobEntry& entry = state.jobs.at(seq);
  JobView& view = jobs_[seq];
  std::optional<JobState> before;
  if (view.job != nullptr) before = view.job->state;
  view.job = std::make_shared<const Job>(entry.job);
  job_of_id_.Add(entry.job.id, entry.job.tenant, seq);
  for (size_t i = view.tasks.size(); i < entry.tasks.size(); ++i) {
    view.tasks.push_back(std::make_shared<const Task>(entry.tasks[i]));
  }
  NoteChange(seq, &view);
  changes->jobs.insert(seq);
  if (before != entry.job.state) changes->transitions.push_back({view.job, before});
}

PublishedState::Changes PublishedState::Publish(const State& state, const Edits& edits) {
  Changes changes;
  absl::MutexLock lock(&mutex_);
  for (const uint64_t seq : edits.deleted_jobs) {
    const auto it = jobs_.find(seq);
    if (it == jobs_.end()) continue;
    job_of_id_.Remove(it->second.job->id, it->second.job->tenant);
    NoteDeletion(seq, it->second);
    jobs_.erase(it);
    changes.jobs.insert(seq);
  }
  for (const auto* jobs : {&edits.jobs, &edits.shown_jobs}) {
    for (const uint64_t seq : *jobs) {
      if (state.jobs.contains(seq)) PublishJob(state, seq, &changes);
    }
  }
  for (const auto* refs : {&edits.tasks, &edits.progress}) {
    for (const TaskRef& ref : *refs) {
      if (edits.jobs.count(ref.job) == 0 && changes.jobs.count(ref.job) == 0) {
        PublishJob(state, ref.job, &changes);
      }
      jobs_.at(ref.job).tasks.at(ref.index) =
          std::make_shared<const Task>(state.jobs.at(ref.job).tasks.at(ref.index));
    }
  }
  for (const std::string& uid : edits.garbage_added) garbage_.insert(uid);
  for (const std::string& uid : edits.garbage_removed) garbage_.erase(uid);
  return changes;
}

PublishedState::Changes PublishedState::PublishAll(const State& state) {
  Changes changes;
  absl::MutexLock lock(&mutex_);
  for (const auto& [seq, view] : jobs_) changes.jobs.insert(seq);
  std::map<uint64_t, JobView> old;
  old.swap(jobs_);
  job_of_change_.clear();
  job_of_id_.Clear();
  for (const auto& [seq, entry] : state.jobs) {
    const auto it = old.find(seq);
    if (it != old.end()) jobs_[seq].job = it->second.job;
    PublishJob(state, seq, &changes);
  }
  for (const auto& [seq, view] : old) {
    if (!state.jobs.contains(seq)) NoteDeletion(seq, view);
  }
  garbage_ = state.garbage;
  return changes;
}

void PublishedState::NoteChange(uint64_t seq, JobView* view) {
  job_of_change_.erase(view->change);
  view->change = ++num_changes_;
  job_of_change_[view->change] = seq;
}

void PublishedState::NoteDeletion(uint64_t seq, const JobView& view) {
  const auto last = job_of_change_.find(view.change);
  if (last != job_of_change_.end() && last->second == seq) job_of_change_.erase(last);
  deletions_.push_back({++num_changes_, view.job->id, view.job->tenant});
  if (deletions_.size() <= kMaxDeletions) return;
  forgotten_deletion_ = deletions_.front().change;
  deletions_.pop_front();
}

PublishedState::Feed PublishedState::ChangesAfter(uint64_t after, size_t max_jobs) const {
  absl::MutexLock lock(&mutex_);
  Feed feed;
  feed.too_old = after < forgotten_deletion_ && after > 0;
  feed.change = num_changes_;
  for (auto it = job_of_change_.upper_bound(after); it != job_of_change_.end(); ++it) {
    if (feed.changed.size() == max_jobs) {
      feed.change = feed.changed.back().change;
      break;
    }
    feed.changed.push_back(jobs_.at(it->second));
  }
  if (after == 0) return feed;
  for (const Deletion& deletion : deletions_) {
    if (deletion.change > after && deletion.change <= feed.change) {
      feed.deleted.emplace_back(deletion.id, deletion.tenant);
    }
  }
  return feed;
}

std::vector<JobView> PublishedState::FindAll(const std::string& id,
                                             const TenantScope& scope) const {
  absl::MutexLock lock(&mutex_);
  std::vector<JobView> found;
  for (const uint64_t seq : job_of_id_.Find(id, scope)) found.push_back(jobs_.at(seq));
  return found;
}

std::optional<JobView> PublishedState::Find(const std::string& id, const TenantScope& scope) const {
  std::vector<JobView> found = FindAll(id, scope);
  if (found.empty()) return std::nullopt;
  return std::move(found[0]);
}

std::optional<JobView> PublishedState::Find(uint64_t seq) const {
  absl::MutexLock lock(&mutex_);
  const auto it = jobs_.find(seq);
  if (it == jobs_.end()) return std::nullopt;
  return it->second;
}

std::shared_ptr<const Job> PublishedState::FindJob(uint64_t seq) const {
  absl::MutexLock lock(&mutex_);
  const auto it = jobs_.find(seq);
  return it == jobs_.end() ? nullptr : it->second.job;
}

std::vector<std::shared_ptr<const Job>> PublishedState::Jobs() const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<const Job>> jobs;
  jobs.reserve(jobs_.size());
  for (const auto& [seq, view] : jobs_) jobs.push_back(view.job);
  return jobs;
}

std::vector<std::string> PublishedState::Garbage() const {
  absl::MutexLock lock(&mutex_);
  return {garbage_.begin(), garbage_.end()};
}

}  // namespace uniquanf::server
