// Scaling of a layer's channels before it is quantized: outlier channels are folded; methods that
// search for scales use the same sites. Internal to worker/task.
//
// What changes is stored with the layer: norms in its shard, weights in what is packed. Readers of
// the artifact see a model of the same function.
// Thread safety: the task's thread. Errors: as RunLayer.
#ifndef UNIQUANF_WORKER_TASK_LAYER_SCALE_H_
#define UNIQUANF_WORKER_TASK_LAYER_SCALE_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/quant/channel_scales.h"
#include "worker/task/layer_load.h"

namespace uniquanf {

// The layer's original tensors, none changed, and what can be scaled of them. Refers to both
// arguments.
absl::StatusOr<quant::ScaledBlock> NewScaledBlock(const LayerTask& task, const Loaded& loaded);

// Scales channels that stand out in the original model's activations and puts the changed tensors
// into loaded->weights. Returns how many channels; 0 where folding is off or there are no inputs.
absl::StatusOr<int64_t> FoldBlock(const LayerTask& task, Loaded* loaded,
                                  quant::ScaledBlock* scaled);

// The changed tensors on the device.
absl::Status UploadChanged(const LayerTask& task, const quant::ScaledBlock& scaled,
                           BlockWeights* weights);

// The changed tensors that the artifact holds as they are, by their stored name inside the layer,
// as the bytes of the stored element type.
absl::StatusOr<std::map<std::string, std::string>> ChangedBytes(const LayerTask& task,
                                                                const quant::ScaledBlock& scaled);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_LAYER_SCALE_H_
