// Runs a template's tree.
//
// Thread safety: an Interpreter renders once, on one thread; trees are shared. Errors:
// kInvalidArgument with reasons CHAT_TEMPLATE_REFUSED (raise_exception of the template's own),
// CHAT_TEMPLATE_FAILED (a mistake, naming the line), CHAT_TEMPLATE_TOO_COMPLEX.
#ifndef UNIQUANF_WORKER_TEXT_JINJA_INTERPRETER_H_
#define UNIQUANF_WORKER_TEXT_JINJA_INTERPRETER_H_

#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "worker/text/jinja_functions.h"
#include "worker/text/jinja_parser.h"
#include "worker/text/jinja_value.h"

namespace uniquanf::jinja {

struct Scope {
  std::shared_ptr<Scope> parent;  // null: outermost
  absl::flat_hash_map<std::string, Value> variables;
};

// What can be called. A macro's scope is held weakly: it is gone when the macro is called from
// outside of it, which is an error.
struct Function {
  enum class Kind { kMacro, kCaller, kGlobal, kMethod, kJoiner };
  Kind kind = Kind::kGlobal;
  std::string name;
  Value self;                  // of a method
  const Node* node = nullptr;  // of a macro or a call block
  std::weak_ptr<Scope> scope;
  mutable bool called = false;  // a joiner's separator is printed from the second call on
};

class Interpreter {
 public:
  // `now`: what strftime_now tells, in UTC.
  explicit Interpreter(absl::Time now) : now_(now) {}

  // The text of `body` with `variables` in its outermost scope.
  absl::StatusOr<std::string> Render(const Body& body,
                                     absl::flat_hash_map<std::string, Value> variables);

 private:
  using ScopePtr = std::shared_ptr<Scope>;
  using Result = absl::StatusOr<Value>;
  enum class Flow { kNormal, kBreak, kContinue };

  // Statements (jinja_interpreter.cc).
  absl::Status RunBody(const Body& body, const ScopePtr& scope, std::string* out);
  absl::Status Run(const Node& node, const ScopePtr& scope, std::string* out);
  absl::Status RunPrint(const Node& node, const ScopePtr& scope, std::string* out);
  absl::Status RunFor(const Node& node, const ScopePtr& scope, std::string* out);
  absl::Status RunCallBlock(const Node& node, const ScopePtr& scope, std::string* out);
  absl::Status Assign(const Node& target, Value value, const ScopePtr& scope);
  absl::Status Append(absl::string_view text, std::string* out);
  Result Captured(const Body& body, const ScopePtr& scope);

  // Expressions (jinja_expressions.cc).
  Result Evaluate(const Node& node, const ScopePtr& scope);
  Result EvaluateInner(const Node& node, const ScopePtr& scope);
  Result Compare(const Node& node, const ScopePtr& scope);
  Result EvaluateItem(const Node& node, const ScopePtr& scope);
  Result EvaluateSlice(const Node& node, const ScopePtr& scope);
  Result EvaluateMembers(const Node& node, const ScopePtr& scope);
  Result Filtered(const Node& node, const Value* operand, const ScopePtr& scope);
  Result LookUp(absl::string_view name, const ScopePtr& scope) const;
  Result Attribute(const Value& value, absl::string_view name) const;
  absl::StatusOr<CallArguments> EvaluateArguments(const Node& node, const ScopePtr& scope);

  // Calls (jinja_calls.cc).
  Result Call(const Function& function, CallArguments arguments, const Value* caller);
  Result CallMacro(const Function& function, CallArguments arguments, const Value* caller);
  Result CallGlobal(absl::string_view name, const CallArguments& arguments);
  Result Range(const CallArguments& arguments);
  Result StrftimeNow(const CallArguments& arguments);

  const absl::Time now_;
  Budget budget_;
  Flow flow_ = Flow::kNormal;
  int64_t loop_depth_ = 0;
};

// + - * / // % ** ~, as Python has them.
absl::StatusOr<Value> Arithmetic(absl::string_view name, const Value& left, const Value& right,
                                 Budget* budget);
// Whether the interpreter has a function of this name.
bool IsGlobalFunction(absl::string_view name);

}  // namespace uniquanf::jinja

#endif  // UNIQUANF_WORKER_TEXT_JINJA_INTERPRETER_H_
