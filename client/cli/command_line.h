// What all commands of the command line client share: global flags, the connection, output for
// programs, errors and exit codes (README.md). Thread safety: a CommandLine belongs to one thread.
#ifndef UNIQUANF_CLIENT_CLI_COMMAND_LINE_H_
#define UNIQUANF_CLIENT_CLI_COMMAND_LINE_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/include/uniquanf/client.h"
#include "common/base/flag_set.h"
#include "common/base/program_commands.h"

namespace uniquanf::cli {

enum ExitCode {
  kOk = 0,
  kJobFailed = 1,
  kUsage = 2,
  kNotFound = 3,
  kUnreachable = 4,
  kRefused = 5,
  kJobCancelled = 6,
  kLocalFailure = 7,
  kInterrupted = 130,
};

// The exit code that README.md promises for `status`.
int ExitCodeFor(const absl::Status& status);
// For a job that is final; kOk for others.
int ExitCodeFor(JobState state);

using Arguments = std::vector<std::string>;

enum class OutputFormat { kTable, kWide, kJson, kYaml, kName };

class CommandLine {
 public:
  CommandLine(absl::string_view usage, absl::string_view summary);
  CommandLine(const CommandLine&) = delete;

  FlagSet& flags() { return flags_; }
  // Adds the global flags and parses. An exit code when the command is over: --help, or bad usage.
  std::optional<int> Parse(const Arguments& arguments);
  OutputFormat format() const { return format_; }
  bool wide() const { return format_ == OutputFormat::kWide; }
  // Whether standard output is for programs: JSON, YAML or names.
  bool for_programs() const { return format_ >= OutputFormat::kJson; }
  // Prints `document` if standard output is for programs; else returns false, and people are to be
  // told.
  bool PrintDocument(const nlohmann::ordered_json& document) const;
  // The same in a stream of documents: JSON in one line, YAML after "---"; flushed.
  bool PrintStreamDocument(const nlohmann::ordered_json& document) const;

  // The client, made at first use. `patience` says how long a watch tries an unreachable server.
  absl::StatusOr<Client*> Connect();

  // Prints `status` to standard error, where standard output is for programs also as a document
  // there. Returns its exit code.
  int Fail(const absl::Status& status) const;
  // The same for a command line that makes no sense: exit code 2 and a pointer to the help.
  int FailUsage(const absl::Status& status) const;
  // To standard error alone: one of several that a command works on.
  void PrintErrorText(const absl::Status& status) const;

 private:
  void PrintError(const absl::Status& status) const;
  // What the shell asked for, with the names that only the server knows.
  int PrintCompletions();

  const std::string usage_;
  FlagSet flags_;
  ClientOptions options_;
  absl::Duration timeout_ = absl::Seconds(30);
  bool json_ = false;
  OutputFormat format_ = OutputFormat::kTable;
  std::unique_ptr<Client> client_;
};

// The document of an error: {"error": {"code", "reason", "message", "violations"}}.
nlohmann::ordered_json ErrorDocument(const absl::Status& status);

const ProgramDescription& Program();
// Whether `argument` ("--server", "-o") is a global flag whose value is the next word: it may stand
// before the command's name.
bool IsGlobalFlagWithValue(absl::string_view argument);

int RunSubmit(const Arguments& arguments);
int RunGet(const Arguments& arguments);
int RunList(const Arguments& arguments);
int RunWatch(const Arguments& arguments);
int RunCancel(const Arguments& arguments);
int RunPause(const Arguments& arguments);
int RunResume(const Arguments& arguments);
int RunRetry(const Arguments& arguments);
int RunDelete(const Arguments& arguments);
int RunTasks(const Arguments& arguments);
int RunDescribe(const Arguments& arguments);
int RunLogs(const Arguments& arguments);
int RunWait(const Arguments& arguments);
int RunCompletion(const Arguments& arguments);
int RunDownload(const Arguments& arguments);
int RunWorkers(const Arguments& arguments);
int RunDrain(const Arguments& arguments);
int RunUndrain(const Arguments& arguments);
int RunConfirmClock(const Arguments& arguments);
int RunInfo(const Arguments& arguments);
int RunHealth(const Arguments& arguments);
int RunVersion(const Arguments& arguments);

}  // namespace uniquanf::cli

#endif  // UNIQUANF_CLIENT_CLI_COMMAND_LINE_H_
