// The result of prepare: everything about a job that its later tasks share, fixed once. Its JSON is
// canonical, so that the same inputs and settings give the same plan digest wherever they lie; that
// digest is the fingerprint that guards resuming.
//
// Thread safety: plain values. Errors: kInvalidArgument (INVALID_PLAN) for bytes that are not a
// plan.
#ifndef UNIQUANF_WORKER_TASK_PLAN_H_
#define UNIQUANF_WORKER_TASK_PLAN_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/artifact/text_provenance.h"
#include "common/spec/quantization_spec.h"
#include "worker/model/checkpoint.h"

namespace uniquanf {

struct Plan {
  QuantizationSpec spec;   // the job's, without URIs: where things lie is no part of what they are
  std::string device;      // "cpu" or "cuda": all tasks of a job run on one kind
  std::string arithmetic;  // "f32" or "bf16"
  int num_layers = 0;
  std::string config_sha256;   // of the source's config.json
  std::string tensors_sha256;  // of every tensor's name, dtype and shape
  uint64_t model_size_bytes = 0;
  // Calibration tokens, int32 [num_samples, sequence_length] little-endian, as a working object.
  // Empty digest: the method needs none.
  std::string calibration_sha256;
  int64_t num_samples = 0;
  int64_t sequence_length = 0;
  // Further sequences to distill on, int32 [num_distillation_samples, sequence_length]; empty:
  // none.
  std::string distillation_sha256;
  int64_t num_distillation_samples = 0;
  // Sequences that the model wrote itself, int32 [num_self_samples, sequence_length]; an empty
  // digest: none were asked for. Without a calibration of the user's the first of them are that.
  std::string self_tokens_sha256;
  int64_t num_self_samples = 0;
  // Evaluation tokens, int32 [num_evaluation_tokens]; empty digest: no evaluation.
  std::string evaluation_sha256;
  int64_t num_evaluation_tokens = 0;
  // What the text was made of; nothing where there were token files.
  std::optional<TextProvenance> calibration_text, evaluation_text;
  std::vector<std::string> warnings;  // about the calibration set, for the report
  // Bits of the modules that a budget decides, by full name; empty without one.
  std::map<std::string, int> allocation;

  std::string ToJson() const;
  static absl::StatusOr<Plan> FromJson(absl::string_view json);
};

// Settings of a module in this job: the spec's, with the bits that the budget gives it.
ModuleSettings SettingsOf(const Plan& plan, const std::string& module_name);

// Whether a layer's task needs the stored results of earlier layers.
bool NeedsQuantizedInputs(const QuantizationSpec& spec);

// Rounds that each layer's optimization is cut into: 1 unless the schedule is pipelined and layers
// depend on each other. Each has a step at least.
int NumRounds(const Plan& plan);
// The steps {first, end} of a round: of R > 1 rounds each takes 1/(R+1) of the steps, the last,
// whose inputs are the artifact's own, two such parts.
std::pair<int64_t, int64_t> RoundSteps(const Plan& plan, int round);
// The part of the inputs that comes from the quantized model in that round: spec.input_prob, but 1
// in the last of several rounds. Only there a layer sees what the artifact will produce, and what
// it sees replaces what it learnt from the unfinished layers of the earlier rounds.
double InputProb(const Plan& plan, int round);
// Layers of a window that is distilled, at most num_layers; 0: none is.
int DistillWindow(const Plan& plan);
// Optimizer steps of a layer, over all rounds.
int64_t NumSteps(const Plan& plan);

// Digest of a checkpoint's tensor names, dtypes and shapes; and the sum of their bytes.
std::string TensorsDigest(const Checkpoint& checkpoint, uint64_t* total_bytes);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_PLAN_H_
