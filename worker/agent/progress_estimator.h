// Turns a task's progress into what is reported: with the time that is left of the current phase,
// estimated from its pace so far.
//
// Thread safety: none; one per task. `now` is monotonic.
#ifndef UNIQUANF_WORKER_AGENT_PROGRESS_ESTIMATOR_H_
#define UNIQUANF_WORKER_AGENT_PROGRESS_ESTIMATOR_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "uniquanf/v1/task.pb.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

class ProgressEstimator {
 public:
  // `remaining` is unset while the phase has shown no step, or counts none.
  v1::TaskProgress Update(const TaskStepProgress& progress, absl::Duration now);

 private:
  std::string phase_;
  int64_t first_step_ = 0;
  absl::Duration phase_started_at_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_PROGRESS_ESTIMATOR_H_
