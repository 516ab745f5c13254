// Measures the phases of a task that runs: turns its steps into what is reported of it, with the
// loss over its steps, and the time that is left of the present phase by its pace so far.
//
// Thread safety: none; one per attempt at a task. `now` is monotonic.
#ifndef UNIQUANF_COMMON_JOB_PHASE_CLOCK_H_
#define UNIQUANF_COMMON_JOB_PHASE_CLOCK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/job/job.h"
#include "common/job/loss_history.h"

namespace uniquanf {

class PhaseClock {
 public:
  // `remaining` is unset while the phase has shown no step, or counts none.
  TaskProgress Update(absl::string_view phase, int64_t step, int64_t num_steps, double loss,
                      absl::Duration now);
  // Of all phases, in the order of their first visits, when the task is over.
  std::vector<PhaseTime> End(absl::Duration now);
  const LossHistory& history() const { return history_; }

 private:
  void Leave(absl::Duration now);

  std::string phase_;
  int64_t first_step_ = 0;
  absl::Duration phase_started_at_;
  absl::Duration started_at_;
  std::vector<PhaseTime> finished_;
  LossHistory history_;
  int64_t last_step_ = 0;
  float last_loss_ = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_JOB_PHASE_CLOCK_H_
