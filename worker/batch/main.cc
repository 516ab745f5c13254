// uniquanf-batch: quantize, evaluate, inspect, verify and export models with no service.
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "common/base/file_modes.h"
#include "common/base/flag_set.h"
#include "common/base/version.h"
#include "worker/backend/blas_kernel.h"
#include "worker/batch/batch.h"

namespace {

using uniquanf::batch::ExitCode;
using Command = int (*)(const std::vector<std::string>&);

constexpr char kUsage[] =
    "Usage: uniquanf-batch COMMAND [flags]\n\n"
    "Quantizes large language models with UniQuanF, on this machine alone.\n\n"
    "Commands:\n"
    "  quantize   quantize a Hugging Face checkpoint into a unified artifact\n"
    "  eval       perplexity of a checkpoint or an artifact\n"
    "  inspect    what is in an artifact\n"
    "  verify     check every digest and every tensor of an artifact\n"
    "  export     write an artifact in a form that another runtime loads\n"
    "  tokens     text files as token ids\n"
    "  spec       print settings as the JSON that --spec reads, or the reference of all of them\n"
    "  version    print the version\n\n"
    "`uniquanf-batch COMMAND --help` lists a command's flags.\n";

int Run(int argc, char** argv) {
  const std::map<std::string, Command> commands = {
      {"quantize", uniquanf::batch::Quantize}, {"eval", uniquanf::batch::Evaluate},
      {"inspect", uniquanf::batch::Inspect},   {"verify", uniquanf::batch::Verify},
      {"export", uniquanf::batch::Export},     {"spec", uniquanf::batch::PrintSpec},
      {"tokens", uniquanf::batch::Tokens},
  };
  std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h" ||
      arguments[0] == "help") {
    std::fputs(kUsage, arguments.empty() ? stderr : stdout);
    return arguments.empty() ? ExitCode::kUsage : ExitCode::kOk;
  }
  if (arguments[0] == "version" || arguments[0] == "--version") {
    std::printf("uniquanf-batch %s\n", uniquanf::kSoftwareVersion);
    return ExitCode::kOk;
  }
  const auto command = commands.find(arguments[0]);
  if (command == commands.end()) {
    std::vector<std::string> names;
    for (const auto& [name, function] : commands) names.push_back(name);
    const std::string nearest = uniquanf::NearestName(arguments[0], names);
    std::fprintf(stderr, "error: unknown command \"%s\"%s\n\n%s", arguments[0].c_str(),
                 nearest.empty() ? "" : ("; did you mean \"" + nearest + "\"?").c_str(), kUsage);
    return ExitCode::kUsage;
  }
  uniquanf::RestrictUmask(uniquanf::kArtifactUmask);
  uniquanf::batch::InstallInterruptHandler();
  arguments.erase(arguments.begin());
  return command->second(arguments);
}

}  // namespace

int main(int argc, char** argv) {
  const int code = Run(argc, argv);
  uniquanf::EndPastBlas(code);
  return code;
}
