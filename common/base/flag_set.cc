#include "common/base/flag_set.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/check.h"
#include "common/base/environment.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr char kReason[] = "INVALID_FLAG";

absl::Status BadValue(absl::string_view allowed) {
  return InvalidInput(kReason, absl::StrCat("allowed: ", allowed));
}

template <typename T>
std::string RangeText(absl::string_view kind, T min, T max) {
  if (max == std::numeric_limits<T>::max()) return absl::StrCat(kind, " of ", min, " or more");
  return absl::StrCat(kind, " from ", min, " to ", max);
}

template <typename T>
std::function<absl::Status(absl::string_view)> IntegerParser(T* value, T min, T max) {
  return [value, min, max](absl::string_view text) {
    T parsed;
    if (!absl::SimpleAtoi(text, &parsed) || parsed < min || parsed > max) {
      return BadValue(RangeText("a whole number", min, max));
    }
    *value = parsed;
    return absl::OkStatus();
  };
}

absl::Status CheckChoice(const std::vector<std::string>& allowed, absl::string_view text) {
  if (std::find(allowed.begin(), allowed.end(), text) != allowed.end()) return absl::OkStatus();
  const std::string nearest = NearestName(text, allowed);
  return BadValue(
      absl::StrCat(absl::StrJoin(allowed, ", "),
                   nearest.empty() ? "" : absl::StrCat(". Did you mean ", nearest, "?")));
}

}  // namespace

FlagSet::FlagSet(absl::string_view usage, absl::string_view summary)
    : usage_(usage), summary_(summary), section_("Flags") {}

void FlagSet::Section(absl::string_view title) {
  section_ = std::string(title);
  global_ = false;
}

void FlagSet::GlobalSection(absl::string_view title, absl::string_view hint) {
  section_ = std::string(title);
  global_hint_ = std::string(hint);
  global_ = true;
}

void FlagSet::Example(absl::string_view command, absl::string_view what) {
  examples_.push_back({std::string(command), std::string(what)});
}

void FlagSet::Letter(char letter) {
  UQ_CHECK(FindLetter(letter) == nullptr);
  flags_.back().letter = letter;
}

void FlagSet::Environment(absl::string_view variable) {
  Environment(variable, EnvironmentVariable(std::string(variable).c_str()));
}

void FlagSet::Environment(absl::string_view variable, absl::string_view value) {
  flags_.back().variable = std::string(variable);
  flags_.back().variable_value = std::string(value);
}

void FlagSet::Add(Flag flag) {
  UQ_CHECK(Find(flag.name) == nullptr);
  flag.section = section_;
  flag.global = global_;
  flags_.push_back(std::move(flag));
}

void FlagSet::Bool(absl::string_view name, bool* value, absl::string_view help) {
  Flag flag;
  flag.name = std::string(name);
  flag.help = std::string(help);
  flag.is_bool = true;
  flag.bare_text = "true";
  if (*value) flag.default_text = "true";
  flag.set = [value](absl::string_view text) {
    if (text == "true" || text == "1") {
      *value = true;
    } else if (text == "false" || text == "0") {
      *value = false;
    } else {
      return BadValue("true or false");
    }
    return absl::OkStatus();
  };
  Add(std::move(flag));
}

void FlagSet::Custom(absl::string_view name, absl::string_view metavar,
                     absl::string_view default_text, absl::string_view help,
                     std::function<absl::Status(absl::string_view)> parse, Phase phase) {
  Flag flag;
  flag.name = std::string(name);
  flag.metavar = std::string(metavar);
  flag.default_text = std::string(default_text);
  flag.help = std::string(help);
  flag.phase = phase;
  flag.set = std::move(parse);
  Add(std::move(flag));
}

void FlagSet::String(absl::string_view name, absl::string_view metavar, std::string* value,
                     absl::string_view help) {
  Custom(name, metavar, *value, help, [value](absl::string_view text) {
    *value = std::string(text);
    return absl::OkStatus();
  });
}

void FlagSet::Choice(absl::string_view name, const std::vector<std::string>& allowed,
                     absl::string_view default_text, absl::string_view help,
                     std::function<void(absl::string_view)> set) {
  Custom(name, absl::StrJoin(allowed, "|"), default_text, help,
         [allowed, set = std::move(set)](absl::string_view text) {
           UQ_RETURN_IF_ERROR(CheckChoice(allowed, text));
           set(text);
           return absl::OkStatus();
         });
}

void FlagSet::Choice(absl::string_view name, std::vector<std::string> allowed, std::string* value,
                     absl::string_view help) {
  const std::string metavar = absl::StrJoin(allowed, "|");
  Custom(
      name, metavar, *value, help,
      [value, may_be_empty = value->empty(), allowed = std::move(allowed)](absl::string_view text) {
        if (!text.empty() || !may_be_empty) UQ_RETURN_IF_ERROR(CheckChoice(allowed, text));
        *value = std::string(text);
        return absl::OkStatus();
      });
}

void FlagSet::Int(absl::string_view name, int* value, int min, int max, absl::string_view help) {
  Custom(name, "N", absl::StrCat(*value), help, IntegerParser(value, min, max));
}

void FlagSet::Int64(absl::string_view name, int64_t* value, int64_t min, int64_t max,
                    absl::string_view help) {
  Custom(name, "N", absl::StrCat(*value), help, IntegerParser(value, min, max));
}

void FlagSet::Uint64(absl::string_view name, uint64_t* value, uint64_t min, uint64_t max,
                     absl::string_view help) {
  Custom(name, "N", absl::StrCat(*value), help, IntegerParser(value, min, max));
}

void FlagSet::Double(absl::string_view name, double* value, double min, double max,
                     absl::string_view help) {
  Custom(name, "X", absl::StrCat(*value), help, [value, min, max](absl::string_view text) {
    double parsed;
    if (!absl::SimpleAtod(text, &parsed) || !std::isfinite(parsed) || parsed < min ||
        parsed > max) {
      return BadValue(RangeText("a number", min, max));
    }
    *value = parsed;
    return absl::OkStatus();
  });
}

void FlagSet::Duration(absl::string_view name, absl::Duration* value, absl::Duration min,
                       absl::string_view help) {
  Custom(name, "DURATION", *value == absl::InfiniteDuration() ? "" : absl::FormatDuration(*value),
         help, [value, min](absl::string_view text) {
           absl::Duration parsed;
           if (!absl::ParseDuration(text, &parsed) || parsed < min ||
               parsed == absl::InfiniteDuration()) {
             return BadValue(absl::StrCat("a duration of ", absl::FormatDuration(min),
                                          " or more, with units: 90s, 10m, 1h30m"));
           }
           *value = parsed;
           return absl::OkStatus();
         });
}

void FlagSet::OptionalDuration(absl::string_view name, absl::Duration* value, absl::Duration bare,
                               absl::Duration min, absl::string_view help) {
  Duration(name, value, min, help);
  flags_.back().bare_text = absl::FormatDuration(bare);
}

void FlagSet::Repeated(absl::string_view name, absl::string_view metavar,
                       std::vector<std::string>* values, absl::string_view help) {
  Custom(name, metavar, "", help, [values](absl::string_view text) {
    values->emplace_back(text);
    return absl::OkStatus();
  });
}

void FlagSet::Positional(absl::string_view metavar, bool required, std::string* value,
                         absl::string_view help) {
  positionals_.push_back({std::string(metavar), std::string(help), required, value, nullptr});
}

void FlagSet::Positionals(absl::string_view metavar, bool required,
                          std::vector<std::string>* values, absl::string_view help) {
  positionals_.push_back({std::string(metavar), std::string(help), required, nullptr, values});
}

const FlagSet::Flag* FlagSet::FindLetter(char letter) const {
  for (const Flag& flag : flags_) {
    if (flag.letter == letter) return &flag;
  }
  return nullptr;
}

const FlagSet::Flag* FlagSet::Find(absl::string_view name) const {
  for (const Flag& flag : flags_) {
    if (flag.name == name) return &flag;
  }
  return nullptr;
}

std::vector<std::string> FlagSet::FlagNames() const {
  std::vector<std::string> names;
  for (const Flag& flag : flags_) names.push_back(flag.name);
  return names;
}

absl::Status FlagSet::UnknownFlag(absl::string_view argument, absl::string_view name) const {
  std::string message = absl::StrCat("unknown flag ", argument);
  const std::string nearest = NearestName(name, FlagNames());
  if (!nearest.empty()) absl::StrAppend(&message, ". Did you mean --", nearest, "?");
  return InvalidInput(kReason, message);
}

absl::Status FlagSet::Collect(const std::vector<std::string>& arguments,
                              std::vector<Occurrence>* occurrences,
                              std::vector<std::string>* rest) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const absl::string_view argument = arguments[i];
    if (argument == "--") {
      rest->insert(rest->end(), arguments.begin() + i + 1, arguments.end());
      return absl::OkStatus();
    }
    if (argument == "-" || !absl::StartsWith(argument, "-")) {
      rest->push_back(std::string(argument));
      continue;
    }
    if (argument == "--help" || argument == "-h" || argument == "--help-man") {
      help_ = argument == "--help-man" ? kManual : kText;
      continue;
    }
    const size_t equals = argument.find('=');
    const bool has_value = equals != absl::string_view::npos;
    const absl::string_view shown = argument.substr(0, equals);
    absl::string_view name = shown;
    const Flag* flag = nullptr;
    if (absl::ConsumePrefix(&name, "--")) {
      flag = Find(name);
    } else {
      absl::ConsumePrefix(&name, "-");
      if (name.size() == 1) flag = FindLetter(name[0]);
      if (flag == nullptr) return UnknownFlag(shown, name);  // -bits deserves a hint
    }
    if (flag == nullptr && !has_value && absl::StartsWith(name, "no-")) {
      flag = Find(name.substr(3));
      if (flag != nullptr && flag->is_bool) {
        occurrences->push_back({flag, "false"});
        continue;
      }
      flag = nullptr;
    }
    if (flag == nullptr) return UnknownFlag(shown, name);
    if (has_value) {
      occurrences->push_back({flag, std::string(argument.substr(equals + 1))});
    } else if (!flag->bare_text.empty()) {
      occurrences->push_back({flag, flag->bare_text});
    } else if (i + 1 < arguments.size() && !absl::StartsWith(arguments[i + 1], "--")) {
      occurrences->push_back({flag, arguments[++i]});
    } else {
      return InvalidInput(
          kReason, absl::StrCat("flag --", name, " needs a value: --", name, "=", flag->metavar));
    }
  }
  return absl::OkStatus();
}

absl::Status FlagSet::Preset(absl::string_view name, absl::string_view value) {
  const Flag* const flag = Find(name);
  if (flag == nullptr) return UnknownFlag(name, name);
  return Annotate(flag->set(value), absl::StrCat(name, " is \"", value, "\""));
}

absl::Status FlagSet::ApplyEnvironment(const std::vector<Occurrence>& occurrences) const {
  for (const Flag& flag : flags_) {
    if (flag.variable_value.empty()) continue;
    const bool given = std::any_of(occurrences.begin(), occurrences.end(),
                                   [&flag](const Occurrence& one) { return one.flag == &flag; });
    if (given) continue;
    UQ_RETURN_IF_ERROR(
        Annotate(flag.set(flag.variable_value),
                 absl::StrCat("environment variable ", flag.variable, " (for --", flag.name, ")")));
  }
  return absl::OkStatus();
}

absl::Status FlagSet::TakePositionals(const std::vector<std::string>& rest) {
  size_t next = 0;
  for (const PositionalArgument& positional : positionals_) {
    if (next < rest.size()) {
      set_.insert(positional.metavar);
      if (positional.values != nullptr) {
        positional.values->assign(rest.begin() + next, rest.end());
        next = rest.size();
      } else {
        *positional.value = rest[next++];
      }
    } else if (positional.required) {
      return InvalidInput(
          kReason, absl::StrCat("argument ", positional.metavar, " is missing. Usage: ", usage_));
    }
  }
  if (next < rest.size()) {
    return InvalidInput(kReason,
                        absl::StrCat("unexpected argument \"", rest[next], "\". Usage: ", usage_));
  }
  return absl::OkStatus();
}

absl::Status FlagSet::Parse(const std::vector<std::string>& arguments) {
  set_.clear();
  help_ = kNone;
  std::vector<Occurrence> occurrences;
  std::vector<std::string> rest;
  if (!arguments.empty() && arguments[0] == "__complete") {
    help_ = kCompletions;
    complete_words_.assign(arguments.begin() + 1, arguments.end());
    // The flags before the word may name the server that knows what is asked for.
    if (complete_words_.empty()) complete_words_.emplace_back();
    (void)Collect({complete_words_.begin(), complete_words_.end() - 1}, &occurrences, &rest);
    help_ = kCompletions;
    (void)ApplyEnvironment(occurrences);
    for (const Occurrence& occurrence : occurrences) (void)occurrence.flag->set(occurrence.value);
    return absl::OkStatus();
  }
  const absl::Status collected = Collect(arguments, &occurrences, &rest);
  if (help_requested()) return absl::OkStatus();
  UQ_RETURN_IF_ERROR(collected);
  UQ_RETURN_IF_ERROR(ApplyEnvironment(occurrences));
  for (const Phase phase : {kFirst, kEarly, kNormal}) {
    for (const Occurrence& occurrence : occurrences) {
      if (occurrence.flag->phase != phase) continue;
      UQ_RETURN_IF_ERROR(Annotate(
          occurrence.flag->set(occurrence.value),
          absl::StrCat("flag --", occurrence.flag->name, " is \"", occurrence.value, "\"")));
      set_.insert(occurrence.flag->name);
    }
  }
  return TakePositionals(rest);
}

bool FlagSet::WasSet(absl::string_view name) const { return set_.count(std::string(name)) > 0; }

}  // namespace uniquanf
