#include <unistd.h>

#include <cstdio>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/command_line.h"
#include "client/cli/interrupt.h"
#include "client/cli/job_selection.h"
#include "client/cli/output.h"
#include "common/base/clock.h"
#include "common/base/format_bytes.h"
#include "common/base/status.h"
#include "common/base/terminal_progress.h"

namespace uniquanf::cli {
namespace {

absl::StatusOr<ArtifactInfo> FindArtifact(CommandLine* command_line, const std::string& source) {
  if (absl::StrContains(source, "://")) {
    ArtifactInfo artifact;
    artifact.uri = source;
    return artifact;
  }
  UQ_ASSIGN_OR_RETURN(Client* const client, command_line->Connect());
  UQ_ASSIGN_OR_RETURN(Job job, FindJob(client, source));
  if (job.artifact.has_value()) return *std::move(job.artifact);
  return FailedPrecondition(
      "JOB_NOT_SUCCEEDED",
      absl::StrCat(job.name, " has no artifact: it is ", std::string(JobStateName(job.state))));
}

std::string DefaultDirectory(const std::string& source) {
  std::string name = source;
  while (!name.empty() && name.back() == '/') name.pop_back();
  return name.substr(name.rfind('/') + 1);
}

}  // namespace

int RunDownload(const Arguments& arguments) {
  CommandLine command_line(
      "uniquanf download JOB [DIRECTORY] [flags]",
      "Copies the artifact of a job that succeeded to a new local directory. Every file is checked "
      "against\nthe digests of the manifest; the directory appears whole or not at all. Object "
      "storage must be\nreachable from here.");
  std::string source, directory;
  command_line.flags().Positional("JOB", true, &source,
                                  "the job's name, or an artifact's URI (s3://, file://)");
  command_line.flags().Positional("DIRECTORY", false, &directory,
                                  "where it goes (default: the job's name, here)");
  command_line.flags().Example("uniquanf download tiny-3bit", "Into ./tiny-3bit.");
  command_line.flags().Example("uniquanf download s3://bucket/tiny-3bit models/tiny",
                               "An artifact that no job is known of.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  if (directory.empty()) directory = DefaultDirectory(source);
  const auto artifact = FindArtifact(&command_line, source);
  if (!artifact.ok()) return command_line.Fail(artifact.status());

  TerminalProgress progress(STDERR_FILENO, DetectTerminal(STDERR_FILENO), SystemClock());
  InterruptHandler interrupt([] {});
  DownloadOptions options;
  options.progress = [&](const DownloadProgress& now) {
    if (!command_line.for_programs() && now.bytes_total > 0) {
      progress.Update({{"download", static_cast<double>(now.bytes_done) / now.bytes_total,
                        absl::StrCat(FormatBytes(now.bytes_done), " of ",
                                     FormatBytes(now.bytes_total), "  ", now.file)}});
    }
    return !interrupt.interrupted();
  };
  const auto result = DownloadArtifact(*artifact, directory, options);
  progress.Finish();
  if (!result.ok()) {
    const int code = command_line.Fail(result.status());
    return interrupt.interrupted() ? kInterrupted : code;
  }
  if (!command_line.PrintDocument({{"name", result->directory},
                                   {"directory", result->directory},
                                   {"num_files", result->num_files},
                                   {"size_bytes", result->size_bytes}})) {
    std::printf("%s: %d files, %s, every digest checked\n", Printable(result->directory).c_str(),
                result->num_files, FormatBytes(result->size_bytes).c_str());
  }
  return kOk;
}

}  // namespace uniquanf::cli
