// What readers see: the jobs and tasks of the last committed state, as immutable values. The writer
// publishes after every commit; readers never wait for it longer than a pointer swap.
//
// Thread safety: thread-safe. Ownership: values are shared and immutable.
#ifndef UNIQUANF_SERVER_RUNTIME_PUBLISHED_STATE_H_
#define UNIQUANF_SERVER_RUNTIME_PUBLISHED_STATE_H_

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/core/state.h"
#include "server/core/types.h"

namespace uniquanf::server {

struct JobView {
  std::shared_ptr<const Job> job;
  std::vector<std::shared_ptr<const Task>> tasks;
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

 private:
  void PublishJob(const State& state, uint64_t seq, Changes* changes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::map<uint64_t, JobView> jobs_ ABSL_GUARDED_BY(mutex_);
  JobIndex job_of_id_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> garbage_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_RUNTIME_PUBLISHED_STATE_H_
