// A template as a tree. The grammar is Jinja2's; tags that chat templates have no use for (include,
// extends, block, import) are refused by name.
//
// Thread safety: free functions; a tree is immutable. Errors: kInvalidArgument with reason
// INVALID_CHAT_TEMPLATE, naming the line.
#ifndef UNIQUANF_WORKER_TEXT_JINJA_PARSER_H_
#define UNIQUANF_WORKER_TEXT_JINJA_PARSER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/text/jinja_value.h"

namespace uniquanf::jinja {

enum class NodeKind {
  // Expressions.
  kLiteral,     // `value`
  kName,        // `name`
  kAttribute,   // operand 0 . `name`
  kItem,        // operand 0 [operand 1]
  kSlice,       // operand 0 [operand 1 : operand 2 : operand 3], null where left out
  kCall,        // operand 0 (arguments)
  kFilter,      // operand 0 | `name`(arguments); no operand in a filter block
  kTest,        // operand 0 is `name` arguments
  kNegative,    // - operand 0
  kPositive,    // + operand 0
  kArithmetic,  // operand 0 `name` operand 1: + - * / // % ** ~
  kCompare,     // operand 0 `operators[0]` operand 1 `operators[1]` operand 2 …
  kAnd,
  kOr,
  kNot,
  kConditional,  // operand 1 if operand 0 else operand 2, which may be null
  kList,
  kTuple,
  kDict,  // operands: key, value, key, value, …
  // Statements; bodies are `blocks`.
  kText,         // `name` is printed
  kPrint,        // operand 0
  kIf,           // blocks[i] if operand i, else blocks.back(), which is always there
  kFor,          // target operand 0 in operand 1 if operand 2 (may be null); blocks: body, else
  kSet,          // target operand 0 = operand 1
  kSetBlock,     // target operand 0 = what blocks[0] prints, through filter operand 1 (or null)
  kMacro,        // `name`, `arguments` are parameters with defaults (or null)
  kCallBlock,    // call operand 0 with blocks[0] as caller, whose parameters are `arguments`
  kFilterBlock,  // filter operand 0 of blocks[0]
  kWith,         // arguments are assigned for blocks[0]
  kBlock,        // blocks[0]
  kBreak,
  kContinue,
};

struct Node;
using NodePtr = std::unique_ptr<const Node>;
using Body = std::vector<NodePtr>;

struct Argument {
  std::string name;  // "": by position
  NodePtr value;
  bool spread = false;  // *value
};

struct Node {
  NodeKind kind;
  int line;
  int depth = 1;  // of the tree below
  std::string name;
  Value value;
  bool negated = false;    // kTest: is not
  bool recursive = false;  // kFor
  std::vector<NodePtr> operands;
  std::vector<std::string> operators;
  std::vector<Argument> arguments;
  std::vector<Body> blocks;
};

// Nesting of expressions and statements in each other.
inline constexpr int kMaxTreeDepth = 150;

absl::StatusOr<Body> Parse(absl::string_view source);

}  // namespace uniquanf::jinja

#endif  // UNIQUANF_WORKER_TEXT_JINJA_PARSER_H_
