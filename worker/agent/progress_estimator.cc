#include "worker/agent/progress_estimator.h"

#include "common/rpc/time_proto.h"

namespace uniquanf {

v1::TaskProgress ProgressEstimator::Update(const TaskStepProgress& progress, absl::Duration now) {
  if (phase_ != progress.phase || progress.step < first_step_) {
    phase_ = progress.phase;
    first_step_ = progress.step;
    phase_started_at_ = now;
  }
  v1::TaskProgress proto;
  proto.set_phase(phase_);
  proto.set_step(progress.step);
  proto.set_num_steps(progress.num_steps);
  proto.set_loss(progress.loss);
  const int64_t done = progress.step - first_step_;
  const int64_t left = progress.num_steps - progress.step;
  if (done > 0 && left >= 0) {
    const absl::Duration remaining =
        (now - phase_started_at_) * (static_cast<double>(left) / static_cast<double>(done));
    *proto.mutable_remaining() = DurationToProto(remaining);
  }
  return proto;
}

}  // namespace uniquanf
