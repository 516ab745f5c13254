#include "common/spec/quantization_spec.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "common/base/violations.h"
#include "common/spec/glob.h"
#include "common/spec/spec_fields.h"

namespace uniquanf {
namespace {

constexpr char kReason[] = "INVALID_SPEC";

absl::Status Invalid(absl::string_view message) { return InvalidInput(kReason, message); }

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

// The fields one by one; what is wrong with any goes to `violations`.
class OverrideChecker {
 public:
  OverrideChecker(const ModuleOverride& entry, size_t index, Violations* violations)
      : entry_(entry), path_(absl::StrCat("overrides[", index, "].")), violations_(violations) {}

  void operator()(const OverridePattern& field) {
    const std::string path = path_ + field.name;
    violations_->Merge(CheckText(path, entry_.*field.member, /*required=*/true), path);
  }
  template <typename T>
  void operator()(const OverrideNumber<T>& field) {
    const T value = entry_.*field.member;
    if (value == field.the_jobs || (value >= field.min && value <= field.max)) return;
    violations_->Add(kReason, path_ + field.name,
                     absl::StrCat(path_, field.name, " = ", value, " is out of range; allowed: ",
                                  SpecRange(field.min, field.max, field.zero), ", or ",
                                  field.the_jobs, " for the job's"));
  }
  void operator()(const OverrideSwitch&) {}

 private:
  const ModuleOverride& entry_;
  const std::string path_;
  Violations* const violations_;
};

class FieldChecker {
 public:
  FieldChecker(const QuantizationSpec& spec, Violations* violations)
      : spec_(spec), violations_(violations) {}

  void operator()(const TextField& field) {
    const auto check = field.kind == TextField::kUri ? CheckUri : CheckText;
    violations_->Merge(check(field.name, spec_.*field.member, field.required), field.name);
  }
  template <typename T>
  void operator()(const NumberField<T>& field) {
    const T value = spec_.*field.member;
    if (value >= field.min && value <= field.max) return;  // false for NaN
    violations_->Add(kReason, field.name,
                     absl::StrCat(field.name, " = ", value, " is out of range; allowed: ",
                                  SpecRange(field.min, field.max, field.zero)));
  }
  // No other value comes from JSON, proto or a flag.
  template <typename Row, typename E>
  void operator()(const EnumField<Row, E>&) {}
  void operator()(const OverridesField& field) {
    const std::vector<ModuleOverride>& overrides = spec_.*field.member;
    if (overrides.size() > field.max_count) {
      violations_->Add(kReason, field.name,
                       absl::StrCat("the number of overrides = ", overrides.size(),
                                    " is out of range; allowed: 0 to ", field.max_count));
      return;
    }
    for (size_t i = 0; i < overrides.size(); ++i) {
      OverrideChecker checker(overrides[i], i, violations_);
      VisitOverrideFields(checker);
    }
  }
  void operator()(const SharesField& field) {
    const std::vector<CalibrationShare>& shares = spec_.*field.member;
    if (shares.size() > field.max_count) {
      violations_->Add(kReason, field.name,
                       absl::StrCat(field.name, " has ", shares.size(), " files; allowed: up to ",
                                    field.max_count));
      return;
    }
    for (size_t i = 0; i < shares.size(); ++i) {
      const std::string path = absl::StrCat(field.name, "[", i, "]");
      violations_->Merge(CheckUri(path + ".uri", shares[i].uri, /*required=*/true), path);
      const int64_t count = shares[i].num_sequences;
      if (count >= 1 && count <= field.max_sequences) continue;
      violations_->Add(kReason, path + ".num_sequences",
                       absl::StrCat(path, ".num_sequences = ", count,
                                    " is out of range; allowed: 1 to ", field.max_sequences));
    }
  }

 private:
  const QuantizationSpec& spec_;
  Violations* const violations_;
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

bool Distills(const QuantizationSpec& spec) { return spec.distill_window > 0; }

bool NeedsCalibration(const QuantizationSpec& spec) {
  return NeedsReconstruction(spec) || Distills(spec) || HasBudget(spec);
}
bool Trains(const QuantizationSpec& spec) { return RowOf(spec.method).trains && spec.epochs > 0; }

absl::Status QuantizationSpec::Validate() const {
  Violations violations;
  FieldChecker checker(*this, &violations);
  VisitSpecFields(checker);
  // The rules that join fields.
  if (NeedsCalibration(*this) && calibration_uri.empty() && self_samples == 0) {
    violations.Add(
        kReason, "calibration_uri",
        absl::StrCat("calibration_uri is empty; ",
                     Distills(*this) ? "distillation (distill_window)"
                                     : absl::StrCat("the method ", QuantizationMethodName(method)),
                     " needs calibration data",
                     !Distills(*this) && RowOf(method).trains ? " unless epochs is 0" : "",
                     "; the model can write its own (self_samples)"));
  }
  if (Distills(*this) && RowOf(method).uniform) {
    violations.Add(kReason, "distill_window",
                   absl::StrCat("distill_window = ", distill_window,
                                ": distillation trains levels that the method ",
                                QuantizationMethodName(method),
                                " keeps equally spaced; use method uniquanf, or distill_window 0"));
  }
  if (!Distills(*this) && !distillation_uri.empty()) {
    violations.Add(kReason, "distillation_uri",
                   "distillation_uri is given, but nothing is distilled; set distill_window");
  }
  if (max_perplexity_increase > 0 && evaluation_uri.empty()) {
    violations.Add(kReason, "max_perplexity_increase",
                   "max_perplexity_increase is set, but evaluation_uri is empty; give the tokens "
                   "that the perplexity is of");
  }
  if (evaluation_baseline != EvaluationBaseline::kNone && evaluation_uri.empty()) {
    violations.Add(kReason, "evaluation_baseline",
                   "evaluation_baseline is set, but evaluation_uri is empty; give the tokens to "
                   "evaluate it on");
  }
  int64_t in_mix = 0;
  for (const CalibrationShare& share : calibration_mix) in_mix += share.num_sequences;
  if (in_mix > 0 && (calibration_uri.empty() || (num_samples > 0 && in_mix >= num_samples))) {
    violations.Add(kReason, "calibration_mix",
                   absl::StrCat("calibration_mix gives ", in_mix, " sequences of num_samples = ",
                                num_samples, "; calibration_uri must be given and have some left"));
  }
  if (!evaluation_uri.empty() && evaluation_entry.empty()) {
    violations.Add(kReason, "evaluation_entry",
                   "evaluation_entry is empty; it is required beside evaluation_uri");
  }
  if (levels != Levels::kAny && !RowOf(method).uniform) {
    std::vector<absl::string_view> uniform;
    for (const MethodRow& row : kQuantizationMethods) {
      if (row.uniform) uniform.push_back(row.name);
    }
    violations.Add(
        kReason, "levels",
        absl::StrCat("levels is ", EnumName(kLevels, levels), ", but the levels of ",
                     QuantizationMethodName(method),
                     " are no grid; methods whose levels are one: ", absl::StrJoin(uniform, ", ")));
  }
  if (average_bits > 0 && artifact_size > 0) {
    violations.Add(kReason, "artifact_size",
                   "average_bits and artifact_size are both given; a job has one budget");
  }
  if (HasBudget(*this) && calibration_uri.empty() && self_samples == 0) {
    violations.Add(
        kReason, "calibration_uri",
        "calibration_uri is empty; bits are spread by what they cost on calibration data");
  }
  if (num_samples > 0 && batch_size > num_samples) {
    violations.Add(kReason, "batch_size",
                   absl::StrCat("batch_size = ", batch_size, " is larger than num_samples = ",
                                num_samples, "; allowed: 1 to ", num_samples));
  }
  return violations.status();
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
