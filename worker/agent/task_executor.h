// How one slot runs tasks; the seam between leases (agent) and numerics (engine_executor).
//
// Thread safety: Execute is called by one thread, one task at a time; Cached by any thread, also
// meanwhile.
#ifndef UNIQUANF_WORKER_AGENT_TASK_EXECUTOR_H_
#define UNIQUANF_WORKER_AGENT_TASK_EXECUTOR_H_

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/stop_token.h"
#include "uniquanf/v1/worker_service.pb.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

struct TaskCallbacks {
  std::function<void(const TaskStepProgress&)>
      progress;    // also the sign of life that watchdogs need
  StopToken stop;  // poll often
};

class TaskExecutor {
 public:
  virtual ~TaskExecutor() = default;
  // Returns kCancelled soon after callbacks.stop says so; else errors as in task_runner.h. When it
  // returns OK the result is durable in the job's work store.
  virtual absl::StatusOr<v1::TaskOutcome> Execute(const v1::TaskAssignment& assignment,
                                                  const TaskCallbacks& callbacks) = 0;
  // Activations that the slot has at hand, for affinity.
  virtual std::vector<v1::CachedActivations> Cached() const { return {}; }
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_TASK_EXECUTOR_H_
