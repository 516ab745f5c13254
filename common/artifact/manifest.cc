#include "common/artifact/manifest.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/artifact/layout.h"
#include "common/base/digest.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "common/object_store/object_key.h"

namespace uniquanf {
namespace {

constexpr char kFormat[] = "uniquanf-artifact";
// Version 1 wrote numbers in another spelling and the spec on one line; it reads alike.
constexpr int kVersion = 2, kOldestVersion = 1;
constexpr char kReason[] = "INVALID_MANIFEST";
constexpr int64_t kMaxWidth = int64_t{1} << 40;
constexpr auto kRequired = JsonObjectReader::kRequired;

OrderedJson ToJsonValue(const ManifestModel& model) {
  return {
      {"architecture", model.architecture},     {"num_layers", model.num_layers},
      {"config_sha256", model.config_sha256},   {"tensors_sha256", model.tensors_sha256},
      {"weights_sha256", model.weights_sha256}, {"calibration_sha256", model.calibration_sha256},
      {"plan_sha256", model.plan_sha256}};
}

OrderedJson ToJsonValue(const ManifestOrigin& origin) {
  OrderedJson json = OrderedJson::object();
  if (!origin.dequantized.empty()) {
    json["dequantized"] = OrderedJson::array();
    for (const ManifestDequantized& entry : origin.dequantized) {
      json["dequantized"].push_back(
          {{"form", entry.form}, {"dtype", entry.dtype}, {"num_tensors", entry.num_tensors}});
    }
  }
  if (!origin.evaluation_sha256.empty()) json["evaluation_sha256"] = origin.evaluation_sha256;
  if (!origin.left_out.empty()) json["left_out"] = origin.left_out;
  return json;
}

OrderedJson ToJsonValue(const ManifestModule& module) {
  OrderedJson json = {{"name", module.name},
                      {"num_outputs", module.num_outputs},
                      {"num_inputs", module.num_inputs},
                      {"status", module.quantized ? "quantized" : "full_precision"}};
  if (module.quantized) {
    json["bits"] = module.bits;
    json["group_size"] = module.group_size;
    json["weight_error"] = module.weight_error;
    json["num_saturated"] = module.num_saturated;
  } else {
    json["reason"] = module.reason;
  }
  return json;
}

void ReadDigest(JsonObjectReader* reader, absl::string_view name, bool may_be_empty,
                std::string* out) {
  reader->Read(name, kRequired, out);
  if (!reader->ok() || IsSha256Hex(*out) || (may_be_empty && out->empty())) return;
  reader->Fail(absl::StrCat(reader->PathOf(name), " must be 64 lower-case hex digits"));
}

// Reads a number that must not be negative.
void ReadCount(JsonObjectReader* reader, absl::string_view name, int64_t max, int64_t* out) {
  reader->Read(name, kRequired, out);
  if (reader->ok() && (*out < 0 || *out > max)) {
    reader->Fail(
        absl::StrCat(reader->PathOf(name), " = ", *out, " is out of range; allowed: 0 to ", max));
  }
}

absl::StatusOr<ManifestModel> ParseModel(const nlohmann::json& value) {
  JsonObjectReader reader(value, "model", kReason);
  ManifestModel model;
  int64_t num_layers = 0;
  reader.Read("architecture", kRequired, &model.architecture);
  ReadCount(&reader, "num_layers", 100000, &num_layers);
  ReadDigest(&reader, "config_sha256", false, &model.config_sha256);
  ReadDigest(&reader, "tensors_sha256", true, &model.tensors_sha256);
  ReadDigest(&reader, "weights_sha256", true, &model.weights_sha256);
  ReadDigest(&reader, "calibration_sha256", true, &model.calibration_sha256);
  ReadDigest(&reader, "plan_sha256", true, &model.plan_sha256);
  UQ_RETURN_IF_ERROR(reader.Finish());
  model.num_layers = static_cast<int>(num_layers);
  return model;
}

absl::StatusOr<ManifestDequantized> ParseDequantized(const nlohmann::json& value,
                                                     const std::string& path) {
  JsonObjectReader reader(value, path, kReason);
  ManifestDequantized entry;
  reader.Read("form", kRequired, &entry.form);
  reader.Read("dtype", kRequired, &entry.dtype);
  ReadCount(&reader, "num_tensors", INT64_MAX, &entry.num_tensors);
  UQ_RETURN_IF_ERROR(reader.Finish());
  return entry;
}

absl::StatusOr<ManifestModule> ParseModule(const nlohmann::json& value, const std::string& path) {
  JsonObjectReader reader(value, path, kReason);
  ManifestModule module;
  std::string status;
  reader.Read("name", kRequired, &module.name);
  ReadCount(&reader, "num_outputs", kMaxWidth, &module.num_outputs);
  ReadCount(&reader, "num_inputs", kMaxWidth, &module.num_inputs);
  reader.Read("status", kRequired, &status);
  module.quantized = status == "quantized";
  if (module.quantized) {
    reader.Read("bits", kRequired, &module.bits);
    ReadCount(&reader, "group_size", kMaxWidth, &module.group_size);
    reader.ReadOrNan("weight_error", kRequired, &module.weight_error);
    ReadCount(&reader, "num_saturated", INT64_MAX, &module.num_saturated);
  } else {
    reader.Read("reason", kRequired, &module.reason);
    if (status != "full_precision") {
      reader.Fail(absl::StrCat(path, ".status = \"", status,
                               "\" is unknown; allowed: quantized, full_precision"));
    }
  }
  if (reader.ok() && module.name.empty()) reader.Fail(absl::StrCat(path, ".name is empty"));
  if (reader.ok() && module.quantized &&
      (module.bits < kMinPackedBits || module.bits > kMaxPackedBits || module.num_outputs < 1 ||
       module.group_size < 1 || module.num_inputs < 1 ||
       module.num_inputs % module.group_size != 0)) {
    reader.Fail(absl::StrCat(path, " (", module.name, "): ", module.bits, " bits, ",
                             module.num_outputs, " x ", module.num_inputs, " weights in groups of ",
                             module.group_size, " is no possible layer"));
  }
  UQ_RETURN_IF_ERROR(reader.Finish());
  return module;
}

absl::StatusOr<ManifestLayer> ParseLayer(const nlohmann::json& value, const std::string& path) {
  JsonObjectReader reader(value, path, kReason);
  ManifestLayer layer;
  int64_t index = 0;
  ReadCount(&reader, "layer", 100000, &index);
  reader.ReadOrNan("initial_loss", kRequired, &layer.initial_loss);
  reader.ReadOrNan("final_loss", kRequired, &layer.final_loss);
  UQ_RETURN_IF_ERROR(reader.Finish());
  layer.layer = static_cast<int>(index);
  return layer;
}

absl::StatusOr<ManifestEvaluation> ParseEvaluation(const nlohmann::json& value) {
  JsonObjectReader reader(value, "evaluation", kReason);
  ManifestEvaluation evaluation;
  reader.ReadOrNan("perplexity_before", kRequired, &evaluation.perplexity_before);
  reader.ReadOrNan("perplexity_after", kRequired, &evaluation.perplexity_after);
  ReadCount(&reader, "num_tokens", INT64_MAX, &evaluation.num_tokens);
  UQ_RETURN_IF_ERROR(reader.Finish());
  return evaluation;
}

absl::Status CheckPath(const std::string& path, absl::string_view where,
                       std::set<std::string>* seen) {
  UQ_RETURN_IF_ERROR(ValidateObjectKey(path).ok()
                         ? absl::OkStatus()
                         : InvalidInput(kReason, absl::StrCat(where, " is no valid path")));
  if (path == kManifestKey || !seen->insert(path).second) {
    return InvalidInput(
        kReason, absl::StrCat(where, ": \"", path, "\" is listed twice or is the manifest itself"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ManifestFile> ParseFile(const nlohmann::json& value, const std::string& path) {
  JsonObjectReader reader(value, path, kReason);
  ManifestFile file;
  reader.Read("path", kRequired, &file.path);
  reader.Read("size_bytes", kRequired, &file.size_bytes);
  ReadDigest(&reader, "sha256", false, &file.sha256);
  UQ_RETURN_IF_ERROR(reader.Finish());
  return file;
}

// Parses every element of an array with `parse(element, "name[i]")`.
template <typename T, typename Parse>
absl::Status ParseArray(const nlohmann::json& array, absl::string_view name, Parse parse,
                        std::vector<T>* out) {
  out->reserve(array.size());
  for (size_t i = 0; i < array.size(); ++i) {
    UQ_ASSIGN_OR_RETURN(T element, parse(array[i], absl::StrCat(name, "[", i, "]")));
    out->push_back(std::move(element));
  }
  return absl::OkStatus();
}

absl::StatusOr<ManifestOrigin> ParseOrigin(const nlohmann::json& value) {
  constexpr auto kOptional = JsonObjectReader::kOptional;
  JsonObjectReader reader(value, "origin", kReason);
  ManifestOrigin origin;
  const nlohmann::json* dequantized = reader.ReadArray("dequantized", kOptional);
  if (reader.Has("evaluation_sha256")) {
    ReadDigest(&reader, "evaluation_sha256", false, &origin.evaluation_sha256);
  }
  reader.Read("left_out", kOptional, &origin.left_out);
  UQ_RETURN_IF_ERROR(reader.Finish());
  if (dequantized != nullptr) {
    UQ_RETURN_IF_ERROR(
        ParseArray(*dequantized, "origin.dequantized", ParseDequantized, &origin.dequantized));
  }
  return origin;
}

absl::Status CheckConsistent(const Manifest& manifest) {
  std::set<std::string> names, paths;
  for (const ManifestModule& module : manifest.modules) {
    if (!names.insert(module.name).second) {
      return InvalidInput(kReason, absl::StrCat("the module ", module.name, " is listed twice"));
    }
  }
  for (size_t i = 0; i < manifest.files.size(); ++i) {
    UQ_RETURN_IF_ERROR(
        CheckPath(manifest.files[i].path, absl::StrCat("files[", i, "].path"), &paths));
  }
  for (size_t i = 0; i < manifest.attachments.size(); ++i) {
    UQ_RETURN_IF_ERROR(
        CheckPath(manifest.attachments[i], absl::StrCat("attachments[", i, "]"), &paths));
  }
  return absl::OkStatus();
}

}  // namespace

std::string Manifest::ToJson() const {
  OrderedJson json;
  json["format"] = kFormat;
  json["version"] = kVersion;
  json["software_version"] = software_version;
  json["environment"] = environment;
  json["spec"] = OrderedJson::parse(spec.ToJson());
  json["model"] = ToJsonValue(model);
  if (!origin.empty()) json["origin"] = ToJsonValue(origin);
  json["modules"] = OrderedJson::array();
  for (const ManifestModule& module : modules) json["modules"].push_back(ToJsonValue(module));
  json["layers"] = OrderedJson::array();
  for (const ManifestLayer& layer : layers) {
    json["layers"].push_back({{"layer", layer.layer},
                              {"initial_loss", layer.initial_loss},
                              {"final_loss", layer.final_loss}});
  }
  if (evaluation.has_value()) {
    json["evaluation"] = {{"perplexity_before", evaluation->perplexity_before},
                          {"perplexity_after", evaluation->perplexity_after},
                          {"num_tokens", evaluation->num_tokens}};
  }
  if (calibration_text) json["calibration_text"] = calibration_text->ToJson();
  if (evaluation_text) json["evaluation_text"] = evaluation_text->ToJson();
  json["anybcq_omitted"] = anybcq_omitted;
  std::vector<ManifestFile> sorted_files = files;
  std::sort(sorted_files.begin(), sorted_files.end(),
            [](const ManifestFile& a, const ManifestFile& b) { return a.path < b.path; });
  json["files"] = OrderedJson::array();
  for (const ManifestFile& file : sorted_files) {
    json["files"].push_back(
        {{"path", file.path}, {"size_bytes", file.size_bytes}, {"sha256", file.sha256}});
  }
  std::vector<std::string> sorted_attachments = attachments;
  std::sort(sorted_attachments.begin(), sorted_attachments.end());
  json["attachments"] = sorted_attachments;
  return IndentedJson(json);
}

absl::StatusOr<Manifest> Manifest::FromJson(absl::string_view text) {
  UQ_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(text, kManifestKey, kReason));
  JsonObjectReader reader(document, "", kReason);
  Manifest manifest;
  std::string format;
  int version = 0;
  reader.Read("format", kRequired, &format);
  reader.Read("version", kRequired, &version);
  // Before all else: a later version may have other fields.
  if (reader.ok() && (format != kFormat || version < kOldestVersion || version > kVersion)) {
    return InvalidInput(kReason, absl::StrCat("format \"", format, "\" version ", version,
                                              "; this program reads \"", kFormat, "\" versions ",
                                              kOldestVersion, " to ", kVersion));
  }
  reader.Read("software_version", kRequired, &manifest.software_version);
  reader.Read("environment", kRequired, &manifest.environment);
  const nlohmann::json* spec = reader.ReadObject("spec", kRequired);
  const nlohmann::json* model = reader.ReadObject("model", kRequired);
  const nlohmann::json* origin = reader.ReadObject("origin", JsonObjectReader::kOptional);
  const nlohmann::json* modules = reader.ReadArray("modules", kRequired);
  const nlohmann::json* layers = reader.ReadArray("layers", kRequired);
  const nlohmann::json* evaluation = reader.ReadObject("evaluation", JsonObjectReader::kOptional);
  UQ_RETURN_IF_ERROR(
      ReadTextProvenance(&reader, "calibration_text", kReason, &manifest.calibration_text));
  UQ_RETURN_IF_ERROR(
      ReadTextProvenance(&reader, "evaluation_text", kReason, &manifest.evaluation_text));
  reader.Read("anybcq_omitted", kRequired, &manifest.anybcq_omitted);
  const nlohmann::json* files = reader.ReadArray("files", kRequired);
  reader.Read("attachments", kRequired, &manifest.attachments);
  UQ_RETURN_IF_ERROR(reader.Finish());

  absl::StatusOr<QuantizationSpec> parsed_spec = QuantizationSpec::FromJson(spec->dump());
  if (!parsed_spec.ok()) {
    return InvalidInput(kReason, absl::StrCat("spec: ", parsed_spec.status().message()));
  }
  manifest.spec = *std::move(parsed_spec);
  // Written before the field was there.
  if (!spec->contains("initialization")) manifest.spec.initialization = Initialization::kPlain;
  UQ_ASSIGN_OR_RETURN(manifest.model, ParseModel(*model));
  if (origin != nullptr) {
    UQ_ASSIGN_OR_RETURN(manifest.origin, ParseOrigin(*origin));
  }
  UQ_RETURN_IF_ERROR(ParseArray(*modules, "modules", ParseModule, &manifest.modules));
  UQ_RETURN_IF_ERROR(ParseArray(*layers, "layers", ParseLayer, &manifest.layers));
  if (evaluation != nullptr) {
    UQ_ASSIGN_OR_RETURN(manifest.evaluation, ParseEvaluation(*evaluation));
  }
  UQ_RETURN_IF_ERROR(ParseArray(*files, "files", ParseFile, &manifest.files));
  UQ_RETURN_IF_ERROR(CheckConsistent(manifest));
  return manifest;
}

const ManifestModule* Manifest::FindModule(absl::string_view name) const {
  for (const ManifestModule& module : modules) {
    if (module.name == name) return &module;
  }
  return nullptr;
}

double Manifest::AverageBits() const {
  double num_bits = 0, num_weights = 0;
  for (const ManifestModule& module : modules) {
    if (!module.quantized) continue;
    const double weights =
        static_cast<double>(module.num_outputs) * static_cast<double>(module.num_inputs);
    num_weights += weights;
    num_bits += weights * (module.bits + 16.0 * (module.bits + 1) / module.group_size);
  }
  return num_weights == 0 ? 0 : num_bits / num_weights;
}

absl::StatusOr<Manifest> ReadManifest(ObjectStore* store) {
  const absl::StatusOr<std::string> text = store->Read(kManifestKey, kMaxManifestBytes);
  if (absl::IsNotFound(text.status())) {
    return NotFound("ARTIFACT_NOT_FOUND",
                    absl::StrCat(store->uri(), " holds no ", kManifestKey,
                                 "; it is no artifact, or one that was never finished"));
  }
  UQ_RETURN_IF_ERROR(text.status());
  absl::StatusOr<Manifest> manifest = Manifest::FromJson(*text);
  if (!manifest.ok()) {
    return Annotate(manifest.status(), absl::StrCat(store->uri(), "/", kManifestKey));
  }
  return manifest;
}

}  // namespace uniquanf
