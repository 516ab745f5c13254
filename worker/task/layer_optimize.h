// The second part of a layer task: quantizers are initialized and, where the method says so,
// trained together so that the block computes what the original does. Internal to worker/task.
//
// Thread safety: the task's thread. Errors: as RunLayer.
#ifndef UNIQUANF_WORKER_TASK_LAYER_OPTIMIZE_H_
#define UNIQUANF_WORKER_TASK_LAYER_OPTIMIZE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "worker/task/layer_load.h"
#include "worker/task/layer_state.h"

namespace uniquanf {

struct Optimized {
  QuantizerStates states;
  // ŵ of the quantized layers as they were trained, the others' weights as they were.
  BlockWeights weights;
  // Of all rounds so far; 0 and empty where there was no reconstruction.
  double initial_loss = 0;
  std::vector<float> loss_curve;
};

// Means of consecutive steps, at most `max_points` of them, so that a curve stays small.
std::vector<float> Condense(const std::vector<float>& losses, size_t max_points);

// Takes the weights out of `loaded`; once it has succeeded, so has the memory of those inputs that
// nobody needs any more.
absl::StatusOr<Optimized> OptimizeBlock(const LayerTask& task, Loaded* loaded);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_LAYER_OPTIMIZE_H_
