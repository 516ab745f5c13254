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
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr char kReason[] = "INVALID_FLAG";
constexpr size_t kHelpColumn = 32;
constexpr size_t kHelpWidth = 100;

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

size_t EditDistance(absl::string_view a, absl::string_view b) {
  // Optimal string alignment distance, three rows at a time.
  std::vector<size_t> before(b.size() + 1), previous(b.size() + 1), current(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    current[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      current[j] = std::min(
          {previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        current[j] = std::min(current[j], before[j - 2] + 1);
      }
    }
    before = std::exchange(previous, current);
  }
  return previous[b.size()];
}

}  // namespace

std::string NearestName(absl::string_view name, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(1, std::min<size_t>(3, name.size() / 3)) + 1;
  for (const std::string& candidate : candidates) {
    // "--sample" most likely means "--num-samples".
    const bool part = name.size() >= 4 && absl::StrContains(candidate, name);
    const size_t distance = part ? 1 : EditDistance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

FlagSet::FlagSet(absl::string_view usage, absl::string_view summary)
    : usage_(usage), summary_(summary), section_("Flags") {}

void FlagSet::Section(absl::string_view title) { section_ = std::string(title); }

void FlagSet::Add(Flag flag) {
  UQ_CHECK(Find(flag.name) == nullptr);
  flag.section = section_;
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
  positionals_.push_back({std::string(metavar), std::string(help), required, value});
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
    if (argument == "--help" || argument == "-h") {
      help_requested_ = true;
      continue;
    }
    const size_t equals = argument.find('=');
    const bool has_value = equals != absl::string_view::npos;
    const absl::string_view shown = argument.substr(0, equals);
    absl::string_view name = shown;
    if (!absl::ConsumePrefix(&name, "--")) {
      absl::ConsumePrefix(&name, "-");
      return UnknownFlag(shown, name);  // there are no short flags, but -bits deserves a hint
    }
    const Flag* flag = Find(name);
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

absl::Status FlagSet::Parse(const std::vector<std::string>& arguments) {
  set_.clear();
  help_requested_ = false;
  std::vector<Occurrence> occurrences;
  std::vector<std::string> rest;
  const absl::Status collected = Collect(arguments, &occurrences, &rest);
  if (help_requested_) return absl::OkStatus();
  UQ_RETURN_IF_ERROR(collected);
  for (const Phase phase : {kEarly, kNormal}) {
    for (const Occurrence& occurrence : occurrences) {
      if (occurrence.flag->phase != phase) continue;
      UQ_RETURN_IF_ERROR(Annotate(
          occurrence.flag->set(occurrence.value),
          absl::StrCat("flag --", occurrence.flag->name, " is \"", occurrence.value, "\"")));
      set_.insert(occurrence.flag->name);
    }
  }
  for (size_t i = 0; i < positionals_.size(); ++i) {
    if (i < rest.size()) {
      *positionals_[i].value = rest[i];
      set_.insert(positionals_[i].metavar);
    } else if (positionals_[i].required) {
      return InvalidInput(kReason, absl::StrCat("argument ", positionals_[i].metavar,
                                                " is missing. Usage: ", usage_));
    }
  }
  if (rest.size() > positionals_.size()) {
    return InvalidInput(kReason, absl::StrCat("unexpected argument \"", rest[positionals_.size()],
                                              "\". Usage: ", usage_));
  }
  return absl::OkStatus();
}

bool FlagSet::WasSet(absl::string_view name) const { return set_.count(std::string(name)) > 0; }

std::string FlagSet::Help() const {
  std::string out = absl::StrCat("Usage: ", usage_, "\n\n", summary_, "\n");
  for (const PositionalArgument& positional : positionals_) {
    if (&positional == &positionals_.front()) absl::StrAppend(&out, "\nArguments:\n");
    absl::StrAppend(&out, "  ", positional.metavar);
    AppendWrapped(positional.help, &out);
  }
  std::string section;
  for (const Flag& flag : flags_) {
    if (flag.section != section) {
      section = flag.section;
      absl::StrAppend(&out, "\n", section, ":\n");
    }
    absl::StrAppend(&out, "  --", flag.name);
    if (!flag.is_bool && !flag.bare_text.empty()) {
      absl::StrAppend(&out, "[=", flag.metavar, "]");
    } else {
      absl::StrAppend(&out, flag.is_bool ? "" : "=", flag.metavar);
    }
    AppendWrapped(flag.default_text.empty()
                      ? flag.help
                      : absl::StrCat(flag.help, " (default: ", flag.default_text, ")"),
                  &out);
  }
  return out;
}

}  // namespace uniquanf
