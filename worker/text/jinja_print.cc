// How values look as text: printed, within a list, and as JSON.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/text/jinja_value.h"
#include "worker/text/unicode.h"

namespace uniquanf::jinja {
namespace {

// In single quotes unless double ones save escapes.
void AppendQuoted(absl::string_view text, std::string* out) {
  const char quote = absl::StrContains(text, '\'') && !absl::StrContains(text, '"') ? '"' : '\'';
  out->push_back(quote);
  char escaped[8];
  for (const char c : text) {
    if (c == quote || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (c == '\n') {
      out->append("\\n");
    } else if (c == '\r') {
      out->append("\\r");
    } else if (c == '\t') {
      out->append("\\t");
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      std::snprintf(escaped, sizeof(escaped), "\\x%02x", c);
      out->append(escaped);
    } else {
      out->push_back(c);
    }
  }
  out->push_back(quote);
}

void AppendJsonString(absl::string_view text, bool ascii, std::string* out) {
  char escaped[16];
  out->push_back('"');
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const char32_t c = NextCodePoint(text, &at);
    static constexpr absl::string_view kShort = "\"\\\n\r\t\b\f", kLetter = "\"\\nrtbf";
    const size_t known = c < 0x80 ? kShort.find(static_cast<char>(c)) : absl::string_view::npos;
    if (known != absl::string_view::npos) {
      out->push_back('\\');
      out->push_back(kLetter[known]);
    } else if (c < 0x20 || (ascii && c >= 0x80 && c < 0x10000)) {
      std::snprintf(escaped, sizeof(escaped), "\\u%04x", static_cast<unsigned>(c));
      out->append(escaped);
    } else if (ascii && c >= 0x10000) {
      const unsigned rest = static_cast<unsigned>(c) - 0x10000;
      std::snprintf(escaped, sizeof(escaped), "\\u%04x\\u%04x", 0xD800 + (rest >> 10),
                    0xDC00 + (rest & 0x3FF));
      out->append(escaped);
    } else {
      absl::StrAppend(out, text.substr(start, at - start));
    }
  }
  out->push_back('"');
}

}  // namespace

std::string Value::Str() const {
  if (is_undefined()) return "";
  if (const std::string* text = AsString()) return *text;
  std::string out;
  AppendRepr(&out);
  return out;
}

void Value::AppendRepr(std::string* out) const {
  if (is_undefined()) {
    out->append("Undefined");
  } else if (is_none()) {
    out->append("None");
  } else if (const bool* flag = AsBool()) {
    out->append(*flag ? "True" : "False");
  } else if (const int64_t* number = AsInt()) {
    absl::StrAppend(out, *number);
  } else if (const double* number = AsFloat()) {
    out->append(FloatText(*number));
  } else if (const std::string* text = AsString()) {
    AppendQuoted(*text, out);
  } else if (const ListData* list = AsList()) {
    out->push_back(list->tuple ? '(' : '[');
    for (size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) out->append(", ");
      list->items[i].AppendRepr(out);
    }
    if (list->tuple && list->items.size() == 1) out->push_back(',');
    out->push_back(list->tuple ? ')' : ']');
  } else if (const Dict* dict = AsDict()) {
    out->push_back('{');
    for (size_t i = 0; i < dict->entries.size(); ++i) {
      if (i > 0) out->append(", ");
      dict->entries[i].first.AppendRepr(out);
      out->append(": ");
      dict->entries[i].second.AppendRepr(out);
    }
    out->push_back('}');
  } else {
    absl::StrAppend(out, "<", TypeName(), ">");
  }
}

std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  // The fewest digits that read back; plain from 1e-4 to below 1e16, as Python.
  char text[64];
  int precision = 0;
  do {
    std::snprintf(text, sizeof(text), "%.*e", precision, value);
  } while (std::strtod(text, nullptr) != value && ++precision < 17);
  const int exponent = std::atoi(std::strchr(text, 'e') + 1);
  if (exponent < -4 || exponent >= 16) {
    std::string out(text, std::strchr(text, 'e') - text);
    return absl::StrCat(out, "e", exponent < 0 ? "-" : "+", std::abs(exponent) < 10 ? "0" : "",
                        std::abs(exponent));
  }
  std::snprintf(text, sizeof(text), "%.*f", std::max(1, precision - exponent), value);
  return text;
}

absl::Status AppendJson(const Value& value, const JsonStyle& style, int level, std::string* out) {
  if (out->size() > Value::kMaxSize) return Failed("a value's JSON is too large");
  if (const std::string* text = value.AsString()) {
    AppendJsonString(*text, style.ascii, out);
    return absl::OkStatus();
  }
  if (value.is_none() || value.AsBool() != nullptr) {
    out->append(value.is_none() ? "null" : *value.AsBool() ? "true" : "false");
    return absl::OkStatus();
  }
  if (value.AsInt() != nullptr || value.AsFloat() != nullptr) {
    value.AppendRepr(out);
    return absl::OkStatus();
  }
  const auto new_line = [&](int depth) {
    if (!style.indented) return;
    out->push_back('\n');
    for (int i = 0; i < depth; ++i) out->append(style.indent);
  };
  if (const ListData* list = value.AsList()) {
    if (list->items.empty()) {
      out->append("[]");
      return absl::OkStatus();
    }
    for (size_t i = 0; i < list->items.size(); ++i) {
      out->append(i == 0 ? "[" : style.item_separator);
      new_line(level + 1);
      UQ_RETURN_IF_ERROR(AppendJson(list->items[i], style, level + 1, out));
    }
    new_line(level);
    out->push_back(']');
    return absl::OkStatus();
  }
  const Dict* dict = value.AsDict();
  if (dict == nullptr) {
    return Failed(absl::StrCat("a value of type ", value.TypeName(), " cannot be written as JSON"));
  }
  if (dict->entries.empty()) {
    out->append("{}");
    return absl::OkStatus();
  }
  std::vector<std::pair<std::string, const Value*>> entries;
  for (const auto& [key, member] : dict->entries) entries.emplace_back(key.Str(), &member);
  if (style.sort_keys) {
    std::stable_sort(entries.begin(), entries.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
  }
  for (size_t i = 0; i < entries.size(); ++i) {
    out->append(i == 0 ? "{" : style.item_separator);
    new_line(level + 1);
    AppendJsonString(entries[i].first, style.ascii, out);
    out->append(style.key_separator);
    UQ_RETURN_IF_ERROR(AppendJson(*entries[i].second, style, level + 1, out));
  }
  new_line(level);
  out->push_back('}');
  return absl::OkStatus();
}

}  // namespace uniquanf::jinja
