#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "common/spec/presets.h"
#include "common/spec/spec_fields.h"

namespace uniquanf {
namespace {

constexpr char kReason[] = "INVALID_SPEC";
// A spec is written by hand or by a program; this is far beyond either.
constexpr size_t kMaxSpecBytes = 4 << 20;

class FieldWriter {
 public:
  FieldWriter(const QuantizationSpec& spec, OrderedJson* json) : spec_(spec), json_(*json) {}
  template <typename Field>
  void operator()(const Field& field) const {
    if (IsLeftOut(field)) return;
    json_[field.name] = spec_.*field.member;
  }
  template <typename Row, typename E>
  void operator()(const EnumField<Row, E>& field) const {
    if (IsLeftOut(field)) return;
    json_[field.name] = std::string(EnumName(field.rows, spec_.*field.member));
  }
  void operator()(const OverridesField& field) const {
    OrderedJson& list = json_[field.name] = OrderedJson::array();
    for (const ModuleOverride& entry : spec_.*field.member) {
      OrderedJson& object = list.emplace_back(OrderedJson::object());
      VisitOverrideFields(
          [&entry, &object](const auto& row) { object[row.name] = entry.*row.member; });
    }
  }
  void operator()(const SharesField& field) const {
    if (IsLeftOut(field)) return;
    for (const CalibrationShare& share : spec_.*field.member) {
      json_[field.name].push_back({{"uri", share.uri}, {"num_sequences", share.num_sequences}});
    }
  }

 private:
  template <typename Field>
  bool IsLeftOut(const Field& field) const {
    static const QuantizationSpec kDefaults;
    if constexpr (requires { field.later; }) {
      return field.later && spec_.*field.member == kDefaults.*field.member;
    }
    return false;
  }

  const QuantizationSpec& spec_;
  OrderedJson& json_;
};

absl::StatusOr<ModuleOverride> ParseOverride(const nlohmann::json& value, size_t index) {
  JsonObjectReader reader(value, absl::StrCat("overrides[", index, "]"), kReason);
  ModuleOverride entry;
  VisitOverrideFields([&reader, &entry](const auto& field) {
    constexpr bool kIsPattern = std::is_same_v<decltype(field), const OverridePattern&>;
    reader.Read(field.name, kIsPattern ? JsonObjectReader::kRequired : JsonObjectReader::kOptional,
                &(entry.*field.member));
  });
  UQ_RETURN_IF_ERROR(reader.Finish());
  return entry;
}

class FieldReader {
 public:
  FieldReader(const nlohmann::json& document, JsonObjectReader* reader, QuantizationSpec* spec)
      : document_(document), reader_(reader), spec_(spec) {}
  template <typename Field>
  void operator()(const Field& field) const {
    reader_->Read(field.name, JsonObjectReader::kOptional, &(spec_->*field.member));
  }
  template <typename T>
  void operator()(const NumberField<T>& field) const {
    if (*field.word != '\0' && document_.is_object() && document_.contains(field.name) &&
        document_[field.name].is_string()) {
      std::string word;
      reader_->Read(field.name, JsonObjectReader::kOptional, &word);
      if (word != field.word) {
        reader_->Fail(absl::StrCat(field.name, " = \"", word, "\"; allowed: ", SpecRange(field)));
      }
      spec_->*field.member = field.max;
      return;
    }
    reader_->Read(field.name, JsonObjectReader::kOptional, &(spec_->*field.member));
  }
  template <typename Row, typename E>
  void operator()(const EnumField<Row, E>& field) const {
    std::string name(EnumName(field.rows, spec_->*field.member));
    reader_->Read(field.name, JsonObjectReader::kOptional, &name);
    if (const auto value = ParseEnumName(field.rows, name)) {
      spec_->*field.member = *value;
    } else {
      reader_->Fail(absl::StrCat(field.name, " = \"", name, "\" is unknown; allowed: ",
                                 absl::StrJoin(EnumNames(field.rows), ", ")));
    }
  }
  void operator()(const OverridesField& field) const {
    const nlohmann::json* list = reader_->ReadArray(field.name, JsonObjectReader::kOptional);
    for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
      absl::StatusOr<ModuleOverride> entry = ParseOverride((*list)[i], i);
      if (!entry.ok()) return reader_->Fail(entry.status().message());
      (spec_->*field.member).push_back(*std::move(entry));
    }
  }
  void operator()(const SharesField& field) const {
    const nlohmann::json* list = reader_->ReadArray(field.name, JsonObjectReader::kOptional);
    for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
      JsonObjectReader entry((*list)[i], absl::StrCat(field.name, "[", i, "]"), kReason);
      CalibrationShare share;
      entry.Read("uri", JsonObjectReader::kRequired, &share.uri);
      entry.Read("num_sequences", JsonObjectReader::kRequired, &share.num_sequences);
      const absl::Status status = entry.Finish();
      if (!status.ok()) return reader_->Fail(status.message());
      (spec_->*field.member).push_back(std::move(share));
    }
  }

 private:
  const nlohmann::json& document_;
  JsonObjectReader* const reader_;
  QuantizationSpec* const spec_;
};

}  // namespace

std::string QuantizationSpec::ToJson() const {
  OrderedJson json;
  VisitSpecFields(FieldWriter(*this, &json));
  return CompactJson(json);
}

namespace {

absl::StatusOr<nlohmann::json> ParseSpec(absl::string_view json) {
  if (json.size() > kMaxSpecBytes) {
    return InvalidInput(kReason, absl::StrCat("the spec has ", json.size(),
                                              " bytes; allowed: up to ", kMaxSpecBytes));
  }
  return ParseJson(json, "the spec", kReason);
}

}  // namespace

absl::StatusOr<QuantizationSpec> QuantizationSpec::FromJson(absl::string_view json) {
  UQ_ASSIGN_OR_RETURN(const nlohmann::json document, ParseSpec(json));
  QuantizationSpec spec;
  JsonObjectReader reader(document, "", kReason);
  VisitSpecFields(FieldReader(document, &reader, &spec));
  UQ_RETURN_IF_ERROR(reader.Finish());
  return spec;
}

absl::StatusOr<QuantizationSpec> ReadSpec(absl::string_view json, std::optional<Preset> preset) {
  UQ_ASSIGN_OR_RETURN(const nlohmann::json document, ParseSpec(json));
  JsonObjectReader reader(document, "", kReason);
  std::string name(EnumName(kPresets, Preset::kDefault));
  reader.Read("preset", JsonObjectReader::kOptional, &name);
  const std::optional<Preset> named = ParseEnumName(kPresets, name);
  if (!named.has_value()) {
    reader.Fail(absl::StrCat("preset = \"", name,
                             "\" is unknown; allowed: ", absl::StrJoin(EnumNames(kPresets), ", ")));
  }
  QuantizationSpec spec = PresetSpec(preset.value_or(named.value_or(Preset::kDefault)));
  VisitSpecFields(FieldReader(document, &reader, &spec));
  UQ_RETURN_IF_ERROR(reader.Finish());
  return spec;
}

}  // namespace uniquanf
