// What each step of a window's distillation uses: sequences and learning rates. Pure functions of
// the options, so a run can be checked and repeated. Thread-safe, no state.
#ifndef UNIQUANF_WORKER_DISTILL_WINDOW_SCHEDULE_H_
#define UNIQUANF_WORKER_DISTILL_WINDOW_SCHEDULE_H_

#include <cstdint>
#include <vector>

namespace uniquanf::distill {

// Sequences that do not train but judge: the last 8 of the further ones, which the layers' tasks
// have not seen either, where there are at least 32; else the last 8 of the calibration, or fewer
// where there are few.
inline constexpr int64_t kNumJudges = 8;
// How often a calibration sequence lies in the pool where there are further sequences.
inline constexpr int kCalibrationWeight = 4;

// Sequences are numbered: 0..num_calibration−1, then the further ones.
struct Pool {
  std::vector<int64_t> judges;
  std::vector<int64_t> training;  // with repetitions
};
Pool MakePool(int64_t num_calibration, int64_t num_further);

// The sequences of steps 0..num_steps−1, `batch_size` each, one after the other: the pool in an
// order shuffled anew each time it has gone through (quant::EpochOrder), without a seam.
std::vector<int64_t> StepSequences(const Pool& pool, uint64_t seed, int64_t num_steps,
                                   int batch_size);

// The part of the learning rates in step `step`: linear from 1/20 to 1 over the first 20 steps (or
// the first tenth, where that is shorter), times a cosine to 0 over all of them.
double RateFactor(int64_t step, int64_t num_steps);

// The steps after which the judges are asked: 12 of them, as evenly as it goes, the last one among
// them.
std::vector<int64_t> JudgedSteps(int64_t num_steps);

}  // namespace uniquanf::distill

#endif  // UNIQUANF_WORKER_DISTILL_WINDOW_SCHEDULE_H_
