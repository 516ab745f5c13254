#include "worker/task/window_result.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "worker/task/content_store.h"
#include "worker/task/task_context.h"

namespace uniquanf {
namespace {
using Json = nlohmann::ordered_json;
constexpr int kWindowResultVersion = 1;
constexpr char kReason[] = "INVALID_WINDOW_RESULT";
constexpr char kVersionField[] = "uniquanf_window_result";
constexpr auto kRequired = JsonObjectReader::kRequired;
}  // namespace

std::string WindowResult::ToJson() const {
  Json json;
  json[kVersionField] = kWindowResultVersion;
  json["plan_sha256"] = plan_sha256;
  json["first_layer"] = first_layer;
  json["environment"] = environment;
  json["initial_divergence"] = initial_divergence;
  json["final_divergence"] = final_divergence;
  json["best_step"] = best_step;
  json["loss_curve"] = loss_curve;
  json["layers"] = Json::array();
  for (const LayerResult& layer : layers) json["layers"].push_back(Json::parse(layer.ToJson()));
  return json.dump();
}

absl::StatusOr<WindowResult> WindowResult::FromJson(absl::string_view text) {
  UQ_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, "a window's result", kReason));
  JsonObjectReader reader(json, "", kReason);
  int version = 0;
  reader.Read(kVersionField, kRequired, &version);
  if (reader.ok() && version != kWindowResultVersion) {
    reader.Fail(absl::StrCat("a window's result has version ", version, "; this one knows ",
                             kWindowResultVersion));
  }
  WindowResult result;
  reader.Read("plan_sha256", kRequired, &result.plan_sha256);
  reader.Read("first_layer", kRequired, &result.first_layer);
  reader.Read("environment", kRequired, &result.environment);
  reader.ReadOrNan("initial_divergence", kRequired, &result.initial_divergence);
  reader.ReadOrNan("final_divergence", kRequired, &result.final_divergence);
  reader.Read("best_step", kRequired, &result.best_step);
  std::vector<double> curve;
  reader.ReadOrNan("loss_curve", kRequired, &curve);
  result.loss_curve.assign(curve.begin(), curve.end());
  const nlohmann::json* layers = reader.ReadArray("layers", kRequired);
  for (size_t i = 0; layers != nullptr && i < layers->size(); ++i) {
    UQ_ASSIGN_OR_RETURN(LayerResult layer, LayerResult::FromJson((*layers)[i].dump()));
    if (layer.layer != result.first_layer + static_cast<int>(i) ||
        layer.plan_sha256 != result.plan_sha256) {
      reader.Fail(absl::StrCat("layers[", i, "] is the result of another layer or plan"));
    }
    result.layers.push_back(std::move(layer));
  }
  if (layers != nullptr && layers->empty()) reader.Fail("layers is empty");
  UQ_RETURN_IF_ERROR(reader.Finish());
  return result;
}

bool IsWindowResult(absl::string_view json) {
  return absl::StartsWith(json, absl::StrCat("{\"", kVersionField, "\":"));
}

absl::StatusOr<WindowResult> LoadWindowResult(const std::string& plan_sha256, int first_layer,
                                              const std::string& digest,
                                              const TaskEnvironment& env) {
  UQ_ASSIGN_OR_RETURN(const std::string json,
                      GetContent(env.work.get(), digest, kMaxWindowResultBytes));
  UQ_ASSIGN_OR_RETURN(WindowResult result, WindowResult::FromJson(json));
  if (result.plan_sha256 != plan_sha256 || result.first_layer != first_layer) {
    return InvalidInput(
        kReason, absl::StrCat("object ", digest, " is the result of the window at layer ",
                              result.first_layer, " of plan ", result.plan_sha256,
                              ", not of the one at layer ", first_layer, " of plan ", plan_sha256));
  }
  return result;
}

}  // namespace uniquanf
