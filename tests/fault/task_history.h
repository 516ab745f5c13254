// What a job's watcher and the server's log may never show, whatever happens: a finished task that
// is unfinished again or finished otherwise, a final job that changes, an attempt given out twice.
//
// Thread safety: thread-safe.
#ifndef UNIQUANF_TESTS_FAULT_TASK_HISTORY_H_
#define UNIQUANF_TESTS_FAULT_TASK_HISTORY_H_

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/include/uniquanf/client.h"

namespace uniquanf {

class TaskHistory {
 public:
  void Add(const JobUpdate& update);
  std::optional<JobState> final_state() const;
  // A finished task whose result others still need, as last seen.
  std::optional<Task> FinishedTask() const;
  // The result of this task is about to be lost: it may run again.
  void NoteLoss(const std::string& task);
  std::set<std::string> losses() const;  // names of tasks
  std::vector<std::string> violations() const;

 private:
  mutable absl::Mutex mutex_;
  std::map<std::string, Task> tasks_ ABSL_GUARDED_BY(mutex_);  // the last seen
  std::set<std::string> losses_ ABSL_GUARDED_BY(mutex_);
  std::optional<JobState> final_state_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> violations_ ABSL_GUARDED_BY(mutex_);
};

// Of servers on one state that log JSON at level debug, their logs joined, over any number of
// restarts: every attempt of a task goes to one worker, no task but those of `losses` succeeds
// twice, and no two of them are active in the same epoch.
std::vector<std::string> CheckServerLog(const std::string& log,
                                        const std::set<std::string>& losses = {});

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_FAULT_TASK_HISTORY_H_
