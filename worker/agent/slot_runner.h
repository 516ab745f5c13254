// One thread that runs one task at a time on one executor.
//
// Thread safety: all methods may be called from any thread. Ownership: borrows the executor, which
// outlives it. The destructor stops the running task and waits for it; a process that has a task
// that does not return must end without it (std::_Exit).
#ifndef UNIQUANF_WORKER_AGENT_SLOT_RUNNER_H_
#define UNIQUANF_WORKER_AGENT_SLOT_RUNNER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "worker/agent/task_executor.h"

namespace uniquanf {

class SlotRunner {
 public:
  using OnProgress = std::function<void(const TaskStepProgress&)>;
  using OnFinished = std::function<void(absl::StatusOr<v1::TaskOutcome>)>;
  // Both are called from the slot's thread, without a lock held.
  SlotRunner(TaskExecutor* executor, OnProgress on_progress, OnFinished on_finished);
  ~SlotRunner();
  SlotRunner(const SlotRunner&) = delete;
  SlotRunner& operator=(const SlotRunner&) = delete;

  // REQUIRES: the task started before, if any, has finished (on_finished was called).
  void Start(const v1::TaskAssignment& assignment);
  // Asks the running task to return; no effect when there is none.
  void Stop() { stop_.store(true); }

 private:
  void Loop();
  absl::StatusOr<v1::TaskOutcome> Execute(const v1::TaskAssignment& assignment);

  TaskExecutor* const executor_;
  const OnProgress on_progress_;
  const OnFinished on_finished_;
  std::atomic<bool> stop_{false};
  absl::Mutex mutex_;
  std::optional<v1::TaskAssignment> next_ ABSL_GUARDED_BY(mutex_);
  bool exit_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_SLOT_RUNNER_H_
