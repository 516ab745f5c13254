// Where the optimization of a layer stands between two rounds: its quantizers' parameters, codes
// and the optimizer's moments, as one content-addressed safetensors object. Exact: rounds on the
// same inputs give the bits of one run. Internal to worker/task.
//
// Tensors are the members of quant::QuantizerState, named MODULE.member: f32, and u8 for the codes.
// 13 bytes a weight. With optimizer_state = bf16 the moments of s2 are bf16 and there are no codes
// (worker/quant/compact_state.h): 8 bytes.
// Errors: kInvalidArgument (TENSOR_NOT_FOUND, TENSOR_SHAPE, TENSOR_DTYPE) when the object is not
// the layer's; store errors pass through.
#ifndef UNIQUANF_WORKER_TASK_LAYER_STATE_H_
#define UNIQUANF_WORKER_TASK_LAYER_STATE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/safetensors/safetensors.h"
#include "worker/quant/quantizer.h"

namespace uniquanf {

// By linear layer; empty: left in full precision.
using QuantizerStates = std::vector<std::optional<quant::QuantizerState>>;

// The object's bytes; `modules` names the linear layers.
absl::StatusOr<std::string> SaveLayerState(const std::vector<std::string>& modules,
                                           const QuantizerStates& states);
// Fills a state made by NewQuantizerState.
absl::Status LoadQuantizerState(const SafetensorsFile& file, const std::string& module,
                                quant::QuantizerState* state);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_LAYER_STATE_H_
