// uniquanf: the command line client. Finds the command; everything else is the command's own.
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "client/cli/command_line.h"
#include "client/cli/output.h"
#include "common/base/core_dumps.h"
#include "common/base/file_modes.h"
#include "common/base/standard_output.h"
#include "common/rpc/quiet_grpc.h"

namespace uniquanf::cli {

const ProgramDescription& Program() {
  static const ProgramDescription* const kProgram = new ProgramDescription{
      "uniquanf",
      "The command line client of the UniQuanF quantization service.",
      {{"submit", "Submit a quantization job", RunSubmit},
       {"watch", "Show a job's progress until it is done, then its report", RunWatch},
       {"wait", "Wait until jobs are done", RunWait},
       {"get", "Show jobs", RunGet},
       {"describe", "Show all there is about a job: settings, tasks, events", RunDescribe},
       {"logs", "Show what happened to a job", RunLogs},
       {"list", "List jobs", RunList},
       {"tasks", "List a job's tasks", RunTasks},
       {"cancel", "Cancel jobs", RunCancel},
       {"pause", "Start no more tasks of jobs", RunPause},
       {"resume", "Let paused jobs go on", RunResume},
       {"retry", "Continue failed or cancelled jobs", RunRetry},
       {"delete", "Delete finished jobs", RunDelete},
       {"download", "Copy a job's artifact to a local directory, with every digest checked",
        RunDownload},
       {"workers", "List workers", RunWorkers},
       {"drain", "Let a worker finish and exit", RunDrain},
       {"undrain", "Take back a drain, or end a quarantine", RunUndrain},
       {"confirm-clock", "Confirm the server's wall clock", RunConfirmClock},
       {"info", "Show what the server is", RunInfo},
       {"health", "Exit with 0 when the server serves", RunHealth},
       {"completion", "Print a script that completes command lines in a shell", RunCompletion},
       {"version", "Print the client's version", RunVersion}},
      "uniquanf help COMMAND shows a command's flags, uniquanf help flags those of all commands. "
      "The "
      "server is\n--server HOST:PORT, UNIQUANF_SERVER or 127.0.0.1:50051."};
  return *kProgram;
}

namespace {

int UnknownCommand(const std::string& name) {
  std::fprintf(stderr, "uniquanf: %s\nSee: uniquanf help\n",
               UnknownCommandText(Program(), name).c_str());
  return kUsage;
}

// The command is the first argument that is neither a flag nor a global flag's value.
size_t FindCommandIndex(const Arguments& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!absl::StartsWith(arguments[i], "-")) return i;
    if (IsGlobalFlagWithValue(arguments[i])) ++i;
  }
  return arguments.size();
}

// What all commands share, shown once.
int PrintGlobalFlags() {
  CommandLine command_line("uniquanf COMMAND [flags]", "Flags of every command.");
  (void)command_line.Parse({"__none"});
  CommandDescription description = command_line.flags().Describe();
  description.global_hint.clear();
  for (FlagDescription& flag : description.flags) flag.global = false;
  std::fputs(HelpText(description).c_str(), stdout);
  return kOk;
}

int Help(const Arguments& arguments) {
  const size_t topic = FindCommandIndex(arguments);
  if (topic >= arguments.size()) {
    std::fputs(ProgramHelp(Program()).c_str(), stdout);
    return kOk;
  }
  if (arguments[topic] == "flags") return PrintGlobalFlags();
  const ProgramCommand* const command = FindCommand(Program(), arguments[topic]);
  return command == nullptr ? UnknownCommand(arguments[topic]) : command->run({"--help"});
}

// `words` follow the program's name on the command line that is being typed.
int Complete(Arguments words) {
  if (words.empty()) words.emplace_back();
  const size_t index = FindCommandIndex({words.begin(), words.end() - 1});
  if (index + 1 < words.size()) {
    const std::string name = words[index];
    if (name == "help") {
      std::fputs(CommandCompletions(Program(), words.back()).c_str(), stdout);
      return kOk;
    }
    const ProgramCommand* const command = FindCommand(Program(), name);
    if (command == nullptr) return kOk;
    words.erase(words.begin() + index);
    words.insert(words.begin(), "__complete");
    return command->run(words);
  }
  if (!absl::StartsWith(words.back(), "-")) {
    std::fputs(CommandCompletions(Program(), words.back()).c_str(), stdout);
    return kOk;
  }
  CommandLine command_line("uniquanf", "");
  words.insert(words.begin(), "__complete");
  return command_line.Parse(words).value_or(kOk);
}

int Run(Arguments arguments) {
  const size_t index = FindCommandIndex(arguments);
  if (index >= arguments.size()) {
    for (const std::string& argument : arguments) {
      if (argument == "--help" || argument == "-h") return Help({});
      if (argument == "--version") return RunVersion({});
      if (argument == "--help-man") {
        std::fputs(ProgramManual(Program()).c_str(), stdout);
        return kOk;
      }
    }
    std::fputs(ProgramHelp(Program()).c_str(), stderr);
    return kUsage;
  }
  const std::string name = arguments[index];
  arguments.erase(arguments.begin() + index);
  if (name == "help") return Help(arguments);
  if (name == "__complete") return Complete(std::move(arguments));
  const ProgramCommand* const command = FindCommand(Program(), name);
  return command == nullptr ? UnknownCommand(name) : command->run(arguments);
}

}  // namespace
}  // namespace uniquanf::cli

int main(int argc, char** argv) {
  uniquanf::QuietGrpc();
  uniquanf::ForbidCoreDumps();                        // tokens
  uniquanf::RestrictUmask(uniquanf::kArtifactUmask);  // what `download` writes
  return uniquanf::ExitCodeAfterOutput(
      "uniquanf", uniquanf::cli::Run(uniquanf::cli::Arguments(argv + 1, argv + argc)));
}
