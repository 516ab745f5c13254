// uniquanf-batch: quantize, evaluate, inspect, verify and export models, and text from them, with
// no service.
#include <cstdio>
#include <string>
#include <vector>

#include "common/base/file_modes.h"
#include "common/base/program_commands.h"
#include "common/base/standard_output.h"
#include "common/base/version.h"
#include "worker/backend/blas_kernel.h"
#include "worker/batch/batch.h"

namespace {

using uniquanf::ProgramDescription;
using uniquanf::batch::ExitCode;

int PrintVersion(const std::vector<std::string>&) {
  std::printf("uniquanf-batch %s\n", uniquanf::kSoftwareVersion);
  return ExitCode::kOk;
}

const ProgramDescription& Program() {
  static const ProgramDescription* const kProgram = new ProgramDescription{
      "uniquanf-batch",
      "Quantizes large language models with UniQuanF, on this machine alone.",
      {{"quantize", "quantize a Hugging Face checkpoint into a unified artifact",
        uniquanf::batch::Quantize},
       {"eval", "perplexity of a checkpoint or an artifact", uniquanf::batch::Evaluate},
       {"quiz", "questions with known answers, before and after", uniquanf::batch::Quiz},
       {"generate", "text from a checkpoint or an artifact", uniquanf::batch::Generate},
       {"inspect", "what is in an artifact", uniquanf::batch::Inspect},
       {"verify", "check every digest and every tensor of an artifact", uniquanf::batch::Verify},
       {"export", "write an artifact in a form that another runtime loads",
        uniquanf::batch::Export},
       {"tokens", "text files as token ids", uniquanf::batch::Tokens},
       {"spec", "print settings as the JSON that --spec reads, or the reference of all of them",
        uniquanf::batch::PrintSpec},
       {"version", "print the version", PrintVersion}},
      "uniquanf-batch COMMAND --help lists a command's flags."};
  return *kProgram;
}

int Run(std::vector<std::string> arguments) {
  const ProgramDescription& program = Program();
  if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h" ||
      arguments[0] == "help") {
    std::fputs(ProgramHelp(program).c_str(), arguments.empty() ? stderr : stdout);
    return arguments.empty() ? ExitCode::kUsage : ExitCode::kOk;
  }
  if (arguments[0] == "--version") return PrintVersion({});
  if (arguments[0] == "--help-man") {
    std::fputs(ProgramManual(program).c_str(), stdout);
    return ExitCode::kOk;
  }
  if (arguments[0] == "__complete") {
    if (arguments.size() <= 2) {
      std::fputs(CommandCompletions(program, arguments.size() < 2 ? "" : arguments[1]).c_str(),
                 stdout);
      return ExitCode::kOk;
    }
    std::swap(arguments[0], arguments[1]);  // the command completes its own words
  }
  const uniquanf::ProgramCommand* const command = FindCommand(program, arguments[0]);
  if (command == nullptr) {
    std::fprintf(stderr, "error: %s\n\n%s", UnknownCommandText(program, arguments[0]).c_str(),
                 ProgramHelp(program).c_str());
    return ExitCode::kUsage;
  }
  uniquanf::RestrictUmask(uniquanf::kArtifactUmask);
  uniquanf::batch::InstallInterruptHandler();
  arguments.erase(arguments.begin());
  return command->run(arguments);
}

}  // namespace

int main(int argc, char** argv) {
  const int code = uniquanf::ExitCodeAfterOutput(
      "uniquanf-batch", Run(std::vector<std::string>(argv + 1, argv + argc)));
  uniquanf::EndPastBlas(code);
  return code;
}
