// What readers see: the jobs and tasks of the last committed state, as immutable values. The writer
// publishes after every commit; readers never wait for it longer than a pointer swap.
//
// Thread safety: thread-safe. Ownership: values are shared and immutable.
#ifndef UNIQUANF_SERVER_RUNTIME_PUBLISHED_STATE_H_
#define UNIQUANF_SERVER_RUNTIME_PUBLISHED_STATE_H_

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/core/state.h"
#include "server/core/types.h"

namespace uniquanf::server {

struct JobView {
  std::shared_ptr<const Job> job;
  std::vector<std::shared_ptr<const Task>> tasks;
  uint64_t change = 0;  // the number of its last change, counted over all jobs
};

class PublishedState {
 public:
  // Takes over what `edits` changed. Returns the jobs concerned, and those whose state changed with
  // the state before (nullopt: new).
  struct Changes {
    std::set<uint64_t> jobs;
    std::vector<std::pair<std::shared_ptr<const Job>, std::optional<JobState>>> transitions;
  };
  Changes Publish(const State& state, const Edits& edits);
  // Takes over everything.
  Changes PublishAll(const State& state);

  // Those of this id that tenants of `scope` have; several where ids are not global.
  std::vector<JobView> FindAll(const std::string& id, const TenantScope& scope) const;
  // The first of them; nullopt: there is none.
  std::optional<JobView> Find(const std::string& id, const TenantScope& scope = {}) const;
  std::optional<JobView> Find(uint64_t seq) const;
  // The job alone, which costs the same for a job of any size; null when there is none.
  std::shared_ptr<const Job> FindJob(uint64_t seq) const;
  // All jobs in order of creation.
  std::vector<std::shared_ptr<const Job>> Jobs() const;
  std::vector<std::string> Garbage() const;

  // Changes of all jobs are counted, for whoever follows them. Only this process knows the numbers.
  struct Feed {
    std::vector<JobView> changed;                              // in the order of their last changes
    std::vector<std::pair<std::string, std::string>> deleted;  // (id, tenant)
    uint64_t change = 0;                                       // continue after this one
    bool too_old = false;  // jobs that were deleted after `after` are forgotten
  };
  // What has changed after the change `after` (0: everything), at most `max_jobs` of it.
  Feed ChangesAfter(uint64_t after, size_t max_jobs) const;

 private:
  void NoteChange(uint64_t seq, JobView* view) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteDeletion(uint64_t seq, const JobView& view) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void PublishJob(const State& state, uint64_t seq, Changes* changes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::map<uint64_t, JobView> jobs_ ABSL_GUARDED_BY(mutex_);
  JobIndex job_of_id_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> garbage_ ABSL_GUARDED_BY(mutex_);
  uint64_t num_changes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, uint64_t> job_of_change_ ABSL_GUARDED_BY(mutex_);  // each job's last
  struct Deletion {
    uint64_t change;
    std::string id, tenant;
  };
  std::deque<Deletion> deletions_ ABSL_GUARDED_BY(mutex_);  // the latest, oldest first
  uint64_t forgotten_deletion_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_RUNTIME_PUBLISHED_STATE_H_
