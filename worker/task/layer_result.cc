#include "worker/task/layer_result.h"

#include <nlohmann/json.hpp>

#include "common/base/status.h"

namespace uniquanf {
namespace {
using Json = nlohmann::ordered_json;
constexpr int kLayerResultVersion = 1;
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
  }
  return json.dump();
}

absl::StatusOr<LayerResult> LayerResult::FromJson(absl::string_view text) {
  const Json json = Json::parse(text.begin(), text.end(), nullptr, false);
  const absl::Status bad =
      InvalidInput("INVALID_LAYER_RESULT", "a layer's result is not one of this version");
  if (!json.is_object() || json.value("uniquanf_layer_result", 0) != kLayerResultVersion)
    return bad;
  LayerResult result;
  try {
    json.at("plan_sha256").get_to(result.plan_sha256);
    json.at("layer").get_to(result.layer);
    json.at("round").get_to(result.round);
    json.at("shard_sha256").get_to(result.shard_sha256);
    json.at("shard_size_bytes").get_to(result.shard_size_bytes);
    json.at("state_sha256").get_to(result.state_sha256);
    json.at("environment").get_to(result.environment);
    json.at("weights_sha256").get_to(result.weights_sha256);
    json.at("initial_loss").get_to(result.initial_loss);
    json.at("final_loss").get_to(result.final_loss);
    json.at("loss_curve").get_to(result.loss_curve);
    for (const Json& item : json.at("modules")) {
      ModuleResult module;
      item.at("name").get_to(module.name);
      item.at("num_outputs").get_to(module.num_outputs);
      item.at("num_inputs").get_to(module.num_inputs);
      item.at("quantized").get_to(module.quantized);
      item.at("bits").get_to(module.bits);
      item.at("group_size").get_to(module.group_size);
      item.at("weight_error").get_to(module.weight_error);
      item.at("num_saturated").get_to(module.num_saturated);
      result.modules.push_back(std::move(module));
    }
  } catch (const nlohmann::json::exception&) {
    return bad;
  }
  return result;
}

}  // namespace uniquanf
