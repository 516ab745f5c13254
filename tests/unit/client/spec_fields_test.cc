// The table of a spec's fields against everything that walks it: the proto's descriptors, JSON,
// flags, Validate, the help and the reference page. No field is named here: a new one is covered
// by its row.
#include "common/spec/spec_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <string>
#include <type_traits>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "common/base/status.h"
#include "common/rpc/spec_proto.h"
#include "common/spec/spec_flags.h"

namespace uniquanf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Valid whatever value of its range one more field takes.
QuantizationSpec GoodSpec() {
  QuantizationSpec spec;
  spec.model_uri = "file:///m";
  spec.calibration_uri = "file:///c";
  spec.output_uri = "file:///o";
  spec.evaluation_uri = "file:///e";
  spec.num_samples = 0;
  return spec;
}

std::string Text(double value) { return absl::StrFormat("%.17g", value); }
template <typename T>
std::string Text(T value) {
  return absl::StrCat(value);
}

absl::Status ParseFlag(absl::string_view flag, absl::string_view value, QuantizationSpec* spec) {
  FlagSet flags("test [flags]", "Test.");
  AddSpecFlags(&flags, spec);
  return flags.Parse({absl::StrCat("--", flag, "=", value)});
}

// JSON with one member replaced by `value`, taken literally.
absl::StatusOr<QuantizationSpec> FromJsonWith(absl::string_view field, absl::string_view value) {
  return QuantizationSpec::FromJson(absl::StrCat("{\"", field, "\":", value, "}"));
}

template <typename T>
T Above(T value) {
  if constexpr (std::is_same_v<T, double>) return std::nextafter(value, INFINITY);
  return static_cast<T>(value + 1);
}
template <typename T>
T Below(T value) {
  if constexpr (std::is_same_v<T, double>) return std::nextafter(value, -INFINITY);
  return static_cast<T>(value - 1);
}

// Whether one value of a field is taken: by Validate, by JSON, by proto and by the flag, all alike.
template <typename T>
class NumberCase {
 public:
  NumberCase(const NumberField<T>& field, T value) : field_(field), value_(value) {
    spec_ = GoodSpec();
    spec_.*field.member = value;
    from_flag_ = GoodSpec();
    flag_ = ParseFlag(FlagName(field.name), Text(value), &from_flag_);
  }
  void ExpectTaken() const {
    EXPECT_TRUE(spec_.Validate().ok()) << spec_.Validate();
    EXPECT_EQ(Json().value().*field_.member, value_);
    EXPECT_EQ(Proto().value().*field_.member, value_);
    ASSERT_TRUE(flag_.ok()) << flag_;
    EXPECT_EQ(from_flag_.*field_.member, value_);
  }
  void ExpectRefused() const {
    const std::string range = absl::StrCat(field_.min, " to ", field_.max);
    for (const absl::Status& status : {spec_.Validate(), Json()->Validate(), Proto()->Validate()}) {
      EXPECT_EQ(ErrorReason(status), "INVALID_SPEC");
      EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(field_.name), HasSubstr(range)));
    }
    EXPECT_EQ(ErrorReason(flag_), "INVALID_FLAG");
    EXPECT_THAT(std::string(flag_.message()),
                AllOf(HasSubstr(FlagName(field_.name)), HasSubstr(range)));
  }

 private:
  absl::StatusOr<QuantizationSpec> Json() const {
    return QuantizationSpec::FromJson(spec_.ToJson());
  }
  absl::StatusOr<QuantizationSpec> Proto() const { return SpecFromProto(SpecToProto(spec_)); }

  const NumberField<T> field_;
  const T value_;
  QuantizationSpec spec_, from_flag_;
  absl::Status flag_;
};

struct RangeWalk {
  template <typename T>
  void operator()(const NumberField<T>& field) {
    SCOPED_TRACE(field.name);
    NumberCase<T>(field, field.min).ExpectTaken();
    NumberCase<T>(field, field.max).ExpectTaken();
    if (field.max != std::numeric_limits<T>::max()) {
      NumberCase<T>(field, Above(field.max)).ExpectRefused();
    }
    if (field.min != std::numeric_limits<T>::lowest()) {
      if (field.min == T{0} && std::is_unsigned_v<T>) return;
      NumberCase<T>(field, Below(field.min)).ExpectRefused();
    }
  }
  template <typename Field>
  void operator()(const Field&) {}
};

TEST(SpecFieldsTest, BothEndsOfEveryRangeAreTakenAndOneBeyondIsRefusedByAll) {
  VisitSpecFields(RangeWalk());
}

TEST(SpecFieldsTest, NumbersThatNoFieldCanHoldAreRefusedByJsonAndFlag) {
  VisitSpecFields([](const auto& field) {
    if constexpr (requires { field.min; }) {
      for (const char* text : {"18446744073709551616", "-18446744073709551616", "nan", "\"4\""}) {
        QuantizationSpec spec;
        EXPECT_EQ(ErrorReason(ParseFlag(FlagName(field.name), text, &spec)), "INVALID_FLAG")
            << field.name << " " << text;
        const auto json = FromJsonWith(field.name, text);
        EXPECT_FALSE(json.ok() && json->Validate().ok()) << field.name << " " << text;
      }
    }
  });
}

TEST(SpecFieldsTest, ZeroIsTakenWhereItsMeaningIsTold) {
  VisitSpecFields([](const auto& field) {
    if constexpr (requires { field.zero; }) {
      if (*field.zero != '\0') {
        EXPECT_EQ(field.min, 0) << field.name;
      }
    }
  });
}

struct EnumWalk {
  template <typename Row, typename E>
  void operator()(const EnumField<Row, E>& field) {
    SCOPED_TRACE(field.name);
    const auto* proto_field = v1::QuantizationSpec::descriptor()->FindFieldByName(field.name);
    ASSERT_NE(proto_field, nullptr);
    std::set<std::string> words;
    for (const Row& row : field.rows) {
      words.insert(absl::AsciiStrToUpper(row.name));
      QuantizationSpec spec = GoodSpec();
      spec.*field.member = row.value;
      // Grids are the levels of some methods only.
      if (std::string(field.name) == "levels") spec.method = QuantizationMethod::kRtn;
      EXPECT_TRUE(spec.Validate().ok());
      EXPECT_EQ(QuantizationSpec::FromJson(spec.ToJson()).value().*field.member, row.value);
      EXPECT_EQ(SpecFromProto(SpecToProto(spec)).value().*field.member, row.value);
      QuantizationSpec from_flag;
      EXPECT_TRUE(ParseFlag(FlagName(field.name), row.name, &from_flag).ok());
      EXPECT_EQ(from_flag.*field.member, row.value);
      EXPECT_NE(std::string(row.help), "");
    }
    EXPECT_EQ(proto_field->enum_type()->value_count(), static_cast<int>(words.size()) + 1)
        << "every word of the proto has a row; 0 stands for the default";
    EXPECT_EQ(ErrorReason(FromJsonWith(field.name, "\"nonsense\"").status()), "INVALID_SPEC");
    QuantizationSpec spec;
    EXPECT_EQ(ErrorReason(ParseFlag(FlagName(field.name), "nonsense", &spec)), "INVALID_FLAG");
    v1::QuantizationSpec proto;
    proto.GetReflection()->SetEnumValue(&proto, proto_field, 99);
    const absl::Status unknown = SpecFromProto(proto).status();
    EXPECT_EQ(ErrorReason(unknown), "INVALID_SPEC");
    EXPECT_THAT(std::string(unknown.message()), HasSubstr(*words.begin()));
  }
  template <typename Field>
  void operator()(const Field&) {}
};

TEST(SpecFieldsTest, EveryWordIsTakenByAllAndNoOther) { VisitSpecFields(EnumWalk()); }

std::set<std::string> ProtoFields(const google::protobuf::Descriptor* descriptor) {
  std::set<std::string> names;
  for (int i = 0; i < descriptor->field_count(); ++i) names.insert(descriptor->field(i)->name());
  return names;
}

TEST(SpecFieldsTest, EveryRowIsAFieldOfTheProtoAndEveryFieldARow) {
  // A preset is where a spec begins and no part of it.
  std::set<std::string> rows = {"preset"}, override_rows;
  VisitSpecFields([&rows](const auto& field) { rows.insert(field.name); });
  VisitOverrideFields([&override_rows](const auto& field) { override_rows.insert(field.name); });
  EXPECT_EQ(rows, ProtoFields(v1::QuantizationSpec::descriptor()));
  EXPECT_EQ(override_rows, ProtoFields(v1::ModuleOverride::descriptor()));
}

// A value that is not the default, for every kind of field.
struct MakeUnusual {
  QuantizationSpec* spec;
  void operator()(const TextField& field) {
    spec->*field.member = absl::StrCat("file:///", field.name);
  }
  template <typename T>
  void operator()(const NumberField<T>& field) {
    T& value = spec->*field.member;
    value = value == field.max ? field.min : field.max;
    if constexpr (std::is_same_v<T, double>) value = field.max / 3;
  }
  template <typename Row, typename E>
  void operator()(const EnumField<Row, E>& field) {
    for (const Row& row : field.rows) {
      if (row.value != QuantizationSpec().*field.member) spec->*field.member = row.value;
    }
  }
  void operator()(const SharesField& field) {
    spec->*field.member = {{"file:///a:b.txt", 3}, {"s3://b/c.jsonl.gz", 1}};
  }
  void operator()(const OverridesField& field) {
    spec->*field.member = {
        {"a.*", 2, -1, false}, {"b\"\\", 0, 0, false}, {"c", 8, 32, false}, {"d", 0, -1, true}};
  }
};

TEST(SpecFieldsTest, EveryFieldSurvivesJsonAndProto) {
  QuantizationSpec unusual;
  VisitSpecFields(MakeUnusual{&unusual});
  VisitSpecFields([&unusual](const auto& field) {
    EXPECT_FALSE(unusual.*field.member == QuantizationSpec().*field.member) << field.name;
  });
  for (const QuantizationSpec& spec : {QuantizationSpec(), unusual}) {
    const auto json = QuantizationSpec::FromJson(spec.ToJson());
    ASSERT_TRUE(json.ok()) << json.status();
    EXPECT_TRUE(*json == spec) << spec.ToJson();
    v1::QuantizationSpec proto;  // through bytes, as a message travels
    ASSERT_TRUE(proto.ParseFromString(SpecToProto(spec).SerializeAsString()));
    const auto back = SpecFromProto(proto);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_TRUE(*back == spec) << spec.ToJson();
  }
}

TEST(SpecFieldsTest, UnsetFieldsTakeTheDefaults) {
  const auto spec = SpecFromProto(v1::QuantizationSpec());
  ASSERT_TRUE(spec.ok());
  EXPECT_TRUE(*spec == QuantizationSpec());
}

TEST(SpecFieldsTest, APresetIsWhereAllFormsOfASpecBegin) {
  for (const EnumRow<Preset>& row : kPresets) {
    SCOPED_TRACE(row.name);
    QuantizationSpec expected = PresetSpec(row.value);
    EXPECT_EQ(expected == QuantizationSpec(), row.value == Preset::kDefault);
    expected.seed = 7;
    expected.epochs = 3;

    QuantizationSpec from_flags;
    FlagSet flags("test [flags]", "Test.");
    AddSpecFlags(&flags, &from_flags);
    // Wherever it stands, what is said besides wins.
    ASSERT_TRUE(flags.Parse({"--seed=7", "--epochs=3", "--preset", row.name}).ok());
    EXPECT_TRUE(from_flags == expected) << from_flags.ToJson();

    const auto from_json =
        ReadSpec(absl::StrCat(R"({"seed":7,"preset":")", row.name, R"(","epochs":3})"));
    ASSERT_TRUE(from_json.ok()) << from_json.status();
    EXPECT_TRUE(*from_json == expected) << from_json->ToJson();

    v1::QuantizationSpec proto;
    v1::QuantizationSpec::Preset value = v1::QuantizationSpec::PRESET_UNSPECIFIED;
    ASSERT_TRUE(v1::QuantizationSpec::Preset_Parse(absl::AsciiStrToUpper(row.name), &value));
    proto.set_preset(value);
    proto.set_seed(7);
    proto.set_epochs(3);
    const auto from_proto = SpecFromProto(proto);
    ASSERT_TRUE(from_proto.ok()) << from_proto.status();
    EXPECT_TRUE(*from_proto == expected) << from_proto->ToJson();
    // A job shows what came of it: the settings, not the word.
    EXPECT_EQ(SpecToProto(*from_proto).preset(), v1::QuantizationSpec::PRESET_UNSPECIFIED);
    EXPECT_TRUE(*QuantizationSpec::FromJson(from_proto->ToJson()) == expected);
  }
}

TEST(SpecFieldsTest, APresetsValuesAreValidAndZeroesAreSaidAgainstIt) {
  for (const EnumRow<Preset>& row : kPresets) {
    QuantizationSpec spec = PresetSpec(row.value);
    spec.model_uri = "file:///m";
    spec.calibration_uri = "file:///c";
    spec.output_uri = "file:///o";
    EXPECT_TRUE(spec.Validate().ok()) << spec.Validate();
  }
  // A field's zero is not the same as its absence.
  v1::QuantizationSpec proto;
  proto.set_preset(v1::QuantizationSpec::BEST);
  proto.set_distill_window(0);
  proto.set_self_samples(0);
  EXPECT_EQ(SpecFromProto(proto)->distill_window, 0);
  EXPECT_EQ(SpecFromProto(proto)->self_samples, 0);
  EXPECT_EQ(ReadSpec(R"({"preset":"best","distill_window":0})")->distill_window, 0);
}

TEST(SpecFieldsTest, AFlagsPresetTakesThePlaceOfAFiles) {
  const auto spec = ReadSpec(R"({"preset":"best","epochs":3})", Preset::kFast);
  ASSERT_TRUE(spec.ok());
  QuantizationSpec expected = PresetSpec(Preset::kFast);
  expected.epochs = 3;
  EXPECT_TRUE(*spec == expected) << spec->ToJson();
}

TEST(SpecFieldsTest, UnknownPresetsAreRefusedByAll) {
  for (const char* json : {R"({"preset":"bets"})", R"({"preset":3})"}) {
    EXPECT_EQ(ErrorReason(ReadSpec(json).status()), "INVALID_SPEC") << json;
  }
  EXPECT_THAT(std::string(ReadSpec(R"({"preset":"bets"})").status().message()),
              HasSubstr("allowed: fast, default, best"));
  // What is stored names none.
  EXPECT_EQ(ErrorReason(FromJsonWith("preset", "\"best\"").status()), "INVALID_SPEC");
  QuantizationSpec spec;
  EXPECT_EQ(ErrorReason(ParseFlag("preset", "bets", &spec)), "INVALID_FLAG");
  v1::QuantizationSpec proto;
  proto.set_preset(static_cast<v1::QuantizationSpec::Preset>(99));
  const absl::Status unknown = SpecFromProto(proto).status();
  EXPECT_EQ(ErrorReason(unknown), "INVALID_SPEC");
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("BEST (3)"));
}

TEST(SpecFieldsTest, WordsOfNumbersStandForTheLargest) {
  int num_words = 0;
  VisitSpecFields([&num_words](const auto& field) {
    if constexpr (requires { field.word; }) {
      if (*field.word == '\0') return;
      ++num_words;
      QuantizationSpec spec;
      EXPECT_TRUE(ParseFlag(FlagName(field.name), field.word, &spec).ok());
      EXPECT_EQ(spec.*field.member, field.max);
      const auto json = FromJsonWith(field.name, absl::StrCat("\"", field.word, "\""));
      ASSERT_TRUE(json.ok()) << json.status();
      EXPECT_EQ(json.value().*field.member, field.max);
      EXPECT_EQ(ErrorReason(FromJsonWith(field.name, "\"none\"").status()), "INVALID_SPEC");
    }
  });
  EXPECT_GE(num_words, 1);
}

struct OverrideRangeWalk {
  template <typename T>
  void operator()(const OverrideNumber<T>& field) {
    SCOPED_TRACE(field.name);
    for (const T value : {field.min, field.max, field.the_jobs}) {
      const QuantizationSpec spec = With(field, value);
      EXPECT_TRUE(spec.Validate().ok()) << value << spec.Validate();
      EXPECT_TRUE(*QuantizationSpec::FromJson(spec.ToJson()) == spec) << value;
      EXPECT_TRUE(*SpecFromProto(SpecToProto(spec)) == spec) << value;
      if (value == field.the_jobs) continue;
      const auto flag = ParseModuleOverride(absl::StrCat("x=", field.key, ":", value));
      ASSERT_TRUE(flag.ok()) << flag.status();
      EXPECT_TRUE(*flag == spec.overrides[0]);
      EXPECT_EQ(FormatModuleOverride(*flag), absl::StrCat("x=", field.key, ":", value));
    }
    for (const T value : {Below(field.min), Above(field.max)}) {
      if (value == field.the_jobs) continue;
      const QuantizationSpec spec = With(field, value);
      EXPECT_EQ(ErrorReason(spec.Validate()), "INVALID_SPEC") << value;
      EXPECT_EQ(ErrorReason(QuantizationSpec::FromJson(spec.ToJson())->Validate()), "INVALID_SPEC");
      EXPECT_EQ(ErrorReason(SpecFromProto(SpecToProto(spec))->Validate()), "INVALID_SPEC");
      const auto flag = ParseModuleOverride(absl::StrCat("x=", field.key, ":", value));
      EXPECT_EQ(ErrorReason(flag.status()), "INVALID_FLAG") << value;
      EXPECT_THAT(std::string(flag.status().message()),
                  HasSubstr(SpecRange(field.min, field.max, field.zero)));
    }
  }
  template <typename Field>
  void operator()(const Field&) {}

  template <typename T>
  static QuantizationSpec With(const OverrideNumber<T>& field, T value) {
    QuantizationSpec spec = GoodSpec();
    spec.overrides.push_back({"x", 0, -1, false});
    spec.overrides[0].*field.member = value;
    return spec;
  }
};

TEST(SpecFieldsTest, AnOverridesRangesHoldForAllToo) { VisitOverrideFields(OverrideRangeWalk()); }

TEST(SpecFieldsTest, TheHelpStatesDefaultAndRangeOfEveryNumber) {
  QuantizationSpec spec;
  FlagSet flags("test [flags]", "Test.");
  AddSpecFlags(&flags, &spec);
  std::string help = flags.Help();
  help.erase(
      std::unique(help.begin(), help.end(),
                  [](char a, char b) { return absl::ascii_isspace(a) && absl::ascii_isspace(b); }),
      help.end());
  for (char& c : help) c = absl::ascii_isspace(c) ? ' ' : c;
  VisitSpecFields([&](const auto& field) {
    if constexpr (std::is_same_v<std::decay_t<decltype(field)>, BytesField>) {
      EXPECT_THAT(help, HasSubstr(absl::StrCat("--", FlagName(field.name), "=BYTES")));
      EXPECT_THAT(help, HasSubstr(field.help));
    } else if constexpr (requires { field.min; }) {
      EXPECT_THAT(help, HasSubstr(absl::StrCat("--", FlagName(field.name), "=")));
      EXPECT_THAT(help, HasSubstr(absl::StrCat(field.help, "; ", SpecRange(field),
                                               " (default: ", spec.*field.member, ")")));
    }
  });
}

TEST(SpecFieldsTest, TheReferencePageIsTheOneThatTheTableGives) {
  std::ifstream file(UNIQUANF_SOURCE_DIR "/docs/SPEC.md", std::ios::binary);
  const std::string page((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_EQ(page, SpecMarkdown())
      << "write it anew: build/bin/uniquanf-batch spec --markdown > docs/SPEC.md";
}

}  // namespace
}  // namespace uniquanf
