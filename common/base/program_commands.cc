#include "common/base/program_commands.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/flag_set.h"
#include "common/base/printable.h"
#include "common/base/troff.h"
#include "common/base/version.h"

namespace uniquanf {

std::string ProgramHelp(const ProgramDescription& program) {
  size_t width = 0;
  for (const ProgramCommand& command : program.commands) {
    width = std::max(width, std::strlen(command.name));
  }
  std::string out = absl::StrCat("Usage: ", program.name, " COMMAND [arguments] [flags]\n\n",
                                 program.summary, "\n\nCommands:\n");
  for (const ProgramCommand& command : program.commands) {
    absl::StrAppend(&out, "  ", command.name, std::string(width - std::strlen(command.name), ' '),
                    "  ", command.summary, "\n");
  }
  absl::StrAppend(&out, "\n", program.footer, "\n");
  return out;
}

std::string ProgramManual(const ProgramDescription& program) {
  std::string out = ManualHead(program.name, 1, program.summary);
  absl::StrAppend(&out, ".SH SYNOPSIS\n.B ", Troff(program.name), " COMMAND [arguments] [flags]\n",
                  ".SH DESCRIPTION\n", Troff(program.summary), "\n.SH COMMANDS\n");
  for (const ProgramCommand& command : program.commands) {
    absl::StrAppend(&out, ".TP\n.B ", Troff(command.name), "\n", Troff(command.summary), "\n");
  }
  absl::StrAppend(&out, ".PP\n", Troff(program.footer), "\n.SH \"SEE ALSO\"\n");
  absl::StrAppend(&out,
                  absl::StrJoin(program.commands, ",\n",
                                [&](std::string* text, const auto& command) {
                                  absl::StrAppend(
                                      text, ".BR ",
                                      Troff(absl::StrCat(program.name, "-", command.name)), " (1)");
                                }),
                  "\n");
  return out;
}

std::string CommandCompletions(const ProgramDescription& program, absl::string_view word) {
  std::string out;
  for (const ProgramCommand& command : program.commands) {
    if (!absl::StartsWith(command.name, word)) continue;
    absl::StrAppend(&out, command.name, "\t", command.summary, "\n");
  }
  return out;
}

const ProgramCommand* FindCommand(const ProgramDescription& program, absl::string_view name) {
  for (const ProgramCommand& command : program.commands) {
    if (name == command.name) return &command;
  }
  return nullptr;
}

std::string UnknownCommandText(const ProgramDescription& program, absl::string_view name) {
  std::vector<std::string> names = {"help"};
  for (const ProgramCommand& command : program.commands) names.emplace_back(command.name);
  const std::string nearest = NearestName(name, names);
  return absl::StrCat("unknown command \"", PrintableText(name), "\"",
                      nearest.empty() ? "" : absl::StrCat(". Did you mean ", nearest, "?"));
}

}  // namespace uniquanf
