// What a layer task leaves behind: one content-addressed JSON object that names the layer's shard
// (a safetensors file, already in the artifact's final form) and tells how good it is.
// Deterministic: no times, no hosts.
//
// Thread safety: plain values. Errors: kInvalidArgument (INVALID_LAYER_RESULT).
#ifndef UNIQUANF_WORKER_TASK_LAYER_RESULT_H_
#define UNIQUANF_WORKER_TASK_LAYER_RESULT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

// What became of one linear layer.
struct ModuleResult {
  std::string name;  // "model.layers.3.mlp.down_proj"
  int64_t num_outputs = 0, num_inputs = 0;
  bool quantized = false;
  int bits = 0;                 // quantized only
  int64_t group_size = 0;       // quantized only; columns, never 0
  double weight_error = 0;      // mean (w − ŵ)² of the stored weights
  int64_t num_saturated = 0;    // scale factors or shifts beyond fp16's range, clamped
  int64_t num_underflowed = 0;  // groups whose scale factors are too small for fp16
};

struct LayerResult {
  std::string plan_sha256;
  int layer = 0;
  int round = 0;
  std::string shard_sha256;
  uint64_t shard_size_bytes = 0;
  // The quantizers' state for the next round (layer_state.h); empty after the last one.
  std::string state_sha256;
  std::string environment;     // Backend::description() of whoever ran it
  std::string weights_sha256;  // of the original linear weights as float32
  // Mean squared error of the block's output against the original's: as initialized (in round 0),
  // and as stored.
  double initial_loss = 0, final_loss = 0;
  std::vector<float> loss_curve;  // at most 256 means of consecutive steps, of all rounds so far
  std::vector<ModuleResult> modules;
  bool kept_start = false;  // training did not lower the block's error, so it is stored as it began
  int64_t num_folded = 0;   // channels that were scaled because they stood out
  // Stored names, inside the layer, of what the shard holds otherwise than the source: norms whose
  // channels were scaled, or whose gains were trained.
  std::vector<std::string> changed_vectors;
  std::vector<std::string> warnings;  // about the original layer, for the report

  std::string ToJson() const;
  static absl::StatusOr<LayerResult> FromJson(absl::string_view json);
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_LAYER_RESULT_H_
