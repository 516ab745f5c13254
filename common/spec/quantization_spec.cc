#include "common/spec/quantization_spec.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "common/spec/glob.h"
#include "common/spec/spec_fields.h"

namespace uniquanf {
namespace {

absl::Status Invalid(absl::string_view message) { return InvalidInput("INVALID_SPEC", message); }

absl::Status CheckText(absl::string_view field, absl::string_view value, bool required) {
  if (required && value.empty()) return Invalid(absl::StrCat(field, " is empty; it is required"));
  if (value.size() > kMaxSpecTextBytes) {
    return Invalid(
        absl::StrCat(field, " has ", value.size(), " bytes; allowed: up to ", kMaxSpecTextBytes));
  }
  for (const char c : value) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      return Invalid(absl::StrCat(field, " holds a control character; remove it"));
    }
  }
  return absl::OkStatus();
}

// A spec is stored, listed and shown: a key and its secret must not get there. Bucket names hold
// neither ':' nor '@'. The message does not repeat the URI.
absl::Status CheckUri(absl::string_view field, absl::string_view uri, bool required) {
  UQ_RETURN_IF_ERROR(CheckText(field, uri, required));
  const size_t scheme = uri.find("://");
  if (scheme == uri.npos || uri.substr(0, scheme) == "file") return absl::OkStatus();
  const absl::string_view rest = uri.substr(scheme + 3);
  if (rest.substr(0, rest.find('/')).find_first_of(":@") == rest.npos) return absl::OkStatus();
  return Invalid(absl::StrCat(field, " names a user or a port before its first '/'; give ",
                              uri.substr(0, scheme),
                              "://bucket/path: workers take credentials and endpoint from their "
                              "own environment"));
}

// The fields one by one; remembers the first error.
class OverrideChecker {
 public:
  OverrideChecker(const ModuleOverride& entry, size_t index)
      : entry_(entry), path_(absl::StrCat("overrides[", index, "].")) {}

  void operator()(const OverridePattern& field) {
    status_.Update(CheckText(path_ + field.name, entry_.*field.member, /*required=*/true));
  }
  template <typename T>
  void operator()(const OverrideNumber<T>& field) {
    const T value = entry_.*field.member;
    if (value == field.the_jobs || (value >= field.min && value <= field.max)) return;
    status_.Update(Invalid(absl::StrCat(
        path_, field.name, " = ", value, " is out of range; allowed: ",
        SpecRange(field.min, field.max, field.zero), ", or ", field.the_jobs, " for the job's")));
  }
  void operator()(const OverrideSwitch&) {}
  const absl::Status& status() const { return status_; }

 private:
  const ModuleOverride& entry_;
  const std::string path_;
  absl::Status status_;
};

class FieldChecker {
 public:
  explicit FieldChecker(const QuantizationSpec& spec) : spec_(spec) {}

  void operator()(const TextField& field) {
    const auto check = field.kind == TextField::kUri ? CheckUri : CheckText;
    status_.Update(check(field.name, spec_.*field.member, field.required));
  }
  template <typename T>
  void operator()(const NumberField<T>& field) {
    const T value = spec_.*field.member;
    if (value >= field.min && value <= field.max) return;  // false for NaN
    status_.Update(Invalid(absl::StrCat(field.name, " = ", value, " is out of range; allowed: ",
                                        SpecRange(field.min, field.max, field.zero))));
  }
  // No other value comes from JSON, proto or a flag.
  template <typename Row, typename E>
  void operator()(const EnumField<Row, E>&) {}
  void operator()(const OverridesField& field) {
    const std::vector<ModuleOverride>& overrides = spec_.*field.member;
    if (overrides.size() > field.max_count) {
      status_.Update(Invalid(absl::StrCat("the number of overrides = ", overrides.size(),
                                          " is out of range; allowed: 0 to ", field.max_count)));
    }
    for (size_t i = 0; status_.ok() && i < overrides.size(); ++i) {
      OverrideChecker checker(overrides[i], i);
      VisitOverrideFields(checker);
      status_.Update(checker.status());
    }
  }
  const absl::Status& status() const { return status_; }

 private:
  const QuantizationSpec& spec_;
  absl::Status status_;
};

}  // namespace

absl::string_view QuantizationMethodName(QuantizationMethod method) {
  return EnumName(kQuantizationMethods, method);
}

absl::string_view LayerScheduleName(LayerSchedule schedule) {
  return EnumName(kLayerSchedules, schedule);
}

bool NeedsReconstruction(const QuantizationSpec& spec) {
  const MethodRow& row = RowOf(spec.method);
  return row.calibrates && (!row.trains || spec.epochs > 0);
}

bool Trains(const QuantizationSpec& spec) { return RowOf(spec.method).trains && spec.epochs > 0; }

absl::Status QuantizationSpec::Validate() const {
  FieldChecker checker(*this);
  VisitSpecFields(checker);
  UQ_RETURN_IF_ERROR(checker.status());
  // The rules that join fields.
  if (NeedsReconstruction(*this) && calibration_uri.empty()) {
    return Invalid(absl::StrCat("calibration_uri is empty; the method ",
                                QuantizationMethodName(method), " needs calibration data",
                                RowOf(method).trains ? " unless epochs is 0" : ""));
  }
  if (!evaluation_uri.empty() && evaluation_entry.empty()) {
    return Invalid("evaluation_entry is empty; it is required beside evaluation_uri");
  }
  if (levels != Levels::kAny && !RowOf(method).uniform) {
    std::vector<absl::string_view> uniform;
    for (const MethodRow& row : kQuantizationMethods) {
      if (row.uniform) uniform.push_back(row.name);
    }
    return Invalid(
        absl::StrCat("levels is ", EnumName(kLevels, levels), ", but the levels of ",
                     QuantizationMethodName(method),
                     " are no grid; methods whose levels are one: ", absl::StrJoin(uniform, ", ")));
  }
  if (average_bits > 0 && artifact_size > 0) {
    return Invalid("average_bits and artifact_size are both given; a job has one budget");
  }
  if (HasBudget(*this) && calibration_uri.empty()) {
    return Invalid(
        "calibration_uri is empty; bits are spread by what they cost on calibration data");
  }
  if (num_samples > 0 && batch_size > num_samples) {
    return Invalid(absl::StrCat("batch_size = ", batch_size, " is larger than num_samples = ",
                                num_samples, "; allowed: 1 to ", num_samples));
  }
  return absl::OkStatus();
}

ModuleSettings SettingsForModule(const QuantizationSpec& spec, absl::string_view module_name) {
  ModuleSettings settings = {spec.bits, spec.group_size, false};
  for (const ModuleOverride& entry : spec.overrides) {
    if (!GlobMatches(entry.pattern, module_name)) continue;
    if (entry.bits != ModuleOverride::kJobsBits) settings.bits = entry.bits;
    if (entry.group_size != ModuleOverride::kJobsGroupSize) settings.group_size = entry.group_size;
    settings.full_precision = entry.full_precision;
    break;
  }
  return settings;
}

}  // namespace uniquanf
