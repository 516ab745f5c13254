// `uniquanf-batch export`: an artifact as an ordinary bf16 checkpoint.
#include <unistd.h>

#include <cstdio>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/base/terminal_progress.h"
#include "common/spec/spec_flags.h"
#include "worker/batch/batch.h"
#include "worker/task/export.h"

namespace uniquanf::batch {
namespace {

absl::Status RunExport(const std::string& artifact, const std::string& output) {
  UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> store,
                      OpenObjectStore(AbsoluteUri(artifact)));
  TerminalProgress progress(STDERR_FILENO, DetectTerminal(STDERR_FILENO), SystemClock());
  return ExportDequantized(
      store, AbsoluteUri(output),
      [&progress](int layer, int num_layers) {
        ProgressRow row;
        row.label = "export";
        row.fraction = static_cast<double>(layer) / num_layers;
        progress.Update({row});
      },
      [] { return Interrupted(); });
}

}  // namespace

int Export(const std::vector<std::string>& arguments) {
  std::string artifact, output, format = "dequantized";
  FlagSet flag_set("uniquanf-batch export ARTIFACT --output DIR [flags]",
                   "Writes an artifact in a form that other runtimes load.");
  flag_set.Positional("ARTIFACT", true, &artifact, "the artifact's directory");
  flag_set.String("output", "DIR", &output, "where to write; must not hold anything");
  flag_set.Choice("format", {"dequantized"}, &format,
                  "dequantized: a bf16 Hugging Face checkpoint, which every runtime loads");
  int exit_code = kOk;
  if (!ParseOrExplain(&flag_set, arguments, &exit_code)) return exit_code;
  if (output.empty()) {
    std::fprintf(stderr, "error: --output is required\nTry --help.\n");
    return kUsage;
  }
  const absl::Status status = RunExport(artifact, output);
  if (!status.ok()) return Fail(status, false);
  std::printf("wrote %s\n", output.c_str());
  return kOk;
}

}  // namespace uniquanf::batch
