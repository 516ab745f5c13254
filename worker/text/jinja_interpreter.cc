#include "worker/text/jinja_interpreter.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf::jinja {

absl::StatusOr<std::string> Interpreter::Render(const Body& body,
                                                absl::flat_hash_map<std::string, Value> variables) {
  const auto scope = std::make_shared<Scope>();
  scope->variables = std::move(variables);
  std::string out;
  UQ_RETURN_IF_ERROR(RunBody(body, scope, &out));
  return out;
}

absl::Status Interpreter::Append(absl::string_view text, std::string* out) {
  UQ_RETURN_IF_ERROR(budget_.Bytes(text.size()));
  absl::StrAppend(out, text);
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::Captured(const Body& body, const ScopePtr& scope) {
  std::string text;
  UQ_RETURN_IF_ERROR(RunBody(body, scope, &text));
  return NewString(std::move(text), &budget_);
}

absl::Status Interpreter::RunBody(const Body& body, const ScopePtr& scope, std::string* out) {
  for (const NodePtr& node : body) {
    absl::Status status = budget_.Enter();
    if (status.ok()) status = budget_.Step();
    if (status.ok()) status = Run(*node, scope, out);
    budget_.Leave();
    if (!status.ok()) {
      // The innermost statement names the line.
      return absl::StrContains(status.message(), "chat template, line ")
                 ? status
                 : Annotate(status, absl::StrCat("chat template, line ", node->line));
    }
    if (flow_ != Flow::kNormal) break;
  }
  return absl::OkStatus();
}

absl::Status Interpreter::Run(const Node& node, const ScopePtr& scope, std::string* out) {
  switch (node.kind) {
    case NodeKind::kText:
      return Append(node.name, out);
    case NodeKind::kPrint:
      return RunPrint(node, scope, out);
    case NodeKind::kIf: {
      size_t branch = 0;
      for (; branch < node.operands.size(); ++branch) {
        UQ_ASSIGN_OR_RETURN(const Value condition, Evaluate(*node.operands[branch], scope));
        if (condition.Truth()) break;
      }
      return RunBody(node.blocks[branch], scope, out);
    }
    case NodeKind::kFor:
      return RunFor(node, scope, out);
    case NodeKind::kSet: {
      UQ_ASSIGN_OR_RETURN(Value value, Evaluate(*node.operands[1], scope));
      return Assign(*node.operands[0], std::move(value), scope);
    }
    case NodeKind::kSetBlock: {
      const auto inner = std::make_shared<Scope>();
      inner->parent = scope;
      UQ_ASSIGN_OR_RETURN(Value value, Captured(node.blocks[0], inner));
      if (node.operands[1] != nullptr) {
        UQ_ASSIGN_OR_RETURN(value, Filtered(*node.operands[1], &value, scope));
      }
      return Assign(*node.operands[0], std::move(value), scope);
    }
    case NodeKind::kMacro: {
      auto macro = std::make_shared<Function>();
      macro->kind = Function::Kind::kMacro;
      macro->name = node.name;
      macro->node = &node;
      macro->scope = scope;
      scope->variables.insert_or_assign(
          node.name, Value::Of(std::shared_ptr<const Function>(std::move(macro))));
      return absl::OkStatus();
    }
    case NodeKind::kCallBlock:
      return RunCallBlock(node, scope, out);
    case NodeKind::kFilterBlock: {
      const auto inner = std::make_shared<Scope>();
      inner->parent = scope;
      UQ_ASSIGN_OR_RETURN(const Value text, Captured(node.blocks[0], inner));
      UQ_ASSIGN_OR_RETURN(const Value value, Filtered(*node.operands[0], &text, scope));
      return Append(value.Str(), out);
    }
    case NodeKind::kWith: {
      const auto inner = std::make_shared<Scope>();
      inner->parent = scope;
      for (const Argument& argument : node.arguments) {
        UQ_ASSIGN_OR_RETURN(Value value, Evaluate(*argument.value, scope));
        inner->variables.insert_or_assign(argument.name, std::move(value));
      }
      return RunBody(node.blocks[0], inner, out);
    }
    case NodeKind::kBlock:
      return RunBody(node.blocks[0], scope, out);
    case NodeKind::kBreak:
      flow_ = Flow::kBreak;
      return absl::OkStatus();
    case NodeKind::kContinue:
      flow_ = Flow::kContinue;
      return absl::OkStatus();
    default:
      return absl::InternalError("a statement of an unknown kind");
  }
}

absl::Status Interpreter::RunPrint(const Node& node, const ScopePtr& scope, std::string* out) {
  UQ_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.operands[0], scope));
  if (value.AsString() != nullptr) return Append(*value.AsString(), out);
  UQ_RETURN_IF_ERROR(budget_.Copy(value));
  return Append(value.Str(), out);
}

absl::Status Interpreter::RunFor(const Node& node, const ScopePtr& scope, std::string* out) {
  UQ_ASSIGN_OR_RETURN(const Value list, Evaluate(*node.operands[1], scope));
  UQ_ASSIGN_OR_RETURN(List items, Items(list, &budget_));
  if (node.operands[2] != nullptr) {
    List kept;
    for (Value& item : items) {
      const auto inner = std::make_shared<Scope>();
      inner->parent = scope;
      UQ_RETURN_IF_ERROR(Assign(*node.operands[0], item, inner));
      UQ_ASSIGN_OR_RETURN(const Value condition, Evaluate(*node.operands[2], inner));
      if (condition.Truth()) kept.push_back(std::move(item));
    }
    items = std::move(kept);
  }
  ++loop_depth_;
  absl::Status status;
  for (size_t i = 0; i < items.size() && status.ok(); ++i) {
    const auto inner = std::make_shared<Scope>();
    inner->parent = scope;
    auto loop = std::make_shared<Loop>();
    loop->index0 = static_cast<int64_t>(i);
    loop->length = static_cast<int64_t>(items.size());
    loop->depth = loop_depth_;
    loop->previous = i > 0 ? items[i - 1] : Value::Undefined("loop.previtem");
    loop->next = i + 1 < items.size() ? items[i + 1] : Value::Undefined("loop.nextitem");
    inner->variables["loop"] = Value::Of(std::shared_ptr<const Loop>(std::move(loop)));
    status = budget_.Step();
    if (status.ok()) status = Assign(*node.operands[0], items[i], inner);
    if (status.ok()) status = RunBody(node.blocks[0], inner, out);
    const Flow flow = std::exchange(flow_, Flow::kNormal);
    if (flow == Flow::kBreak) break;
  }
  --loop_depth_;
  UQ_RETURN_IF_ERROR(status);
  return items.empty() ? RunBody(node.blocks[1], scope, out) : absl::OkStatus();
}

absl::Status Interpreter::RunCallBlock(const Node& node, const ScopePtr& scope, std::string* out) {
  const Node& call = *node.operands[0];
  auto caller = std::make_shared<Function>();
  caller->kind = Function::Kind::kCaller;
  caller->name = "caller";
  caller->node = &node;
  caller->scope = scope;
  const Value caller_value = Value::Of(std::shared_ptr<const Function>(std::move(caller)));
  UQ_ASSIGN_OR_RETURN(const Value callee, Evaluate(*call.operands[0], scope));
  if (callee.AsFunction() == nullptr) return Failed("{% call %} of what is no macro");
  UQ_ASSIGN_OR_RETURN(CallArguments arguments, EvaluateArguments(call, scope));
  UQ_ASSIGN_OR_RETURN(const Value value,
                      Call(*callee.AsFunction(), std::move(arguments), &caller_value));
  return Append(value.Str(), out);
}

absl::Status Interpreter::Assign(const Node& target, Value value, const ScopePtr& scope) {
  if (target.kind == NodeKind::kName) {
    scope->variables.insert_or_assign(target.name, std::move(value));
    return absl::OkStatus();
  }
  if (target.kind == NodeKind::kAttribute) {
    UQ_ASSIGN_OR_RETURN(const Value owner, LookUp(target.operands[0]->name, scope));
    if (owner.AsNamespace() == nullptr) {
      return Failed(absl::StrCat("\"", target.operands[0]->name,
                                 "\" is no namespace, whose attributes alone can be set"));
    }
    if (value.HoldsNamespace()) {
      return Failed("a namespace cannot hold namespaces, functions or loops");
    }
    owner.AsNamespace()->attributes.insert_or_assign(target.name, std::move(value));
    return absl::OkStatus();
  }
  UQ_ASSIGN_OR_RETURN(const List parts, Items(value, &budget_));
  if (parts.size() != target.operands.size()) {
    return Failed(
        absl::StrCat(target.operands.size(), " names are assigned ", parts.size(), " values"));
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    UQ_RETURN_IF_ERROR(Assign(*target.operands[i], parts[i], scope));
  }
  return absl::OkStatus();
}

}  // namespace uniquanf::jinja
