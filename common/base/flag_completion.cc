// What the shells offer while a command line is typed, from the command's declarations.
#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/flag_set.h"

namespace uniquanf {
namespace {

// What may stand for a value called `metavar`, each after `prefix` ("--bits=").
std::string Values(absl::string_view metavar, absl::string_view prefix, absl::string_view typed) {
  std::string out;
  if (absl::StrContains(metavar, '|') && absl::ascii_islower(metavar[0])) {
    for (const absl::string_view choice : absl::StrSplit(metavar, '|')) {
      if (absl::StartsWith(choice, typed)) absl::StrAppend(&out, prefix, choice, "\n");
    }
  } else if (absl::StartsWith(metavar, "FILE")) {
    out = ":file\n";
  } else if (absl::StartsWith(metavar, "DIR")) {
    out = ":directory\n";
  } else if (metavar == "JOB" || metavar == "WORKER") {
    out = absl::StrCat(":", metavar, "\n");
  }
  return out;
}

const FlagDescription* FindFlag(const CommandDescription& command, absl::string_view word) {
  for (const FlagDescription& flag : command.flags) {
    if (word == absl::StrCat("--", flag.name)) return &flag;
    if (flag.letter != 0 && word == absl::StrCat("-", std::string(1, flag.letter))) return &flag;
  }
  return nullptr;
}

bool NeedsValue(const FlagDescription& flag) { return !flag.is_bool && !flag.value_optional; }

// One line says what a flag is for.
std::string Brief(absl::string_view help) {
  return std::string(help.substr(0, help.find_first_of(";\n\t")).substr(0, 80));
}

}  // namespace

std::string Completions(const CommandDescription& command, const std::vector<std::string>& words) {
  const absl::string_view current = words.empty() ? absl::string_view() : words.back();
  size_t num_arguments = 0;
  bool flags_ended = false;
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    if (!flags_ended && words[i] == "--") {
      flags_ended = true;
    } else if (flags_ended || !absl::StartsWith(words[i], "-") || words[i] == "-") {
      ++num_arguments;
    } else if (const FlagDescription* flag = FindFlag(command, words[i]);
               flag != nullptr && NeedsValue(*flag)) {
      ++i;
      if (i + 1 >= words.size()) return Values(flag->metavar, "", current);
    }
  }
  if (!flags_ended && absl::StartsWith(current, "-")) {
    const size_t equals = current.find('=');
    if (equals != absl::string_view::npos) {
      const FlagDescription* flag = FindFlag(command, current.substr(0, equals));
      if (flag == nullptr) return "";
      return Values(flag->is_bool ? "true|false" : flag->metavar, current.substr(0, equals + 1),
                    current.substr(equals + 1));
    }
    std::string out;
    for (const FlagDescription& flag : command.flags) {
      const std::string form = absl::StrCat("--", flag.name);
      if (!absl::StartsWith(form, current)) continue;
      absl::StrAppend(&out, form, "\t", Brief(flag.help), "\n");
    }
    if (absl::StartsWith("--help", current)) absl::StrAppend(&out, "--help\tshow the help\n");
    return out;
  }
  if (command.arguments.empty()) return "";
  if (num_arguments < command.arguments.size()) {
    return Values(command.arguments[num_arguments].metavar, "", current);
  }
  const ArgumentDescription& last = command.arguments.back();
  return last.repeated ? Values(last.metavar, "", current) : "";
}

}  // namespace uniquanf
