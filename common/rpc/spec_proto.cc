#include "common/rpc/spec_proto.h"

#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/base/violations.h"
#include "common/spec/presets.h"
#include "common/spec/spec_fields.h"

namespace uniquanf {
namespace {

using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr char kReason[] = "INVALID_SPEC";

// The message's field of a row's name. A row without a field is a mistake of the program's, which
// the first conversion and spec_fields_test find.
const FieldDescriptor* FieldOf(const Message& message, const char* name) {
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
  UQ_CHECK(field != nullptr);
  return field;
}

// Unset, in a field that can tell that from its zero.
bool IsUnset(const Message& message, const FieldDescriptor* field) {
  return field->has_presence() && !message.GetReflection()->HasField(message, field);
}

// The enum's value for a row's name: in capitals.
const EnumValueDescriptor* ValueOf(const FieldDescriptor* field, const char* name) {
  const EnumValueDescriptor* value =
      field->enum_type()->FindValueByName(absl::AsciiStrToUpper(name));
  UQ_CHECK(value != nullptr);
  return value;
}

void Get(const Message& m, const FieldDescriptor* f, std::string* out) {
  *out = m.GetReflection()->GetString(m, f);
}
void Get(const Message& m, const FieldDescriptor* f, int* out) {
  *out = m.GetReflection()->GetInt32(m, f);
}
void Get(const Message& m, const FieldDescriptor* f, int64_t* out) {
  *out = m.GetReflection()->GetInt64(m, f);
}
void Get(const Message& m, const FieldDescriptor* f, uint64_t* out) {
  *out = m.GetReflection()->GetUInt64(m, f);
}
void Get(const Message& m, const FieldDescriptor* f, double* out) {
  *out = m.GetReflection()->GetDouble(m, f);
}
void Get(const Message& m, const FieldDescriptor* f, bool* out) {
  *out = m.GetReflection()->GetBool(m, f);
}

void Set(const FieldDescriptor* f, const std::string& value, Message* m) {
  m->GetReflection()->SetString(m, f, value);
}
void Set(const FieldDescriptor* f, int value, Message* m) {
  m->GetReflection()->SetInt32(m, f, value);
}
void Set(const FieldDescriptor* f, int64_t value, Message* m) {
  m->GetReflection()->SetInt64(m, f, value);
}
void Set(const FieldDescriptor* f, uint64_t value, Message* m) {
  m->GetReflection()->SetUInt64(m, f, value);
}
void Set(const FieldDescriptor* f, double value, Message* m) {
  m->GetReflection()->SetDouble(m, f, value);
}
void Set(const FieldDescriptor* f, bool value, Message* m) {
  m->GetReflection()->SetBool(m, f, value);
}

class OverrideReader {
 public:
  OverrideReader(const Message& proto, absl::string_view path, ModuleOverride* out,
                 Violations* violations)
      : proto_(proto), path_(path), out_(out), violations_(violations) {}
  template <typename Field>
  void operator()(const Field& field) {
    Get(proto_, FieldOf(proto_, field.name), &(out_->*field.member));
  }
  // What means "the job's" in a ModuleOverride is no number that may be asked for.
  template <typename T>
  void operator()(const OverrideNumber<T>& field) {
    const FieldDescriptor* const f = FieldOf(proto_, field.name);
    if (IsUnset(proto_, f)) return;
    Get(proto_, f, &(out_->*field.member));
    if (out_->*field.member != field.the_jobs) return;
    violations_->Add(kReason, absl::StrCat(path_, ".", field.name),
                     absl::StrCat("spec.", path_, ".", field.name, " is ", field.the_jobs,
                                  "; allowed: ", SpecRange(field.min, field.max, field.zero),
                                  ", or unset for the job's"));
  }

 private:
  const Message& proto_;
  const std::string path_;
  ModuleOverride* const out_;
  Violations* const violations_;
};

Preset PresetOf(const v1::QuantizationSpec& proto, Violations* violations) {
  const FieldDescriptor* const field = FieldOf(proto, "preset");
  const int number = proto.preset();
  if (number == 0) return Preset::kDefault;
  std::vector<std::string> allowed;
  for (const EnumRow<Preset>& row : kPresets) {
    const EnumValueDescriptor* const value = ValueOf(field, row.name);
    if (value->number() == number) return row.value;
    allowed.push_back(absl::StrCat(value->name(), " (", value->number(), ")"));
  }
  violations->Add(
      kReason, "preset",
      absl::StrCat("spec.preset is ", number,
                   ", which this version does not know; allowed: ", absl::StrJoin(allowed, ", ")));
  return Preset::kDefault;
}

class FieldReader {
 public:
  FieldReader(const v1::QuantizationSpec& proto, QuantizationSpec* spec, Violations* violations)
      : proto_(proto), spec_(spec), violations_(violations) {}
  template <typename Field>
  void operator()(const Field& field) {
    const FieldDescriptor* const f = FieldOf(proto_, field.name);
    if (!IsUnset(proto_, f)) Get(proto_, f, &(spec_->*field.member));
  }
  template <typename Row, typename E>
  void operator()(const EnumField<Row, E>& field) {
    const FieldDescriptor* const f = FieldOf(proto_, field.name);
    const int number = proto_.GetReflection()->GetEnumValue(proto_, f);
    if (number == 0) return;  // unspecified: the default
    std::vector<std::string> allowed;
    for (const Row& row : field.rows) {
      const EnumValueDescriptor* const value = ValueOf(f, row.name);
      if (value->number() == number) {
        spec_->*field.member = row.value;
        return;
      }
      allowed.push_back(absl::StrCat(value->name(), " (", value->number(), ")"));
    }
    violations_->Add(kReason, field.name,
                     absl::StrCat("spec.", field.name, " is ", number,
                                  ", which this version does not know; allowed: ",
                                  absl::StrJoin(allowed, ", ")));
  }
  void operator()(const OverridesField& field) {
    const FieldDescriptor* const f = FieldOf(proto_, field.name);
    const Reflection& reflection = *proto_.GetReflection();
    for (int i = 0; i < reflection.FieldSize(proto_, f); ++i) {
      OverrideReader reader(reflection.GetRepeatedMessage(proto_, f, i),
                            absl::StrCat(field.name, "[", i, "]"),
                            &(spec_->*field.member).emplace_back(), violations_);
      VisitOverrideFields(reader);
    }
  }
  void operator()(const SharesField& field) {
    for (const v1::CalibrationShare& entry : proto_.calibration_mix()) {
      (spec_->*field.member).push_back({entry.uri(), entry.num_sequences()});
    }
  }

 private:
  const v1::QuantizationSpec& proto_;
  QuantizationSpec* const spec_;
  Violations* const violations_;
};

void OverrideToProto(const ModuleOverride& entry, Message* proto) {
  VisitOverrideFields([&entry, proto](const auto& field) {
    if constexpr (requires { field.the_jobs; }) {
      if (entry.*field.member == field.the_jobs) return;
    }
    Set(FieldOf(*proto, field.name), entry.*field.member, proto);
  });
}

class FieldWriter {
 public:
  FieldWriter(const QuantizationSpec& spec, v1::QuantizationSpec* proto)
      : spec_(spec), proto_(proto) {}
  template <typename Field>
  void operator()(const Field& field) const {
    Set(FieldOf(*proto_, field.name), spec_.*field.member, proto_);
  }
  template <typename Row, typename E>
  void operator()(const EnumField<Row, E>& field) const {
    const FieldDescriptor* const f = FieldOf(*proto_, field.name);
    for (const Row& row : field.rows) {
      if (row.value != spec_.*field.member) continue;
      proto_->GetReflection()->SetEnum(proto_, f, ValueOf(f, row.name));
    }
  }
  void operator()(const OverridesField& field) const {
    for (const ModuleOverride& entry : spec_.*field.member) {
      OverrideToProto(entry,
                      proto_->GetReflection()->AddMessage(proto_, FieldOf(*proto_, field.name)));
    }
  }

  void operator()(const SharesField& field) const {
    for (const CalibrationShare& share : spec_.*field.member) {
      v1::CalibrationShare* const entry = proto_->add_calibration_mix();
      entry->set_uri(share.uri);
      entry->set_num_sequences(share.num_sequences);
    }
  }

 private:
  const QuantizationSpec& spec_;
  v1::QuantizationSpec* const proto_;
};

}  // namespace

absl::StatusOr<QuantizationSpec> SpecFromProto(const v1::QuantizationSpec& proto) {
  Violations violations;
  QuantizationSpec spec = PresetSpec(PresetOf(proto, &violations));
  FieldReader reader(proto, &spec, &violations);
  VisitSpecFields(reader);
  if (!violations.empty()) return violations.status();
  return spec;
}

v1::QuantizationSpec SpecToProto(const QuantizationSpec& spec) {
  v1::QuantizationSpec proto;
  VisitSpecFields(FieldWriter(spec, &proto));
  return proto;
}

}  // namespace uniquanf
