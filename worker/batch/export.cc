// `uniquanf-batch export`: an artifact in a form that other runtimes load.
#include "worker/export/export.h"

#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/printable.h"
#include "common/base/status.h"
#include "common/base/terminal_progress.h"
#include "common/spec/spec_flags.h"
#include "worker/batch/batch.h"

namespace uniquanf::batch {
namespace {

absl::StatusOr<ExportSummary> RunExport(const std::string& artifact, const std::string& output,
                                        ExportOptions options) {
  UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> store,
                      OpenObjectStore(AbsoluteUri(artifact)));
  TerminalProgress progress(STDERR_FILENO, DetectTerminal(STDERR_FILENO), SystemClock());
  options.progress = [&progress](int done, int total) {
    ProgressRow row;
    row.label = "export";
    row.fraction = static_cast<double>(done) / total;
    progress.Update({row});
  };
  options.stop = [] { return Interrupted(); };
  return ExportArtifact(store, AbsoluteUri(output), options);
}

}  // namespace

int Export(const std::vector<std::string>& arguments) {
  std::string artifact, output;
  ExportOptions options;
  bool json = false;
  std::vector<std::string> names;
  std::string help = "which runtime's form:";
  for (const ExportFormatRow& row : ExportFormats()) {
    names.push_back(row.name);
    absl::StrAppend(&help, "\n", row.name, ": ", row.help);
  }
  FlagSet flag_set("uniquanf-batch export ARTIFACT --output DIR [flags]",
                   "Writes an artifact in a form that other runtimes load.");
  flag_set.Positional("ARTIFACT", true, &artifact, "the artifact's directory");
  flag_set.String("output", "DIR", &output, "where to write; must not hold anything");
  flag_set.Choice("format", names, &options.format, help);
  flag_set.Bool(
      "allow-approximate", &options.allow_approximate,
      "write the nearest weights that the format has where it cannot hold the artifact's");
  flag_set.Bool("json", &json, "print JSON");
  int exit_code = kOk;
  if (!ParseOrExplain(&flag_set, arguments, &exit_code)) return exit_code;
  if (output.empty()) {
    std::fprintf(stderr, "error: --output is required\nTry --help.\n");
    return kUsage;
  }
  const absl::StatusOr<ExportSummary> summary = RunExport(artifact, output, options);
  if (!summary.ok()) return Fail(summary.status(), json);
  if (json) {
    nlohmann::ordered_json result;
    result["format"] = options.format;
    result["num_modules"] = summary->num_modules;
    result["max_error"] = summary->deviation.max_error;
    result["mean_error"] = summary->deviation.mean_error();
    result["within_rounding"] = summary->deviation.within_rounding;
    result["worst_module"] = summary->worst_module;
    PrintJsonLine(result);
    return kOk;
  }
  std::printf("wrote %s: %d layers as %s, %s\n", output.c_str(), summary->num_modules,
              options.format.c_str(), PrintableText(summary->Describe()).c_str());
  return kOk;
}

}  // namespace uniquanf::batch
