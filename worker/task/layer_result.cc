#include "worker/task/layer_result.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/base/json_util.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {
using Json = nlohmann::ordered_json;
constexpr int kLayerResultVersion = 1;
constexpr char kReason[] = "INVALID_LAYER_RESULT";
constexpr auto kRequired = JsonObjectReader::kRequired;
}  // namespace

std::string LayerResult::ToJson() const {
  Json json;
  json["uniquanf_layer_result"] = kLayerResultVersion;
  json["plan_sha256"] = plan_sha256;
  json["layer"] = layer;
  json["round"] = round;
  json["shard_sha256"] = shard_sha256;
  json["shard_size_bytes"] = shard_size_bytes;
  json["state_sha256"] = state_sha256;
  json["environment"] = environment;
  json["weights_sha256"] = weights_sha256;
  json["initial_loss"] = initial_loss;
  json["final_loss"] = final_loss;
  json["loss_curve"] = loss_curve;
  // What most layers have not is left out.
  if (kept_start) json["kept_start"] = true;
  if (num_folded > 0) json["num_folded"] = num_folded;
  if (!warnings.empty()) json["warnings"] = warnings;
  json["modules"] = Json::array();
  for (const ModuleResult& module : modules) {
    json["modules"].push_back({{"name", module.name},
                               {"num_outputs", module.num_outputs},
                               {"num_inputs", module.num_inputs},
                               {"quantized", module.quantized},
                               {"bits", module.bits},
                               {"group_size", module.group_size},
                               {"weight_error", module.weight_error},
                               {"num_saturated", module.num_saturated}});
    if (module.num_underflowed > 0) {
      json["modules"].back()["num_underflowed"] = module.num_underflowed;
    }
  }
  if (!changed_vectors.empty()) json["changed_vectors"] = changed_vectors;
  return json.dump();
}

absl::StatusOr<LayerResult> LayerResult::FromJson(absl::string_view text) {
  UQ_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, "a layer's result", kReason));
  JsonObjectReader reader(json, "", kReason);
  int version = 0;
  reader.Read("uniquanf_layer_result", kRequired, &version);
  if (reader.ok() && version != kLayerResultVersion) {
    reader.Fail(absl::StrCat("a layer's result has version ", version, "; this one knows ",
                             kLayerResultVersion));
  }
  LayerResult result;
  reader.Read("plan_sha256", kRequired, &result.plan_sha256);
  reader.Read("layer", kRequired, &result.layer);
  reader.Read("round", kRequired, &result.round);
  reader.Read("shard_sha256", kRequired, &result.shard_sha256);
  reader.Read("shard_size_bytes", kRequired, &result.shard_size_bytes);
  reader.Read("state_sha256", kRequired, &result.state_sha256);
  reader.Read("environment", kRequired, &result.environment);
  reader.Read("weights_sha256", kRequired, &result.weights_sha256);
  // A loss that is no finite number is written as null: it spoils the report, not the job.
  reader.ReadOrNan("initial_loss", kRequired, &result.initial_loss);
  reader.ReadOrNan("final_loss", kRequired, &result.final_loss);
  std::vector<double> curve;
  reader.ReadOrNan("loss_curve", kRequired, &curve);
  result.loss_curve.assign(curve.begin(), curve.end());
  constexpr auto kOptional = JsonObjectReader::kOptional;
  reader.Read("kept_start", kOptional, &result.kept_start);
  reader.Read("num_folded", kOptional, &result.num_folded);
  reader.Read("warnings", kOptional, &result.warnings);
  const nlohmann::json* modules = reader.ReadArray("modules", kRequired);
  for (size_t i = 0; modules != nullptr && i < modules->size(); ++i) {
    JsonObjectReader item((*modules)[i], absl::StrCat("modules[", i, "]"), kReason);
    ModuleResult& module = result.modules.emplace_back();
    item.Read("name", kRequired, &module.name);
    item.Read("num_outputs", kRequired, &module.num_outputs);
    item.Read("num_inputs", kRequired, &module.num_inputs);
    item.Read("quantized", kRequired, &module.quantized);
    item.Read("bits", kRequired, &module.bits);
    item.Read("group_size", kRequired, &module.group_size);
    item.ReadOrNan("weight_error", kRequired, &module.weight_error);
    item.Read("num_saturated", kRequired, &module.num_saturated);
    item.Read("num_underflowed", JsonObjectReader::kOptional, &module.num_underflowed);
    UQ_RETURN_IF_ERROR(item.Finish());
  }
  reader.Read("changed_vectors", JsonObjectReader::kOptional, &result.changed_vectors);
  UQ_RETURN_IF_ERROR(reader.Finish());
  return result;
}

}  // namespace uniquanf
