// The loss over a task's steps, bounded: at most kMaxPoints, of which every second one is dropped
// when they become more; later ones are then taken half as often, so that what is kept covers the
// run evenly from its first step.
//
// Thread safety: a plain value.
#ifndef UNIQUANF_COMMON_JOB_LOSS_HISTORY_H_
#define UNIQUANF_COMMON_JOB_LOSS_HISTORY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace uniquanf {

class LossHistory {
 public:
  static constexpr size_t kMaxPoints = 256;

  // A point that lies too near to the last one, or has no finite loss, is left out.
  void Add(int64_t step, float loss);
  // Also a near one, where it lies after the last one: the end of the run, and what another history
  // has chosen.
  void Append(int64_t step, float loss);

  const std::vector<int64_t>& steps() const { return steps_; }
  const std::vector<float>& losses() const { return losses_; }
  size_t size() const { return steps_.size(); }
  bool empty() const { return steps_.empty(); }
  int64_t last_step() const { return steps_.empty() ? 0 : steps_.back(); }

 private:
  std::vector<int64_t> steps_;
  std::vector<float> losses_;
  int64_t gap_ = 1;  // steps between points, at least
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_JOB_LOSS_HISTORY_H_
