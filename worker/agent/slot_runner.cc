#include "worker/agent/slot_runner.h"

#include <exception>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"

namespace uniquanf {

SlotRunner::SlotRunner(TaskExecutor* executor, OnProgress on_progress, OnFinished on_finished)
    : executor_(executor),
      on_progress_(std::move(on_progress)),
      on_finished_(std::move(on_finished)),
      thread_([this] { Loop(); }) {}

SlotRunner::~SlotRunner() {
  Stop();
  {
    absl::MutexLock lock(&mutex_);
    exit_ = true;
  }
  thread_.join();
}

void SlotRunner::Start(const v1::TaskAssignment& assignment) {
  absl::MutexLock lock(&mutex_);
  UQ_CHECK(!next_.has_value());
  stop_.store(false);
  next_ = assignment;
}

void SlotRunner::Loop() {
  while (true) {
    v1::TaskAssignment assignment;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(
          +[](SlotRunner* self) ABSL_EXCLUSIVE_LOCKS_REQUIRED(self->mutex_) {
            return self->exit_ || self->next_.has_value();
          },
          this));
      if (exit_) return;
      assignment = *std::move(next_);
      next_.reset();
    }
    UQ_CRASH_POINT("worker.before_task");
    absl::StatusOr<v1::TaskOutcome> result = Execute(assignment);
    UQ_CRASH_POINT("worker.after_result_stored");
    on_finished_(std::move(result));
  }
}

// Exceptions come from the standard library and from third parties only; a task that runs out of
// host memory must not take the worker with it.
absl::StatusOr<v1::TaskOutcome> SlotRunner::Execute(const v1::TaskAssignment& assignment) {
  TaskCallbacks callbacks;
  callbacks.progress = on_progress_;
  callbacks.stop = [this] { return stop_.load(std::memory_order_relaxed); };
  try {
    return executor_->Execute(assignment, callbacks);
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                     "the worker's host memory is exhausted");
  } catch (const std::exception& error) {
    return MakeError(absl::StatusCode::kInternal, "EXCEPTION",
                     absl::StrCat("unexpected exception: ", error.what()));
  }
}

}  // namespace uniquanf
