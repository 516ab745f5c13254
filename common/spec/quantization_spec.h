// What a user asks for: one quantization job, as programs exchange it. Parsed from JSON (a spec
// file, the batch program's flags), converted from proto at the API's edge
// (common/rpc/spec_proto.h), and stored in canonical JSON in the artifact's manifest.
//
// Thread safety: plain values. Errors: kInvalidArgument with reason INVALID_SPEC; the message names
// the field, the value and what is allowed.
#ifndef UNIQUANF_COMMON_SPEC_QUANTIZATION_SPEC_H_
#define UNIQUANF_COMMON_SPEC_QUANTIZATION_SPEC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

enum class QuantizationMethod {
  kUniquanf,     // "uniquanf": unified initialization and block reconstruction, all parts
  kFlexround,    // "flexround": UQ only; equally spaced levels, learned log Δ, s2, s3
  kAlternating,  // "alternating": BCQ by alternating update, no reconstruction
  kRtn,          // "rtn": min-max round to nearest
};
absl::string_view QuantizationMethodName(QuantizationMethod method);
absl::StatusOr<QuantizationMethod> ParseQuantizationMethod(absl::string_view name);

// In which order the layers of a job are optimized, where they depend on each other (input_prob >
// 0).
enum class LayerSchedule {
  kSequential,  // "sequential": one after the other, each on what the stored ones before it produce
  // "pipelined": the epochs are cut into `pipeline_rounds` parts, and a layer starts as soon as the
  // layer before has finished its first part; so that many workers work at once. Each part sees
  // what the layers before it produce after the same part; the last, twice as long, nothing else
  // (input_prob 1). worker/task/README.md has its price.
  kPipelined,
};
absl::string_view LayerScheduleName(LayerSchedule schedule);
absl::StatusOr<LayerSchedule> ParseLayerSchedule(absl::string_view name);

// Settings for the modules whose name matches `pattern`; the first override that matches wins.
struct ModuleOverride {
  // Glob over the module's full name ("model.layers.3.mlp.down_proj"): '*' matches any run of
  // characters (dots too), '?' one character.
  std::string pattern;
  int bits = 0;             // 0: the job's
  int64_t group_size = -1;  // -1: the job's; 0: per row
  bool full_precision = false;
};

// Defaults are the paper's script's (shared by every front end); ALGORITHM in
// worker/quant/README.md explains each symbol.
struct QuantizationSpec {
  // Where things are: object store URIs (file://, s3://, or a plain path for the batch program).
  std::string model_uri;        // a Hugging Face checkpoint directory
  std::string calibration_uri;  // a safetensors file with integer input_ids [num_samples, seq_len]
  std::string output_uri;       // the artifact's directory; must not hold an artifact yet
  std::string evaluation_uri;   // optional: a safetensors file with 1-D integer token entries
  std::string evaluation_entry = "valid";
  int64_t evaluation_window = 1024;
  int64_t evaluation_max_windows = 200;

  QuantizationMethod method = QuantizationMethod::kUniquanf;
  int bits = 4;            // 2..8
  int64_t group_size = 0;  // 0: per row; else divides every quantized layer's input width
  std::vector<ModuleOverride> overrides;

  int64_t num_samples = 128;            // calibration sequences used; 0: all in the file
  int64_t sequence_length = 2048;       // tokens a sequence; 0: the file's width
  int epochs = 20;                      // 0 skips reconstruction
  int batch_size = 1;                   // sequences a step
  double input_prob = 0.5;              // probability of the quantized input, element by element
  double uniform_learning_rate = 5e-3;  // u_lr: log Δ, s2, s3
  double binary_learning_rate = 5e-4;   // b_lr: α
  int grid_steps = 1;                   // G, 0..1000
  int alternating_rounds = 15;          // T, 0..1000
  int remap_period = 2;                 // p, >= 1
  uint64_t seed = 0;
  LayerSchedule schedule = LayerSchedule::kSequential;
  int pipeline_rounds = 4;  // 1..64; used by "pipelined" only

  // Checks every range that needs no model. Group size against layer shapes is checked in prepare.
  absl::Status Validate() const;
  // Canonical JSON: every field, fixed order, no white space; equal specs give equal bytes.
  std::string ToJson() const;
  // Strict: unknown fields and wrong types are errors. Missing fields keep their defaults.
  static absl::StatusOr<QuantizationSpec> FromJson(absl::string_view json);
};

// Settings that hold for one module: the job's, with the first matching override applied.
struct ModuleSettings {
  int bits;
  int64_t group_size;  // 0: per row
  bool full_precision;
};
ModuleSettings SettingsForModule(const QuantizationSpec& spec, absl::string_view module_name);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_SPEC_QUANTIZATION_SPEC_H_
