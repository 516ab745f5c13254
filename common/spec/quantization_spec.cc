#include "common/spec/quantization_spec.h"

#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/spec/glob.h"

namespace uniquanf {
namespace {

constexpr QuantizationMethod kAllMethods[] = {
    QuantizationMethod::kUniquanf, QuantizationMethod::kFlexround, QuantizationMethod::kAlternating,
    QuantizationMethod::kRtn};
constexpr int64_t kMaxGroupSize = int64_t{1} << 20;
constexpr size_t kMaxTextBytes = 4096;
constexpr size_t kMaxOverrides = 10000;

absl::Status Invalid(absl::string_view message) { return InvalidInput("INVALID_SPEC", message); }

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t low, int64_t high,
                        absl::string_view meaning = "") {
  if (value >= low && value <= high) return absl::OkStatus();
  return Invalid(absl::StrCat(field, " = ", value, " is out of range; allowed: ", low, " to ", high,
                              meaning.empty() ? "" : " ", meaning));
}

absl::Status CheckReal(absl::string_view field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();  // false for NaN
  return Invalid(
      absl::StrCat(field, " = ", value, " is out of range; allowed: ", low, " to ", high));
}

absl::Status CheckText(absl::string_view field, absl::string_view value, bool required) {
  if (required && value.empty()) return Invalid(absl::StrCat(field, " is empty; it is required"));
  if (value.size() > kMaxTextBytes) {
    return Invalid(
        absl::StrCat(field, " has ", value.size(), " bytes; allowed: up to ", kMaxTextBytes));
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

absl::Status ValidateOverride(const ModuleOverride& entry, size_t index) {
  const std::string field = absl::StrCat("overrides[", index, "].");
  UQ_RETURN_IF_ERROR(CheckText(absl::StrCat(field, "pattern"), entry.pattern, /*required=*/true));
  if (entry.bits != 0) {
    UQ_RETURN_IF_ERROR(
        CheckRange(absl::StrCat(field, "bits"), entry.bits, 2, 8, "(or 0 for the job's bits)"));
  }
  return CheckRange(absl::StrCat(field, "group_size"), entry.group_size, -1, kMaxGroupSize,
                    "(0: per row, -1: the job's)");
}

}  // namespace

absl::string_view QuantizationMethodName(QuantizationMethod method) {
  switch (method) {
    case QuantizationMethod::kUniquanf:
      return "uniquanf";
    case QuantizationMethod::kFlexround:
      return "flexround";
    case QuantizationMethod::kAlternating:
      return "alternating";
    case QuantizationMethod::kRtn:
      return "rtn";
  }
  return "unknown";
}

absl::StatusOr<QuantizationMethod> ParseQuantizationMethod(absl::string_view name) {
  for (const QuantizationMethod method : kAllMethods) {
    if (QuantizationMethodName(method) == name) return method;
  }
  return Invalid(absl::StrCat("method = \"", name,
                              "\" is unknown; allowed: uniquanf, flexround, alternating, rtn"));
}

absl::string_view LayerScheduleName(LayerSchedule schedule) {
  switch (schedule) {
    case LayerSchedule::kSequential:
      return "sequential";
    case LayerSchedule::kPipelined:
      return "pipelined";
  }
  return "unknown";
}

absl::StatusOr<LayerSchedule> ParseLayerSchedule(absl::string_view name) {
  for (const LayerSchedule schedule : {LayerSchedule::kSequential, LayerSchedule::kPipelined}) {
    if (LayerScheduleName(schedule) == name) return schedule;
  }
  return Invalid(
      absl::StrCat("schedule = \"", name, "\" is unknown; allowed: sequential, pipelined"));
}

absl::Status QuantizationSpec::Validate() const {
  UQ_RETURN_IF_ERROR(CheckUri("model_uri", model_uri, /*required=*/true));
  const bool reconstructs =
      (method == QuantizationMethod::kUniquanf || method == QuantizationMethod::kFlexround) &&
      epochs > 0;
  if (reconstructs && calibration_uri.empty()) {
    return Invalid(absl::StrCat("calibration_uri is empty; the method ",
                                QuantizationMethodName(method),
                                " needs calibration data unless epochs is 0"));
  }
  UQ_RETURN_IF_ERROR(CheckUri("calibration_uri", calibration_uri, /*required=*/false));
  UQ_RETURN_IF_ERROR(CheckUri("output_uri", output_uri, /*required=*/true));
  UQ_RETURN_IF_ERROR(CheckUri("evaluation_uri", evaluation_uri, /*required=*/false));
  UQ_RETURN_IF_ERROR(
      CheckText("evaluation_entry", evaluation_entry, /*required=*/!evaluation_uri.empty()));
  UQ_RETURN_IF_ERROR(CheckRange("evaluation_window", evaluation_window, 2, 1 << 20));
  UQ_RETURN_IF_ERROR(CheckRange("evaluation_max_windows", evaluation_max_windows, 1, 1000000000));

  UQ_RETURN_IF_ERROR(CheckRange("bits", bits, 2, 8));
  UQ_RETURN_IF_ERROR(CheckRange("group_size", group_size, 0, kMaxGroupSize, "(0: per row)"));
  UQ_RETURN_IF_ERROR(CheckRange("the number of overrides", static_cast<int64_t>(overrides.size()),
                                0, kMaxOverrides));
  for (size_t i = 0; i < overrides.size(); ++i) {
    UQ_RETURN_IF_ERROR(ValidateOverride(overrides[i], i));
  }

  UQ_RETURN_IF_ERROR(CheckRange("num_samples", num_samples, 0, 1000000, "(0: all in the file)"));
  UQ_RETURN_IF_ERROR(
      CheckRange("sequence_length", sequence_length, 0, 1 << 20, "(0: the file's width)"));
  UQ_RETURN_IF_ERROR(CheckRange("epochs", epochs, 0, 10000));
  UQ_RETURN_IF_ERROR(CheckRange("batch_size", batch_size, 1, 64));
  if (num_samples > 0 && batch_size > num_samples) {
    return Invalid(absl::StrCat("batch_size = ", batch_size, " is larger than num_samples = ",
                                num_samples, "; allowed: 1 to ", num_samples));
  }
  UQ_RETURN_IF_ERROR(CheckReal("input_prob", input_prob, 0, 1));
  UQ_RETURN_IF_ERROR(CheckReal("uniform_learning_rate", uniform_learning_rate, 0, 1));
  UQ_RETURN_IF_ERROR(CheckReal("binary_learning_rate", binary_learning_rate, 0, 1));
  UQ_RETURN_IF_ERROR(CheckRange("grid_steps", grid_steps, 0, 1000));
  UQ_RETURN_IF_ERROR(CheckRange("alternating_rounds", alternating_rounds, 0, 1000));
  UQ_RETURN_IF_ERROR(CheckRange("remap_period", remap_period, 1, 1000000));
  return CheckRange("pipeline_rounds", pipeline_rounds, 1, 64);
}

ModuleSettings SettingsForModule(const QuantizationSpec& spec, absl::string_view module_name) {
  ModuleSettings settings = {spec.bits, spec.group_size, false};
  for (const ModuleOverride& entry : spec.overrides) {
    if (!GlobMatches(entry.pattern, module_name)) continue;
    if (entry.bits != 0) settings.bits = entry.bits;
    if (entry.group_size >= 0) settings.group_size = entry.group_size;
    settings.full_precision = entry.full_precision;
    break;
  }
  return settings;
}

}  // namespace uniquanf
