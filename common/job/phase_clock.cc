#include "common/job/phase_clock.h"

#include <algorithm>

namespace uniquanf {

void PhaseClock::Leave(absl::Duration now) {
  if (phase_.empty()) return;
  const auto known = std::find_if(finished_.begin(), finished_.end(),
                                  [this](const PhaseTime& time) { return time.phase == phase_; });
  const absl::Duration spent = now - phase_started_at_;
  if (known == finished_.end()) {
    finished_.push_back({phase_, spent});
  } else {
    known->duration += spent;
  }
}

TaskProgress PhaseClock::Update(absl::string_view phase, int64_t step, int64_t num_steps,
                                double loss, absl::Duration now) {
  if (phase_ != phase || step < first_step_) {
    Leave(now);
    phase_ = std::string(phase);
    first_step_ = step;
    phase_started_at_ = now;
  }
  if (loss > 0 && step > 0) {
    history_.Add(step, static_cast<float>(loss));
    last_step_ = step;
    last_loss_ = static_cast<float>(loss);
  }
  TaskProgress progress;
  progress.phase = phase_;
  progress.step = step;
  progress.num_steps = num_steps;
  progress.loss = loss;
  progress.elapsed = now - phase_started_at_;
  progress.finished = finished_;
  const int64_t done = step - first_step_;
  const int64_t left = num_steps - step;
  if (done > 0 && left >= 0) {
    progress.remaining = progress.elapsed * (static_cast<double>(left) / static_cast<double>(done));
  }
  return progress;
}

std::vector<PhaseTime> PhaseClock::End(absl::Duration now) {
  Leave(now);
  phase_.clear();
  history_.Append(last_step_, last_loss_);
  return finished_;
}

}  // namespace uniquanf
