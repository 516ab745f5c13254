// Memory of a window's task, known before it starts. Internal to worker/task.
//
// Errors: kResourceExhausted (OUT_OF_MEMORY) says what is needed, what there is, and what to
// change.
#ifndef UNIQUANF_WORKER_TASK_WINDOW_MEMORY_H_
#define UNIQUANF_WORKER_TASK_WINDOW_MEMORY_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/model/model_config.h"
#include "worker/task/memory_plan.h"
#include "worker/task/plan.h"

namespace uniquanf {

struct WindowMemory {
  uint64_t fixed_bytes = 0;   // on the device: weights, latents, gradients
  uint64_t step_bytes = 0;    // a step's activations and scratch, layers sharing what they can
  uint64_t kept_bytes = 0;    // more, when every layer keeps its activations
  uint64_t hidden_bytes = 0;  // on the host: hidden states of all sequences
  uint64_t host_bytes = 0;    // on the host: the window's weights as they were read
};
WindowMemory EstimateWindowMemory(const Plan& plan, const ModelConfig& config, int first_layer,
                                  const Backend& backend, DType act);

// Most that a window of the plan needs of what a worker announces; 0 where nothing is distilled.
uint64_t WindowMemoryBytes(const Plan& plan, const ModelConfig& config, const TaskEnvironment& env);

// Whether every layer can keep its activations, or an error where the window does not fit at all.
absl::StatusOr<bool> PlanWindowMemory(const Plan& plan, const ModelConfig& config, int first_layer,
                                      const AvailableMemory& available, const TaskEnvironment& env);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_WINDOW_MEMORY_H_
