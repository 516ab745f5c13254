// The last part of a layer task: what the stored block computes, and the next layer's inputs.
// Internal to worker/task.
//
// Thread safety: the task's thread. Errors: as RunLayer.
#ifndef UNIQUANF_WORKER_TASK_LAYER_MEASURE_H_
#define UNIQUANF_WORKER_TASK_LAYER_MEASURE_H_

#include <optional>

#include "absl/status/statusor.h"
#include "worker/task/layer_load.h"

namespace uniquanf {

struct Measured {
  double final_loss = 0;  // of the stored block, over the sequences that measured the initial loss
  std::optional<LayerRound> next_at_hand;  // its inputs went to the cache
};

// The stored block's output error, and the next layer's inputs for whoever runs it here. Uses up
// `loaded->inputs` and y_fp. REQUIRES: the block was reconstructed; `stored` are its stored
// weights.
absl::StatusOr<Measured> MeasureAndHandOn(const LayerTask& task, const BlockWeights& stored,
                                          Loaded* loaded);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_LAYER_MEASURE_H_
