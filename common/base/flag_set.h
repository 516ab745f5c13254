// A small command line parser: declared flags, and made from the declarations the help, the manual
// page, the shells' completion, and errors that name the flag, the value, what is allowed and the
// nearest flag there is. Instance-based: the flags of a command are a value, not globals.
//
// Syntax: --name=value, --name value, --bool, --no-bool, --bool=true|false, and --name or
// --name=value where the value may be left out; -x and -x value where a flag has a letter; "--"
// ends the flags; a flag given twice takes the last value, a repeated flag collects all. Names are
// matched whole. An environment variable that a flag declares stands for the flag where that is not
// given.
//
// Beside --help every FlagSet understands --help-man (the manual page, for packages) and, as the
// first argument, __complete WORD... (what may stand for the last word, for the shells): Parse
// returns OK, help_requested() is true, and Help() is what was asked for.
//
// Thread safety: not thread-safe. Lifetime: the variables that flags write outlive the FlagSet.
// Errors: kInvalidArgument (INVALID_FLAG).
#ifndef UNIQUANF_COMMON_BASE_FLAG_SET_H_
#define UNIQUANF_COMMON_BASE_FLAG_SET_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace uniquanf {

// The candidate with the smallest edit distance (insert, delete, replace, swap of neighbours) to
// `name`, or "" when none is near enough to be meant.
std::string NearestName(absl::string_view name, const std::vector<std::string>& candidates);

struct FlagDescription {
  std::string name, metavar, default_text, help, section, environment;
  char letter = 0;  // of -x; 0: none
  bool is_bool = false;
  bool value_optional = false;
  bool global = false;  // of a section that only its own help shows
};
struct ArgumentDescription {
  std::string metavar, help;
  bool required = false, repeated = false;
};
struct CommandExample {
  std::string command, what;
};
// What a FlagSet was declared to be.
struct CommandDescription {
  std::string usage, summary, exit_codes;
  std::vector<CommandExample> examples;
  std::vector<ArgumentDescription> arguments;
  std::vector<FlagDescription> flags;
  std::string global_hint;  // where help on global flags is
};

// Lines of at most 100 columns.
std::string HelpText(const CommandDescription& command);
// In troff. `section`: 1 for commands, 8 for daemons; the name is the usage's words before the
// first that is no name, joined by '-'.
std::string ManualPage(const CommandDescription& command, int section);
// What may stand for the last of `words`, one a line, with a tab and a description where there is
// one. Lines with a colon first stand for names that others know: ":file", ":directory", ":JOB".
std::string Completions(const CommandDescription& command, const std::vector<std::string>& words);

class FlagSet {
 public:
  // Order of application, wherever the flags stand on the command line: words that stand for many
  // settings, then files of settings, which other flags override.
  enum Phase { kFirst, kEarly, kNormal };

  // `usage`: the line after "Usage: ", such as "uniquanf submit --model DIR [flags]". `summary`:
  // what the command does, one or a few lines.
  FlagSet(absl::string_view usage, absl::string_view summary);

  // Puts a heading before the flags declared next.
  void Section(absl::string_view title);
  // The same for flags of every command, which Help() leaves out; it ends with `hint` instead.
  void GlobalSection(absl::string_view title, absl::string_view hint);
  // More of what the help says.
  void Example(absl::string_view command, absl::string_view what);
  void ExitCodes(absl::string_view text) { exit_codes_ = std::string(text); }

  // Declarations. The help shows the value that the variable holds now as the default. `metavar`
  // stands for the value: "DIR". REQUIRES: no two flags of one name.
  void Bool(absl::string_view name, bool* value, absl::string_view help);
  void String(absl::string_view name, absl::string_view metavar, std::string* value,
              absl::string_view help);
  // A string out of `allowed`, or empty where that is the default.
  void Choice(absl::string_view name, std::vector<std::string> allowed, std::string* value,
              absl::string_view help);
  // The same for a value of another type: `set` gets one of `allowed`.
  void Choice(absl::string_view name, const std::vector<std::string>& allowed,
              absl::string_view default_text, absl::string_view help,
              std::function<void(absl::string_view)> set);
  void Int(absl::string_view name, int* value, int min, int max, absl::string_view help);
  void Int64(absl::string_view name, int64_t* value, int64_t min, int64_t max,
             absl::string_view help);
  void Uint64(absl::string_view name, uint64_t* value, uint64_t min, uint64_t max,
              absl::string_view help);
  // Finite.
  void Double(absl::string_view name, double* value, double min, double max,
              absl::string_view help);
  // "90s", "1h30m"; at least `min`.
  void Duration(absl::string_view name, absl::Duration* value, absl::Duration min,
                absl::string_view help);
  // The same, where --name alone means `bare`.
  void OptionalDuration(absl::string_view name, absl::Duration* value, absl::Duration bare,
                        absl::Duration min, absl::string_view help);
  void Repeated(absl::string_view name, absl::string_view metavar, std::vector<std::string>* values,
                absl::string_view help);
  // `parse` gets every value; its error message says what is wrong with the value and what is
  // allowed (flag and value are put before it).
  void Custom(absl::string_view name, absl::string_view metavar, absl::string_view default_text,
              absl::string_view help, std::function<absl::Status(absl::string_view)> parse,
              Phase phase = kNormal);

  // Of the flag declared last: -x is the same flag; `variable` stands for it where it is not given
  // and the variable is not empty (`value`: what it holds, for tests).
  void Letter(char letter);
  void Environment(absl::string_view variable);
  void Environment(absl::string_view variable, absl::string_view value);

  // Arguments that are no flags, in order. Without these, any is an error.
  void Positional(absl::string_view metavar, bool required, std::string* value,
                  absl::string_view help);
  // All that follow. REQUIRES: declared last.
  void Positionals(absl::string_view metavar, bool required, std::vector<std::string>* values,
                   absl::string_view help);

  // Another default for the flag `name`, from a file of settings: what the environment or the
  // command line says comes first. REQUIRES: it is declared, and called before Parse.
  absl::Status Preset(absl::string_view name, absl::string_view value);

  // Parses and writes the variables. Stops before writing anything when --help or -h is among them.
  absl::Status Parse(const std::vector<std::string>& arguments);

  bool help_requested() const { return help_ != kNone; }
  bool completion_requested() const { return help_ == kCompletions; }
  // The flag or positional `name` was given. REQUIRES: Parse was called.
  bool WasSet(absl::string_view name) const;
  // What was asked for; HelpText unless it was something else.
  std::string Help() const;
  CommandDescription Describe() const;
  std::vector<std::string> FlagNames() const;

 private:
  struct Flag {
    std::string name, metavar, default_text, help, section;
    std::string variable, variable_value;
    char letter = 0;
    bool is_bool = false;
    bool global = false;
    std::string bare_text;  // the value of --name alone; empty: it needs one
    Phase phase = kNormal;
    std::function<absl::Status(absl::string_view)> set;
  };
  struct PositionalArgument {
    std::string metavar, help;
    bool required;
    std::string* value;
    std::vector<std::string>* values;  // or these: all that follow
  };
  struct Occurrence {
    const Flag* flag;
    std::string value;
  };
  const Flag* Find(absl::string_view name) const;
  const Flag* FindLetter(char letter) const;
  absl::Status UnknownFlag(absl::string_view argument, absl::string_view name) const;
  absl::Status ApplyEnvironment(const std::vector<Occurrence>& occurrences) const;
  absl::Status TakePositionals(const std::vector<std::string>& rest);
  absl::Status Collect(const std::vector<std::string>& arguments,
                       std::vector<Occurrence>* occurrences, std::vector<std::string>* rest);
  void Add(Flag flag);

  const std::string usage_, summary_;
  std::string section_, global_hint_, exit_codes_;
  bool global_ = false;
  std::vector<CommandExample> examples_;
  std::vector<Flag> flags_;
  std::vector<PositionalArgument> positionals_;
  std::set<std::string> set_;
  enum { kNone, kText, kManual, kCompletions } help_ = kNone;
  std::vector<std::string> complete_words_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_FLAG_SET_H_
