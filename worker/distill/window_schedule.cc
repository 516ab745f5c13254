#include "worker/distill/window_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "worker/quant/step_schedule.h"

namespace uniquanf::distill {
namespace {
constexpr int64_t kWarmUpSteps = 20;
constexpr int64_t kNumJudgements = 12;
}  // namespace

Pool MakePool(int64_t num_calibration, int64_t num_further) {
  Pool pool;
  const bool others_judge = num_further >= 4 * kNumJudges;
  // A single sequence does both.
  const int64_t num_judges =
      others_judge ? kNumJudges : std::clamp<int64_t>(num_calibration / 4, 1, kNumJudges);
  const int64_t end = num_calibration + (others_judge ? num_further : 0);
  for (int64_t s = end - num_judges; s < end; ++s) pool.judges.push_back(s);
  const int64_t num_trained =
      others_judge ? num_calibration : std::max<int64_t>(num_calibration - num_judges, 1);
  const int repetitions = num_further > 0 ? kCalibrationWeight : 1;
  for (int i = 0; i < repetitions; ++i) {
    for (int64_t s = 0; s < num_trained; ++s) pool.training.push_back(s);
  }
  const int64_t num_others = num_further - (others_judge ? num_judges : 0);
  for (int64_t s = 0; s < num_others; ++s) pool.training.push_back(num_calibration + s);
  return pool;
}

std::vector<int64_t> StepSequences(const Pool& pool, uint64_t seed, int64_t num_steps,
                                   int batch_size) {
  const auto size = static_cast<int64_t>(pool.training.size());
  std::vector<int64_t> order, sequences;
  sequences.reserve(num_steps * batch_size);
  for (int64_t i = 0; i < num_steps * batch_size; ++i) {
    if (i % size == 0) order = quant::EpochOrder(seed, i / size, size, /*shuffle=*/true);
    sequences.push_back(pool.training[order[i % size]]);
  }
  return sequences;
}

double RateFactor(int64_t step, int64_t num_steps) {
  const int64_t warm_up = std::clamp<int64_t>(num_steps / 10, 1, kWarmUpSteps);
  const double rise = std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(warm_up));
  const double part = static_cast<double>(step) / static_cast<double>(num_steps);
  return rise * (1 + std::cos(std::numbers::pi * part)) / 2;
}

std::vector<int64_t> JudgedSteps(int64_t num_steps) {
  std::vector<int64_t> steps;
  for (int64_t i = 1; i <= kNumJudgements; ++i) {
    const int64_t step = num_steps * i / kNumJudgements;
    if (step > 0 && (steps.empty() || steps.back() != step)) steps.push_back(step);
  }
  return steps;
}

}  // namespace uniquanf::distill
