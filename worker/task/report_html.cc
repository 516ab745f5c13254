#include "worker/task/report_html.h"

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "common/base/check.h"
#include "common/job/report.h"
#include "worker/task/report_template.h"

namespace uniquanf {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kTitleMark = "UNIQUANF_REPORT_TITLE";
constexpr absl::string_view kDataMark = "UNIQUANF_REPORT_DATA";

// Five digits are more than a chart shows; a curve of 256 points has a third of its size.
Json Short(double value) { return std::strtod(absl::StrFormat("%.5g", value).c_str(), nullptr); }

// "Llama-3.1-8B" of "s3://bucket/models/Llama-3.1-8B/": what people call it, not where it lies.
std::string ModelName(absl::string_view uri) {
  while (absl::ConsumeSuffix(&uri, "/")) {
  }
  const size_t slash = uri.rfind('/');
  return std::string(slash == absl::string_view::npos ? uri : uri.substr(slash + 1));
}

// The URIs that were given: a command that runs the job again must name them.
Json GivenUris(const QuantizationSpec& spec) {
  const std::pair<const char*, const std::string&> uris[] = {
      {"model_uri", spec.model_uri},
      {"calibration_uri", spec.calibration_uri},
      {"evaluation_uri", spec.evaluation_uri},
      {"distillation_uri", spec.distillation_uri},
  };
  Json given = Json::array();
  for (const auto& [name, uri] : uris) {
    if (!uri.empty()) given.push_back(name);
  }
  return given;
}

Json LayersJson(const std::vector<LayerResult>& layers) {
  Json json = Json::array();
  for (const LayerResult& layer : layers) {
    Json curve = Json::array();
    for (const float loss : layer.loss_curve) curve.push_back(Short(loss));
    json.push_back({{"layer", layer.layer},
                    {"kept_start", layer.kept_start},
                    {"num_folded", layer.num_folded},
                    {"loss_curve", std::move(curve)}});
  }
  return json;
}

Json ModulesJson(const std::vector<ManifestModule>& modules, const PartSizes& parts) {
  Json json = Json::array();
  for (const ManifestModule& module : modules) {
    Json entry = {{"name", module.name},
                  {"num_outputs", module.num_outputs},
                  {"num_inputs", module.num_inputs},
                  {"quantized", module.quantized}};
    if (module.quantized) {
      entry["bits"] = module.bits;
      entry["group_size"] = module.group_size;
      entry["weight_error"] = Short(module.weight_error);
      entry["num_saturated"] = module.num_saturated;
      entry["size_bytes"] = parts.OfModule(module.name);
    } else {
      entry["reason"] = module.reason;
    }
    json.push_back(std::move(entry));
  }
  return json;
}

// `prefix` and digits at the end of `name`: "x.alpha_3".
bool HasNumberedSuffix(absl::string_view name, absl::string_view prefix) {
  const size_t end = name.find_last_not_of("0123456789");
  return end != absl::string_view::npos && end + 1 < name.size() &&
         absl::EndsWith(name.substr(0, end + 1), prefix);
}

}  // namespace

void PartSizes::Add(absl::string_view tensor, uint64_t size_bytes, bool outer) {
  const std::string module(tensor.substr(0, tensor.rfind('.')));
  if (outer) {
    outer_ += size_bytes;
  } else if (absl::EndsWith(tensor, ".qweight")) {
    codes_ += size_bytes;
    modules_[module] += size_bytes;
  } else if (HasNumberedSuffix(tensor, ".alpha_") || HasNumberedSuffix(tensor, ".beta_")) {
    scales_ += size_bytes;
    modules_[module] += size_bytes;
  } else if (absl::EndsWith(tensor, ".q_bias")) {
    zeros_ += size_bytes;
  } else {
    other_ += size_bytes;
  }
}

uint64_t PartSizes::OfModule(const std::string& name) const {
  const auto found = modules_.find(name);
  return found == modules_.end() ? 0 : found->second;
}

Json PartSizes::ToJson(uint64_t total_bytes) const {
  const uint64_t tensors = codes_ + scales_ + zeros_ + other_ + outer_;
  const std::pair<const char*, uint64_t> parts[] = {
      {"codes of quantized weights", codes_},
      {"their scales and shifts", scales_},
      {"zeros that other runtimes expect (q_bias)", zeros_},
      {"rest of the layers, unquantized", other_},
      {"embedding, head and outer norms", outer_},
      {"tokenizer, configuration, headers", total_bytes > tensors ? total_bytes - tensors : 0},
  };
  Json json = Json::array();
  for (const auto& [name, size_bytes] : parts) {
    if (size_bytes > 0) json.push_back({{"name", name}, {"size_bytes", size_bytes}});
  }
  return json;
}

int MostCommonBits(const LayerResult& result) {
  std::map<int, int> counts;
  for (const ModuleResult& module : result.modules) {
    if (module.quantized) ++counts[module.bits];
  }
  int best = 0;
  for (const auto& [bits, count] : counts) {
    if (best == 0 || count > counts[best]) best = bits;
  }
  return best;
}

Json ReportJson(const ReportInputs& inputs) {
  const auto& [spec, plan, manifest, outcome, layers, parts, job, finished] = inputs;
  Json json;
  json["format"] = "uniquanf-report";
  json["version"] = 1;
  json["model"] = {{"name", ModelName(spec.model_uri)},
                   {"architecture", manifest.model.architecture},
                   {"num_layers", plan.num_layers}};
  json["job"] = job;
  json["finished"] = absl::FormatTime(finished, absl::UTCTimeZone());
  json["software_version"] = manifest.software_version;
  json["manifest_sha256"] = outcome.artifact.manifest_sha256;
  json["environment"] = manifest.environment;
  json["device"] = plan.device;
  json["arithmetic"] = plan.arithmetic;
  json["num_samples"] = plan.num_samples;
  json["sequence_length"] = plan.sequence_length;
  json["num_steps"] = NumSteps(plan);
  json["spec"] = Json::parse(plan.spec.ToJson());
  json["given"] = GivenUris(spec);
  json["report"] = ToJson(outcome.report);
  json["layers"] = LayersJson(layers);
  json["modules"] = ModulesJson(manifest.modules, parts);
  json["parts"] = parts.ToJson(static_cast<uint64_t>(outcome.report.artifact_size_bytes));
  return json;
}

std::string RenderReportHtml(const ReportInputs& inputs) {
  const absl::string_view page = ReportTemplate();
  const size_t title = page.find(kTitleMark), data = page.find(kDataMark);
  UQ_CHECK(title < data && data != absl::string_view::npos);
  // Inside a script element no text may look like its end, or like a comment's begin.
  const std::string json = absl::StrReplaceAll(
      ReportJson(inputs).dump(-1, ' ', false, Json::error_handler_t::replace), {{"<", "\\u003c"}});
  const std::string name =
      absl::StrReplaceAll(ModelName(inputs.spec.model_uri),
                          {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
  const size_t after_title = title + kTitleMark.size();
  return absl::StrCat(page.substr(0, title), name, ": quantization report",
                      page.substr(after_title, data - after_title), json,
                      page.substr(data + kDataMark.size()));
}

}  // namespace uniquanf
