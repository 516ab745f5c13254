#include "common/job/report.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace uniquanf {
namespace {

using Json = nlohmann::ordered_json;

Json NumberJson(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json OptionalJson(const std::optional<double>& value) {
  return value.has_value() ? NumberJson(*value) : Json(nullptr);
}

// A layer that was not reconstructed has no block error; the API's 0 stands for that.
Json MeasuredJson(const LayerReport& layer, double error) {
  return layer.initial_loss == 0 && layer.final_loss == 0 ? Json(nullptr) : NumberJson(error);
}

Json SecondsJson(absl::Duration duration) { return NumberJson(absl::ToDoubleSeconds(duration)); }

Json QualityJson(const std::optional<QualityReport>& quality) {
  if (!quality.has_value()) return nullptr;
  Json json;
  json["verdict"] = quality->verdict;
  json["divergence"] = NumberJson(quality->divergence);
  json["same_top_token"] = NumberJson(quality->same_top_token);
  json["num_compared_tokens"] = quality->num_compared_tokens;
  json["baseline_perplexity"] = OptionalJson(quality->baseline_perplexity);
  json["texts"] = Json::array();
  for (const TextSample& text : quality->texts) {
    json["texts"].push_back(
        {{"prompt", text.prompt}, {"before", text.before}, {"after", text.after}});
  }
  return json;
}

// Nothing where there is none: the API's report has none, and its form stays.
void AddHistory(const LossHistory& history, Json* json) {
  if (history.empty()) return;
  Json losses = Json::array();
  for (const float loss : history.losses()) losses.push_back(NumberJson(loss));
  (*json)["history"] = {{"steps", history.steps()}, {"losses", std::move(losses)}};
}

}  // namespace

Json ToJson(const JobReport& report) {
  Json json;
  json["perplexity_before"] = OptionalJson(report.perplexity_before);
  json["perplexity_after"] = OptionalJson(report.perplexity_after);
  json["num_evaluation_tokens"] = report.num_evaluation_tokens;
  json["quality"] = QualityJson(report.quality);
  json["model_size_bytes"] = report.model_size_bytes;
  json["artifact_size_bytes"] = report.artifact_size_bytes;
  json["average_bits"] = NumberJson(report.average_bits);
  json["duration_seconds"] = SecondsJson(report.duration);
  json["warnings"] = report.warnings;
  json["layers"] = Json::array();
  for (const LayerReport& layer : report.layers) {
    json["layers"].push_back({{"layer", layer.layer},
                              {"bits", layer.bits},
                              {"initial_loss", MeasuredJson(layer, layer.initial_loss)},
                              {"final_loss", MeasuredJson(layer, layer.final_loss)},
                              {"duration_seconds", SecondsJson(layer.duration)}});
    AddHistory(layer.history, &json["layers"].back());
  }
  json["windows"] = Json::array();
  for (const WindowReport& window : report.windows) {
    json["windows"].push_back({{"first_layer", window.first_layer},
                               {"num_layers", window.num_layers},
                               {"initial_divergence", NumberJson(window.initial_divergence)},
                               {"final_divergence", NumberJson(window.final_divergence)},
                               {"duration_seconds", SecondsJson(window.duration)}});
    AddHistory(window.history, &json["windows"].back());
  }
  return json;
}

Json ToJson(const ArtifactInfo& artifact) {
  return {{"uri", artifact.uri},
          {"manifest_sha256", artifact.manifest_sha256},
          {"size_bytes", artifact.size_bytes}};
}

}  // namespace uniquanf
