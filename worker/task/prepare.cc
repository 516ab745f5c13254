// The prepare task: reads config, headers and tokens, checks everything that can be checked before
// work starts, and writes the plan.
#include <algorithm>
#include <utility>

#include "common/base/digest.h"
#include "common/base/status.h"
#include "worker/task/allocate_bits.h"
#include "worker/task/content_store.h"
#include "worker/task/memory_plan.h"
#include "worker/task/model_changes.h"
#include "worker/task/plan.h"
#include "worker/task/prepare_checks.h"
#include "worker/task/quality.h"
#include "worker/task/self_tokens.h"
#include "worker/task/task_context.h"
#include "worker/task/task_runner.h"
#include "worker/task/tokens.h"
#include "worker/task/window_memory.h"
#include "worker/text/text_tokens.h"

namespace uniquanf {
namespace {

// What nobody has chosen is a bound.
AtMost Bounds(int64_t num_samples, int64_t sequence_length) {
  const QuantizationSpec defaults;
  return {num_samples == defaults.num_samples, sequence_length == defaults.sequence_length};
}

// Of sequences that are made, not read; 0: the longest that is usual.
int64_t SequenceLength(int64_t wanted, const ModelConfig& config) {
  const QuantizationSpec defaults;
  return wanted > 0 && wanted != defaults.sequence_length
             ? wanted
             : std::min(defaults.sequence_length, config.max_position_embeddings);
}

// Text goes through the model's own tokenizer; a file of ids is taken as it is.
absl::StatusOr<CalibrationTokens> LoadSequences(
    const std::string& uri, const std::vector<CalibrationShare>& mix, int64_t num_samples,
    int64_t sequence_length, AtMost bounds, const ModelConfig& config, const TaskEnvironment& env,
    ObjectStore* model, Plan* plan, std::optional<TextProvenance>* provenance) {
  std::vector<TextSource> sources = {{uri, 0}};
  for (const CalibrationShare& share : mix) {
    sources.push_back({share.uri, share.num_sequences});
    if (IsTokenFile(share.uri) || IsTokenFile(uri)) {
      return InvalidInput(
          "INVALID_SPEC",
          absl::StrCat("calibration_mix joins text files (.txt, .json, .jsonl), but ",
                       IsTokenFile(share.uri) ? share.uri : uri, " is none by its name"));
    }
  }
  if (IsTokenFile(uri)) {
    if (bounds.sequence_length) {
      sequence_length = std::min(sequence_length, config.max_position_embeddings);
    }
    return ReadCalibrationTokens(uri, num_samples, sequence_length, config.vocab_size,
                                 DataOptionsOf(env, DataPurpose::kCalibration), bounds);
  }
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<TextTokenizer> tokenizer,
                      TextTokenizer::Open(model, TextSettingsOf(plan->spec)));
  const int64_t length =
      bounds.sequence_length ? SequenceLength(sequence_length, config) : sequence_length;
  UQ_ASSIGN_OR_RETURN(
      PackedText packed,
      PackCalibrationText(sources, tokenizer.get(), num_samples, length, config.vocab_size,
                          DataOptionsOf(env, DataPurpose::kCalibration), bounds.num_samples));
  plan->warnings.insert(plan->warnings.end(), packed.warnings.begin(), packed.warnings.end());
  *provenance = std::move(packed.provenance);
  return CalibrationTokens{packed.num_sequences, packed.sequence_length, std::move(packed.ids), {}};
}

// Text that the model writes itself. Without tokens of the user's its first sequences are the
// calibration.
absl::Status PrepareSelfTokens(const Checkpoint& checkpoint, const TaskEnvironment& env,
                               CalibrationTokens* tokens, Plan* plan) {
  const QuantizationSpec& spec = plan->spec;
  if (spec.self_samples == 0) return absl::OkStatus();
  const bool alone = tokens->ids.empty();
  const int64_t length =
      alone ? SequenceLength(spec.sequence_length, checkpoint.config()) : tokens->sequence_length;
  const absl::StatusOr<std::vector<int32_t>> written =
      WriteSelfTokens(*plan, checkpoint, *tokens, length, env);
  if (absl::IsCancelled(written.status())) return CancelledError();
  UQ_RETURN_IF_ERROR(written.status());
  const std::vector<int32_t>& ids = *written;
  plan->num_self_samples = spec.self_samples;
  UQ_ASSIGN_OR_RETURN(plan->self_tokens_sha256, PutContent(env.work.get(), TokensToBytes(ids)));
  if (!alone) return absl::OkStatus();
  tokens->sequence_length = length;
  tokens->num_samples =
      spec.num_samples == 0 ? spec.self_samples : std::min(spec.num_samples, spec.self_samples);
  tokens->ids.assign(ids.begin(), ids.begin() + tokens->num_samples * length);
  return absl::OkStatus();
}

absl::Status PrepareCalibration(const QuantizationSpec& spec, const Checkpoint& checkpoint,
                                const TaskEnvironment& env, ObjectStore* model, Plan* plan) {
  if (!NeedsCalibration(spec)) return absl::OkStatus();
  const ModelConfig& config = checkpoint.config();
  CalibrationTokens tokens;
  if (!spec.calibration_uri.empty()) {
    UQ_ASSIGN_OR_RETURN(
        tokens, LoadSequences(spec.calibration_uri, spec.calibration_mix, spec.num_samples,
                              spec.sequence_length, Bounds(spec.num_samples, spec.sequence_length),
                              config, env, model, plan, &plan->calibration_text));
  }
  UQ_RETURN_IF_ERROR(PrepareSelfTokens(checkpoint, env, &tokens, plan));
  if (tokens.sequence_length > config.max_position_embeddings) {
    return InvalidInput(
        "SEQUENCE_TOO_LONG",
        absl::StrCat("sequences of ", tokens.sequence_length,
                     " tokens are longer than the model's ", config.max_position_embeddings,
                     " positions; set --sequence-length lower"));
  }
  if (NeedsReconstruction(spec) && spec.batch_size > tokens.num_samples) {
    return InvalidInput("TOO_FEW_SEQUENCES",
                        absl::StrCat("batch size ", spec.batch_size, " is larger than the ",
                                     tokens.num_samples, " calibration sequences"));
  }
  for (std::string& warning : CalibrationWarnings(tokens)) {
    plan->warnings.push_back(std::move(warning));
  }
  plan->num_samples = tokens.num_samples;
  plan->sequence_length = tokens.sequence_length;
  UQ_ASSIGN_OR_RETURN(plan->calibration_sha256,
                      PutContent(env.work.get(), TokensToBytes(tokens.ids)));
  if (HasBudget(spec)) {
    UQ_ASSIGN_OR_RETURN(plan->allocation, AllocateBits(*plan, checkpoint, tokens.ids, env));
  }
  return absl::OkStatus();
}

// Further sequences, as long as the calibration's: the user's, and what the model wrote itself but
// for what of it is the calibration.
absl::Status PrepareDistillation(const QuantizationSpec& spec, const ModelConfig& config,
                                 const TaskEnvironment& env, ObjectStore* model, Plan* plan) {
  if (!Distills(spec)) return absl::OkStatus();
  std::vector<int32_t> ids;
  std::optional<TextProvenance> provenance;  // told by the digest of its tokens alone
  if (!spec.distillation_uri.empty()) {
    UQ_ASSIGN_OR_RETURN(
        CalibrationTokens tokens,
        LoadSequences(spec.distillation_uri, /*mix=*/{}, /*num_samples=*/0, plan->sequence_length,
                      AtMost(), config, env, model, plan, &provenance));
    ids = std::move(tokens.ids);
  }
  if (!plan->self_tokens_sha256.empty()) {
    UQ_ASSIGN_OR_RETURN(const std::string bytes,
                        GetContent(env.work.get(), plan->self_tokens_sha256, kMaxTokenBytes));
    const std::vector<int32_t> written = TokensFromBytes(bytes);
    const int64_t used = spec.calibration_uri.empty() ? plan->num_samples : 0;
    ids.insert(ids.end(), written.begin() + used * plan->sequence_length, written.end());
  }
  if (ids.empty()) return absl::OkStatus();
  plan->num_distillation_samples = static_cast<int64_t>(ids.size()) / plan->sequence_length;
  UQ_ASSIGN_OR_RETURN(plan->distillation_sha256, PutContent(env.work.get(), TokensToBytes(ids)));
  return absl::OkStatus();
}

absl::Status PrepareEvaluation(const QuantizationSpec& spec, const ModelConfig& config,
                               const TaskEnvironment& env, ObjectStore* model, Plan* plan) {
  if (spec.evaluation_uri.empty()) return absl::OkStatus();
  if (spec.evaluation_window > config.max_position_embeddings) {
    return InvalidInput("SEQUENCE_TOO_LONG",
                        absl::StrCat("evaluation windows of ", spec.evaluation_window,
                                     " tokens are longer than the model's ",
                                     config.max_position_embeddings, " positions"));
  }
  const int64_t max_tokens = spec.evaluation_max_windows * spec.evaluation_window;
  const DataOptions options = DataOptionsOf(env, DataPurpose::kEvaluation);
  std::vector<int32_t> ids;
  if (IsTokenFile(spec.evaluation_uri)) {
    UQ_ASSIGN_OR_RETURN(
        ids, ReadEvaluationTokens(spec.evaluation_uri, spec.evaluation_entry,
                                  spec.evaluation_window, max_tokens, config.vocab_size, options));
  } else {
    UQ_ASSIGN_OR_RETURN(
        PackedText packed,
        ReadEvaluationText(spec.evaluation_uri, model, TextSettingsOf(spec), spec.evaluation_window,
                           max_tokens, config.vocab_size, options));
    ids = std::move(packed.ids);
    plan->evaluation_text = std::move(packed.provenance);
    for (std::string& warning : packed.warnings) plan->warnings.push_back(std::move(warning));
  }
  plan->num_evaluation_tokens = static_cast<int64_t>(ids.size());
  UQ_ASSIGN_OR_RETURN(plan->evaluation_sha256, PutContent(env.work.get(), TokensToBytes(ids)));
  return absl::OkStatus();
}

// What the tasks that follow will have to do. Tokens are counted once for each pass over them.
JobWork WorkOf(const Plan& plan, const ModelConfig& config) {
  JobWork work;
  const QuantizationSpec& spec = plan.spec;
  work.num_steps = NumSteps(plan);
  work.tokens_per_step = spec.batch_size * plan.sequence_length;
  work.calibration_tokens = plan.num_samples * plan.sequence_length;
  if (plan.num_evaluation_tokens > 0 && spec.evaluation_window > 0) {
    int64_t num_windows = plan.num_evaluation_tokens / spec.evaluation_window;
    if (spec.evaluation_max_windows > 0) {
      num_windows = std::min(num_windows, spec.evaluation_max_windows);
    }
    const int num_passes = spec.evaluation_baseline == EvaluationBaseline::kNone ? 2 : 3;
    work.evaluation_tokens = num_windows * spec.evaluation_window * num_passes;
    work.text_tokens = ReportTextTokens();
  }
  double weights = 0;
  for (const BlockSpec& block : config.blocks) {
    for (int l = 0; l < block.num_linears(); ++l) {
      const auto [num_outputs, num_inputs] = block.LinearShape(l);
      weights += static_cast<double>(num_outputs) * static_cast<double>(num_inputs);
    }
  }
  work.layer_weights = static_cast<int64_t>(weights / std::max(1, plan.num_layers));
  work.head_weights = config.vocab_size * config.hidden_size;
  if (DistillWindow(plan) > 0) {
    work.distill_steps = spec.distill_steps;
    work.distill_tokens_per_step = spec.distill_batch_size * plan.sequence_length;
  }
  return work;
}

}  // namespace

absl::StatusOr<PrepareOutcome> RunPrepare(const QuantizationSpec& spec,
                                          const TaskEnvironment& env) {
  ReportProgress(env, "loading", 0, 1);
  UQ_RETURN_IF_ERROR(spec.Validate());
  UQ_ASSIGN_OR_RETURN(
      const std::shared_ptr<ObjectStore> store,
      OpenDataThrough(spec.model_uri, env.model_cache, DataOptionsOf(env, DataPurpose::kModel)));
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                      Checkpoint::Open(store, /*allow_quantized=*/false));
  const ModelConfig& config = checkpoint->config();
  UQ_RETURN_IF_ERROR(CheckModules(spec, *checkpoint));
  UQ_RETURN_IF_ERROR(CheckOuterTensors(*checkpoint, env));
  UQ_RETURN_IF_ERROR(checkpoint->CheckTiedHead());

  Plan plan;
  plan.spec = spec;
  plan.device = DeviceName(env.backend->kind());
  plan.arithmetic = ArithmeticName(env.act);
  plan.num_layers = config.num_layers;
  plan.config_sha256 = Sha256Hex(checkpoint->config_json());
  plan.tensors_sha256 = TensorsDigest(*checkpoint, &plan.model_size_bytes);
  UQ_RETURN_IF_ERROR(PrepareCalibration(spec, *checkpoint, env, store.get(), &plan));
  UQ_RETURN_IF_ERROR(PrepareDistillation(spec, config, env, store.get(), &plan));
  UQ_RETURN_IF_ERROR(PrepareEvaluation(spec, config, env, store.get(), &plan));

  PrepareOutcome outcome;
  outcome.num_layers = plan.num_layers;
  outcome.layers_independent = !NeedsQuantizedInputs(spec);
  outcome.num_rounds = NumRounds(plan);
  outcome.distill_window = DistillWindow(plan);
  outcome.layer_memory_bytes =
      std::max(LayerMemoryBytes(plan, config, env), WindowMemoryBytes(plan, config, env));
  outcome.work = WorkOf(plan, config);
  const std::string plan_json = plan.ToJson();
  // The output is claimed last, when everything else is known to be good.
  UQ_RETURN_IF_ERROR(TryOutput(spec, *checkpoint, Sha256Hex(plan_json), env));
  UQ_ASSIGN_OR_RETURN(outcome.plan_sha256, PutContent(env.work.get(), plan_json));
  NoteModelFiles(*checkpoint, outcome.plan_sha256, env);
  ReportProgress(env, "loading", 1, 1);
  return outcome;
}

}  // namespace uniquanf
