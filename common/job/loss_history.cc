#include "common/job/loss_history.h"

#include <algorithm>
#include <cmath>

namespace uniquanf {

void LossHistory::Add(int64_t step, float loss) {
  if (empty() || step - last_step() >= gap_) Append(step, loss);
}

void LossHistory::Append(int64_t step, float loss) {
  if (step <= last_step() || !std::isfinite(loss)) return;
  if (size() == kMaxPoints) {
    for (size_t i = 0; i < kMaxPoints / 2; ++i) {
      steps_[i] = steps_[2 * i];
      losses_[i] = losses_[2 * i];
    }
    steps_.resize(kMaxPoints / 2);
    losses_.resize(kMaxPoints / 2);
    // A little less than what lies between them now, for steps that do not come evenly.
    const int64_t spacing = (steps_.back() - steps_.front()) / static_cast<int64_t>(size() - 1);
    gap_ = std::max<int64_t>(1, spacing - spacing / 4);
  }
  steps_.push_back(step);
  losses_.push_back(loss);
}

}  // namespace uniquanf
