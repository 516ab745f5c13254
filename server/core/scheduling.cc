#include <algorithm>

#include "server/core/mutations.h"

namespace uniquanf::server {

void Mutation::RefreshQueue(JobEntry* entry) {
  const Job& job = entry->job;
  const bool wanted =
      !entry->ready.empty() && (job.state == JobState::kQueued || job.state == JobState::kRunning);
  std::optional<QueueKey> key;
  if (wanted) {
    key = QueueKey{-job.priority,
                   job.tenant,
                   job.device,
                   job.state == JobState::kQueued,
                   MemoryNeeded(job, entry->tasks[*entry->ready.begin()]),
                   RequiredLabels(job),
                   entry->num_ready_choosy > 0};
  }
  if (!wanted) entry->job.num_before = -1;
  if (key == entry->queued_as) return;
  if (entry->queued_as.has_value()) {
    const auto it = state_.queue.find(*entry->queued_as);
    it->second.erase(job.seq);
    if (it->second.empty()) state_.queue.erase(it);
  }
  if (key.has_value()) state_.queue[*key].insert(job.seq);
  entry->queued_as = std::move(key);
}

std::optional<int32_t> Mutation::TaskFor(const JobEntry& entry, const Session& session) const {
  const Job& job = entry.job;
  if (job.state == JobState::kQueued) {
    const int limit = state_.policy.max_running_jobs_per_tenant;
    if (limit > 0 && state_.tenants.at(job.tenant).num_running_jobs >= limit) return std::nullopt;
  }
  for (const CachedActivations& cached : session.cached) {
    if (cached.job != job.id) continue;
    const auto it = entry.task_of_layer.find({cached.round, cached.layer});
    if (it != entry.task_of_layer.end() && entry.ready.count(it->second) > 0 &&
        Fits(job, entry.tasks[it->second], session.capabilities) &&
        MayRun(job, entry.tasks[it->second], session)) {
      return it->second;
    }
  }
  for (const int32_t index : entry.ready) {
    const Task& task = entry.tasks[index];
    if (Fits(job, task, session.capabilities) && MayRun(job, task, session)) return index;
    // What keeps a worker from a task that is not choosy keeps it from all of them.
    if (!IsChoosy(task)) return std::nullopt;
  }
  return std::nullopt;
}

std::optional<TaskRef> Mutation::FirstOf(const QueueKey& key, const std::set<uint64_t>& queue,
                                         const Session& session) const {
  for (const uint64_t seq : queue) {
    if (const auto index = TaskFor(state_.jobs.at(seq), session); index.has_value()) {
      return TaskRef{seq, *index};
    }
    if (!key.uneven) break;  // what does not fit the first fits none
  }
  return std::nullopt;
}

std::optional<TaskRef> Mutation::Pick(const Session& session) const {
  struct Candidate {
    double used_seconds;
    std::vector<std::map<QueueKey, std::set<uint64_t>>::const_iterator> queues;
  };
  auto it = state_.queue.begin();
  while (it != state_.queue.end()) {
    // All queues of one priority that this device can serve, by tenant.
    const int32_t negative_priority = it->first.negative_priority;
    std::map<std::string, Candidate> tenants;
    for (; it != state_.queue.end() && it->first.negative_priority == negative_priority; ++it) {
      const QueueKey& key = it->first;
      if (!key.device.empty() && key.device != session.capabilities.device) continue;
      Candidate& candidate = tenants[key.tenant];
      candidate.used_seconds = state_.tenants.at(key.tenant).UsedSeconds(now_.mono);
      candidate.queues.push_back(it);
    }
    std::vector<const Candidate*> order;
    for (const auto& [name, candidate] : tenants) order.push_back(&candidate);
    std::stable_sort(order.begin(), order.end(), [](const Candidate* a, const Candidate* b) {
      return a->used_seconds < b->used_seconds;
    });
    for (const Candidate* candidate : order) {
      // The tenant's oldest job that has a task for this worker.
      std::optional<TaskRef> oldest;
      for (const auto& queue : candidate->queues) {
        const std::optional<TaskRef> first = FirstOf(queue->first, queue->second, session);
        if (first.has_value() && (!oldest.has_value() || first->job < oldest->job)) oldest = first;
      }
      if (oldest.has_value()) return oldest;
    }
  }
  return std::nullopt;
}

void Mutation::MatchParked() {
  if (state_.parked.empty() || !state_.leasing) return;
  std::set<std::string> assigned;
  if (rematch_all_) {
    const std::map<std::string, Session*> parked = state_.parked;
    for (const auto& [id, session] : parked) {
      while (CanTakeTasks(*session)) {
        const std::optional<TaskRef> ref = Pick(*session);
        if (!ref.has_value()) break;
        Lease(session, *ref);
        assigned.insert(id);
      }
    }
  }
  // Jobs that became leasable at once, such as by timers of one tick, in the order in which a
  // worker that calls would be given them.
  std::vector<uint64_t> order(matchable_.begin(), matchable_.end());
  const auto priority = [this](uint64_t seq) {
    const auto it = state_.jobs.find(seq);
    return it == state_.jobs.end() ? 0 : it->second.job.priority;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](uint64_t a, uint64_t b) { return priority(a) > priority(b); });
  for (const uint64_t seq : order) {
    const auto it = state_.jobs.find(seq);
    if (it == state_.jobs.end()) continue;
    JobEntry& entry = it->second;
    while (entry.queued_as.has_value()) {
      // Whoever has the activations first, else whoever has had no task for longest.
      Session* best = nullptr;
      int32_t best_index = 0;
      bool best_cached = false;
      for (const auto& [id, session] : state_.parked) {
        if (!CanTakeTasks(*session)) continue;
        const bool cached =
            std::any_of(session->cached.begin(), session->cached.end(), [&](const auto& c) {
              const auto layer = entry.task_of_layer.find({c.round, c.layer});
              return c.job == entry.job.id && layer != entry.task_of_layer.end() &&
                     entry.ready.count(layer->second) > 0;
            });
        if (best != nullptr &&
            (cached == best_cached ? session->last_given > best->last_given : best_cached)) {
          continue;
        }
        const auto index = TaskFor(entry, *session);
        if (!index.has_value()) continue;
        best = session;
        best_index = *index;
        best_cached = cached;
      }
      if (best == nullptr) break;
      Lease(best, {seq, best_index});
      assigned.insert(best->id);
    }
  }
  for (const std::string& id : assigned) Wake(id);
  MatchChecks();
}

}  // namespace uniquanf::server
