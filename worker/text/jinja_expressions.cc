// Expressions of the interpreter.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/text/jinja_interpreter.h"

namespace uniquanf::jinja {

absl::StatusOr<Value> Interpreter::Evaluate(const Node& node, const ScopePtr& scope) {
  UQ_RETURN_IF_ERROR(budget_.Step());
  if (node.kind == NodeKind::kLiteral) return node.value;
  if (node.kind == NodeKind::kName) return LookUp(node.name, scope);
  const absl::Status entered = budget_.Enter();
  Result result = entered.ok() ? EvaluateInner(node, scope) : Result(entered);
  budget_.Leave();
  return result;
}

absl::StatusOr<Value> Interpreter::EvaluateInner(const Node& node, const ScopePtr& scope) {
  switch (node.kind) {
    case NodeKind::kAttribute: {
      UQ_ASSIGN_OR_RETURN(const Value owner, Evaluate(*node.operands[0], scope));
      return Attribute(owner, node.name);
    }
    case NodeKind::kItem:
      return EvaluateItem(node, scope);
    case NodeKind::kSlice:
      return EvaluateSlice(node, scope);
    case NodeKind::kCall: {
      UQ_ASSIGN_OR_RETURN(const Value callee, Evaluate(*node.operands[0], scope));
      if (callee.AsFunction() == nullptr) {
        return callee.is_undefined()
                   ? UndefinedError(callee)
                   : Failed(absl::StrCat("a value of type ", callee.TypeName(), " is called"));
      }
      UQ_ASSIGN_OR_RETURN(CallArguments arguments, EvaluateArguments(node, scope));
      return Call(*callee.AsFunction(), std::move(arguments), nullptr);
    }
    case NodeKind::kFilter:
      return Filtered(node, nullptr, scope);
    case NodeKind::kTest: {
      UQ_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.operands[0], scope));
      UQ_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(node, scope));
      UQ_ASSIGN_OR_RETURN(const bool passes, ApplyTest(node.name, value, arguments, &budget_));
      return Value::Bool(passes != node.negated);
    }
    case NodeKind::kNegative:
    case NodeKind::kPositive: {
      UQ_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.operands[0], scope));
      if (node.kind == NodeKind::kPositive) {
        return Arithmetic("+", Value::Int(0), value, &budget_);
      }
      if (value.AsFloat() != nullptr) return Value::Float(-*value.AsFloat());
      return Arithmetic("-", Value::Int(0), value, &budget_);
    }
    case NodeKind::kArithmetic: {
      UQ_ASSIGN_OR_RETURN(const Value left, Evaluate(*node.operands[0], scope));
      UQ_ASSIGN_OR_RETURN(const Value right, Evaluate(*node.operands[1], scope));
      return Arithmetic(node.name, left, right, &budget_);
    }
    case NodeKind::kCompare:
      return Compare(node, scope);
    case NodeKind::kAnd:
    case NodeKind::kOr: {
      UQ_ASSIGN_OR_RETURN(Value left, Evaluate(*node.operands[0], scope));
      if (left.Truth() == (node.kind == NodeKind::kOr)) return left;
      return Evaluate(*node.operands[1], scope);
    }
    case NodeKind::kNot: {
      UQ_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.operands[0], scope));
      return Value::Bool(!value.Truth());
    }
    case NodeKind::kConditional: {
      UQ_ASSIGN_OR_RETURN(const Value condition, Evaluate(*node.operands[0], scope));
      const NodePtr& chosen = node.operands[condition.Truth() ? 1 : 2];
      if (chosen == nullptr) return Value::Undefined("an if without else");
      return Evaluate(*chosen, scope);
    }
    case NodeKind::kList:
    case NodeKind::kTuple:
    case NodeKind::kDict:
      return EvaluateMembers(node, scope);
    default:
      return absl::InternalError("an expression of an unknown kind");
  }
}

absl::StatusOr<Value> Interpreter::EvaluateMembers(const Node& node, const ScopePtr& scope) {
  List values;
  for (const NodePtr& operand : node.operands) {
    UQ_ASSIGN_OR_RETURN(Value value, Evaluate(*operand, scope));
    values.push_back(std::move(value));
  }
  UQ_RETURN_IF_ERROR(budget_.Bytes(values.size() * sizeof(Value)));
  if (node.kind != NodeKind::kDict) {
    return Value::OfList(std::move(values), node.kind == NodeKind::kTuple);
  }
  Dict dict;
  for (size_t i = 0; i + 1 < values.size(); i += 2) {
    UQ_RETURN_IF_ERROR(dict.Set(values[i], std::move(values[i + 1])));
  }
  return Value::OfDict(std::move(dict));
}

absl::StatusOr<Value> Interpreter::Filtered(const Node& node, const Value* operand,
                                            const ScopePtr& scope) {
  Value value;
  if (node.operands[0] != nullptr && node.operands[0]->kind == NodeKind::kFilter) {
    UQ_ASSIGN_OR_RETURN(value, Filtered(*node.operands[0], operand, scope));
  } else if (node.operands[0] != nullptr) {
    UQ_ASSIGN_OR_RETURN(value, Evaluate(*node.operands[0], scope));
  } else if (operand != nullptr) {  // the first filter of a block
    value = *operand;
  }
  UQ_RETURN_IF_ERROR(budget_.Step());
  UQ_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(node, scope));
  return ApplyFilter(node.name, value, arguments, &budget_);
}

absl::StatusOr<Value> Interpreter::Compare(const Node& node, const ScopePtr& scope) {
  UQ_ASSIGN_OR_RETURN(Value left, Evaluate(*node.operands[0], scope));
  for (size_t i = 0; i < node.operators.size(); ++i) {
    UQ_ASSIGN_OR_RETURN(Value right, Evaluate(*node.operands[i + 1], scope));
    const std::string& name = node.operators[i];
    bool holds = false;
    if (name == "in" || name == "not in") {
      UQ_ASSIGN_OR_RETURN(holds, Contains(right, left, &budget_));
      holds = holds == (name == "in");
    } else {
      UQ_RETURN_IF_ERROR(budget_.Bytes(std::min(left.size(), right.size())));
      if (name == "==" || name == "!=") {
        holds = left.Equals(right) == (name == "==");
      } else if (left.is_undefined() || right.is_undefined()) {
        return UndefinedError(left.is_undefined() ? left : right);
      } else {
        const bool swapped = name[0] == '>';
        UQ_ASSIGN_OR_RETURN(holds, swapped ? right.LessThan(left) : left.LessThan(right));
        if (name.size() == 2) holds = holds || left.Equals(right);
      }
    }
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

absl::StatusOr<Value> Interpreter::LookUp(absl::string_view name, const ScopePtr& scope) const {
  for (const Scope* at = scope.get(); at != nullptr; at = at->parent.get()) {
    const auto it = at->variables.find(name);
    if (it != at->variables.end()) return it->second;
  }
  if (!IsGlobalFunction(name)) return Value::Undefined(name);
  auto function = std::make_shared<Function>();
  function->name = std::string(name);
  return Value::Of(std::shared_ptr<const Function>(std::move(function)));
}

absl::StatusOr<Value> Interpreter::Attribute(const Value& value, absl::string_view name) const {
  if (value.is_undefined()) return UndefinedError(value);
  if (HasMethod(value, name)) {
    auto method = std::make_shared<Function>();
    method->kind = Function::Kind::kMethod;
    method->name = std::string(name);
    method->self = value;
    return Value::Of(std::shared_ptr<const Function>(std::move(method)));
  }
  if (value.AsDict() != nullptr) {
    const Value* member = value.AsDict()->Find(name);
    if (member != nullptr) return *member;
  } else if (Namespace* owner = value.AsNamespace()) {
    const auto it = owner->attributes.find(name);
    if (it != owner->attributes.end()) return it->second;
  } else if (const Loop* loop = value.AsLoop()) {
    if (name == "index") return Value::Int(loop->index0 + 1);
    if (name == "index0") return Value::Int(loop->index0);
    if (name == "revindex") return Value::Int(loop->length - loop->index0);
    if (name == "revindex0") return Value::Int(loop->length - loop->index0 - 1);
    if (name == "first") return Value::Bool(loop->index0 == 0);
    if (name == "last") return Value::Bool(loop->index0 + 1 == loop->length);
    if (name == "length") return Value::Int(loop->length);
    if (name == "depth") return Value::Int(loop->depth);
    if (name == "depth0") return Value::Int(loop->depth - 1);
    if (name == "previtem") return loop->previous;
    if (name == "nextitem") return loop->next;
    return Failed(absl::StrCat("loop.", name, " is not supported"));
  }
  return Value::Undefined(name);
}

absl::StatusOr<Value> Interpreter::EvaluateItem(const Node& node, const ScopePtr& scope) {
  UQ_ASSIGN_OR_RETURN(const Value owner, Evaluate(*node.operands[0], scope));
  UQ_ASSIGN_OR_RETURN(const Value key, Evaluate(*node.operands[1], scope));
  if (owner.is_undefined()) return UndefinedError(owner);
  if (owner.AsDict() != nullptr) {
    const Value* member = owner.AsDict()->Find(key);
    if (member != nullptr) return *member;
  }
  int64_t index;
  if ((owner.AsList() != nullptr || owner.AsString() != nullptr) && key.ToInt(&index)) {
    UQ_ASSIGN_OR_RETURN(const int64_t length, Length(owner));
    if (index < 0) index += length;
    if (index < 0 || index >= length) return Value::Undefined(absl::StrCat("item ", index));
    if (owner.AsList() != nullptr) return owner.AsList()->items[index];
    const int64_t next = index + 1;
    return Slice(owner, &index, &next, 1, &budget_);
  }
  if (key.AsString() != nullptr) return Attribute(owner, *key.AsString());
  return Value::Undefined(key.Str().substr(0, 60));
}

absl::StatusOr<Value> Interpreter::EvaluateSlice(const Node& node, const ScopePtr& scope) {
  UQ_ASSIGN_OR_RETURN(const Value owner, Evaluate(*node.operands[0], scope));
  int64_t bounds[3] = {0, 0, 1};
  bool given[3] = {false, false, false};
  for (int i = 0; i < 3; ++i) {
    if (node.operands[i + 1] == nullptr) continue;
    UQ_ASSIGN_OR_RETURN(const Value bound, Evaluate(*node.operands[i + 1], scope));
    if (bound.is_none()) continue;
    if (!bound.ToInt(&bounds[i])) {
      return Failed(absl::StrCat("a bound of a slice is a ", bound.TypeName()));
    }
    given[i] = true;
  }
  return Slice(owner, given[0] ? &bounds[0] : nullptr, given[1] ? &bounds[1] : nullptr,
               given[2] ? bounds[2] : 1, &budget_);
}

absl::StatusOr<CallArguments> Interpreter::EvaluateArguments(const Node& node,
                                                             const ScopePtr& scope) {
  CallArguments arguments;
  for (const Argument& argument : node.arguments) {
    UQ_ASSIGN_OR_RETURN(Value value, Evaluate(*argument.value, scope));
    if (argument.spread) {
      UQ_ASSIGN_OR_RETURN(List items, Items(value, &budget_));
      for (Value& item : items) arguments.positional.push_back(std::move(item));
    } else if (argument.name.empty()) {
      arguments.positional.push_back(std::move(value));
    } else {
      arguments.named.emplace_back(argument.name, std::move(value));
    }
  }
  return arguments;
}

}  // namespace uniquanf::jinja
