// The prepare task: reads config, headers and tokens, checks everything that can be checked before
// work starts, and writes the plan.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_join.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "common/object_store/caching_store.h"
#include "worker/task/allocate_bits.h"
#include "worker/task/content_store.h"
#include "worker/task/memory_plan.h"
#include "worker/task/output.h"
#include "worker/task/plan.h"
#include "worker/task/task_context.h"
#include "worker/task/task_runner.h"
#include "worker/task/tokens.h"
#include "worker/text/text_tokens.h"

namespace uniquanf {
namespace {

// Every linear layer's settings must fit its shape, and every override must match something.
absl::Status CheckModules(const QuantizationSpec& spec, const ModelConfig& config) {
  std::set<std::string> unmatched;
  for (const ModuleOverride& override : spec.overrides) unmatched.insert(override.pattern);
  for (int layer = 0; layer < config.num_layers; ++layer) {
    for (int l = 0; l < config.blocks[layer].num_linears(); ++l) {
      const std::string name = config.ModuleName(layer, l);
      for (const ModuleOverride& override : spec.overrides) {
        QuantizationSpec only;
        only.overrides = {override};
        only.overrides[0].full_precision = true;
        if (SettingsForModule(only, name).full_precision) unmatched.erase(override.pattern);
      }
      const ModuleSettings settings = SettingsForModule(spec, name);
      if (settings.full_precision || settings.group_size == 0) continue;
      const int64_t num_inputs = config.blocks[layer].LinearShape(l).second;
      if (num_inputs % settings.group_size != 0) {
        return InvalidInput(
            "GROUP_SIZE_NOT_DIVIDING",
            absl::StrCat("group size ", settings.group_size, " does not divide the ", num_inputs,
                         " inputs of ", name, "; choose a divisor, 0 for per row, or override it"));
      }
    }
  }
  if (!unmatched.empty()) {
    return InvalidInput("OVERRIDE_MATCHES_NOTHING",
                        absl::StrCat("override pattern \"", *unmatched.begin(),
                                     "\" matches no linear layer of the model; names look like ",
                                     config.ModuleName(0, 0)));
  }
  return absl::OkStatus();
}

// Text goes through the model's own tokenizer; a file of ids is taken as it is.
absl::StatusOr<CalibrationTokens> LoadCalibration(const QuantizationSpec& spec,
                                                  const ModelConfig& config,
                                                  const TaskEnvironment& env, ObjectStore* model,
                                                  Plan* plan) {
  if (IsTokenFile(spec.calibration_uri)) {
    return ReadCalibrationTokens(spec.calibration_uri, spec.num_samples, spec.sequence_length,
                                 config.vocab_size, StoreOptionsOf(env));
  }
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<TextTokenizer> tokenizer,
                      TextTokenizer::Open(model, TextSettings()));
  const int64_t length = spec.sequence_length > 0
                             ? spec.sequence_length
                             : std::min<int64_t>(2048, config.max_position_embeddings);
  UQ_ASSIGN_OR_RETURN(
      PackedText packed,
      PackCalibrationText({{spec.calibration_uri, 0}}, tokenizer.get(), spec.num_samples, length,
                          config.vocab_size, StoreOptionsOf(env)));
  plan->warnings = std::move(packed.warnings);
  return CalibrationTokens{packed.num_sequences, packed.sequence_length, std::move(packed.ids)};
}

absl::Status PrepareCalibration(const QuantizationSpec& spec, const Checkpoint& checkpoint,
                                const TaskEnvironment& env, ObjectStore* model, Plan* plan) {
  const ModelConfig& config = checkpoint.config();
  if (!NeedsReconstruction(spec) && !HasBudget(spec)) return absl::OkStatus();
  UQ_ASSIGN_OR_RETURN(const CalibrationTokens tokens,
                      LoadCalibration(spec, config, env, model, plan));
  if (tokens.sequence_length > config.max_position_embeddings) {
    return InvalidInput(
        "SEQUENCE_TOO_LONG",
        absl::StrCat("sequences of ", tokens.sequence_length,
                     " tokens are longer than the model's ", config.max_position_embeddings,
                     " positions; set --sequence-length lower"));
  }
  if (spec.batch_size > tokens.num_samples) {
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
  UQ_ASSIGN_OR_RETURN(
      const std::vector<int32_t> ids,
      IsTokenFile(spec.evaluation_uri)
          ? ReadEvaluationTokens(spec.evaluation_uri, spec.evaluation_entry, spec.evaluation_window,
                                 max_tokens, config.vocab_size, StoreOptionsOf(env))
          : ReadEvaluationText(spec.evaluation_uri, model, spec.evaluation_window, max_tokens,
                               config.vocab_size, StoreOptionsOf(env)));
  plan->num_evaluation_tokens = static_cast<int64_t>(ids.size());
  UQ_ASSIGN_OR_RETURN(plan->evaluation_sha256, PutContent(env.work.get(), TokensToBytes(ids)));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PrepareOutcome> RunPrepare(const QuantizationSpec& spec,
                                          const TaskEnvironment& env) {
  ReportProgress(env, "loading", 0, 1);
  UQ_RETURN_IF_ERROR(spec.Validate());
  UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> store,
                      OpenObjectStoreThrough(spec.model_uri, env.model_cache, StoreOptionsOf(env)));
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                      Checkpoint::Open(store, /*allow_quantized=*/false));
  const ModelConfig& config = checkpoint->config();
  UQ_RETURN_IF_ERROR(CheckModules(spec, config));
  Plan plan;
  plan.spec = spec;
  plan.device = DeviceName(env.backend->kind());
  plan.arithmetic = ArithmeticName(env.act);
  plan.num_layers = config.num_layers;
  plan.config_sha256 = Sha256Hex(checkpoint->config_json());
  plan.tensors_sha256 = TensorsDigest(*checkpoint, &plan.model_size_bytes);
  UQ_RETURN_IF_ERROR(PrepareCalibration(spec, *checkpoint, env, store.get(), &plan));
  UQ_RETURN_IF_ERROR(PrepareEvaluation(spec, config, env, store.get(), &plan));

  PrepareOutcome outcome;
  outcome.num_layers = plan.num_layers;
  outcome.layers_independent = !NeedsQuantizedInputs(spec);
  outcome.num_rounds = NumRounds(plan);
  outcome.layer_memory_bytes = LayerMemoryBytes(plan, config, env);
  const std::string plan_json = plan.ToJson();
  // The output is claimed last, when everything else is known to be good.
  UQ_RETURN_IF_ERROR(CheckOutputIsFree(spec.output_uri, Sha256Hex(plan_json), StoreOptionsOf(env)));
  UQ_ASSIGN_OR_RETURN(outcome.plan_sha256, PutContent(env.work.get(), plan_json));
  ReportProgress(env, "loading", 1, 1);
  return outcome;
}

}  // namespace uniquanf
