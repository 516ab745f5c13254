// Memory of a layer task, known before it starts: what must be on the device, what may lie on the
// host when it does not fit, and what lies on the host in any case. Internal to worker/task.
//
// Errors: kResourceExhausted (OUT_OF_MEMORY) says what is needed, what there is, and what to
// change.
#ifndef UNIQUANF_WORKER_TASK_MEMORY_PLAN_H_
#define UNIQUANF_WORKER_TASK_MEMORY_PLAN_H_

#include <cstdint>
#include <limits>

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
  uint64_t host_bytes = 0;         // the original weights as they were read
  uint64_t on_device() const { return fixed_bytes + step_bytes + calibration_bytes; }
  uint64_t on_host() const { return fixed_bytes + step_bytes + staging_bytes; }
};

LayerMemory EstimateLayerMemory(const Plan& plan, const ModelConfig& config, int layer,
                                const Backend& backend, DType act);

// What a layer may use.
struct AvailableMemory {
  uint64_t device_bytes = 0;
  uint64_t host_bytes = std::numeric_limits<uint64_t>::max();  // beside device_bytes
  bool device_is_host = false;  // both are device_bytes: a CPU whose memory has a limit
};

// Of the machine, where `returned_bytes` on the device will be given back before they are needed. A
// CPU without a limit has all of the machine's memory, and may swap. Under a limit it is what other
// processes leave of it, less what programs hold besides their layers, and less `beside_bytes` that
// the layer before still holds on the host while this one runs.
AvailableMemory ReadAvailableMemory(const Backend& backend, uint64_t returned_bytes,
                                    uint64_t beside_bytes);

// Most that a layer of the plan needs of what a worker announces: on a CPU device and host are the
// same memory.
uint64_t LayerMemoryBytes(const Plan& plan, const ModelConfig& config, const TaskEnvironment& env);

struct MemoryPlan {
  SequenceBuffer::Placement activations = SequenceBuffer::Placement::kDevice;
  uint64_t spare_bytes = 0;  // available beyond what the layer needs
};

// Where the calibration activations of the layer go: as env.activations says, or on the device when
// they fit in what is available, else on the host. Micro-batches need no choice: their size is
// fixed by the job, so that the result's bits are (quant::MicroBatchSize).
absl::StatusOr<MemoryPlan> PlanLayerMemory(const Plan& plan, const ModelConfig& config, int layer,
                                           const AvailableMemory& available,
                                           const TaskEnvironment& env);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_MEMORY_PLAN_H_
