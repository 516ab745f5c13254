#include "common/spec/spec_flags.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr char kReason[] = "INVALID_FLAG";
constexpr char kOverrideForm[] =
    "allowed: PATTERN=full, PATTERN=bits:N (N from 2 to 8), PATTERN=group:N (0: per row) or "
    "PATTERN=bits:N,group:N";

absl::StatusOr<QuantizationSpec> ReadSpecFile(absl::string_view path) {
  std::ifstream file{std::string(path), std::ios::binary};
  if (!file) {
    return InvalidInput(kReason, absl::StrCat("cannot read the file: ", std::strerror(errno)));
  }
  std::string json((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) return InvalidInput(kReason, "cannot read the file");
  return QuantizationSpec::FromJson(json);
}

absl::Status ParseOverridePart(absl::string_view part, ModuleOverride* out) {
  if (absl::ConsumePrefix(&part, "bits:")) {
    if (absl::SimpleAtoi(part, &out->bits) && out->bits >= 2 && out->bits <= 8) {
      return absl::OkStatus();
    }
  } else if (absl::ConsumePrefix(&part, "group:")) {
    if (absl::SimpleAtoi(part, &out->group_size) && out->group_size >= 0) return absl::OkStatus();
  }
  return InvalidInput(kReason, kOverrideForm);
}

}  // namespace

absl::StatusOr<ModuleOverride> ParseModuleOverride(absl::string_view text) {
  const size_t equals = text.rfind('=');
  if (equals == 0 || equals == absl::string_view::npos) return InvalidInput(kReason, kOverrideForm);
  ModuleOverride out;
  out.pattern = std::string(text.substr(0, equals));
  const absl::string_view settings = text.substr(equals + 1);
  if (settings == "full") {
    out.full_precision = true;
    return out;
  }
  for (const absl::string_view part : absl::StrSplit(settings, ',')) {
    UQ_RETURN_IF_ERROR(ParseOverridePart(part, &out));
  }
  return out;
}

std::string FormatModuleOverride(const ModuleOverride& module_override) {
  if (module_override.full_precision) return absl::StrCat(module_override.pattern, "=full");
  std::vector<std::string> parts;
  if (module_override.bits != 0) parts.push_back(absl::StrCat("bits:", module_override.bits));
  if (module_override.group_size >= 0) {
    parts.push_back(absl::StrCat("group:", module_override.group_size));
  }
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
  for (std::string* uri :
       {&spec->model_uri, &spec->calibration_uri, &spec->output_uri, &spec->evaluation_uri}) {
    *uri = AbsoluteUri(*uri);
  }
}

void AddSpecFlags(FlagSet* flags, QuantizationSpec* spec) {
  constexpr int kMaxInt = std::numeric_limits<int>::max();
  constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();

  flags->Section("What to quantize");
  flags->String("model", "DIR", &spec->model_uri,
                "Hugging Face checkpoint directory: a path, file:///DIR or s3://BUCKET/PREFIX");
  flags->String("calibration", "FILE", &spec->calibration_uri,
                "safetensors file with an integer tensor input_ids [num_samples, sequence_length]");
  flags->String("output", "DIR", &spec->output_uri,
                "where the artifact goes; must not hold anything yet");
  flags->String("evaluation", "FILE", &spec->evaluation_uri,
                "safetensors file with one-dimensional integer token tensors, for perplexity "
                "before and after");
  flags->String("evaluation-entry", "NAME", &spec->evaluation_entry,
                "tensor of --evaluation to use");
  flags->Int64("evaluation-window", &spec->evaluation_window, 2, kMaxInt64,
               "tokens in an evaluation window");
  flags->Int64("evaluation-max-windows", &spec->evaluation_max_windows, 0, kMaxInt64,
               "evaluation windows used; 0: all");
  flags->Custom(
      "spec", "FILE.json", "",
      "settings as a JSON object with the fields of common/spec/quantization_spec.h (model_uri, "
      "bits, ... overrides); other flags override it",
      [spec](absl::string_view path) {
        UQ_ASSIGN_OR_RETURN(*spec, ReadSpecFile(path));
        return absl::OkStatus();
      },
      FlagSet::kEarly);

  flags->Section("How");
  flags->Custom(
      "method", "uniquanf|flexround|alternating|rtn", QuantizationMethodName(spec->method),
      "uniquanf: everything; flexround: uniform levels, learned rounding; alternating: "
      "binary coding, no reconstruction; rtn: round to nearest",
      [spec](absl::string_view text) {
        const auto method = ParseQuantizationMethod(text);
        if (method.ok()) {
          spec->method = *method;
          return absl::OkStatus();
        }
        const std::vector<std::string> names = {"uniquanf", "flexround", "alternating", "rtn"};
        const std::string nearest = NearestName(text, names);
        return InvalidInput(kReason, absl::StrCat("allowed: ", absl::StrJoin(names, ", "),
                                                  nearest.empty() ? "" : ". Did you mean ", nearest,
                                                  nearest.empty() ? "" : "?"));
      });
  flags->Int("bits", &spec->bits, 2, 8, "bits a weight");
  flags->Int64("group-size", &spec->group_size, 0, kMaxInt64,
               "weights of a row that share scales; divides every layer's input width; 0: the row");
  // Flags go before the file's overrides, in their own order.
  auto num_from_flags = std::make_shared<size_t>(0);
  flags->Custom("override", "PATTERN=SETTINGS", "",
                "other settings for the modules whose full name matches the glob: "
                "'*.down_proj=bits:4,group:64' or 'model.layers.0.*=full'; may repeat, first match "
                "wins",
                [spec, num_from_flags](absl::string_view text) {
                  UQ_ASSIGN_OR_RETURN(ModuleOverride parsed, ParseModuleOverride(text));
                  spec->overrides.insert(spec->overrides.begin() + (*num_from_flags)++,
                                         std::move(parsed));
                  return absl::OkStatus();
                });
  flags->Uint64("seed", &spec->seed, "seed of every random choice");

  flags->Section("Calibration and optimization");
  flags->Int64("num-samples", &spec->num_samples, 0, kMaxInt64,
               "calibration sequences used; 0: all in the file");
  flags->Int64("sequence-length", &spec->sequence_length, 0, kMaxInt64,
               "tokens of each sequence used; 0: the file's width");
  flags->Int("epochs", &spec->epochs, 0, kMaxInt,
             "passes over the samples for each layer; 0: no reconstruction");
  flags->Int("batch-size", &spec->batch_size, 1, kMaxInt, "sequences a step");
  flags->Double("input-prob", &spec->input_prob, 0, 1,
                "probability of an input element from the quantized model; 0 makes layers "
                "independent of each other");
  flags->Custom("schedule", "sequential|pipelined", LayerScheduleName(spec->schedule),
                "sequential: layer after layer; pipelined: layers overlap on several workers or "
                "devices, at nearly the same accuracy",
                [spec](absl::string_view text) {
                  const auto schedule = ParseLayerSchedule(text);
                  if (!schedule.ok()) {
                    return InvalidInput(kReason, "allowed: sequential, pipelined");
                  }
                  spec->schedule = *schedule;
                  return absl::OkStatus();
                });
  flags->Int(
      "pipeline-rounds", &spec->pipeline_rounds, 1, 64,
      "parts that a pipelined layer's epochs are cut into; as many workers can work at once");
  flags->Double("uniform-learning-rate", &spec->uniform_learning_rate, 0, 1e6,
                "learning rate of the uniform part (step size and rounding)");
  flags->Double("binary-learning-rate", &spec->binary_learning_rate, 0, 1e6,
                "learning rate of the binary scales");
  flags->Int("grid-steps", &spec->grid_steps, 0, 1000, "grid search steps G of the initialization");
  flags->Int("alternating-rounds", &spec->alternating_rounds, 0, 1000,
             "alternating update rounds T of the initialization");
  flags->Int("remap-period", &spec->remap_period, 1, kMaxInt,
             "forward passes between remappings of the codes");
}

}  // namespace uniquanf
