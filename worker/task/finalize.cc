// The finalize task: assembles the artifact at its place, evaluates it as readers will see it, and
// publishes it with the manifest.
#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "common/artifact/artifact_config.h"
#include "common/artifact/manifest.h"
#include "common/base/crash_point.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "worker/task/content_store.h"
#include "worker/task/copied_files.h"
#include "worker/task/digesting_writer.h"
#include "worker/task/layer_shard.h"
#include "worker/task/lost_inputs.h"
#include "worker/task/model_changes.h"
#include "worker/task/output.h"
#include "worker/task/quality.h"
#include "worker/task/report_html.h"
#include "worker/task/run_facts.h"
#include "worker/task/task_context.h"
#include "worker/task/task_runner.h"
#include "worker/task/tokens.h"
#include "worker/task/window_result.h"

namespace uniquanf {
namespace {

constexpr char kReportKey[] = "report.html";
constexpr char kRunKey[] = "run.json";
// A perplexity that grew by more than this factor is a collapse, not a compression.
constexpr double kCollapseFactor = 3.0;
// An original whose perplexity is above this part of its vocabulary knows next to nothing.
constexpr double kAbsurdPart = 0.5;

std::string ReasonForFullPrecision(const QuantizationSpec& spec, const std::string& name) {
  for (const ModuleOverride& override : spec.overrides) {
    QuantizationSpec only;
    only.overrides = {override};
    if (override.full_precision && SettingsForModule(only, name).full_precision) {
      return absl::StrCat("override ", override.pattern);
    }
  }
  return "left out";
}

class FinalizeRun {
 public:
  FinalizeRun(const QuantizationSpec& spec, const TaskContext& context, std::string plan_sha256,
              const TaskEnvironment& env)
      : spec_(spec),
        context_(context),
        plan_(context.plan),
        plan_sha256_(std::move(plan_sha256)),
        env_(env),
        start_(env.clock->Monotonic()) {}

  absl::StatusOr<FinalizeOutcome> Run(const std::vector<std::string>& layers) {
    if (DistillWindow(plan_) > 0) {
      UQ_RETURN_IF_ERROR(LoadWindows(layers));
    } else {
      UQ_ASSIGN_OR_RETURN(results_,
                          LoadLayerResults(plan_sha256_, NumRounds(plan_) - 1, layers, env_));
    }
    if (static_cast<int>(results_.size()) != plan_.num_layers) {
      return InvalidInput("INVALID_LAYER_RESULT",
                          absl::StrCat("finalize was given ", results_.size(), " of ",
                                       plan_.num_layers, " layers"));
    }
    UQ_RETURN_IF_ERROR(CheckModelUnchanged(context_, plan_sha256_, results_, env_));
    DataOptions options = DataOptionsOf(env_, DataPurpose::kOutput);
    options.store.directory_mode = env_.artifact_mode;
    UQ_ASSIGN_OR_RETURN(output_, OpenData(spec_.output_uri, options));
    UQ_RETURN_IF_ERROR(ClaimOutput(output_.get(), plan_sha256_));
    UQ_CRASH_POINT("finalize.claimed");
    ListModules();
    UQ_RETURN_IF_ERROR(WriteFiles());
    const absl::Status evaluated = Evaluate();
    if (ErrorReason(evaluated) == "QUALITY_TARGET") {
      // The place is free again, for a job with other settings.
      UQ_RETURN_IF_ERROR(AbandonOutput(spec_.output_uri, plan_sha256_, options));
    }
    UQ_RETURN_IF_ERROR(evaluated);
    return Publish();
  }

 private:
  absl::Status LoadWindows(const std::vector<std::string>& digests) {
    for (const std::string& digest : digests) {
      UQ_ASSIGN_OR_RETURN(
          WindowResult window,
          LoadWindowResult(plan_sha256_, static_cast<int>(results_.size()), digest, env_));
      results_.insert(results_.end(), window.layers.begin(), window.layers.end());
      windows_.push_back(std::move(window));
    }
    return absl::OkStatus();
  }

  void ListModules() {
    for (const LayerResult& result : results_) {
      for (const ModuleResult& module : result.modules) {
        ManifestModule entry;
        entry.name = module.name;
        entry.num_outputs = module.num_outputs;
        entry.num_inputs = module.num_inputs;
        entry.quantized = module.quantized;
        if (module.quantized) {
          entry.bits = module.bits;
          entry.group_size = module.group_size;
          entry.weight_error = module.weight_error;
          entry.num_saturated = module.num_saturated;
        } else {
          entry.reason = ReasonForFullPrecision(plan_.spec, module.name);
        }
        manifest_.modules.push_back(std::move(entry));
      }
      manifest_.layers.push_back({result.layer, result.initial_loss, result.final_loss});
    }
    manifest_.modules.push_back(HeadModule(context_.checkpoint->config()));
  }

  absl::Status WriteFiles() {
    const int num_shards = plan_.num_layers + 1;
    const std::string outer_file = ShardFileName(0, num_shards);
    UQ_ASSIGN_OR_RETURN(std::unique_ptr<ObjectWriter> out, output_->NewWriter(outer_file, {}));
    DigestingWriter outer(std::move(out));
    UQ_RETURN_IF_ERROR(WriteOuterShard(*context_.checkpoint, &outer, nullptr));
    UQ_RETURN_IF_ERROR(outer.Commit());
    AddFile(outer.Describe(outer_file));
    UQ_RETURN_IF_ERROR(IndexShard(outer_file));
    for (const LayerResult& result : results_) {
      if (IsCancelled(env_)) return CancelledError();
      ReportProgress(env_, "storing", result.layer, plan_.num_layers);
      const std::string file = ShardFileName(result.layer + 1, num_shards);
      UQ_RETURN_IF_ERROR(NoteWorkObject(CopyObject(env_.work.get(), ContentKey(result.shard_sha256),
                                                   output_.get(), file, result.shard_sha256),
                                        result.shard_sha256));
      AddFile({file, result.shard_size_bytes, result.shard_sha256});
      UQ_RETURN_IF_ERROR(IndexShard(file));
      UQ_CRASH_POINT("finalize.shard_copied");
    }
    UQ_ASSIGN_OR_RETURN(
        const ArtifactConfig config,
        BuildArtifactConfig(context_.checkpoint->config_json(), plan_.spec, manifest_.modules));
    manifest_.anybcq_omitted = config.anybcq_omitted;
    UQ_RETURN_IF_ERROR(WriteSmall("config.json", config.json));
    UQ_RETURN_IF_ERROR(
        WriteSmall("model.safetensors.index.json", BuildIndexJson(tensor_to_file_, tensor_bytes_)));
    std::vector<CopiedFile> copied;
    ObjectStore* const source = context_.checkpoint->store().get();
    UQ_ASSIGN_OR_RETURN(CopyPlan copies, PlanCopies(source));
    UQ_RETURN_IF_ERROR(CopyModelFiles(copies, source, output_.get(), &copied));
    manifest_.origin.left_out = std::move(copies.left_out);
    for (const CopiedFile& file : copied) AddFile(file);
    FillManifest();
    return absl::OkStatus();
  }

  void FillManifest() {
    manifest_.software_version = kSoftwareVersion;
    std::set<std::string> environments;
    Sha256 weights;
    for (const WindowResult& window : windows_) environments.insert(window.environment);
    for (const LayerResult& result : results_) {
      environments.insert(result.environment);
      weights.Update(result.weights_sha256);
    }
    manifest_.environment =
        absl::StrCat(absl::StrJoin(environments, " | "), "; arithmetic ", plan_.arithmetic);
    manifest_.spec = plan_.spec;
    manifest_.model.architecture = context_.checkpoint->config().architecture;
    manifest_.model.num_layers = plan_.num_layers;
    manifest_.origin.dequantized = context_.checkpoint->dequantized();
    manifest_.origin.evaluation_sha256 = plan_.evaluation_sha256;
    manifest_.model.config_sha256 = plan_.config_sha256;
    manifest_.model.tensors_sha256 = plan_.tensors_sha256;
    manifest_.model.weights_sha256 = weights.FinishHex();
    manifest_.model.calibration_sha256 = plan_.calibration_sha256;
    manifest_.model.plan_sha256 = plan_sha256_;
    manifest_.calibration_text = plan_.calibration_text;
    manifest_.evaluation_text = plan_.evaluation_text;
    manifest_.attachments = {kReportKey, kRunKey};
  }

  absl::Status Evaluate() {
    if (plan_.evaluation_sha256.empty()) return absl::OkStatus();
    UQ_ASSIGN_OR_RETURN(const std::string bytes,
                        GetContent(env_.work.get(), plan_.evaluation_sha256, kMaxTokenBytes));
    const std::vector<int32_t> tokens = TokensFromBytes(bytes);
    // The reader sees the artifact as it will be, but for the attachments, which it does not read.
    const std::shared_ptr<ObjectStore> view =
        NewOverlayStore(output_, {{kManifestKey, manifest_.ToJson()}});
    UQ_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> artifact,
                        Checkpoint::Open(view, /*allow_quantized=*/true));
    UQ_ASSIGN_OR_RETURN(evaluation_, EvaluateQuality(plan_, *context_.checkpoint, *artifact,
                                                     manifest_.modules, tokens, env_));
    manifest_.evaluation = evaluation_->perplexity;
    return absl::OkStatus();
  }

  absl::StatusOr<FinalizeOutcome> Publish() {
    FinalizeOutcome outcome = Summarize();
    const std::string manifest_json = manifest_.ToJson();
    outcome.artifact.manifest_sha256 = Sha256Hex(manifest_json);
    UQ_RETURN_IF_ERROR(
        output_->Write(kReportKey, RenderReportHtml({spec_, plan_, manifest_, outcome, results_,
                                                     parts_, env_.job, env_.clock->Now()})));
    UQ_RETURN_IF_ERROR(output_->Write(kRunKey, RunJson(outcome)));
    if (IsCancelled(env_)) return CancelledError();
    UQ_RETURN_IF_ERROR(PublishManifest(output_.get(), manifest_json, env_.signer));
    ReportProgress(env_, "storing", plan_.num_layers, plan_.num_layers);
    return outcome;
  }

  FinalizeOutcome Summarize() {
    FinalizeOutcome outcome;
    JobReport& report = outcome.report;
    for (const ManifestFile& file : manifest_.files) report.artifact_size_bytes += file.size_bytes;
    outcome.artifact.uri = spec_.output_uri;
    outcome.artifact.size_bytes = report.artifact_size_bytes;
    report.model_size_bytes = static_cast<int64_t>(plan_.model_size_bytes);
    report.average_bits = manifest_.AverageBits();
    if (manifest_.evaluation.has_value()) {
      report.perplexity_before = manifest_.evaluation->perplexity_before;
      report.perplexity_after = manifest_.evaluation->perplexity_after;
      report.num_evaluation_tokens = manifest_.evaluation->num_tokens;
      report.quality = evaluation_->report;
    }
    for (const LayerResult& result : results_) {
      LayerReport layer;
      layer.layer = result.layer;
      layer.initial_loss = result.initial_loss;
      layer.final_loss = result.final_loss;
      layer.bits = MostCommonBits(result);
      layer.history = HistoryOf(result.loss_curve, NumSteps(plan_));
      for (int round = 0; round < NumRounds(plan_); ++round) {
        const std::string task = LayerTaskName({result.layer, round});
        layer.duration += absl::Seconds(ReadRunSeconds(env_, task));
      }
      report.duration += layer.duration;
      report.layers.push_back(layer);
    }
    for (const WindowResult& result : windows_) {
      WindowReport window;
      window.first_layer = result.first_layer;
      window.num_layers = static_cast<int>(result.layers.size());
      window.initial_divergence = result.initial_divergence;
      window.final_divergence = result.final_divergence;
      window.duration =
          absl::Seconds(ReadRunSeconds(env_, TaskId({TaskKind::kDistill, result.first_layer, 0})));
      window.history = HistoryOf(result.loss_curve, plan_.spec.distill_steps);
      report.duration += window.duration;
      report.windows.push_back(window);
    }
    report.duration += env_.clock->Monotonic() - start_;
    report.warnings = Warnings(report);
    return outcome;
  }

  // What a perplexity says about the original: an incomplete download, or tokens of another model.
  void AddDoubts(double perplexity, std::vector<std::string>* warnings) const {
    const auto vocabulary = static_cast<double>(context_.checkpoint->config().vocab_size);
    if (perplexity < kAbsurdPart * vocabulary) return;  // not for NaN
    warnings->push_back(absl::StrFormat(
        "the original model is doubtful: its own perplexity is %.4g, where guessing among its %.0f "
        "tokens gives %.0f; look for an incomplete download or tokens of another tokenizer",
        perplexity, vocabulary, vocabulary));
  }

  std::vector<std::string> Warnings(const JobReport& report) const {
    std::vector<std::string> warnings = plan_.warnings;
    if (evaluation_.has_value()) {
      warnings.insert(warnings.end(), evaluation_->warnings.begin(), evaluation_->warnings.end());
    }
    if (report.perplexity_after.has_value() &&
        !(*report.perplexity_after <= kCollapseFactor * *report.perplexity_before)) {
      warnings.push_back(absl::StrFormat(
          "quality collapsed: perplexity went from %.4g to %.4g; use more bits, smaller groups or "
          "another method",
          *report.perplexity_before, *report.perplexity_after));
    }
    for (const WindowResult& window : windows_) {
      if (window.best_step > 0) continue;
      warnings.push_back(absl::StrCat("window at layer ", window.first_layer,
                                      ": distillation lowered the divergence of no judged state; "
                                      "its layers are what they were"));
    }
    if (report.perplexity_before.has_value()) AddDoubts(*report.perplexity_before, &warnings);
    for (const LayerResult& result : results_) {
      warnings.insert(warnings.end(), result.warnings.begin(), result.warnings.end());
      if (result.kept_start) {
        warnings.push_back(absl::StrCat("layer ", result.layer,
                                        ": training did not lower its output error; it is stored "
                                        "as it began"));
      }
      if (!std::isfinite(result.initial_loss) || !std::isfinite(result.final_loss)) {
        warnings.push_back(
            absl::StrCat("layer ", result.layer,
                         ": its output error is not a finite number; the layer's inputs "
                         "or weights are beyond the arithmetic's range"));
      } else if (result.final_loss > result.initial_loss) {
        warnings.push_back(
            absl::StrFormat("layer %d: reconstruction made the output error worse (%.3e to %.3e)",
                            result.layer, result.initial_loss, result.final_loss));
      }
      for (const ModuleResult& module : result.modules) {
        if (module.num_underflowed > 0) {
          warnings.push_back(absl::StrCat(
              module.name, ": ", module.num_underflowed,
              " groups of weights are so small that fp16 cannot hold their scale factors; more "
              "bits do not help: leave the module in full precision (override), or rescale it with "
              "the norm or layer before it"));
        }
        if (module.num_saturated == 0) continue;
        warnings.push_back(
            absl::StrCat(module.name, ": ", module.num_saturated,
                         " scale factors or shifts beyond fp16's range were clamped; "
                         "leave the module in full precision (override)"));
      }
    }
    return warnings;
  }

  // The plan's spec, which holds no URIs: an artifact goes to people who need not know where its
  // inputs lay.
  std::string RunJson(const FinalizeOutcome& outcome) const {
    nlohmann::ordered_json json;
    json["finished"] = absl::FormatTime(env_.clock->Now(), absl::UTCTimeZone());
    json["spec"] = nlohmann::ordered_json::parse(plan_.spec.ToJson());
    json["report"] = ToJson(outcome.report);
    return json.dump(2) + "\n";
  }

  absl::Status IndexShard(const std::string& file) {
    UQ_ASSIGN_OR_RETURN(const auto shard, SafetensorsFile::Open(output_, file));
    for (const auto& [name, info] : shard->tensors()) {
      tensor_to_file_[name] = file;
      parts_.Add(name, info.size_bytes, file == ShardFileName(0, plan_.num_layers + 1));
      tensor_bytes_ += info.size_bytes;
    }
    return absl::OkStatus();
  }

  absl::Status WriteSmall(const std::string& path, const std::string& bytes) {
    UQ_RETURN_IF_ERROR(output_->Write(path, bytes));
    AddFile({path, bytes.size(), Sha256Hex(bytes)});
    return absl::OkStatus();
  }

  void AddFile(const CopiedFile& file) {
    manifest_.files.push_back({file.path, file.size_bytes, file.sha256});
  }

  const QuantizationSpec& spec_;
  const TaskContext& context_;
  const Plan& plan_;
  const std::string plan_sha256_;
  const TaskEnvironment& env_;
  const absl::Duration start_;
  std::shared_ptr<ObjectStore> output_;
  std::vector<LayerResult> results_;
  std::vector<WindowResult> windows_;  // empty where nothing was distilled
  Manifest manifest_;
  std::optional<Evaluation> evaluation_;
  std::map<std::string, std::string> tensor_to_file_;
  uint64_t tensor_bytes_ = 0;
  PartSizes parts_;
};

}  // namespace

absl::StatusOr<FinalizeOutcome> RunFinalize(const QuantizationSpec& spec,
                                            const std::string& plan_sha256,
                                            const std::vector<std::string>& layers,
                                            const TaskEnvironment& env) {
  if (env.cache != nullptr) env.cache->Clear();
  UQ_ASSIGN_OR_RETURN(const TaskContext context, OpenTaskContext(spec, plan_sha256, env));
  FinalizeRun run(spec, context, plan_sha256, env);
  return run.Run(layers);
}

}  // namespace uniquanf
