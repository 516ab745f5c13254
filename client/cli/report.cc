#include <algorithm>
#include <cstdio>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/output.h"
#include "common/base/format_bytes.h"
#include "common/base/terminal_progress.h"
#include "common/spec/spec_flags.h"

namespace uniquanf::cli {
namespace {

void Field(absl::string_view name, absl::string_view value) {
  if (value.empty()) return;
  std::printf("  %-14s %s\n", std::string(name).c_str(), Printable(value).c_str());
}

std::string Perplexities(const JobReport& report) {
  std::string text;
  if (report.perplexity_before.has_value()) {
    absl::StrAppendFormat(&text, "%.4f before", *report.perplexity_before);
  }
  if (report.perplexity_after.has_value()) {
    absl::StrAppendFormat(&text, "%s%.4f after", text.empty() ? "" : ", ",
                          *report.perplexity_after);
  }
  if (report.perplexity_before.has_value() && report.perplexity_after.has_value() &&
      *report.perplexity_before > 0) {
    absl::StrAppendFormat(&text, " (%+.1f%%)",
                          100 * (*report.perplexity_after / *report.perplexity_before - 1));
  }
  if (!text.empty() && report.num_evaluation_tokens > 0) {
    absl::StrAppend(&text, " over ", report.num_evaluation_tokens, " tokens");
  }
  return text;
}

std::string Sizes(const JobReport& report) {
  std::string text = absl::StrCat(FormatBytes(report.model_size_bytes), " -> ",
                                  FormatBytes(report.artifact_size_bytes));
  if (report.artifact_size_bytes > 0) {
    absl::StrAppendFormat(
        &text, " (%.2fx smaller)",
        static_cast<double>(report.model_size_bytes) / report.artifact_size_bytes);
  }
  return text;
}

void PrintLayers(const std::vector<LayerReport>& layers) {
  if (layers.empty()) return;
  std::vector<std::vector<std::string>> rows;
  for (const LayerReport& layer : layers) {
    const bool measured = layer.initial_loss > 0;
    rows.push_back(
        {absl::StrCat(layer.layer), layer.bits == 0 ? "full" : absl::StrCat(layer.bits),
         measured ? absl::StrFormat("%.4e", layer.initial_loss) : "-",
         measured ? absl::StrFormat("%.4e", layer.final_loss) : "-",
         measured ? absl::StrFormat("%+.1f%%", 100 * (layer.final_loss / layer.initial_loss - 1))
                  : "-",
         ShortDuration(layer.duration)});
  }
  std::puts("");
  PrintTable({{"  Layer", Column::kNumber},
              {"Bits", Column::kNumber},
              {"Block error before", Column::kNumber},
              {"after", Column::kNumber},
              {"Change", Column::kNumber},
              {"Time", Column::kNumber}},
             std::move(rows));
}

void PrintWindows(const std::vector<WindowReport>& windows) {
  if (windows.empty()) return;
  std::vector<std::vector<std::string>> rows;
  for (const WindowReport& window : windows) {
    rows.push_back(
        {absl::StrCat(window.first_layer, " to ", window.first_layer + window.num_layers - 1),
         absl::StrFormat("%.4f", window.initial_divergence),
         absl::StrFormat("%.4f", window.final_divergence), ShortDuration(window.duration)});
  }
  std::puts("");
  PrintTable({{"  Distilled layers", Column::kNumber},
              {"Divergence before", Column::kNumber},
              {"after", Column::kNumber},
              {"Time", Column::kNumber}},
             std::move(rows));
}

std::string Settings(const QuantizationSpec& spec) {
  std::string text = absl::StrCat(
      std::string(QuantizationMethodName(spec.method)), ", ", spec.bits, " bits, ",
      spec.group_size == 0 ? std::string("per row") : absl::StrCat("groups of ", spec.group_size));
  absl::StrAppend(&text, ", ", spec.epochs, " epochs, seed ", spec.seed);
  return text;
}

}  // namespace

std::string ShortPerplexity(const Job& job) {
  if (!job.report.has_value() || !job.report->perplexity_after.has_value()) return "";
  const double after = *job.report->perplexity_after;
  const double before = job.report->perplexity_before.value_or(0);
  if (before <= 0) return absl::StrFormat("%.2f", after);
  return absl::StrFormat("%.2f (%+.1f%%)", after, 100 * (after / before - 1));
}

std::string WhyNot(const Job& job) {
  if (job.error.has_value()) return absl::StrCat(job.error->reason, ": ", job.error->message);
  return job.status_message;
}

std::string RetryAdvice(const Job& job) {
  const std::string command = absl::StrCat("uniquanf retry ", ShortJobName(job.name));
  if (job.error.has_value()) {
    // What happens to a good job; anything else before the first layer is about what it names.
    static constexpr absl::string_view kPassing[] = {
        "DEADLINE",      "LEASE_EXPIRED",    "LEASE_RELEASED",
        "OUT_OF_MEMORY", "STORAGE_FULL",     "STORE_UNAVAILABLE",
        "TASK_STALLED",  "WORKER_RESTARTED", "REQUEST_INTERRUPTED"};
    const bool passing = std::find(std::begin(kPassing), std::end(kPassing), job.error->reason) !=
                         std::end(kPassing);
    if (job.error->reason == "QUALITY_TARGET" ||
        (!passing && job.progress.num_tasks_succeeded == 0)) {
      return "A retry would end the same way: submit it anew with that corrected.";
    }
  }
  if (job.progress.num_layers_succeeded > 0) {
    return absl::StrCat("Continue it from its finished layers with: ", command);
  }
  return absl::StrCat("Try it again with: ", command);
}

void PrintReport(const Job& job) {
  if (job.state == JobState::kFailed && job.error.has_value()) {
    std::printf("%s failed%s%s: %s [%s]\n", ShortJobName(job.name).c_str(),
                job.error->task.empty() ? "" : " in ", Printable(job.error->task).c_str(),
                Printable(job.error->message).c_str(), Printable(job.error->reason).c_str());
    std::printf("%s\n", RetryAdvice(job).c_str());
    return;
  }
  if (job.state == JobState::kCancelled) {
    std::printf("%s was cancelled. %s\n", ShortJobName(job.name).c_str(), RetryAdvice(job).c_str());
    return;
  }
  if (job.state != JobState::kSucceeded) return;
  std::printf("%s succeeded\n", ShortJobName(job.name).c_str());
  Field("settings", Settings(job.spec));
  if (job.report.has_value()) {
    const JobReport& report = *job.report;
    Field("perplexity", Perplexities(report));
    if (report.quality.has_value()) Field("quality", report.quality->verdict);
    Field("size", Sizes(report));
    if (report.average_bits > 0) {
      Field("average bits",
            absl::StrFormat("%.3f a quantized weight, scales included", report.average_bits));
    }
    Field("computing time", ShortDuration(report.duration));
    for (const std::string& warning : report.warnings) Field("WARNING", warning);
    PrintLayers(report.layers);
    PrintWindows(report.windows);
  }
  if (job.artifact.has_value()) {
    std::puts("");
    Field("artifact", job.artifact->uri);
    Field("manifest", absl::StrCat("sha256 ", job.artifact->manifest_sha256));
  }
}

void PrintJob(const Job& job) {
  std::printf("%s\n", Printable(job.name).c_str());
  Field("state", std::string(JobStateName(job.state)));
  Field("status", job.status_message);
  const JobProgress& progress = job.progress;
  if (!IsFinal(job.state)) {
    Field("progress",
          absl::StrCat(absl::StrFormat("%.0f%%, layers %d/%d", 100 * progress.fraction,
                                       progress.num_layers_succeeded, progress.num_layers),
                       progress.remaining.has_value()
                           ? absl::StrCat(", ", ShortDuration(*progress.remaining), " left")
                           : ""));
  }
  Field("model", job.spec.model_uri);
  Field("calibration", job.spec.calibration_uri);
  Field("output", job.spec.output_uri);
  Field("evaluation", job.spec.evaluation_uri);
  Field("settings", Settings(job.spec));
  for (const ModuleOverride& module_override : job.spec.overrides) {
    Field("override", FormatModuleOverride(module_override));
  }
  Field("tenant", job.tenant);
  if (job.priority != 0) Field("priority", absl::StrCat(job.priority));
  if (!job.labels.empty()) {
    Field("labels", absl::StrJoin(job.labels, ", ", absl::PairFormatter("=")));
  }
  Field("device", job.device);
  Field("created", FormatLocalTime(job.create_time));
  if (job.start_time) Field("started", FormatLocalTime(*job.start_time));
  if (job.end_time) Field("ended", FormatLocalTime(*job.end_time));
  if (job.deadline) Field("deadline", FormatLocalTime(*job.deadline));
  if (job.time_to_live.has_value()) Field("kept for", ShortDuration(*job.time_to_live));
  if (IsFinal(job.state)) {
    std::puts("");
    PrintReport(job);
  }
}

}  // namespace uniquanf::cli
