// Computes a layer's calibration inputs by forward passes through the layers before it. Internal to
// worker/task.
#ifndef UNIQUANF_WORKER_TASK_LAYER_INPUTS_H_
#define UNIQUANF_WORKER_TASK_LAYER_INPUTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/task/activation_cache.h"
#include "worker/task/task_context.h"

namespace uniquanf {

// Recomputed: x_fp through the original blocks, x_q through the stored, rounded ones (`earlier`:
// results of layers 0..layer−1 of the same round). The same bits as those kept in the cache.
absl::StatusOr<LayerInputs> RecomputeLayerInputs(const TaskContext& context,
                                                 const std::string& plan_sha256, LayerRound layer,
                                                 const std::vector<std::string>& earlier,
                                                 const RopeTables& rope,
                                                 SequenceBuffer::Placement placement,
                                                 const TaskEnvironment& env);

// The block as stored: quantized layers dequantized from the shard, the rest from the source.
absl::StatusOr<HostBlock> LoadStoredBlock(const TaskContext& context, const LayerResult& result,
                                          const TaskEnvironment& env);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_LAYER_INPUTS_H_
