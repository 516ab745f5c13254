// What each step of a reconstruction uses: sequences, learning rates, mapping. Pure functions of
// the options and the step's number, so a run can be checked and repeated. Thread-safe, no state.
#ifndef UNIQUANF_WORKER_QUANT_STEP_SCHEDULE_H_
#define UNIQUANF_WORKER_QUANT_STEP_SCHEDULE_H_

#include <cstdint>
#include <vector>

#include "worker/ops/op.h"
#include "worker/quant/reconstruct.h"

namespace uniquanf::quant {

// The order in which epoch `epoch` visits the sequences 0..num_sequences−1: Fisher–Yates from the
// last place down to 1, place i exchanged with floor(r·(i+1)/2^64), where r is the first two words
// (low, high) of PhiloxAt(seed, stream = 2^63 + epoch, counter = i). The streams below 2^63 belong
// to the steps' input mixing. Without shuffling: in file order.
std::vector<int64_t> EpochOrder(uint64_t seed, int64_t epoch, int64_t num_sequences, bool shuffle);

// Hands out the parameters of the steps from first_step on. The orders of all epochs follow one
// another without a seam, and each step takes the next batch_size sequences: there is no partial
// batch and none is dropped; a batch may straddle two epochs.
class StepSchedule {
 public:
  // direct_mapping: every pass maps directly (FlexRound rounds anew each time).
  StepSchedule(const ReconstructOptions& options, int64_t num_sequences, bool direct_mapping);

  // Learning rates follow PyTorch's CosineAnnealingLR with T_max = num_steps and minimum 0:
  // rate·(1 + cos(π·step/num_steps))/2. The mapping is that of the pass after this step's update:
  // pass step + 2, or kKeep after the last step, so that the final ŵ has the codes trained with.
  // kKeep too after the last step of a part.
  // REQUIRES: called at most end_step − first_step times.
  ops::StepParams Next();

 private:
  const ReconstructOptions options_;
  const int64_t num_sequences_;
  const bool direct_mapping_;
  const int64_t end_step_;
  int64_t step_;
  int64_t position_;  // in the endless sequence of epochs
  std::vector<int64_t> order_;
};

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_STEP_SCHEDULE_H_
