// `uniquanf-batch verify`: every digest and every tensor of an artifact.
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "common/artifact/artifact_reader.h"
#include "common/base/clock.h"
#include "common/base/format_bytes.h"
#include "common/base/printable.h"
#include "common/base/terminal_progress.h"
#include "common/spec/spec_flags.h"
#include "worker/batch/batch.h"

namespace uniquanf::batch {

int Verify(const std::vector<std::string>& arguments) {
  std::string artifact;
  bool json = false;
  FlagSet flag_set("uniquanf-batch verify ARTIFACT [flags]",
                   "Checks every file's digest and every tensor of an artifact.");
  flag_set.Positional("ARTIFACT", true, &artifact, "the artifact's directory");
  flag_set.Bool("json", &json, "print JSON");
  int exit_code = kOk;
  if (!ParseOrExplain(&flag_set, arguments, &exit_code)) return exit_code;
  const auto store = OpenObjectStore(AbsoluteUri(artifact));
  if (!store.ok()) return Fail(store.status(), json);
  TerminalProgress progress(STDERR_FILENO, DetectTerminal(STDERR_FILENO), SystemClock());
  const auto report = VerifyArtifact(*store, [&progress](uint64_t done, uint64_t total) {
    ProgressRow row;
    row.label = "verify";
    row.fraction = total > 0 ? static_cast<double>(done) / total : 0;
    progress.Update({row});
  });
  progress.Finish();
  if (!report.ok()) return Fail(report.status(), json);
  if (json) {
    nlohmann::ordered_json out;
    out["ok"] = report->problems.empty();
    out["num_files"] = report->num_files;
    out["num_bytes"] = report->num_bytes;
    out["num_modules"] = report->num_modules;
    out["problems"] = report->problems;
    PrintJsonLine(out);
  } else {
    for (const std::string& problem : report->problems)
      std::printf("problem: %s\n", PrintableText(problem).c_str());
    std::printf("%s: %lld files, %s, %lld modules, %zu problems\n",
                report->problems.empty() ? "verified" : "DAMAGED",
                static_cast<long long>(report->num_files), FormatBytes(report->num_bytes).c_str(),
                static_cast<long long>(report->num_modules), report->problems.size());
  }
  return report->problems.empty() ? kOk : kFailed;
}

}  // namespace uniquanf::batch
