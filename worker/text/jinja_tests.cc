// Tests: value is name arguments.
#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/text/jinja_functions.h"

namespace uniquanf::jinja {
namespace {

using Result = absl::StatusOr<bool>;
using Test = Result (*)(const Value& value, const Value& argument, Budget* budget);

bool IsString(const Value& value) { return value.AsString() != nullptr; }
bool IsNumber(const Value& value) {
  double number;
  return value.ToDouble(&number);  // to Python a bool is one
}
bool HasItems(const Value& value) {
  return IsString(value) || value.AsList() != nullptr || value.AsDict() != nullptr;
}

Result Remainder(const Value& value, int64_t divisor, int64_t wanted) {
  int64_t number;
  if (!value.ToInt(&number)) {
    return Failed(absl::StrCat("a value of type ", value.TypeName(), " is neither odd nor even"));
  }
  if (divisor == 0) return Failed("divisibleby 0");
  return divisor == -1 ? wanted == 0 : (number % divisor != 0) == (wanted != 0);
}

Result Equal(const Value& value, const Value& argument, Budget* budget) {
  UQ_RETURN_IF_ERROR(budget->Bytes(std::min(value.size(), argument.size())));
  return value.Equals(argument);
}

struct Row {
  int num_arguments;
  Test test;
};

const absl::flat_hash_map<absl::string_view, Row>& Tests() {
  static const auto* const table = new absl::flat_hash_map<absl::string_view, Row>{
      {"defined",
       {0, [](const Value& v, const Value&, Budget*) -> Result { return !v.is_undefined(); }}},
      {"undefined",
       {0, [](const Value& v, const Value&, Budget*) -> Result { return v.is_undefined(); }}},
      {"none", {0, [](const Value& v, const Value&, Budget*) -> Result { return v.is_none(); }}},
      {"boolean",
       {0, [](const Value& v, const Value&, Budget*) -> Result { return v.AsBool() != nullptr; }}},
      {"true",
       {0,
        [](const Value& v, const Value&, Budget*) -> Result {
          return v.AsBool() != nullptr && *v.AsBool();
        }}},
      {"false",
       {0,
        [](const Value& v, const Value&, Budget*) -> Result {
          return v.AsBool() != nullptr && !*v.AsBool();
        }}},
      {"integer",
       {0, [](const Value& v, const Value&, Budget*) -> Result { return v.AsInt() != nullptr; }}},
      {"float",
       {0, [](const Value& v, const Value&, Budget*) -> Result { return v.AsFloat() != nullptr; }}},
      {"number", {0, [](const Value& v, const Value&, Budget*) -> Result { return IsNumber(v); }}},
      {"string", {0, [](const Value& v, const Value&, Budget*) -> Result { return IsString(v); }}},
      {"mapping",
       {0, [](const Value& v, const Value&, Budget*) -> Result { return v.AsDict() != nullptr; }}},
      {"sequence",
       {0,
        [](const Value& v, const Value&, Budget*) -> Result {
          return HasItems(v) || v.is_undefined();
        }}},
      {"iterable",
       {0,
        [](const Value& v, const Value&, Budget*) -> Result {
          return HasItems(v) || v.is_undefined();
        }}},
      {"callable",
       {0,
        [](const Value& v, const Value&, Budget*) -> Result { return v.AsFunction() != nullptr; }}},
      {"lower",
       {0,
        [](const Value& v, const Value&, Budget*) -> Result {
          const std::string text = v.Str();
          return Lower(text) == text && Upper(text) != text;
        }}},
      {"upper",
       {0,
        [](const Value& v, const Value&, Budget*) -> Result {
          const std::string text = v.Str();
          return Upper(text) == text && Lower(text) != text;
        }}},
      {"odd",
       {0, [](const Value& v, const Value&, Budget*) -> Result { return Remainder(v, 2, 1); }}},
      {"even",
       {0, [](const Value& v, const Value&, Budget*) -> Result { return Remainder(v, 2, 0); }}},
      {"divisibleby",
       {1,
        [](const Value& v, const Value& argument, Budget*) -> Result {
          int64_t divisor;
          if (!argument.ToInt(&divisor)) return Failed("divisibleby no whole number");
          return Remainder(v, divisor, 0);
        }}},
      {"eq", {1, Equal}},
      {"equalto", {1, Equal}},
      {"ne",
       {1,
        [](const Value& v, const Value& argument, Budget* budget) -> Result {
          UQ_ASSIGN_OR_RETURN(const bool equal, Equal(v, argument, budget));
          return !equal;
        }}},
      {"lt",
       {1,
        [](const Value& v, const Value& argument, Budget*) -> Result {
          return v.LessThan(argument);
        }}},
      {"lessthan",
       {1,
        [](const Value& v, const Value& argument, Budget*) -> Result {
          return v.LessThan(argument);
        }}},
      {"gt",
       {1,
        [](const Value& v, const Value& argument, Budget*) -> Result {
          return argument.LessThan(v);
        }}},
      {"greaterthan",
       {1,
        [](const Value& v, const Value& argument, Budget*) -> Result {
          return argument.LessThan(v);
        }}},
      {"in",
       {1,
        [](const Value& v, const Value& argument, Budget* budget) -> Result {
          return Contains(argument, v, budget);
        }}},
      {"sameas",
       {1,
        [](const Value& v, const Value& argument, Budget* budget) -> Result {
          if (absl::string_view(v.TypeName()) != argument.TypeName()) return false;
          return Equal(v, argument, budget);
        }}},
  };
  return *table;
}

}  // namespace

absl::StatusOr<bool> ApplyTest(absl::string_view name, const Value& value,
                               const CallArguments& arguments, Budget* budget) {
  static const auto* const kOperators =
      new absl::flat_hash_map<absl::string_view, absl::string_view>{
          {"==", "eq"}, {"!=", "ne"}, {"<", "lt"}, {">", "gt"}};
  const auto spelled = kOperators->find(name);
  const auto it = Tests().find(spelled == kOperators->end() ? name : spelled->second);
  if (it == Tests().end()) return Failed(absl::StrCat("the test \"", name, "\" is not supported"));
  if (static_cast<int>(arguments.positional.size()) != it->second.num_arguments ||
      !arguments.named.empty()) {
    return Failed(
        absl::StrCat("the test \"", name, "\" takes ", it->second.num_arguments, " arguments"));
  }
  UQ_RETURN_IF_ERROR(budget->Copy(value));
  return it->second.test(value, arguments.positional.empty() ? Value() : arguments.positional[0],
                         budget);
}

}  // namespace uniquanf::jinja
