#include "absl/strings/str_cat.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "common/spec/quantization_spec.h"

namespace uniquanf {
namespace {

constexpr char kReason[] = "INVALID_SPEC";
// A spec is written by hand or by a program; this is far beyond either.
constexpr size_t kMaxSpecBytes = 4 << 20;

// Calls `visit(name, &field)` for every plain field, in the canonical order; `overrides`, which is
// an array, goes before "num_samples".
template <typename Spec, typename Visit>
void VisitWhere(Spec* spec, Visit visit) {
  visit("model_uri", &spec->model_uri);
  visit("calibration_uri", &spec->calibration_uri);
  visit("output_uri", &spec->output_uri);
  visit("evaluation_uri", &spec->evaluation_uri);
  visit("evaluation_entry", &spec->evaluation_entry);
  visit("evaluation_window", &spec->evaluation_window);
  visit("evaluation_max_windows", &spec->evaluation_max_windows);
}
template <typename Spec, typename Visit>
void VisitHow(Spec* spec, Visit visit) {
  visit("num_samples", &spec->num_samples);
  visit("sequence_length", &spec->sequence_length);
  visit("epochs", &spec->epochs);
  visit("batch_size", &spec->batch_size);
  visit("input_prob", &spec->input_prob);
  visit("uniform_learning_rate", &spec->uniform_learning_rate);
  visit("binary_learning_rate", &spec->binary_learning_rate);
  visit("grid_steps", &spec->grid_steps);
  visit("alternating_rounds", &spec->alternating_rounds);
  visit("remap_period", &spec->remap_period);
  visit("seed", &spec->seed);
}

class FieldWriter {
 public:
  explicit FieldWriter(JsonWriter* json) : json_(json) {}
  void operator()(const char* name, const std::string* value) const {
    json_->Key(name);
    json_->String(*value);
  }
  void operator()(const char* name, const int* value) const {
    json_->Key(name);
    json_->Int(*value);
  }
  void operator()(const char* name, const int64_t* value) const {
    json_->Key(name);
    json_->Int(*value);
  }
  void operator()(const char* name, const uint64_t* value) const {
    json_->Key(name);
    json_->Uint(*value);
  }
  void operator()(const char* name, const double* value) const {
    json_->Key(name);
    json_->Double(*value);
  }

 private:
  JsonWriter* const json_;
};

absl::StatusOr<ModuleOverride> ParseOverride(const nlohmann::json& value, size_t index) {
  JsonObjectReader reader(value, absl::StrCat("overrides[", index, "]"), kReason);
  ModuleOverride entry;
  reader.Read("pattern", JsonObjectReader::kRequired, &entry.pattern);
  reader.Read("bits", JsonObjectReader::kOptional, &entry.bits);
  reader.Read("group_size", JsonObjectReader::kOptional, &entry.group_size);
  reader.Read("full_precision", JsonObjectReader::kOptional, &entry.full_precision);
  UQ_RETURN_IF_ERROR(reader.Finish());
  return entry;
}

}  // namespace

std::string QuantizationSpec::ToJson() const {
  JsonWriter json(JsonWriter::kCompact);
  const FieldWriter write(&json);
  json.BeginObject();
  VisitWhere(this, write);
  json.Key("method");
  json.String(QuantizationMethodName(method));
  write("bits", &bits);
  write("group_size", &group_size);
  json.Key("overrides");
  json.BeginArray();
  for (const ModuleOverride& entry : overrides) {
    json.BeginObject();
    write("pattern", &entry.pattern);
    write("bits", &entry.bits);
    write("group_size", &entry.group_size);
    json.Key("full_precision");
    json.Bool(entry.full_precision);
    json.EndObject();
  }
  json.EndArray();
  VisitHow(this, write);
  json.Key("schedule");
  json.String(LayerScheduleName(schedule));
  write("pipeline_rounds", &pipeline_rounds);
  json.EndObject();
  return json.Finish();
}

absl::StatusOr<QuantizationSpec> QuantizationSpec::FromJson(absl::string_view json) {
  if (json.size() > kMaxSpecBytes) {
    return InvalidInput(kReason, absl::StrCat("the spec has ", json.size(),
                                              " bytes; allowed: up to ", kMaxSpecBytes));
  }
  UQ_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(json, "the spec", kReason));
  QuantizationSpec spec;
  JsonObjectReader reader(document, "", kReason);
  const auto read = [&reader](const char* name, auto* value) {
    reader.Read(name, JsonObjectReader::kOptional, value);
  };
  VisitWhere(&spec, read);
  VisitHow(&spec, read);
  read("bits", &spec.bits);
  read("group_size", &spec.group_size);
  read("pipeline_rounds", &spec.pipeline_rounds);
  std::string method(QuantizationMethodName(spec.method));
  read("method", &method);
  std::string schedule(LayerScheduleName(spec.schedule));
  read("schedule", &schedule);
  const nlohmann::json* overrides = reader.ReadArray("overrides", JsonObjectReader::kOptional);
  UQ_RETURN_IF_ERROR(reader.Finish());
  UQ_ASSIGN_OR_RETURN(spec.method, ParseQuantizationMethod(method));
  UQ_ASSIGN_OR_RETURN(spec.schedule, ParseLayerSchedule(schedule));
  for (size_t i = 0; overrides != nullptr && i < overrides->size(); ++i) {
    UQ_ASSIGN_OR_RETURN(ModuleOverride entry, ParseOverride((*overrides)[i], i));
    spec.overrides.push_back(std::move(entry));
  }
  return spec;
}

}  // namespace uniquanf
