#include "common/spec/spec_flags.h"

#include <filesystem>
#include <iterator>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/format_bytes.h"
#include "common/base/read_file.h"
#include "common/base/status.h"
#include "common/spec/spec_fields.h"

namespace uniquanf {
namespace {

constexpr char kReason[] = "INVALID_FLAG";
// Of --calibration self.
constexpr int64_t kSelfSamples = 2048;

absl::StatusOr<std::string> ReadSpecFile(absl::string_view path) {
  absl::StatusOr<std::string> json = ReadSmallFile(std::string(path));
  if (json.ok()) return json;
  return InvalidInput(kReason, absl::StrCat("cannot read the file: ", json.status().message()));
}

// "allowed: PATTERN=full or PATTERN=bits:N (N: 2 to 8) ..."
absl::Status OverrideForm() {
  std::vector<std::string> forms;
  VisitOverrideFields([&forms](const auto& field) {
    if constexpr (std::is_same_v<std::decay_t<decltype(field)>, OverrideSwitch>) {
      forms.insert(forms.begin(), absl::StrCat("PATTERN=", field.key));
    } else if constexpr (requires { field.the_jobs; }) {
      forms.push_back(absl::StrCat("PATTERN=", field.key, ":N (N from ",
                                   SpecRange(field.min, field.max, field.zero), ")"));
    }
  });
  return InvalidInput(kReason, absl::StrCat("allowed: ", absl::StrJoin(forms, ", "),
                                            "; several with commas: PATTERN=bits:N,group:N"));
}

// One setting of an override: "full", "bits:3". `known` tells whether it was one.
class OverridePartReader {
 public:
  OverridePartReader(absl::string_view part, ModuleOverride* out) : part_(part), out_(out) {}
  void operator()(const OverridePattern&) {}
  void operator()(const OverrideSwitch& field) {
    if (part_ != field.key) return;
    out_->*field.member = true;
    known_ = true;
  }
  template <typename T>
  void operator()(const OverrideNumber<T>& field) {
    absl::string_view value = part_;
    T parsed;
    if (!absl::ConsumePrefix(&value, absl::StrCat(field.key, ":"))) return;
    if (!absl::SimpleAtoi(value, &parsed) || parsed < field.min || parsed > field.max) return;
    out_->*field.member = parsed;
    known_ = true;
  }
  bool known() const { return known_; }

 private:
  const absl::string_view part_;
  ModuleOverride* const out_;
  bool known_ = false;
};

// Declares the flags of one section, out of every field.
class FlagAdder {
 public:
  FlagAdder(FlagSet* flags, QuantizationSpec* spec, SpecSection section)
      : flags_(flags), spec_(spec), section_(section) {}

  void operator()(const TextField& field) const {
    if (field.section != section_) return;
    if (field.member == &QuantizationSpec::calibration_uri) return AddCalibration(field);
    flags_->String(FlagName(field.name), field.metavar, &(spec_->*field.member), field.help);
  }
  void operator()(const NumberField<int>& field) const { AddNumber(field, &FlagSet::Int); }
  void operator()(const NumberField<int64_t>& field) const { AddNumber(field, &FlagSet::Int64); }
  void operator()(const BytesField& field) const {
    if (field.section != section_) return;
    int64_t* const value = &(spec_->*field.member);
    flags_->Custom(FlagName(field.name), "BYTES", absl::StrCat(*value),
                   absl::StrCat(field.help, "; units as in 4.2GB or 500MiB; ",
                                SpecRange(field.min, field.max, field.zero)),
                   [value, field](absl::string_view text) {
                     const std::optional<int64_t> bytes = ParseBytes(text);
                     if (!bytes.has_value() || *bytes < field.min || *bytes > field.max) {
                       return InvalidInput(
                           kReason,
                           absl::StrCat("allowed: ", SpecRange(field.min, field.max, field.zero),
                                        ", with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB"));
                     }
                     *value = *bytes;
                     return absl::OkStatus();
                   });
  }
  void operator()(const NumberField<uint64_t>& field) const { AddNumber(field, &FlagSet::Uint64); }
  void operator()(const NumberField<double>& field) const { AddNumber(field, &FlagSet::Double); }
  template <typename Row, typename E>
  void operator()(const EnumField<Row, E>& field) const {
    if (field.section != section_) return;
    std::string help = field.help;
    for (const Row& row : field.rows) {
      absl::StrAppend(&help, "; ", row.name, ": ", row.help);
    }
    E* const value = &(spec_->*field.member);
    flags_->Choice(FlagName(field.name), EnumNames(field.rows), EnumName(field.rows, *value), help,
                   [value, rows = field.rows](absl::string_view name) {
                     *value = *ParseEnumName(rows, name);
                   });
  }
  void operator()(const OverridesField& field) const {
    if (field.section != section_) return;
    // Flags go before the file's overrides, in their own order.
    auto num_from_flags = std::make_shared<size_t>(0);
    std::vector<ModuleOverride>* const list = &(spec_->*field.member);
    flags_->Custom(field.flag, "PATTERN=SETTINGS", "",
                   absl::StrCat(field.help,
                                ": '*.down_proj=bits:4,group:64' or 'model.layers.0.*=full'; may "
                                "repeat, first match wins"),
                   [list, num_from_flags](absl::string_view text) {
                     UQ_ASSIGN_OR_RETURN(ModuleOverride parsed, ParseModuleOverride(text));
                     list->insert(list->begin() + (*num_from_flags)++, std::move(parsed));
                     return absl::OkStatus();
                   });
  }

  void operator()(const SharesField& field) const {
    if (field.section != section_) return;
    std::vector<CalibrationShare>* const list = &(spec_->*field.member);
    flags_->Custom(field.flag, "FILE:num=N", "", absl::StrCat(field.help, "; may repeat"),
                   [list](absl::string_view text) {
                     UQ_ASSIGN_OR_RETURN(CalibrationShare share, ParseCalibrationShare(text));
                     list->push_back(std::move(share));
                     return absl::OkStatus();
                   });
  }

 private:
  // A file, or "self" for text that the model writes; given twice, both.
  void AddCalibration(const TextField& field) const {
    QuantizationSpec* const spec = spec_;
    flags_->Custom(
        FlagName(field.name), absl::StrCat(field.metavar, "|self[:N]"), spec->*field.member,
        absl::StrCat(field.help, "; self: N sequences (", kSelfSamples,
                     ") that the model writes; may be given beside a file"),
        [spec](absl::string_view text) {
          absl::string_view count = text;
          if (!absl::ConsumePrefix(&count, "self") || (!count.empty() && count[0] != ':')) {
            spec->calibration_uri = std::string(text);
            return absl::OkStatus();
          }
          int64_t value = kSelfSamples;
          if (!count.empty() && (!absl::SimpleAtoi(count.substr(1), &value) || value < 1)) {
            return InvalidInput(kReason,
                                "allowed: a file, self, or self:N with N from 1; a file "
                                "whose name begins so is ./self:...");
          }
          spec->self_samples = value;
          return absl::OkStatus();
        });
  }

  template <typename T>
  void AddNumber(const NumberField<T>& field,
                 void (FlagSet::*add)(absl::string_view, T*, T, T, absl::string_view)) const {
    if (field.section != section_) return;
    const std::string help = absl::StrCat(field.help, "; ", SpecRange(field));
    if (*field.word == '\0') {
      (flags_->*add)(FlagName(field.name), &(spec_->*field.member), field.min, field.max, help);
      return;
    }
    if constexpr (std::is_integral_v<T>) AddWordOrNumber(field, help);
  }
  template <typename T>
  void AddWordOrNumber(const NumberField<T>& field, const std::string& help) const {
    T* const value = &(spec_->*field.member);
    flags_->Custom(
        FlagName(field.name), absl::StrCat("N|", field.word), absl::StrCat(*value), help,
        [value, field](absl::string_view text) {
          T parsed = field.max;
          if (text != field.word &&
              (!absl::SimpleAtoi(text, &parsed) || parsed < field.min || parsed > field.max)) {
            return InvalidInput(kReason, absl::StrCat("allowed: a whole number from ", field.min,
                                                      " to ", field.max, ", or ", field.word));
          }
          *value = parsed;
          return absl::OkStatus();
        });
  }

  FlagSet* const flags_;
  QuantizationSpec* const spec_;
  const SpecSection section_;
};

}  // namespace

absl::StatusOr<ModuleOverride> ParseModuleOverride(absl::string_view text) {
  const size_t equals = text.rfind('=');
  if (equals == 0 || equals == absl::string_view::npos) return OverrideForm();
  ModuleOverride out;
  out.pattern = std::string(text.substr(0, equals));
  for (const absl::string_view part : absl::StrSplit(text.substr(equals + 1), ',')) {
    OverridePartReader reader(part, &out);
    VisitOverrideFields(reader);
    if (!reader.known()) return OverrideForm();
  }
  return out;
}

absl::StatusOr<CalibrationShare> ParseCalibrationShare(absl::string_view text) {
  const size_t at = text.rfind(":num=");
  CalibrationShare share;
  if (at == 0 || at == absl::string_view::npos ||
      !absl::SimpleAtoi(text.substr(at + 5), &share.num_sequences) || share.num_sequences < 1) {
    return InvalidInput(kReason, "allowed: FILE:num=N with a whole number N from 1");
  }
  share.uri = std::string(text.substr(0, at));
  return share;
}

std::string FormatModuleOverride(const ModuleOverride& module_override) {
  std::vector<std::string> parts;
  VisitOverrideFields([&](const auto& field) {
    if constexpr (std::is_same_v<std::decay_t<decltype(field)>, OverrideSwitch>) {
      if (module_override.*field.member) parts.push_back(field.key);
    } else if constexpr (requires { field.the_jobs; }) {
      const auto value = module_override.*field.member;
      if (value != field.the_jobs) parts.push_back(absl::StrCat(field.key, ":", value));
    }
  });
  return absl::StrCat(module_override.pattern, "=", absl::StrJoin(parts, ","));
}

std::string AbsoluteUri(absl::string_view path) {
  if (path.empty() || absl::StrContains(path, "://")) return std::string(path);
  std::error_code error;
  const std::filesystem::path absolute =
      std::filesystem::absolute(std::filesystem::path(std::string(path)), error);
  if (error) return std::string(path);
  std::string text = absolute.lexically_normal().string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return absl::StrCat("file://", text);
}

void MakeUrisAbsolute(QuantizationSpec* spec) {
  for (CalibrationShare& share : spec->calibration_mix) share.uri = AbsoluteUri(share.uri);
  VisitSpecFields([spec](const auto& field) {
    if constexpr (std::is_same_v<std::decay_t<decltype(field)>, TextField>) {
      if (field.kind != TextField::kUri) return;
      spec->*field.member = AbsoluteUri(spec->*field.member);
    }
  });
}

void AddTextFlags(FlagSet* flags, QuantizationSpec* spec) {
  flags->Section("Text");
  VisitSpecFields([adder = FlagAdder(flags, spec, SpecSection::kText)](const auto& field) {
    if constexpr (!std::is_same_v<std::decay_t<decltype(field)>, SharesField>) adder(field);
  });
}

void AddSpecFlags(FlagSet* flags, QuantizationSpec* spec, SpecReader read_spec, PresetFlag preset) {
  for (const EnumRow<SpecSection>& section : kSpecSections) {
    flags->Section(section.name);
    VisitSpecFields(FlagAdder(flags, spec, section.value));
    if (section.value != SpecSection::kWhat) continue;
    std::string presets = "where settings begin, which the spec's file and other flags override";
    for (const EnumRow<Preset>& row : kPresets) {
      absl::StrAppend(&presets, "; ", row.name, ": ", row.help);
    }
    const std::vector<std::string> names = EnumNames(kPresets);
    flags->Custom(
        "preset", absl::StrJoin(names, "|"), EnumName(kPresets, Preset::kDefault), presets,
        [spec, preset, names](absl::string_view name) {
          *preset = ParseEnumName(kPresets, name);
          if (!preset->has_value()) {
            return InvalidInput(kReason, absl::StrCat("allowed: ", absl::StrJoin(names, ", ")));
          }
          *spec = PresetSpec(**preset);
          return absl::OkStatus();
        },
        FlagSet::kFirst);
    flags->Custom(
        "spec", read_spec ? "FILE" : "FILE.json", "",
        absl::StrCat("settings as ",
                     read_spec ? "YAML or JSON, - for standard input" : "a JSON object",
                     ", with the fields of docs/SPEC.md (model_uri, bits, ... overrides); other "
                     "flags override it"),
        [spec, preset,
         read = read_spec ? read_spec : SpecReader(ReadSpecFile)](absl::string_view where) {
          UQ_ASSIGN_OR_RETURN(const std::string json, read(where));
          UQ_ASSIGN_OR_RETURN(*spec, ReadSpec(json, *preset));
          return absl::OkStatus();
        },
        FlagSet::kEarly);
  }
}

}  // namespace uniquanf
