// Bits under a budget: how many each fused set of modules gets (layers that read the same input, as
// q, k and v or gate and up, which serving runtimes fuse; all experts of a layer count as one), so
// that the model loses least on calibration data.
//
// One forward and one backward pass with random probes say how much an error of each block's output
// matters in the last hidden state, relative to its size. Then every set is quantized alone at the
// bits around the budget, and what its block's output loses, weighted by that, is what it costs.
// The start is the closed form of equal loss a weight (BAQ), b_i = b̄ + ½ log2(s_i / N_i) − mean;
// bits are exchanged from there until no exchange lowers the measured sum.
//
// Thread safety: the task's thread. Errors: as RunPrepare; kInvalidArgument (BUDGET_TOO_SMALL).
#ifndef UNIQUANF_WORKER_TASK_ALLOCATE_BITS_H_
#define UNIQUANF_WORKER_TASK_ALLOCATE_BITS_H_

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/task/plan.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

inline constexpr int kMostBits = 8;

// A set to be given bits. Sizes and costs by bits; those of 0 and 1 are not used.
struct BitsSet {
  std::vector<std::string> modules;
  int64_t num_weights = 0;
  std::array<int64_t, kMostBits + 1> size = {};  // of whatever the budget counts
  std::array<double, kMostBits + 1> cost = {};
};

// Bits of each set whose sizes add up to at most `budget`, where no set could have one bit more.
// Error: BUDGET_TOO_SMALL when 2 bits for all are too much.
absl::StatusOr<std::vector<int>> DistributeBits(const std::vector<BitsSet>& sets, int64_t budget);

// By linear layer of a block: the first of those that get the same bits as it.
std::vector<int> FusedSets(const BlockSpec& block);

// Bits by module, of those that no override decides. REQUIRES: the spec has a budget, and the plan
// has its calibration tokens, `ids`.
absl::StatusOr<std::map<std::string, int>> AllocateBits(const Plan& plan,
                                                        const Checkpoint& checkpoint,
                                                        const std::vector<int32_t>& ids,
                                                        const TaskEnvironment& env);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_ALLOCATE_BITS_H_
