// What all commands of the command line client share: global flags, the connection, errors and exit
// codes (README.md). Thread safety: a CommandLine belongs to one thread.
#ifndef UNIQUANF_CLIENT_CLI_COMMAND_LINE_H_
#define UNIQUANF_CLIENT_CLI_COMMAND_LINE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/include/uniquanf/client.h"
#include "common/base/flag_set.h"

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

class CommandLine {
 public:
  CommandLine(absl::string_view usage, absl::string_view summary);
  CommandLine(const CommandLine&) = delete;

  FlagSet& flags() { return flags_; }
  // Adds the global flags and parses. An exit code when the command is over: --help, or bad usage.
  std::optional<int> Parse(const Arguments& arguments);
  bool json() const { return json_; }

  // The client, made at first use. `patience` says how long a watch tries an unreachable server.
  absl::StatusOr<Client*> Connect();

  // Prints `status` to standard error, with --json also as a document to standard output. Returns
  // its exit code.
  int Fail(const absl::Status& status) const;
  // The same for a command line that makes no sense: exit code 2 and a pointer to the help.
  int FailUsage(const absl::Status& status) const;

 private:
  void PrintError(const absl::Status& status) const;

  const std::string usage_;
  FlagSet flags_;
  ClientOptions options_;
  absl::Duration timeout_ = absl::Seconds(30);
  bool json_ = false;
  std::unique_ptr<Client> client_;
};

struct Command {
  const char* name;
  const char* summary;  // one line for the list of commands
  int (*run)(const Arguments& arguments);
};
const std::vector<Command>& Commands();
// Names of the global flags that take a value: they may stand before the command's name.
bool IsGlobalFlagWithValue(absl::string_view name);

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
