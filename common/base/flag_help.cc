// The help and the manual page of a command, from its declarations.
#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/flag_set.h"
#include "common/base/troff.h"

namespace uniquanf {
namespace {

constexpr size_t kHelpColumn = 32;
constexpr size_t kHelpWidth = 100;

// Appends `text` at kHelpColumn, broken between words.
void AppendWrapped(absl::string_view text, std::string* out) {
  size_t column = out->size() - (out->rfind('\n') + 1);
  const auto start_line = [&out, &column] {
    absl::StrAppend(out, "\n", std::string(kHelpColumn, ' '));
    column = kHelpColumn;
  };
  if (column >= kHelpColumn) {
    start_line();
  } else {
    absl::StrAppend(out, std::string(kHelpColumn - column, ' '));
    column = kHelpColumn;
  }
  bool first = true;
  for (const absl::string_view word : absl::StrSplit(text, ' ')) {
    if (!first && column + 1 + word.size() > kHelpWidth) {
      start_line();
      first = true;
    }
    absl::StrAppend(out, first ? "" : " ", word);
    column += word.size() + (first ? 0 : 1);
    first = false;
  }
  out->push_back('\n');
}

// "-o, --output=table|json", "--[no-]watch".
std::string FlagForm(const FlagDescription& flag) {
  std::string form = flag.letter == 0 ? "" : absl::StrCat("-", std::string(1, flag.letter), ", ");
  absl::StrAppend(&form, "--", flag.name);
  if (flag.value_optional) {
    absl::StrAppend(&form, "[=", flag.metavar, "]");
  } else if (!flag.is_bool) {
    absl::StrAppend(&form, "=", flag.metavar);
  }
  return form;
}

std::string FlagText(const FlagDescription& flag) {
  std::string text = flag.help;
  if (!flag.default_text.empty()) absl::StrAppend(&text, " (default: ", flag.default_text, ")");
  if (!flag.environment.empty()) absl::StrAppend(&text, " [", flag.environment, "]");
  return text;
}

// "uniquanf submit --model DIR" -> "uniquanf-submit".
std::string PageName(absl::string_view usage) {
  std::vector<absl::string_view> words;
  for (const absl::string_view word : absl::StrSplit(usage, ' ')) {
    if (word.empty() || !absl::ascii_islower(word[0])) break;
    words.push_back(word);
  }
  return absl::StrJoin(words, "-");
}

}  // namespace

std::string HelpText(const CommandDescription& command) {
  std::string out = absl::StrCat("Usage: ", command.usage, "\n\n", command.summary, "\n");
  for (const ArgumentDescription& argument : command.arguments) {
    if (&argument == &command.arguments.front()) absl::StrAppend(&out, "\nArguments:\n");
    absl::StrAppend(&out, "  ", argument.metavar, argument.repeated ? "..." : "");
    AppendWrapped(argument.help, &out);
  }
  std::string section;
  for (const FlagDescription& flag : command.flags) {
    if (flag.global) continue;
    if (flag.section != section) {
      section = flag.section;
      absl::StrAppend(&out, "\n", section, ":\n");
    }
    absl::StrAppend(&out, "  ", FlagForm(flag));
    AppendWrapped(FlagText(flag), &out);
  }
  for (const CommandExample& example : command.examples) {
    if (&example == &command.examples.front()) absl::StrAppend(&out, "\nExamples:\n");
    absl::StrAppend(&out, "  # ", example.what, "\n  ", example.command, "\n");
  }
  if (!command.exit_codes.empty()) {
    absl::StrAppend(&out, "\nExit codes: ", command.exit_codes, "\n");
  }
  if (!command.global_hint.empty()) absl::StrAppend(&out, "\n", command.global_hint, "\n");
  return out;
}

std::string ManualPage(const CommandDescription& command, int section) {
  const std::string name = PageName(command.usage);
  const std::string summary(absl::StripTrailingAsciiWhitespace(command.summary));
  std::string out = ManualHead(name, section, summary);
  absl::StrAppend(&out, ".SH SYNOPSIS\n.B ", Troff(command.usage), "\n");
  absl::StrAppend(&out, ".SH DESCRIPTION\n", Troff(summary), "\n");
  for (const ArgumentDescription& argument : command.arguments) {
    if (&argument == &command.arguments.front()) absl::StrAppend(&out, ".SH ARGUMENTS\n");
    absl::StrAppend(&out, ".TP\n.B ", Troff(argument.metavar), argument.repeated ? "..." : "", "\n",
                    Troff(argument.help), "\n");
  }
  std::string heading;
  std::string environment;
  for (const FlagDescription& flag : command.flags) {
    if (heading.empty()) absl::StrAppend(&out, ".SH OPTIONS\n");
    if (flag.section != heading) {
      heading = flag.section;
      absl::StrAppend(&out, ".SS ", TroffArgument(heading), "\n");
    }
    absl::StrAppend(&out, ".TP\n.B ", Troff(FlagForm(flag)), "\n", Troff(FlagText(flag)), "\n");
    if (!flag.environment.empty()) {
      absl::StrAppend(&environment, ".TP\n.B ", flag.environment, "\nstands for ",
                      Troff(absl::StrCat("--", flag.name)), " where that is not given.\n");
    }
  }
  for (const CommandExample& example : command.examples) {
    if (&example == &command.examples.front()) absl::StrAppend(&out, ".SH EXAMPLES\n");
    absl::StrAppend(&out, ".PP\n", Troff(example.what), "\n.PP\n.RS 4\n.nf\n",
                    Troff(example.command), "\n.fi\n.RE\n");
  }
  if (!environment.empty()) absl::StrAppend(&out, ".SH ENVIRONMENT\n", environment);
  if (!command.exit_codes.empty()) {
    absl::StrAppend(&out, ".SH \"EXIT STATUS\"\n", Troff(command.exit_codes), "\n");
  }
  return out;
}

std::string FlagSet::Help() const {
  if (help_ == kManual) return ManualPage(Describe(), 1);
  if (help_ == kCompletions) return Completions(Describe(), complete_words_);
  return HelpText(Describe());
}

CommandDescription FlagSet::Describe() const {
  CommandDescription command;
  command.usage = usage_;
  command.summary = summary_;
  command.exit_codes = exit_codes_;
  command.examples = examples_;
  command.global_hint = global_hint_;
  for (const PositionalArgument& positional : positionals_) {
    command.arguments.push_back(
        {positional.metavar, positional.help, positional.required, positional.values != nullptr});
  }
  for (const Flag& flag : flags_) {
    command.flags.push_back({flag.name, flag.metavar, flag.default_text, flag.help, flag.section,
                             flag.variable, flag.letter, flag.is_bool,
                             !flag.is_bool && !flag.bare_text.empty(), flag.global});
  }
  return command;
}

}  // namespace uniquanf
