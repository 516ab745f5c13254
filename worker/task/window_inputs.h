// What a window's distillation runs on. Internal to worker/task.
#ifndef UNIQUANF_WORKER_TASK_WINDOW_INPUTS_H_
#define UNIQUANF_WORKER_TASK_WINDOW_INPUTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/task/activation_cache.h"
#include "worker/task/task_context.h"

namespace uniquanf {

// The sequences that the windows of the plan use, calibration first, then further ones: those of
// all steps one after the other, and those that judge. The same for every window.
struct WindowSequences {
  std::vector<int64_t> training, judges;
  std::vector<int64_t> Used() const;  // each once, ascending
};
WindowSequences SequencesOf(const Plan& plan);

// Recomputed: the original model's last hidden states, and the inputs of layer `layer` through the
// layers before it as stored (`before`: their results). The same bits as those kept in the cache.
absl::StatusOr<WindowInputs> RecomputeWindowInputs(const TaskContext& context, int layer,
                                                   const std::vector<LayerResult>& before,
                                                   const RopeTables& rope,
                                                   const TaskEnvironment& env);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_WINDOW_INPUTS_H_
