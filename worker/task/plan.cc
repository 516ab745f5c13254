#include "worker/task/plan.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "common/spec/spec_fields.h"
#include "worker/quant/compact_state.h"

namespace uniquanf {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kPlanVersion = 1;
constexpr char kReason[] = "INVALID_PLAN";
constexpr auto kRequired = JsonObjectReader::kRequired;
// Beyond what any job has, and small enough to compute with.
constexpr int64_t kMaxCount = int64_t{1} << 40;

QuantizationSpec WithoutUris(QuantizationSpec spec) {
  spec.model_uri.clear();
  spec.calibration_uri.clear();
  spec.output_uri.clear();
  spec.evaluation_uri.clear();
  spec.distillation_uri.clear();
  for (CalibrationShare& share : spec.calibration_mix) share.uri.clear();
  return spec;
}

// What steps and rounds are computed from.
absl::Status CheckNumbers(const Plan& plan) {
  QuantizationSpec complete = plan.spec;
  complete.model_uri = complete.calibration_uri = complete.output_uri = complete.evaluation_uri =
      "file:///left-out";
  for (CalibrationShare& share : complete.calibration_mix) share.uri = "file:///left-out";
  const absl::Status valid = complete.Validate();
  if (!valid.ok()) return InvalidInput(kReason, absl::StrCat("the plan's spec: ", valid.message()));
  const std::pair<const char*, int64_t> counts[] = {
      {"num_layers", plan.num_layers},
      {"num_samples", plan.num_samples},
      {"sequence_length", plan.sequence_length},
      {"num_distillation_samples", plan.num_distillation_samples},
      {"num_self_samples", plan.num_self_samples},
      {"num_evaluation_tokens", plan.num_evaluation_tokens}};
  for (const auto& [name, value] : counts) {
    if (value < 0 || value > kMaxCount) {
      return InvalidInput(kReason, absl::StrCat("the plan's ", name, " is ", value));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string Plan::ToJson() const {
  Json json;
  json["uniquanf_plan"] = kPlanVersion;
  json["spec"] = Json::parse(WithoutUris(spec).ToJson());
  json["device"] = device;
  json["arithmetic"] = arithmetic;
  json["num_layers"] = num_layers;
  json["config_sha256"] = config_sha256;
  json["tensors_sha256"] = tensors_sha256;
  json["model_size_bytes"] = model_size_bytes;
  json["calibration_sha256"] = calibration_sha256;
  json["num_samples"] = num_samples;
  json["sequence_length"] = sequence_length;
  if (!distillation_sha256.empty()) {
    json["distillation_sha256"] = distillation_sha256;
    json["num_distillation_samples"] = num_distillation_samples;
  }
  if (!self_tokens_sha256.empty()) {
    json["self_tokens_sha256"] = self_tokens_sha256;
    json["num_self_samples"] = num_self_samples;
  }
  json["evaluation_sha256"] = evaluation_sha256;
  json["num_evaluation_tokens"] = num_evaluation_tokens;
  if (calibration_text) json["calibration_text"] = calibration_text->ToJson();
  if (evaluation_text) json["evaluation_text"] = evaluation_text->ToJson();
  if (!warnings.empty()) json["warnings"] = warnings;
  if (spec.optimizer_state != OptimizerState::kF32) {
    json["optimizer_state_version"] = quant::kCompactStateVersion;
  }
  if (!allocation.empty()) json["allocation"] = allocation;
  return json.dump();
}

absl::StatusOr<Plan> Plan::FromJson(absl::string_view text) {
  UQ_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, "the job's plan", kReason));
  JsonObjectReader reader(json, "", kReason);
  int version = 0;
  reader.Read("uniquanf_plan", kRequired, &version);
  if (reader.ok() && version != kPlanVersion) {
    reader.Fail(
        absl::StrCat("the job's plan has version ", version, "; this one knows ", kPlanVersion));
  }
  Plan plan;
  const nlohmann::json* spec = reader.ReadObject("spec", kRequired);
  reader.Read("device", kRequired, &plan.device);
  reader.Read("arithmetic", kRequired, &plan.arithmetic);
  reader.Read("num_layers", kRequired, &plan.num_layers);
  reader.Read("config_sha256", kRequired, &plan.config_sha256);
  reader.Read("tensors_sha256", kRequired, &plan.tensors_sha256);
  reader.Read("model_size_bytes", kRequired, &plan.model_size_bytes);
  reader.Read("calibration_sha256", kRequired, &plan.calibration_sha256);
  reader.Read("num_samples", kRequired, &plan.num_samples);
  reader.Read("sequence_length", kRequired, &plan.sequence_length);
  reader.Read("distillation_sha256", JsonObjectReader::kOptional, &plan.distillation_sha256);
  reader.Read("num_distillation_samples", JsonObjectReader::kOptional,
              &plan.num_distillation_samples);
  reader.Read("self_tokens_sha256", JsonObjectReader::kOptional, &plan.self_tokens_sha256);
  reader.Read("num_self_samples", JsonObjectReader::kOptional, &plan.num_self_samples);
  reader.Read("evaluation_sha256", kRequired, &plan.evaluation_sha256);
  reader.Read("num_evaluation_tokens", kRequired, &plan.num_evaluation_tokens);
  UQ_RETURN_IF_ERROR(
      ReadTextProvenance(&reader, "calibration_text", kReason, &plan.calibration_text));
  UQ_RETURN_IF_ERROR(
      ReadTextProvenance(&reader, "evaluation_text", kReason, &plan.evaluation_text));
  reader.Read("warnings", JsonObjectReader::kOptional, &plan.warnings);
  int state_version = quant::kCompactStateVersion;
  reader.Read("optimizer_state_version", JsonObjectReader::kOptional, &state_version);
  if (reader.ok() && state_version != quant::kCompactStateVersion) {
    reader.Fail(absl::StrCat("the job's optimizer state has version ", state_version,
                             "; this one knows ", quant::kCompactStateVersion));
  }
  const nlohmann::json* allocation = reader.ReadObject("allocation", JsonObjectReader::kOptional);
  UQ_RETURN_IF_ERROR(reader.Finish());
  if (allocation != nullptr) {
    JsonObjectReader bits(*allocation, "allocation", kReason);
    for (const auto& [module, value] : allocation->items()) {
      bits.Read(module.c_str(), kRequired, &plan.allocation[module]);
    }
    UQ_RETURN_IF_ERROR(bits.Finish());
    for (const auto& [module, value] : plan.allocation) {
      if (value >= kMinBits && value <= kMaxBits) continue;
      return InvalidInput(kReason, absl::StrCat("the plan gives ", module, " ", value, " bits"));
    }
  }
  UQ_ASSIGN_OR_RETURN(plan.spec, QuantizationSpec::FromJson(spec->dump()));
  // A job that was prepared before the field was there goes on as it began.
  if (!spec->contains("initialization")) plan.spec.initialization = Initialization::kPlain;
  UQ_RETURN_IF_ERROR(CheckNumbers(plan));
  return plan;
}

ModuleSettings SettingsOf(const Plan& plan, const std::string& module_name) {
  ModuleSettings settings = SettingsForModule(plan.spec, module_name);
  const auto allocated = plan.allocation.find(module_name);
  if (allocated != plan.allocation.end()) settings.bits = allocated->second;
  return settings;
}

bool NeedsQuantizedInputs(const QuantizationSpec& spec) {
  return NeedsReconstruction(spec) && spec.input_prob > 0;
}

int64_t NumSteps(const Plan& plan) {
  return Trains(plan.spec) ? plan.spec.epochs * plan.num_samples / plan.spec.batch_size : 0;
}

int NumRounds(const Plan& plan) {
  if (plan.spec.schedule != LayerSchedule::kPipelined || !NeedsQuantizedInputs(plan.spec)) return 1;
  return static_cast<int>(
      std::clamp<int64_t>(NumSteps(plan) - 1, 1, std::max(1, plan.spec.pipeline_rounds)));
}

std::pair<int64_t, int64_t> RoundSteps(const Plan& plan, int round) {
  const int64_t num_steps = NumSteps(plan);
  const int num_rounds = NumRounds(plan);
  const int64_t num_parts = num_rounds == 1 ? 1 : num_rounds + 1;
  const int64_t end = round + 1 == num_rounds ? num_steps : num_steps * (round + 1) / num_parts;
  return {num_steps * round / num_parts, end};
}

int DistillWindow(const Plan& plan) { return std::min(plan.spec.distill_window, plan.num_layers); }

double InputProb(const Plan& plan, int round) {
  const int num_rounds = NumRounds(plan);
  return num_rounds > 1 && round == num_rounds - 1 ? 1.0 : plan.spec.input_prob;
}

std::string TensorsDigest(const Checkpoint& checkpoint, uint64_t* total_bytes) {
  Sha256 sha256;
  *total_bytes = 0;
  for (const std::string& name : checkpoint.TensorNames()) {
    const auto raw = checkpoint.FindRaw(name);
    if (!raw.ok()) continue;
    sha256.Update(absl::StrCat(name, "\n", SafetensorsDTypeName(raw->info.dtype)));
    for (int64_t dim : raw->info.shape) sha256.Update(absl::StrCat(" ", dim));
    sha256.Update("\n");
    *total_bytes += raw->size_on_disk();
  }
  return sha256.FinishHex();
}

}  // namespace uniquanf
