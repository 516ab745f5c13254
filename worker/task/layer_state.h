// Where the optimization of a layer stands between two rounds: the trained and the fixed parameters
// of its quantizers, as one content-addressed safetensors object. Codes and the optimizer's moments
// are not kept: a round starts by mapping directly, and with an optimizer of its own. Internal to
// worker/task.
//
// Tensors, after the module's full name: `.log_delta`, `.log_scale_group`, `.zero_point`, `.shift`
// f32 [N, Gr]; `.alpha` f32 [N, Gr, n]; `.log_scale_weight` f16 [N, K] (rounded: half the bytes,
// and finer than what moves a code). Errors: kInvalidArgument (TENSOR_NOT_FOUND, TENSOR_SHAPE,
// TENSOR_DTYPE) when the object is not the layer's; store errors pass through.
#ifndef UNIQUANF_WORKER_TASK_LAYER_STATE_H_
#define UNIQUANF_WORKER_TASK_LAYER_STATE_H_

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/safetensors/safetensors.h"
#include "worker/block/block.h"
#include "worker/quant/quantizer.h"

namespace uniquanf {

// By linear layer; empty: left in full precision.
using QuantizerStates = std::array<std::optional<quant::QuantizerState>, kNumLinears>;

// The object's bytes.
absl::StatusOr<std::string> SaveLayerState(int layer, const QuantizerStates& states);
// Fills a state made by NewQuantizerState.
absl::Status LoadQuantizerState(const SafetensorsFile& file, const std::string& module,
                                quant::QuantizerState* state);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_LAYER_STATE_H_
