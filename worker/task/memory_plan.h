// Device memory of a layer task, known before it starts: what must be on the device, and what may
// lie on the host when it does not fit. Internal to worker/task.
//
// Errors: kResourceExhausted (OUT_OF_MEMORY) says what is needed, what there is, and what to
// change.
#ifndef UNIQUANF_WORKER_TASK_MEMORY_PLAN_H_
#define UNIQUANF_WORKER_TASK_MEMORY_PLAN_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/backend/sequence_buffer.h"
#include "worker/model/model_config.h"
#include "worker/task/plan.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

struct LayerMemory {
  uint64_t fixed_bytes = 0;        // weights and optimizer state
  uint64_t step_bytes = 0;         // one micro-batch's activations and scratch
  uint64_t calibration_bytes = 0;  // cached activations of all sequences
  uint64_t staging_bytes = 0;      // this micro-batch's sequences and the next one's, from the host
  uint64_t on_device() const { return fixed_bytes + step_bytes + calibration_bytes; }
  uint64_t on_host() const { return fixed_bytes + step_bytes + staging_bytes; }
};

LayerMemory EstimateLayerMemory(const Plan& plan, const ModelConfig& config, int layer,
                                const Backend& backend, DType act);

struct MemoryPlan {
  SequenceBuffer::Placement activations = SequenceBuffer::Placement::kDevice;
  uint64_t spare_bytes = 0;  // available beyond what the layer needs
};

// Where the calibration activations of the layer go: as env.activations says, or on the device when
// they fit in `available_bytes`, else on the host. Micro-batches need no choice: their size is
// fixed by the job, so that the result's bits are (quant::MicroBatchSize).
absl::StatusOr<MemoryPlan> PlanLayerMemory(const Plan& plan, const ModelConfig& config, int layer,
                                           uint64_t available_bytes, const TaskEnvironment& env);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_MEMORY_PLAN_H_
