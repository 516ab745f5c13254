// Filters: value | name(arguments).
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"
#include "worker/text/jinja_filter_table.h"
#include "worker/text/unicode.h"

namespace uniquanf::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// The text of any value, on the budget.
absl::StatusOr<std::string> TextOf(const Value& value, Budget* budget) {
  UQ_RETURN_IF_ERROR(budget->Copy(value));
  return value.Str();
}

Result Default(const Value& value, const CallArguments& arguments, Budget*) {
  UQ_RETURN_IF_ERROR(arguments.Expect("default", {"default_value", "boolean"}));
  const bool missing =
      value.is_undefined() || (arguments.Flag(1, "boolean", false) && !value.Truth());
  if (!missing) return value;
  const Value* other = arguments.Find(0, "default_value");
  return other == nullptr ? Value::String("") : *other;
}

Result Trim(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("trim", {"chars"}));
  UQ_ASSIGN_OR_RETURN(const std::string text, TextOf(value, budget));
  const Value* characters = arguments.Find(0, "chars");
  if (characters == nullptr || characters->is_none()) {
    return NewString(std::string(Strip(text, true, true)), budget);
  }
  CallArguments strip;
  strip.positional.push_back(*characters);
  return CallMethod("strip", Value::String(text), strip, budget);
}

template <std::string (*kChange)(absl::string_view)>
Result ChangeCase(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("a case filter", {}));
  UQ_ASSIGN_OR_RETURN(const std::string text, TextOf(value, budget));
  return NewString(kChange(text), budget);
}

std::string Capitalize(absl::string_view text) {
  size_t first = 0;
  if (!text.empty()) NextCodePoint(text, &first);
  return Upper(text.substr(0, first)) + Lower(text.substr(first));
}

// Words begin behind spaces, hyphens and opening brackets.
std::string Title(absl::string_view text) {
  std::string out, word;
  const auto flush = [&] {
    out += Capitalize(word);
    word.clear();
  };
  for (const char c : text) {
    if (absl::StrContains(" \t\n\r\f\v-({[<", c)) {
      flush();
      out.push_back(c);
    } else {
      word.push_back(c);
    }
  }
  flush();
  return out;
}

Result LengthFilter(const Value& value, const CallArguments& arguments, Budget*) {
  UQ_RETURN_IF_ERROR(arguments.Expect("length", {}));
  UQ_ASSIGN_OR_RETURN(const int64_t length, Length(value));
  return Value::Int(length);
}

Result ToJson(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(
      arguments.Expect("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  style.ascii = arguments.Flag(0, "ensure_ascii", false);
  style.sort_keys = arguments.Flag(3, "sort_keys", false);
  if (const Value* indent = arguments.Find(1, "indent"); indent != nullptr && !indent->is_none()) {
    style.indented = true;
    style.item_separator = ",";
    int64_t width;
    if (indent->AsString() != nullptr) {
      style.indent = indent->AsString()->substr(0, 16);
    } else if (indent->ToInt(&width)) {
      style.indent = std::string(std::clamp<int64_t>(width, 0, 16), ' ');
    } else {
      return Failed("tojson: indent is no number");
    }
  }
  if (const Value* given = arguments.Find(2, "separators"); given != nullptr && !given->is_none()) {
    if (given->AsList() == nullptr || given->AsList()->items.size() != 2 ||
        given->AsList()->items[0].AsString() == nullptr ||
        given->AsList()->items[1].AsString() == nullptr) {
      return Failed("tojson: separators are not two strings");
    }
    style.item_separator = *given->AsList()->items[0].AsString();
    style.key_separator = *given->AsList()->items[1].AsString();
  }
  if (value.is_undefined()) return UndefinedError(value);
  UQ_RETURN_IF_ERROR(budget->Copy(value));
  std::string json;
  UQ_RETURN_IF_ERROR(AppendJson(value, style, 0, &json));
  return NewString(std::move(json), budget);
}

Result StringFilter(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("string", {}));
  if (value.AsString() != nullptr) return value;
  UQ_ASSIGN_OR_RETURN(std::string text, TextOf(value, budget));
  return NewString(std::move(text), budget);
}

Result Escape(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("escape", {}));
  UQ_ASSIGN_OR_RETURN(const std::string text, TextOf(value, budget));
  return NewString(
      absl::StrReplaceAll(
          text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {"\"", "&#34;"}}),
      budget);
}

Result Replace(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("replace", {"old", "new", "count"}));
  UQ_ASSIGN_OR_RETURN(const std::string text, TextOf(value, budget));
  UQ_ASSIGN_OR_RETURN(const std::string from, arguments.Text(0, "old", ""));
  UQ_ASSIGN_OR_RETURN(const std::string to, arguments.Text(1, "new", ""));
  UQ_ASSIGN_OR_RETURN(const int64_t count, arguments.Number(2, "count", -1));
  UQ_ASSIGN_OR_RETURN(std::string replaced, ReplaceText(text, from, to, count, budget));
  return NewString(std::move(replaced), budget);
}

Result Indent(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("indent", {"width", "first", "blank"}));
  std::string indent;
  const Value* width = arguments.Find(0, "width");
  if (width != nullptr && width->AsString() != nullptr) {
    indent = *width->AsString();
  } else {
    UQ_ASSIGN_OR_RETURN(const int64_t spaces, arguments.Number(0, "width", 4));
    indent = std::string(std::clamp<int64_t>(spaces, 0, 1000), ' ');
  }
  const bool blank = arguments.Flag(2, "blank", false);
  UQ_ASSIGN_OR_RETURN(const std::string text, TextOf(value, budget));
  std::string out = arguments.Flag(1, "first", false) ? indent : "";
  bool first = true;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!first) {
      out.push_back('\n');
      if (blank || !line.empty()) {
        UQ_RETURN_IF_ERROR(budget->Bytes(indent.size()));
        out += indent;
      }
    }
    absl::StrAppend(&out, line);
    first = false;
  }
  return NewString(std::move(out), budget);
}

// int("12"), also of "12.7".
Result Int(const Value& value, const CallArguments& arguments, Budget*) {
  UQ_RETURN_IF_ERROR(arguments.Expect("int", {"default"}));
  UQ_ASSIGN_OR_RETURN(const int64_t fallback, arguments.Number(0, "default", 0));
  int64_t whole;
  double number;
  if (value.ToInt(&whole)) return Value::Int(whole);
  if (const std::string* text = value.AsString()) {
    if (absl::SimpleAtoi(*text, &whole)) return Value::Int(whole);
    if (!absl::SimpleAtod(*text, &number)) return Value::Int(fallback);
  } else if (!value.ToDouble(&number)) {
    return Value::Int(fallback);
  }
  if (!(std::fabs(number) < 9e18)) return Value::Int(fallback);
  return Value::Int(static_cast<int64_t>(number));
}

Result Float(const Value& value, const CallArguments& arguments, Budget*) {
  UQ_RETURN_IF_ERROR(arguments.Expect("float", {"default"}));
  double number, fallback = 0;
  if (const Value* given = arguments.Find(0, "default")) given->ToDouble(&fallback);
  if (value.ToDouble(&number)) return Value::Float(number);
  if (value.AsString() != nullptr && absl::SimpleAtod(*value.AsString(), &number)) {
    return Value::Float(number);
  }
  return Value::Float(fallback);
}

Result Abs(const Value& value, const CallArguments& arguments, Budget*) {
  UQ_RETURN_IF_ERROR(arguments.Expect("abs", {}));
  int64_t whole;
  if (value.ToInt(&whole) && whole != std::numeric_limits<int64_t>::min()) {
    return Value::Int(whole < 0 ? -whole : whole);
  }
  if (value.AsFloat() != nullptr) return Value::Float(std::fabs(*value.AsFloat()));
  return Failed(absl::StrCat("abs of a value of type ", value.TypeName()));
}

Result Round(const Value& value, const CallArguments& arguments, Budget*) {
  UQ_RETURN_IF_ERROR(arguments.Expect("round", {"precision", "method"}));
  UQ_ASSIGN_OR_RETURN(const int64_t precision, arguments.Number(0, "precision", 0));
  UQ_ASSIGN_OR_RETURN(const std::string method, arguments.Text(1, "method", "common"));
  double number;
  if (!value.ToDouble(&number) || precision < 0 || precision > 15) {
    return Failed("round takes a number and a precision from 0 to 15");
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value::Float(std::ceil(number * scale) / scale);
  if (method == "floor") return Value::Float(std::floor(number * scale) / scale);
  // Python rounds the decimal number, halves to even.
  return Value::Float(std::strtod(absl::StrFormat("%.*f", precision, number).c_str(), nullptr));
}

Result Same(const Value& value, const CallArguments&, Budget*) { return value; }

}  // namespace

const FilterTable& TextFilters() {
  static const auto* const table = new FilterTable{
      {"default", Default},
      {"d", Default},
      {"trim", Trim},
      {"upper", ChangeCase<Upper>},
      {"lower", ChangeCase<Lower>},
      {"capitalize", ChangeCase<Capitalize>},
      {"title", ChangeCase<Title>},
      {"length", LengthFilter},
      {"count", LengthFilter},
      {"tojson", ToJson},
      {"string", StringFilter},
      {"safe", Same},
      {"escape", Escape},
      {"e", Escape},
      {"replace", Replace},
      {"indent", Indent},
      {"int", Int},
      {"float", Float},
      {"abs", Abs},
      {"round", Round},
  };
  return *table;
}

absl::StatusOr<Value> ApplyFilter(absl::string_view name, const Value& value,
                                  const CallArguments& arguments, Budget* budget) {
  for (const FilterTable* table : {&TextFilters(), &ListFilters()}) {
    const auto it = table->find(name);
    if (it == table->end()) continue;
    const absl::Status entered = budget->Enter();
    Result result = entered.ok() ? it->second(value, arguments, budget) : Result(entered);
    budget->Leave();
    return result;
  }
  return Failed(absl::StrCat("the filter \"", name, "\" is not supported"));
}

}  // namespace uniquanf::jinja
