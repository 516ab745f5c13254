// uniquanf: the command line client. Finds the command; everything else is the command's own.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/cli/command_line.h"
#include "client/cli/output.h"
#include "common/base/file_modes.h"
#include "common/base/flag_set.h"

namespace uniquanf::cli {

const std::vector<Command>& Commands() {
  static const std::vector<Command>* const kCommands = new std::vector<Command>{
      {"submit", "Submit a quantization job", RunSubmit},
      {"watch", "Show a job's progress until it is done, then its report", RunWatch},
      {"get", "Show a job", RunGet},
      {"list", "List jobs", RunList},
      {"tasks", "List a job's tasks", RunTasks},
      {"cancel", "Cancel a job", RunCancel},
      {"pause", "Start no more tasks of a job", RunPause},
      {"resume", "Let a paused job go on", RunResume},
      {"retry", "Continue a failed or cancelled job", RunRetry},
      {"delete", "Delete a finished job", RunDelete},
      {"download", "Copy a job's artifact to a local directory, with every digest checked",
       RunDownload},
      {"workers", "List workers", RunWorkers},
      {"drain", "Let a worker finish and exit", RunDrain},
      {"undrain", "Take back a drain, or end a quarantine", RunUndrain},
      {"confirm-clock", "Confirm the server's wall clock", RunConfirmClock},
      {"info", "Show what the server is", RunInfo},
      {"health", "Exit with 0 when the server serves", RunHealth},
      {"version", "Print the client's version", RunVersion},
  };
  return *kCommands;
}

namespace {

void PrintOverview(FILE* out) {
  std::fputs(
      "Usage: uniquanf COMMAND [arguments] [flags]\n\n"
      "The command line client of the UniQuanF quantization service.\n\nCommands:\n",
      out);
  for (const Command& command : Commands()) {
    std::fprintf(out, "  %-10s %s\n", command.name, command.summary);
  }
  std::fputs(
      "\nuniquanf help COMMAND shows a command's flags. The server is --server HOST:PORT, "
      "UNIQUANF_SERVER\nor 127.0.0.1:50051.\n",
      out);
}

const Command* FindCommand(const std::string& name) {
  for (const Command& command : Commands()) {
    if (name == command.name) return &command;
  }
  return nullptr;
}

int UnknownCommand(const std::string& name) {
  std::vector<std::string> names = {"help"};
  for (const Command& command : Commands()) names.emplace_back(command.name);
  const std::string nearest = NearestName(name, names);
  std::fprintf(stderr, "uniquanf: unknown command \"%s\"%s\nSee: uniquanf help\n",
               Printable(name).c_str(),
               nearest.empty() ? "" : absl::StrCat(". Did you mean ", nearest, "?").c_str());
  return kUsage;
}

// The command is the first argument that is neither a flag nor a global flag's value.
size_t FindCommandIndex(const Arguments& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view argument = arguments[i];
    if (!absl::ConsumePrefix(&argument, "--")) {
      if (absl::StartsWith(argument, "-")) continue;
      return i;
    }
    if (IsGlobalFlagWithValue(argument)) ++i;
  }
  return arguments.size();
}

int Run(Arguments arguments) {
  const size_t index = FindCommandIndex(arguments);
  if (index >= arguments.size()) {
    for (const std::string& argument : arguments) {
      if (argument == "--help" || argument == "-h") {
        PrintOverview(stdout);
        return kOk;
      }
      if (argument == "--version") return RunVersion({});
    }
    PrintOverview(stderr);
    return kUsage;
  }
  const std::string name = arguments[index];
  arguments.erase(arguments.begin() + index);
  if (name == "help") {
    const size_t topic = FindCommandIndex(arguments);
    if (topic >= arguments.size()) {
      PrintOverview(stdout);
      return kOk;
    }
    const Command* command = FindCommand(arguments[topic]);
    return command == nullptr ? UnknownCommand(arguments[topic]) : command->run({"--help"});
  }
  const Command* command = FindCommand(name);
  return command == nullptr ? UnknownCommand(name) : command->run(arguments);
}

}  // namespace
}  // namespace uniquanf::cli

int main(int argc, char** argv) {
  uniquanf::RestrictUmask(uniquanf::kArtifactUmask);  // what `download` writes
  return uniquanf::cli::Run(uniquanf::cli::Arguments(argv + 1, argv + argc));
}
