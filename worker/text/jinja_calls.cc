// Calls and arithmetic of the interpreter.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/text/jinja_interpreter.h"

namespace uniquanf::jinja {
namespace {

constexpr absl::string_view kGlobals[] = {"raise_exception", "strftime_now", "namespace",
                                          "range",           "dict",         "joiner"};
constexpr int64_t kMaxRange = 100'000;  // as in Jinja2's sandbox

absl::Status Overflow() { return Failed("a whole number is larger than 2^63"); }

// Rounds down and has the divisor's sign, as Python's.
absl::StatusOr<Value> Divide(bool remainder, int64_t left, int64_t right) {
  if (right == 0) return Failed("division by 0");
  if (right == -1) {  // the one quotient that can overflow
    if (left == std::numeric_limits<int64_t>::min()) return Overflow();
    return Value::Int(remainder ? 0 : -left);
  }
  int64_t quotient = left / right, rest = left % right;
  if (rest != 0 && (rest < 0) != (right < 0)) {
    --quotient;
    rest += right;
  }
  return Value::Int(remainder ? rest : quotient);
}

absl::StatusOr<Value> OfInts(absl::string_view name, int64_t left, int64_t right) {
  int64_t result;
  if (name == "//" || name == "%") return Divide(name == "%", left, right);
  if (name == "/") {
    if (right == 0) return Failed("division by 0");
    return Value::Float(static_cast<double>(left) / static_cast<double>(right));
  }
  bool overflow = false;
  if (name == "+") {
    overflow = __builtin_add_overflow(left, right, &result);
  } else if (name == "-") {
    overflow = __builtin_sub_overflow(left, right, &result);
  } else if (name == "*") {
    overflow = __builtin_mul_overflow(left, right, &result);
  } else {  // **
    if (right < 0) return Value::Float(std::pow(left, right));
    result = 1;
    for (int64_t i = 0; i < right && !overflow && (i < 64 || (left < -1 || left > 1)); ++i) {
      overflow = __builtin_mul_overflow(result, left, &result);
    }
    if (left == -1) result = right % 2 == 0 ? 1 : -1;
  }
  return overflow ? absl::StatusOr<Value>(Overflow()) : Value::Int(result);
}

absl::StatusOr<Value> OfFloats(absl::string_view name, double left, double right) {
  if (name == "+") return Value::Float(left + right);
  if (name == "-") return Value::Float(left - right);
  if (name == "*") return Value::Float(left * right);
  if (name == "**") return Value::Float(std::pow(left, right));
  if (right == 0) return Failed("division by 0");
  if (name == "/") return Value::Float(left / right);
  if (name == "//") return Value::Float(std::floor(left / right));
  const double rest = std::fmod(left, right);
  return Value::Float(rest != 0 && (rest < 0) != (right < 0) ? rest + right : rest);
}

// A string or a list, several times.
absl::StatusOr<Value> Repeat(const Value& value, int64_t count, Budget* budget) {
  count = std::max<int64_t>(count, 0);
  if (count > 0 && value.size() > Value::kMaxSize / static_cast<uint64_t>(count)) {
    return Failed(absl::StrCat("a value is repeated ", count, " times, which is too large"));
  }
  UQ_RETURN_IF_ERROR(budget->Bytes(value.size() * static_cast<uint64_t>(count)));
  if (const std::string* text = value.AsString()) {
    std::string out;
    for (int64_t i = 0; i < count; ++i) out += *text;
    return NewString(std::move(out), budget);
  }
  List items;
  for (int64_t i = 0; i < count; ++i) {
    items.insert(items.end(), value.AsList()->items.begin(), value.AsList()->items.end());
  }
  UQ_RETURN_IF_ERROR(budget->Bytes(items.size() * sizeof(Value)));
  return Value::OfList(std::move(items), value.AsList()->tuple);
}

}  // namespace

bool IsGlobalFunction(absl::string_view name) {
  return std::find(std::begin(kGlobals), std::end(kGlobals), name) != std::end(kGlobals);
}

absl::StatusOr<Value> Arithmetic(absl::string_view name, const Value& left, const Value& right,
                                 Budget* budget) {
  if (name == "~") {
    UQ_RETURN_IF_ERROR(budget->Copy(left));
    UQ_RETURN_IF_ERROR(budget->Copy(right));
    return NewString(left.Str() + right.Str(), budget);
  }
  int64_t left_int, right_int;
  if (left.ToInt(&left_int) && right.ToInt(&right_int)) return OfInts(name, left_int, right_int);
  double left_number, right_number;
  if (left.ToDouble(&left_number) && right.ToDouble(&right_number)) {
    return OfFloats(name, left_number, right_number);
  }
  if (name == "+" && left.AsString() != nullptr && right.AsString() != nullptr) {
    UQ_RETURN_IF_ERROR(budget->Bytes(left.size() + right.size()));
    return NewString(*left.AsString() + *right.AsString(), budget);
  }
  const ListData *left_list = left.AsList(), *right_list = right.AsList();
  if (name == "+" && left_list != nullptr && right_list != nullptr &&
      left_list->tuple == right_list->tuple) {
    UQ_RETURN_IF_ERROR(
        budget->Bytes((left_list->items.size() + right_list->items.size()) * sizeof(Value)));
    List items = left_list->items;
    items.insert(items.end(), right_list->items.begin(), right_list->items.end());
    return Value::OfList(std::move(items), left_list->tuple);
  }
  if (name == "*" && (left.AsString() != nullptr || left_list != nullptr) &&
      right.ToInt(&right_int)) {
    return Repeat(left, right_int, budget);
  }
  if (name == "*" && (right.AsString() != nullptr || right_list != nullptr) &&
      left.ToInt(&left_int)) {
    return Repeat(right, left_int, budget);
  }
  if (left.is_undefined() || right.is_undefined()) {
    return UndefinedError(left.is_undefined() ? left : right);
  }
  return Failed(absl::StrCat("\"", name, "\" of a value of type ", left.TypeName(),
                             " and one of type ", right.TypeName()));
}

absl::StatusOr<Value> Interpreter::Call(const Function& function, CallArguments arguments,
                                        const Value* caller) {
  UQ_RETURN_IF_ERROR(budget_.Bytes(arguments.positional.size() * sizeof(Value)));
  switch (function.kind) {
    case Function::Kind::kMacro:
    case Function::Kind::kCaller:
      return CallMacro(function, std::move(arguments), caller);
    case Function::Kind::kMethod:
      return CallMethod(function.name, function.self, arguments, &budget_);
    case Function::Kind::kJoiner:
      if (std::exchange(function.called, true)) return function.self;
      return Value::String("");
    case Function::Kind::kGlobal:
      break;
  }
  return CallGlobal(function.name, arguments);
}

absl::StatusOr<Value> Interpreter::CallMacro(const Function& function, CallArguments arguments,
                                             const Value* caller) {
  const auto inner = std::make_shared<Scope>();
  inner->parent = function.scope.lock();
  if (inner->parent == nullptr) {
    return Failed(
        absl::StrCat("the macro ", function.name, " is called outside of where it was defined"));
  }
  const std::vector<Argument>& parameters = function.node->arguments;
  if (arguments.positional.size() > parameters.size()) {
    return Failed(absl::StrCat("the macro ", function.name, " takes ", parameters.size(),
                               " arguments, not ", arguments.positional.size()));
  }
  for (const auto& [name, value] : arguments.named) {
    if (std::none_of(parameters.begin(), parameters.end(),
                     [&name = name](const Argument& p) { return p.name == name; })) {
      return Failed(absl::StrCat("the macro ", function.name, " has no argument \"", name, "\""));
    }
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Value* given = arguments.Find(i, parameters[i].name);
    Value value = given != nullptr ? *given : Value::Undefined(parameters[i].name);
    if (given == nullptr && parameters[i].value != nullptr) {
      UQ_ASSIGN_OR_RETURN(value, Evaluate(*parameters[i].value, inner));
    }
    inner->variables.insert_or_assign(parameters[i].name, std::move(value));
  }
  if (caller != nullptr) inner->variables.insert_or_assign("caller", *caller);
  return Captured(function.node->blocks[0], inner);
}

absl::StatusOr<Value> Interpreter::CallGlobal(absl::string_view name,
                                              const CallArguments& arguments) {
  if (name == "raise_exception") {
    const Value* message = arguments.Find(0, "message");
    return InvalidInput("CHAT_TEMPLATE_REFUSED",
                        message == nullptr ? "raise_exception" : message->Str().substr(0, 1000));
  }
  if (name == "strftime_now") return StrftimeNow(arguments);
  if (name == "range") return Range(arguments);
  if (name == "joiner") {
    auto joiner = std::make_shared<Function>();
    joiner->kind = Function::Kind::kJoiner;
    const Value* separator = arguments.Find(0, "sep");
    joiner->self = separator == nullptr ? Value::String(", ") : *separator;
    return Value::Of(std::shared_ptr<const Function>(std::move(joiner)));
  }
  // namespace and dict: of a dictionary's members and named arguments.
  Dict dict;
  for (const Value& source : arguments.positional) {
    if (source.AsDict() == nullptr) return Failed(absl::StrCat(name, " takes a dictionary"));
    UQ_RETURN_IF_ERROR(budget_.Copy(source));
    for (const auto& [key, value] : source.AsDict()->entries) {
      UQ_RETURN_IF_ERROR(dict.Set(key, value));
    }
  }
  for (const auto& [key, value] : arguments.named) {
    UQ_RETURN_IF_ERROR(dict.Set(Value::String(key), value));
  }
  if (name == "dict") return Value::OfDict(std::move(dict));
  if (dict.holds_namespace) return Failed("a namespace cannot hold namespaces, functions or loops");
  auto result = std::make_shared<Namespace>();
  for (auto& [key, value] : dict.entries) {
    result->attributes.insert_or_assign(key.Str(), std::move(value));
  }
  return Value::Of(std::move(result));
}

absl::StatusOr<Value> Interpreter::Range(const CallArguments& arguments) {
  UQ_RETURN_IF_ERROR(arguments.Expect("range", {"start", "stop", "step"}));
  const bool one = arguments.positional.size() == 1;
  UQ_ASSIGN_OR_RETURN(const int64_t first, arguments.Number(0, "start", 0));
  UQ_ASSIGN_OR_RETURN(const int64_t second, arguments.Number(1, "stop", 0));
  UQ_ASSIGN_OR_RETURN(const int64_t step, arguments.Number(2, "step", 1));
  const int64_t start = one ? 0 : first, stop = one ? first : second;
  if (step == 0) return Failed("the step of a range is 0");
  List items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    items.push_back(Value::Int(i));
    if (static_cast<int64_t>(items.size()) > kMaxRange) {
      return Failed(absl::StrCat("a range has more than ", kMaxRange, " numbers"));
    }
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  UQ_RETURN_IF_ERROR(budget_.Bytes(items.size() * sizeof(Value)));
  return Value::OfList(std::move(items));
}

absl::StatusOr<Value> Interpreter::StrftimeNow(const CallArguments& arguments) {
  UQ_RETURN_IF_ERROR(arguments.Expect("strftime_now", {"format"}));
  UQ_ASSIGN_OR_RETURN(const std::string format, arguments.Text(0, "format", ""));
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out.push_back(format[i]);
      continue;
    }
    std::string directive = "%";
    if (i + 1 < format.size() && format[i + 1] == '-') ++i;  // without leading zeros
    const bool bare = format[i] == '-';
    const char letter = i + 1 < format.size() ? format[++i] : '\0';
    if (letter == '\0' || !absl::StrContains("YmdyBbAaHMSIpjeZ%", letter)) {
      return Failed(absl::StrCat("strftime_now: the format \"", format.substr(0, 60),
                                 "\" has a directive that is not supported"));
    }
    directive.push_back(letter);
    std::string part = absl::FormatTime(directive, now_, absl::UTCTimeZone());
    if (bare && part.size() > 1 && part[0] == '0') part.erase(0, 1);
    out += part;
  }
  return NewString(std::move(out), &budget_);
}

}  // namespace uniquanf::jinja
