// `uniquanf-batch quantize`: prepare, every layer in order, finalize; the same functions that the
// service's workers call.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/base/terminal_progress.h"
#include "common/spec/spec_flags.h"
#include "worker/batch/batch.h"
#include "worker/batch/work_area.h"
#include "worker/task/output.h"
#include "worker/task/task_runner.h"

namespace uniquanf::batch {
namespace {

struct QuantizeFlags {
  QuantizationSpec spec;
  DeviceFlags device;
  std::string work;
  bool json = false;
  bool fresh = false;
};

// Runs the job and shows its progress.
class QuantizeRun {
 public:
  explicit QuantizeRun(const QuantizeFlags& flags)
      : flags_(flags),
        progress_(STDERR_FILENO, DetectTerminal(STDERR_FILENO), SystemClock()),
        cache_(NewActivationCache()) {}

  absl::StatusOr<FinalizeOutcome> Run() {
    UQ_ASSIGN_OR_RETURN(backend_, flags_.device.MakeBackend(&env_.act));
    UQ_ASSIGN_OR_RETURN(work_, WorkArea::Open(flags_.work, flags_.spec.output_uri));
    absl::StatusOr<FinalizeOutcome> outcome = RunTasks();
    progress_.Finish();
    if (outcome.ok() || (!work_->HasProgress() && !absl::IsCancelled(outcome.status()))) {
      const absl::Status removed = work_->Remove();
      if (outcome.ok() && !removed.ok()) {
        std::fprintf(stderr, "warning: %s\n", std::string(removed.message()).c_str());
      }
    } else {
      std::fprintf(stderr,
                   "Finished layers are kept in %s; run the same command again to continue.\n",
                   work_->uri().c_str());
    }
    return outcome;
  }

 private:
  absl::StatusOr<FinalizeOutcome> RunTasks() {
    env_.backend = backend_.get();
    env_.clock = &SystemClock();
    env_.cache = cache_.get();
    env_.work = work_->store();
    env_.cancelled = [] { return Interrupted(); };
    Watch("prepare");
    UQ_ASSIGN_OR_RETURN(const PrepareOutcome prepared, RunPrepare(flags_.spec, env_));
    num_layers_ = prepared.num_layers;
    const MemoryInfo memory = backend_->memory();
    if (prepared.layer_memory_bytes > memory.total_bytes) {
      return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                       absl::StrCat("a layer needs about ", prepared.layer_memory_bytes >> 20,
                                    " MiB, but the device has ", memory.total_bytes >> 20,
                                    " MiB; use fewer or shorter calibration sequences "
                                    "(--num-samples, --sequence-length)"));
    }
    std::vector<std::string> results;
    for (int layer = 0; layer < prepared.num_layers; ++layer) {
      std::string result = flags_.fresh ? "" : work_->FinishedLayer(prepared.plan_sha256, layer);
      if (result.empty()) {
        Watch(absl::StrCat("layer ", layer));
        UQ_ASSIGN_OR_RETURN(const LayerOutcome outcome,
                            RunLayer(flags_.spec, prepared.plan_sha256, layer, results, env_));
        result = outcome.result_sha256;
        UQ_RETURN_IF_ERROR(work_->RecordFinishedLayer(prepared.plan_sha256, layer, result));
        Done(layer, outcome);
      } else {
        progress_.Print(absl::StrCat("layer ", layer, ": done by an earlier run"));
      }
      results.push_back(std::move(result));
      ++num_done_;
    }
    Watch("finalize");
    absl::StatusOr<FinalizeOutcome> outcome =
        RunFinalize(flags_.spec, prepared.plan_sha256, results, env_);
    if (!outcome.ok()) AbandonOutput(flags_.spec.output_uri, prepared.plan_sha256).IgnoreError();
    return outcome;
  }

  // Shows the progress of the task that starts now.
  void Watch(const std::string& task) {
    env_.progress = [this, task](const TaskProgress& progress) {
      const double part =
          progress.num_steps > 0 ? static_cast<double>(progress.step) / progress.num_steps : 0;
      const bool reconstructing = absl::string_view(progress.phase) == "reconstructing";
      ProgressRow job, row;
      job.label = "job";
      if (num_layers_ > 0) {
        job_fraction_ =
            std::max(job_fraction_, (num_done_ + (reconstructing ? part : 0)) / num_layers_);
      }
      job.fraction = job_fraction_;
      job.detail = absl::StrCat(num_done_, "/", num_layers_, " layers");
      row.label = task;
      row.fraction = part;
      row.detail = progress.loss > 0
                       ? absl::StrFormat("%s, loss %.3e", progress.phase, progress.loss)
                       : std::string(progress.phase);
      progress_.Update({job, row});
    };
  }

  void Done(int layer, const LayerOutcome& outcome) {
    if (outcome.initial_loss > 0) {
      progress_.Print(absl::StrFormat("layer %d: output error %.3e -> %.3e", layer,
                                      outcome.initial_loss, outcome.final_loss));
    }
  }

  const QuantizeFlags& flags_;
  TerminalProgress progress_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<ActivationCache> cache_;
  std::unique_ptr<WorkArea> work_;
  TaskEnvironment env_;
  int num_layers_ = 0;
  int num_done_ = 0;
  double job_fraction_ = 0;  // only grows
};

void PrintJson(const FinalizeOutcome& outcome) {
  nlohmann::ordered_json json;
  json["artifact"] = outcome.artifact_uri;
  json["manifest_sha256"] = outcome.manifest_sha256;
  json["artifact_size_bytes"] = outcome.artifact_size_bytes;
  json["model_size_bytes"] = outcome.model_size_bytes;
  json["average_bits"] = outcome.average_bits;
  if (outcome.perplexity_before.has_value()) {
    json["perplexity_before"] = *outcome.perplexity_before;
    json["perplexity_after"] = *outcome.perplexity_after;
    json["num_evaluation_tokens"] = outcome.num_evaluation_tokens;
  }
  json["layers"] = nlohmann::ordered_json::array();
  for (const LayerSummary& layer : outcome.layers) {
    json["layers"].push_back({{"layer", layer.layer},
                              {"bits", layer.bits},
                              {"initial_loss", layer.initial_loss},
                              {"final_loss", layer.final_loss},
                              {"seconds", layer.seconds}});
  }
  json["warnings"] = outcome.warnings;
  std::printf("%s\n", json.dump().c_str());
}

void PrintReport(const FinalizeOutcome& outcome) {
  std::printf("\nArtifact       %s\n", outcome.artifact_uri.c_str());
  std::printf("Manifest       sha256 %s\n", outcome.manifest_sha256.c_str());
  std::printf("Size           %.2f MiB, from %.2f MiB; %.2f bits a quantized weight\n",
              outcome.artifact_size_bytes / 1048576.0, outcome.model_size_bytes / 1048576.0,
              outcome.average_bits);
  if (outcome.perplexity_before.has_value()) {
    std::printf("Perplexity     %.4f before, %.4f after, on %lld tokens\n",
                *outcome.perplexity_before, *outcome.perplexity_after,
                static_cast<long long>(outcome.num_evaluation_tokens));
  }
  std::printf("Computed for   %.1f s\n", outcome.seconds);
  for (const std::string& warning : outcome.warnings)
    std::printf("Warning        %s\n", warning.c_str());
}

}  // namespace

int Quantize(const std::vector<std::string>& arguments) {
  QuantizeFlags flags;
  FlagSet flag_set("uniquanf-batch quantize --model DIR --calibration FILE --output DIR [flags]",
                   "Quantizes a Hugging Face checkpoint into a unified artifact. A run that was "
                   "interrupted continues when the same command is given again.");
  AddSpecFlags(&flag_set, &flags.spec);
  flags.device.AddTo(&flag_set);
  flag_set.Section("Run");
  flag_set.String("work", "DIR", &flags.work,
                  "where work in progress lies; default: OUTPUT.partial");
  flag_set.Bool("fresh", &flags.fresh, "do not continue from an earlier run's finished layers");
  flag_set.Bool("json", &flags.json, "print the report as JSON on standard output");
  int exit_code = kOk;
  if (!ParseOrExplain(&flag_set, arguments, &exit_code)) return exit_code;
  for (const auto& [name, value] :
       {std::pair{"model", &flags.spec.model_uri}, std::pair{"output", &flags.spec.output_uri}}) {
    if (!value->empty()) continue;
    std::fprintf(stderr, "error: --%s is required\nTry --help.\n", name);
    return kUsage;
  }
  MakeUrisAbsolute(&flags.spec);
  QuantizeRun run(flags);
  const absl::StatusOr<FinalizeOutcome> outcome = run.Run();
  if (!outcome.ok()) return Fail(outcome.status(), flags.json);
  if (flags.json) {
    PrintJson(*outcome);
  } else {
    PrintReport(*outcome);
  }
  return kOk;
}

}  // namespace uniquanf::batch
