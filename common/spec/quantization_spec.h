// What a user asks for: one quantization job, as programs exchange it. Parsed from JSON (a spec
// file, the batch program's flags), converted from proto at the API's edge
// (common/rpc/spec_proto.h), and stored in canonical JSON in the artifact's manifest.
//
// Here stand types, members and defaults. Names, ranges, what 0 means and the help stand in
// common/spec/spec_fields.h, from which flags, JSON, proto, Validate and docs/SPEC.md follow.
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
#include "common/spec/quantization_methods.h"

namespace uniquanf {

absl::string_view QuantizationMethodName(QuantizationMethod method);

// In which order the layers of a job are optimized, where they depend on each other (input_prob >
// 0).
enum class LayerSchedule {
  kSequential,  // one after the other, each on what the stored ones before it produce
  // The epochs are cut into `pipeline_rounds` parts, and a layer starts as soon as the layer before
  // has finished its first part; so that many workers work at once. Each part sees what the layers
  // before it produce after the same part; the last, twice as long, nothing else (input_prob 1).
  // worker/task/README.md has its price.
  kPipelined,
};
absl::string_view LayerScheduleName(LayerSchedule schedule);

// Where each group's quantizer starts.
enum class Initialization {
  // As the method's paper says, or on a uniform grid over a clipped range, whichever has the least
  // error weighted by the layer's inputs (round to nearest is one of the grids). A layer whose
  // training did not lower its error keeps its start, and above 4 bits learning rates are scaled to
  // the finer steps. worker/quant/README.md has what it brings.
  kActivationAware,
  kPlain,  // as the method's paper says
};

// How the optimizer keeps the moments of the weights' scales.
enum class OptimizerState {
  kF32,
  // In bfloat16, rounded at random, beside scales that hold their weight's code in the lowest bits
  // (worker/quant/compact_state.h): less memory, less to move, other bits.
  kBf16,
};

// What the artifact's evaluation is compared with, besides the original.
enum class EvaluationBaseline {
  kNone,
  kRtn,  // round to nearest with the same bits and groups, which is evaluated too
};

// How documents of text become sequences.
enum class TextPacking {
  kConcat,    // one after the other, cut anywhere
  kTruncate,  // each makes one sequence; shorter ones are dropped
};
// What becomes of conversations.
enum class TextChatTemplate {
  kConversations,  // they go through the model's chat template
  kAlways,         // so does plain text, as what a user says
  kNever,          // their contents alone
};
// Whether the tokenizer's special tokens (for the beginning, say) are added to plain text.
enum class TextSpecialTokens { kAdd, kOmit };

// A further file of calibration text and what is taken of it.
struct CalibrationShare {
  std::string uri;
  int64_t num_sequences = 0;

  bool operator==(const CalibrationShare&) const = default;
};

// Which levels a group may have.
enum class Levels {
  kAny,      // the method's own
  kUniform,  // Δ·(c − z), z whole and in 0 .. 2^n − 1: exact in the formats that hold such grids
  kSymmetric,  // the same with z = 2^(n−1)
};

// Whether channels that stand out are scaled before a block is quantized, by powers of two that a
// norm or the layer before takes back (worker/quant/folding.h).
enum class Folding { kAuto, kOff };

// Settings for the modules whose name matches `pattern`; the first override that matches wins.
struct ModuleOverride {
  static constexpr int kJobsBits = 0;
  static constexpr int64_t kJobsGroupSize = -1;

  // Glob over the module's full name ("model.layers.3.mlp.down_proj"): '*' matches any run of
  // characters (dots too), '?' one character.
  std::string pattern;
  int bits = kJobsBits;
  int64_t group_size = kJobsGroupSize;
  bool full_precision = false;

  bool operator==(const ModuleOverride&) const = default;
};

// Defaults are the paper's script's, but for initialization and input_prob (shared by every front
// end);
// worker/quant/README.md explains each symbol.
struct QuantizationSpec {
  // Where things are: object store URIs (file://, s3://, or a plain path for the batch program).
  std::string model_uri;
  std::string calibration_uri;
  std::string output_uri;
  std::string evaluation_uri;
  std::string evaluation_entry = "valid";
  int64_t evaluation_window = 1024;
  int64_t evaluation_max_windows = 200;
  EvaluationBaseline evaluation_baseline = EvaluationBaseline::kNone;
  // The job fails when the perplexity grows by more than this part of the original's; 0: it does
  // not.
  double max_perplexity_increase = 0;

  QuantizationMethod method = QuantizationMethod::kUniquanf;
  int bits = 4;
  double average_bits = 0;    // at most one of these two is not 0
  int64_t artifact_size = 0;  // bytes
  int64_t group_size = 0;
  Levels levels = Levels::kAny;
  std::vector<ModuleOverride> overrides;

  int64_t self_samples = 0;  // sequences that the original model writes itself
  int64_t num_samples = 128;
  int64_t sequence_length = 2048;
  int epochs = 20;
  int batch_size = 1;
  double input_prob = 1;
  double uniform_learning_rate = 5e-3;  // u_lr: log Δ, s2, s3
  double binary_learning_rate = 5e-4;   // b_lr: α
  Initialization initialization = Initialization::kActivationAware;
  Folding folding = Folding::kAuto;
  int grid_steps = 1;           // G
  int alternating_rounds = 15;  // T
  int remap_period = 2;         // p
  uint64_t seed = 0;
  LayerSchedule schedule = LayerSchedule::kSequential;
  int pipeline_rounds = 4;
  OptimizerState optimizer_state = OptimizerState::kF32;
  // Distillation after the layers' reconstruction (worker/distill/README.md).
  int distill_window = 0;        // W, layers a task
  std::string distillation_uri;  // sequences beside the calibration's
  int distill_steps = 800;
  int distill_batch_size = 8;
  double distill_learning_rate = 2.5e-3;      // of the latent weights, in steps of their grid
  double distill_scale_learning_rate = 1e-3;  // of scale factors, shifts and norms' gains

  // Text in place of token files (worker/text/README.md).
  std::vector<CalibrationShare> calibration_mix;  // beside calibration_uri, which gives the rest
  std::string text_field;                         // "": the first there is of the common ones
  TextPacking text_packing = TextPacking::kConcat;
  std::string text_separator = "eos";
  int64_t text_min_tokens = 1;
  TextChatTemplate text_chat_template = TextChatTemplate::kConversations;
  TextSpecialTokens text_special_tokens = TextSpecialTokens::kAdd;
  uint64_t text_shuffle_seed = 0;  // 0: the files' order

  bool operator==(const QuantizationSpec&) const = default;
  // Checks every range that needs no model. Group size against layer shapes is checked in prepare.
  absl::Status Validate() const;
  // Canonical JSON: fixed order, no white space; equal specs give equal bytes. Every field, but for
  // those that came later (spec_fields.h) and have their defaults: specs without them keep the
  // bytes that they had.
  std::string ToJson() const;
  // Strict: unknown fields and wrong types are errors. Missing fields keep their defaults.
  static absl::StatusOr<QuantizationSpec> FromJson(absl::string_view json);
};

// Whether `spec` optimizes blocks on calibration data (else a layer needs nothing but its weights).
bool NeedsReconstruction(const QuantizationSpec& spec);
// ... in steps.
bool Trains(const QuantizationSpec& spec);
// Whether bits are spread over the modules.
inline bool HasBudget(const QuantizationSpec& spec) {
  return spec.average_bits > 0 || spec.artifact_size > 0;
}

// Whether windows of layers are distilled after the layers.
bool Distills(const QuantizationSpec& spec);
// Whether calibration data is needed.
bool NeedsCalibration(const QuantizationSpec& spec);

// Settings that hold for one module: the job's, with the first matching override applied.
struct ModuleSettings {
  int bits;
  int64_t group_size;  // 0: per row
  bool full_precision;
};
ModuleSettings SettingsForModule(const QuantizationSpec& spec, absl::string_view module_name);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_SPEC_QUANTIZATION_SPEC_H_
