// What a program of several commands says about all of them: its help, its manual page, its
// completion. Each command's own follow from its FlagSet (flag_set.h). Thread safety: plain values
// and free functions.
#ifndef UNIQUANF_COMMON_BASE_PROGRAM_COMMANDS_H_
#define UNIQUANF_COMMON_BASE_PROGRAM_COMMANDS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace uniquanf {

struct ProgramCommand {
  const char* name;
  const char* summary;  // one line for the list of commands
  int (*run)(const std::vector<std::string>& arguments);
};

struct ProgramDescription {
  std::string name;     // "uniquanf"
  std::string summary;  // what it is
  std::vector<ProgramCommand> commands;
  std::string footer;  // after the list
};

std::string ProgramHelp(const ProgramDescription& program);
std::string ProgramManual(const ProgramDescription& program);
// Commands that begin with `word`, one a line, each with a tab and its summary.
std::string CommandCompletions(const ProgramDescription& program, absl::string_view word);
// nullptr when there is none.
const ProgramCommand* FindCommand(const ProgramDescription& program, absl::string_view name);
// "unknown command "x". Did you mean y?"
std::string UnknownCommandText(const ProgramDescription& program, absl::string_view name);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_PROGRAM_COMMANDS_H_
