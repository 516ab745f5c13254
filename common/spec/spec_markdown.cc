// The reference page of a spec's fields, out of the table.
#include <string>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "common/base/json_util.h"
#include "common/spec/presets.h"
#include "common/spec/spec_fields.h"

namespace uniquanf {
namespace {

std::string Code(absl::string_view text) { return absl::StrCat("`", text, "`"); }

std::string Cell(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"|", "\\|"}, {"<", "&lt;"}, {"*", "\\*"}});
}

template <typename T>
const char* TypeName() {
  if (std::is_same_v<T, double>) return "number";
  return "integer";
}

// The rows of one section.
class RowWriter {
 public:
  RowWriter(SpecSection section, std::string* out) : section_(section), out_(out) {}

  void operator()(const TextField& field) {
    const std::string value = defaults_.*field.member;
    Row(field, FlagName(field.name), field.kind == TextField::kUri ? "URI" : "text",
        field.required  ? "required"
        : value.empty() ? "none"
                        : Code(value),
        absl::StrCat("up to ", kMaxSpecTextBytes, " bytes"), field.help);
  }
  template <typename T>
  void operator()(const NumberField<T>& field) {
    Row(field, FlagName(field.name), TypeName<T>(), absl::StrCat(defaults_.*field.member),
        SpecRange(field), field.help);
  }
  template <typename EnumRowType, typename E>
  void operator()(const EnumField<EnumRowType, E>& field) {
    std::string help = field.help;
    std::vector<std::string> names;
    for (const EnumRowType& row : field.rows) {
      absl::StrAppend(&help, "; ", row.name, ": ", row.help);
      names.push_back(Code(row.name));
    }
    Row(field, FlagName(field.name), "word", Code(EnumName(field.rows, defaults_.*field.member)),
        absl::StrJoin(names, ", "), help);
  }
  void operator()(const OverridesField& field) {
    Row(field, field.flag, "list", "none", absl::StrCat("up to ", field.max_count), field.help);
  }
  void operator()(const SharesField& field) {
    Row(field, field.flag, "list", "none", absl::StrCat("up to ", field.max_count),
        absl::StrCat(field.help, "; in JSON {\"uri\", \"num_sequences\"}, as a flag FILE:num=N"));
  }

 private:
  template <typename Field>
  void Row(const Field& field, absl::string_view flag, absl::string_view type,
           absl::string_view default_text, absl::string_view allowed, absl::string_view help) {
    if (field.section != section_) return;
    absl::StrAppend(out_, "| ", Code(field.name), " | ", Code(absl::StrCat("--", flag)), " | ",
                    type, " | ", default_text, " | ", allowed, " | ", Cell(help), " |\n");
  }

  const SpecSection section_;
  std::string* const out_;
  const QuantizationSpec defaults_;
};

void AppendOverrideRow(const OverridePattern& field, std::string* out) {
  absl::StrAppend(out, "| ", Code(field.name), " | before `=` | text | required | up to ",
                  kMaxSpecTextBytes, " bytes | ", Cell(field.help), " |\n");
}
template <typename T>
void AppendOverrideRow(const OverrideNumber<T>& field, std::string* out) {
  absl::StrAppend(out, "| ", Code(field.name), " | ", Code(absl::StrCat(field.key, ":N")), " | ",
                  TypeName<T>(), " | the job's (in JSON ", field.the_jobs, ") | ",
                  SpecRange(field.min, field.max, field.zero), " | ", Cell(field.help), " |\n");
}
void AppendOverrideRow(const OverrideSwitch& field, std::string* out) {
  absl::StrAppend(out, "| ", Code(field.name), " | ", Code(field.key),
                  " | true or false | false | | ", Cell(field.help), " |\n");
}

// "`epochs` 2, `input_prob` 1": what a preset sets.
std::string PresetSettings(const QuantizationSpec& spec) {
  const OrderedJson all = OrderedJson::parse(spec.ToJson());
  const OrderedJson defaults = OrderedJson::parse(QuantizationSpec().ToJson());
  std::vector<std::string> settings;
  for (const auto& [name, value] : all.items()) {
    const auto it = defaults.find(name);
    if (it != defaults.end() && *it == value) continue;
    settings.push_back(
        absl::StrCat(Code(name), " ", value.is_string() ? value.get<std::string>() : value.dump()));
  }
  return absl::StrJoin(settings, ", ");
}

}  // namespace

std::string FlagName(absl::string_view field) {
  absl::ConsumeSuffix(&field, "_uri");
  return absl::StrReplaceAll(field, {{"_", "-"}});
}

std::string SpecMarkdown() {
  constexpr char kHead[] = " | type | default | allowed | meaning |\n|---|---|---|---|---|---|\n";
  std::string out =
      "# The settings of a quantization\n\n"
      "Written by `uniquanf-batch spec --markdown` from `common/spec/spec_fields.h`; do not "
      "edit.\n\n"
      "The same fields, with the same limits, are flags of `uniquanf submit` and `uniquanf-batch\n"
      "quantize`, members of the JSON object that `--spec` reads, and fields of\n"
      "`uniquanf.v1.QuantizationSpec` (whose words are in capitals). What is left out takes its\n"
      "default. A value out of range is refused with the reason `INVALID_SPEC` (as a flag:\n"
      "`INVALID_FLAG`).\n";
  for (const EnumRow<SpecSection>& section : kSpecSections) {
    absl::StrAppend(&out, "\n## ", section.name, "\n\n| field | flag", kHead);
    VisitSpecFields(RowWriter(section.value, &out));
  }
  absl::StrAppend(&out, "\n## An override\n\n| field | in the flag", kHead);
  VisitOverrideFields([&out](const auto& field) { AppendOverrideRow(field, &out); });
  absl::StrAppend(
      &out,
      "\n## Presets\n\n"
      "`--preset NAME`, in JSON the member `preset`, in the API the field `preset`: where "
      "the settings\nbegin. Whatever is said besides wins, and a job shows the settings, "
      "not the word.\n\n| preset | sets | meaning |\n|---|---|---|\n");
  for (const EnumRow<Preset>& row : kPresets) {
    absl::StrAppend(&out, "| ", Code(row.name), " | ", PresetSettings(PresetSpec(row.value)), " | ",
                    Cell(row.help), " |\n");
  }
  return out;
}

}  // namespace uniquanf
