#include "worker/text/jinja_expression_parser.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf::jinja {

using Kind = Token::Kind;

ExpressionParser::MutableNode ExpressionParser::New(NodeKind kind) const {
  auto node = std::make_unique<Node>();
  node->kind = kind;
  node->line = Peek().line;
  return node;
}

absl::StatusOr<NodePtr> ExpressionParser::Finish(MutableNode node) const {
  const auto below = [&node](const NodePtr& child) {
    if (child != nullptr) node->depth = std::max(node->depth, child->depth + 1);
  };
  for (const NodePtr& operand : node->operands) below(operand);
  for (const Argument& argument : node->arguments) below(argument.value);
  for (const Body& body : node->blocks) {
    for (const NodePtr& statement : body) below(statement);
  }
  if (node->depth > kMaxTreeDepth) {
    return InvalidTemplate(node->line, absl::StrCat("it is nested deeper than ", kMaxTreeDepth));
  }
  return NodePtr(std::move(node));
}

absl::Status ExpressionParser::Enter() {
  if (++nesting_ <= kMaxTreeDepth) return absl::OkStatus();
  return InvalidTemplate(Peek().line, absl::StrCat("it is nested deeper than ", kMaxTreeDepth));
}

absl::StatusOr<NodePtr> ExpressionParser::Binary(NodeKind kind, std::string name, NodePtr left,
                                                 NodePtr right) const {
  MutableNode node = New(kind);
  node->name = std::move(name);
  node->operands.push_back(std::move(left));
  node->operands.push_back(std::move(right));
  return Finish(std::move(node));
}

absl::StatusOr<NodePtr> ExpressionParser::ParseExpression() {
  UQ_RETURN_IF_ERROR(Enter());
  UQ_ASSIGN_OR_RETURN(NodePtr value, ParseOr());
  while (TakeName("if")) {
    MutableNode node = New(NodeKind::kConditional);
    UQ_ASSIGN_OR_RETURN(NodePtr condition, ParseOr());
    NodePtr otherwise;
    if (TakeName("else")) {
      UQ_ASSIGN_OR_RETURN(otherwise, ParseExpression());
    }
    node->operands.push_back(std::move(condition));
    node->operands.push_back(std::move(value));
    node->operands.push_back(std::move(otherwise));
    UQ_ASSIGN_OR_RETURN(value, Finish(std::move(node)));
  }
  --nesting_;
  return value;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseOr() {
  UQ_ASSIGN_OR_RETURN(NodePtr left, ParseAnd());
  while (TakeName("or")) {
    UQ_ASSIGN_OR_RETURN(NodePtr right, ParseAnd());
    UQ_ASSIGN_OR_RETURN(left, Binary(NodeKind::kOr, "or", std::move(left), std::move(right)));
  }
  return left;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseAnd() {
  UQ_ASSIGN_OR_RETURN(NodePtr left, ParseNot());
  while (TakeName("and")) {
    UQ_ASSIGN_OR_RETURN(NodePtr right, ParseNot());
    UQ_ASSIGN_OR_RETURN(left, Binary(NodeKind::kAnd, "and", std::move(left), std::move(right)));
  }
  return left;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseNot() {
  if (!TakeName("not")) return ParseCompare();
  UQ_RETURN_IF_ERROR(Enter());
  MutableNode node = New(NodeKind::kNot);
  UQ_ASSIGN_OR_RETURN(NodePtr operand, ParseNot());
  --nesting_;
  node->operands.push_back(std::move(operand));
  return Finish(std::move(node));
}

absl::StatusOr<NodePtr> ExpressionParser::ParseCompare() {
  UQ_ASSIGN_OR_RETURN(NodePtr left, ParseSum());
  MutableNode node;
  while (true) {
    std::string name;
    for (const absl::string_view each : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (IsOperator(each)) name = std::string(each);
    }
    if (IsName("in")) name = "in";
    if (IsName("not") && Peek(1).kind == Kind::kName && Peek(1).text == "in") {
      Take();
      name = "not in";
    }
    if (name.empty()) break;
    Take();
    if (node == nullptr) {
      node = New(NodeKind::kCompare);
      node->operands.push_back(std::move(left));
    }
    UQ_ASSIGN_OR_RETURN(NodePtr right, ParseSum());
    node->operators.push_back(std::move(name));
    node->operands.push_back(std::move(right));
  }
  return node == nullptr ? absl::StatusOr<NodePtr>(std::move(left)) : Finish(std::move(node));
}

absl::StatusOr<NodePtr> ExpressionParser::ParseSum() {
  UQ_ASSIGN_OR_RETURN(NodePtr left, ParseConcatenation());
  while (IsOperator("+") || IsOperator("-")) {
    std::string name = Take().text;
    UQ_ASSIGN_OR_RETURN(NodePtr right, ParseConcatenation());
    UQ_ASSIGN_OR_RETURN(
        left, Binary(NodeKind::kArithmetic, std::move(name), std::move(left), std::move(right)));
  }
  return left;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseConcatenation() {
  UQ_ASSIGN_OR_RETURN(NodePtr left, ParseProduct());
  while (TakeOperator("~")) {
    UQ_ASSIGN_OR_RETURN(NodePtr right, ParseProduct());
    UQ_ASSIGN_OR_RETURN(left,
                        Binary(NodeKind::kArithmetic, "~", std::move(left), std::move(right)));
  }
  return left;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseProduct() {
  UQ_ASSIGN_OR_RETURN(NodePtr left, ParsePower());
  while (IsOperator("*") || IsOperator("/") || IsOperator("//") || IsOperator("%")) {
    std::string name = Take().text;
    UQ_ASSIGN_OR_RETURN(NodePtr right, ParsePower());
    UQ_ASSIGN_OR_RETURN(
        left, Binary(NodeKind::kArithmetic, std::move(name), std::move(left), std::move(right)));
  }
  return left;
}

absl::StatusOr<NodePtr> ExpressionParser::ParsePower() {
  UQ_ASSIGN_OR_RETURN(NodePtr left, ParseUnary(true));
  while (TakeOperator("**")) {
    UQ_ASSIGN_OR_RETURN(NodePtr right, ParseUnary(true));
    UQ_ASSIGN_OR_RETURN(left,
                        Binary(NodeKind::kArithmetic, "**", std::move(left), std::move(right)));
  }
  return left;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseUnary(bool with_filters) {
  NodePtr result;
  if (IsOperator("-") || IsOperator("+")) {
    UQ_RETURN_IF_ERROR(Enter());
    MutableNode node = New(Take().text == "-" ? NodeKind::kNegative : NodeKind::kPositive);
    UQ_ASSIGN_OR_RETURN(NodePtr operand, ParseUnary(false));
    --nesting_;
    node->operands.push_back(std::move(operand));
    UQ_ASSIGN_OR_RETURN(result, Finish(std::move(node)));
  } else {
    UQ_ASSIGN_OR_RETURN(result, ParsePrimary());
  }
  UQ_ASSIGN_OR_RETURN(result, ParsePostfix(std::move(result)));
  return with_filters ? ParseFiltersAndTests(std::move(result))
                      : absl::StatusOr<NodePtr>(std::move(result));
}

absl::StatusOr<NodePtr> ExpressionParser::ParsePrimary() {
  const Token& token = Peek();
  MutableNode node = New(NodeKind::kLiteral);
  if (token.kind == Kind::kName) {
    const std::string& name = token.text;
    if (name == "true" || name == "True" || name == "false" || name == "False") {
      node->value = Value::Bool(name == "true" || name == "True");
    } else if (name == "none" || name == "None") {
      node->value = Value::None();
    } else {
      node->kind = NodeKind::kName;
      node->name = name;
    }
    Take();
    return Finish(std::move(node));
  }
  if (token.kind == Kind::kString) {
    std::string text = Take().text;
    while (Peek().kind == Kind::kString) text += Take().text;
    node->value = Value::String(std::move(text));
    return Finish(std::move(node));
  }
  if (token.kind == Kind::kInt) {
    int64_t number;
    if (!absl::SimpleAtoi(token.text, &number)) return Unexpected("a number below 2^63");
    Take();
    node->value = Value::Int(number);
    return Finish(std::move(node));
  }
  if (token.kind == Kind::kFloat) {
    node->value = Value::Float(std::strtod(Take().text.c_str(), nullptr));
    return Finish(std::move(node));
  }
  if (TakeOperator("(")) {
    UQ_ASSIGN_OR_RETURN(NodePtr inner, ParseTuple(/*may_be_empty=*/true));
    UQ_RETURN_IF_ERROR(ExpectOperator(")"));
    return inner;
  }
  if (IsOperator("[")) return ParseList();
  if (IsOperator("{")) return ParseDict();
  return Unexpected("an expression");
}

absl::StatusOr<NodePtr> ExpressionParser::ParseTuple(bool may_be_empty) {
  MutableNode node = New(NodeKind::kTuple);
  const auto at_end = [this] {
    return IsOperator(")") || IsOperator("=") || Peek().kind == Kind::kBlockEnd ||
           Peek().kind == Kind::kPrintEnd;
  };
  bool tuple = may_be_empty && at_end();
  while (!at_end()) {
    UQ_ASSIGN_OR_RETURN(NodePtr value, ParseExpression());
    node->operands.push_back(std::move(value));
    if (!TakeOperator(",")) break;
    tuple = true;
  }
  if (tuple) return Finish(std::move(node));
  if (node->operands.empty()) return Unexpected("an expression");
  NodePtr only = std::move(node->operands[0]);
  return only;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseList() {
  MutableNode node = New(NodeKind::kList);
  UQ_RETURN_IF_ERROR(ExpectOperator("["));
  while (!TakeOperator("]")) {
    if (!node->operands.empty()) UQ_RETURN_IF_ERROR(ExpectOperator(","));
    if (TakeOperator("]")) break;
    UQ_ASSIGN_OR_RETURN(NodePtr value, ParseExpression());
    node->operands.push_back(std::move(value));
  }
  return Finish(std::move(node));
}

absl::StatusOr<NodePtr> ExpressionParser::ParseDict() {
  MutableNode node = New(NodeKind::kDict);
  UQ_RETURN_IF_ERROR(ExpectOperator("{"));
  while (!TakeOperator("}")) {
    if (!node->operands.empty()) UQ_RETURN_IF_ERROR(ExpectOperator(","));
    if (TakeOperator("}")) break;
    UQ_ASSIGN_OR_RETURN(NodePtr key, ParseExpression());
    UQ_RETURN_IF_ERROR(ExpectOperator(":"));
    UQ_ASSIGN_OR_RETURN(NodePtr value, ParseExpression());
    node->operands.push_back(std::move(key));
    node->operands.push_back(std::move(value));
  }
  return Finish(std::move(node));
}

absl::StatusOr<NodePtr> ExpressionParser::ParsePostfix(NodePtr operand) {
  while (true) {
    if (TakeOperator(".")) {
      MutableNode node = New(NodeKind::kAttribute);
      node->operands.push_back(std::move(operand));
      if (Peek().kind == Kind::kInt) {
        node->kind = NodeKind::kItem;
        UQ_ASSIGN_OR_RETURN(NodePtr index, ParsePrimary());
        node->operands.push_back(std::move(index));
      } else {
        UQ_ASSIGN_OR_RETURN(node->name, ExpectAnyName());
      }
      UQ_ASSIGN_OR_RETURN(operand, Finish(std::move(node)));
    } else if (IsOperator("[")) {
      UQ_ASSIGN_OR_RETURN(operand, ParseSubscript(std::move(operand)));
    } else if (IsOperator("(")) {
      MutableNode node = New(NodeKind::kCall);
      node->operands.push_back(std::move(operand));
      UQ_RETURN_IF_ERROR(ParseArguments(/*parameters=*/false, &node->arguments));
      UQ_ASSIGN_OR_RETURN(operand, Finish(std::move(node)));
    } else {
      return operand;
    }
  }
}

absl::StatusOr<NodePtr> ExpressionParser::ParseSubscript(NodePtr operand) {
  MutableNode node = New(NodeKind::kItem);
  node->operands.push_back(std::move(operand));
  UQ_RETURN_IF_ERROR(ExpectOperator("["));
  if (!IsOperator(":")) {
    UQ_ASSIGN_OR_RETURN(NodePtr index, ParseExpression());
    node->operands.push_back(std::move(index));
    if (TakeOperator("]")) return Finish(std::move(node));
  } else {
    node->operands.push_back(nullptr);
  }
  node->kind = NodeKind::kSlice;
  while (node->operands.size() < 4 && TakeOperator(":")) {
    NodePtr bound;
    if (!IsOperator(":") && !IsOperator("]")) {
      UQ_ASSIGN_OR_RETURN(bound, ParseExpression());
    }
    node->operands.push_back(std::move(bound));
  }
  UQ_RETURN_IF_ERROR(ExpectOperator("]"));
  node->operands.resize(4);
  return Finish(std::move(node));
}

absl::Status ExpressionParser::ParseArguments(bool parameters, std::vector<Argument>* arguments) {
  UQ_RETURN_IF_ERROR(ExpectOperator("("));
  for (bool first = true; !TakeOperator(")"); first = false) {
    if (!first) UQ_RETURN_IF_ERROR(ExpectOperator(","));
    if (TakeOperator(")")) return absl::OkStatus();
    Argument argument;
    if (parameters) {
      UQ_ASSIGN_OR_RETURN(argument.name, ExpectAnyName());
      if (TakeOperator("=")) {
        UQ_ASSIGN_OR_RETURN(argument.value, ParseExpression());
      }
    } else {
      argument.spread = TakeOperator("*");
      if (!argument.spread && Peek().kind == Kind::kName && Peek(1).kind == Kind::kOperator &&
          Peek(1).text == "=") {
        argument.name = Take().text;
        Take();
      }
      UQ_ASSIGN_OR_RETURN(argument.value, ParseExpression());
    }
    arguments->push_back(std::move(argument));
  }
  return absl::OkStatus();
}

absl::StatusOr<NodePtr> ExpressionParser::ParseFiltersAndTests(NodePtr operand) {
  while (true) {
    if (IsOperator("|")) {
      UQ_ASSIGN_OR_RETURN(operand, ParseFilters(std::move(operand), false));
    } else if (TakeName("is")) {
      UQ_ASSIGN_OR_RETURN(operand, ParseTest(std::move(operand)));
    } else if (IsOperator("(")) {
      UQ_ASSIGN_OR_RETURN(operand, ParsePostfix(std::move(operand)));
    } else {
      return operand;
    }
  }
}

absl::StatusOr<NodePtr> ExpressionParser::ParseFilters(NodePtr operand, bool first_pipe_read) {
  while (first_pipe_read || TakeOperator("|")) {
    first_pipe_read = false;
    MutableNode node = New(NodeKind::kFilter);
    node->operands.push_back(std::move(operand));
    UQ_ASSIGN_OR_RETURN(node->name, ExpectAnyName());
    if (IsOperator("(")) UQ_RETURN_IF_ERROR(ParseArguments(false, &node->arguments));
    UQ_ASSIGN_OR_RETURN(operand, Finish(std::move(node)));
  }
  return operand;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseTest(NodePtr operand) {
  MutableNode node = New(NodeKind::kTest);
  node->negated = TakeName("not");
  node->operands.push_back(std::move(operand));
  UQ_ASSIGN_OR_RETURN(node->name, ExpectAnyName());
  const Token& next = Peek();
  const bool name = next.kind == Kind::kName && next.text != "else" && next.text != "or" &&
                    next.text != "and" && next.text != "is" && next.text != "if" &&
                    next.text != "in" && next.text != "not" && next.text != "recursive";
  if (IsOperator("(")) {
    UQ_RETURN_IF_ERROR(ParseArguments(false, &node->arguments));
  } else if (name || next.kind == Kind::kString || next.kind == Kind::kInt ||
             next.kind == Kind::kFloat || IsOperator("[") || IsOperator("{")) {
    UQ_ASSIGN_OR_RETURN(NodePtr value, ParsePrimary());
    UQ_ASSIGN_OR_RETURN(value, ParsePostfix(std::move(value)));
    node->arguments.push_back({"", std::move(value), false});
  }
  return Finish(std::move(node));
}

}  // namespace uniquanf::jinja
