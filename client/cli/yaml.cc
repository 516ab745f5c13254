#include "client/cli/yaml.h"

#include <yaml-cpp/yaml.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"

namespace uniquanf::cli {
namespace {

constexpr size_t kMaxBytes = 4 << 20;
constexpr int kMaxDepth = 100;
constexpr int kMaxValues = 100000;

absl::Status Invalid(absl::string_view what) { return InvalidInput("INVALID_YAML", what); }

// A plain scalar by the core schema.
nlohmann::json PlainScalar(const std::string& text) {
  if (text == "null" || text == "Null" || text == "NULL" || text == "~" || text.empty()) {
    return nullptr;
  }
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  const size_t digit = text[0] == '-' || text[0] == '+' ? 1 : 0;
  if (digit < text.size() && (absl::ascii_isdigit(text[digit]) || text[digit] == '.')) {
    int64_t whole = 0;
    uint64_t large = 0;
    double number = 0;
    if (absl::SimpleAtoi(text, &whole)) return whole;
    if (absl::SimpleAtoi(text, &large)) return large;
    if (absl::SimpleAtod(text, &number) && std::isfinite(number)) return number;
  }
  return text;
}

class Converter {
 public:
  absl::StatusOr<nlohmann::json> Convert(const YAML::Node& node, int depth) {
    const int line = node.Mark().line + 1;
    if (depth > kMaxDepth) return Invalid(absl::StrCat("line ", line, ": nested too deeply"));
    if (++num_values_ > kMaxValues) {
      return Invalid(absl::StrCat("more than ", kMaxValues, " values, aliases included"));
    }
    switch (node.Type()) {
      case YAML::NodeType::Scalar:
        // "!": quoted; "?": plain.
        if (node.Tag() == "!") return nlohmann::json(node.Scalar());
        if (node.Tag() != "?" && node.Tag() != "") {
          return Invalid(
              absl::StrCat("line ", line, ": tags such as ", node.Tag(), " are not read"));
        }
        return PlainScalar(node.Scalar());
      case YAML::NodeType::Sequence: {
        nlohmann::json list = nlohmann::json::array();
        for (const YAML::Node& entry : node) {
          UQ_ASSIGN_OR_RETURN(nlohmann::json value, Convert(entry, depth + 1));
          list.push_back(std::move(value));
        }
        return list;
      }
      case YAML::NodeType::Map: {
        nlohmann::json object = nlohmann::json::object();
        for (const auto& entry : node) {
          if (!entry.first.IsScalar()) {
            return Invalid(absl::StrCat("line ", line, ": a key is no plain word"));
          }
          const std::string& key = entry.first.Scalar();
          if (object.contains(key)) {
            return Invalid(absl::StrCat("line ", entry.first.Mark().line + 1, ": the key \"", key,
                                        "\" stands there twice"));
          }
          UQ_ASSIGN_OR_RETURN(object[key], Convert(entry.second, depth + 1));
        }
        return object;
      }
      default:
        return nlohmann::json(nullptr);
    }
  }

 private:
  int num_values_ = 0;
};

void Emit(const nlohmann::ordered_json& value, YAML::Emitter* out) {
  if (value.is_object()) {
    if (value.empty()) *out << YAML::Flow;
    *out << YAML::BeginMap;
    for (const auto& [key, entry] : value.items()) {
      *out << YAML::Key << key << YAML::Value;
      Emit(entry, out);
    }
    *out << YAML::EndMap;
  } else if (value.is_array()) {
    if (value.empty()) *out << YAML::Flow;
    *out << YAML::BeginSeq;
    for (const auto& entry : value) Emit(entry, out);
    *out << YAML::EndSeq;
  } else if (value.is_string()) {
    const std::string text = value.get<std::string>();
    if (!PlainScalar(text).is_string()) *out << YAML::DoubleQuoted;
    *out << text;
  } else if (value.is_null()) {
    *out << YAML::Null;
  } else {
    *out << value.dump();  // true, false, numbers: the same in both
  }
}

// Whether a second document begins somewhere: "---" at the beginning of a line after something that
// is neither a comment nor a directive. yaml-cpp's own reader of several does not end on some
// damaged inputs.
bool HoldsSeveral(absl::string_view text) {
  bool begun = false;
  for (const absl::string_view line : absl::StrSplit(text, absl::ByAnyChar("\r\n"))) {
    const bool marker =
        absl::StartsWith(line, "---") && (line.size() == 3 || absl::ascii_isspace(line[3]));
    if (marker && begun) return true;
    const absl::string_view content = absl::StripAsciiWhitespace(line);
    begun = begun || marker || (!content.empty() && content[0] != '#' && content[0] != '%');
  }
  return false;
}

}  // namespace

// yaml-cpp reports errors by exceptions; they end here.
absl::StatusOr<nlohmann::json> ParseYaml(absl::string_view text) {
  if (text.size() > kMaxBytes) {
    return Invalid(absl::StrCat("it has ", text.size(), " bytes; allowed: up to ", kMaxBytes));
  }
  try {
    if (HoldsSeveral(text)) return Invalid("it holds several documents; give one");
    return Converter().Convert(YAML::Load(std::string(text)), 0);
  } catch (const YAML::Exception& error) {
    return Invalid(absl::StrCat("line ", error.mark.line + 1, ": ", error.msg));
  }
}

std::string ToYaml(const nlohmann::ordered_json& document) {
  YAML::Emitter out;
  out.SetIndent(2);
  // Texts of others: nothing in them reaches the terminal raw.
  out.SetOutputCharset(YAML::EscapeNonAscii);
  Emit(document, &out);
  return absl::StrCat(out.c_str(), "\n");
}

}  // namespace uniquanf::cli
