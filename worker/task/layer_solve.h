// The second part of a layer task for methods that solve each linear layer from the moments of its
// inputs instead of training. Internal to worker/task.
//
// Thread safety: the task's thread. Errors: as RunLayer.
#ifndef UNIQUANF_WORKER_TASK_LAYER_SOLVE_H_
#define UNIQUANF_WORKER_TASK_LAYER_SOLVE_H_

#include "absl/status/status.h"
#include "worker/task/layer_optimize.h"

namespace uniquanf {

// Fills optimized->states and weights; `scaled` goes on to change where the method scales channels.
// REQUIRES: the method solves, and the task has its inputs.
absl::Status SolveBlock(const LayerTask& task, Loaded* loaded, quant::ScaledBlock* scaled,
                        Optimized* optimized);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_LAYER_SOLVE_H_
