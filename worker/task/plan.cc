#include "worker/task/plan.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/base/digest.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kPlanVersion = 1;

QuantizationSpec WithoutUris(QuantizationSpec spec) {
  spec.model_uri.clear();
  spec.calibration_uri.clear();
  spec.output_uri.clear();
  spec.evaluation_uri.clear();
  return spec;
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
  json["evaluation_sha256"] = evaluation_sha256;
  json["num_evaluation_tokens"] = num_evaluation_tokens;
  return json.dump();
}

absl::StatusOr<Plan> Plan::FromJson(absl::string_view text) {
  const Json json = Json::parse(text.begin(), text.end(), nullptr, false);
  const absl::Status bad =
      InvalidInput("INVALID_PLAN", "the job's plan is not one of this version");
  if (!json.is_object() || json.value("uniquanf_plan", 0) != kPlanVersion) return bad;
  Plan plan;
  try {
    UQ_ASSIGN_OR_RETURN(plan.spec, QuantizationSpec::FromJson(json.at("spec").dump()));
    json.at("device").get_to(plan.device);
    json.at("arithmetic").get_to(plan.arithmetic);
    json.at("num_layers").get_to(plan.num_layers);
    json.at("config_sha256").get_to(plan.config_sha256);
    json.at("tensors_sha256").get_to(plan.tensors_sha256);
    json.at("model_size_bytes").get_to(plan.model_size_bytes);
    json.at("calibration_sha256").get_to(plan.calibration_sha256);
    json.at("num_samples").get_to(plan.num_samples);
    json.at("sequence_length").get_to(plan.sequence_length);
    json.at("evaluation_sha256").get_to(plan.evaluation_sha256);
    json.at("num_evaluation_tokens").get_to(plan.num_evaluation_tokens);
  } catch (const nlohmann::json::exception&) {
    return bad;
  }
  return plan;
}

bool NeedsQuantizedInputs(const QuantizationSpec& spec) {
  return NeedsReconstruction(spec) && spec.input_prob > 0;
}

int64_t NumSteps(const Plan& plan) {
  return NeedsReconstruction(plan.spec) ? plan.spec.epochs * plan.num_samples / plan.spec.batch_size
                                        : 0;
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
    *total_bytes += raw->info.size_bytes;
  }
  return sha256.FinishHex();
}

}  // namespace uniquanf
