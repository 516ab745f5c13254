#include "worker/text/jinja_parser.h"

#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "worker/text/jinja_expression_parser.h"

namespace uniquanf::jinja {
namespace {

using Kind = Token::Kind;
using Ends = std::initializer_list<absl::string_view>;

class Parser : private ExpressionParser {
 public:
  explicit Parser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {}

  absl::StatusOr<Body> Run() {
    UQ_ASSIGN_OR_RETURN(Body body, ParseBody({}));
    if (Peek().kind != Kind::kEnd) return Unexpected("text");
    return body;
  }

 private:
  // Statements up to a block that begins with one of `ends`, whose {% is taken; none: to the end.
  absl::StatusOr<Body> ParseBody(Ends ends) {
    UQ_RETURN_IF_ERROR(Enter());
    Body body;
    while (Peek().kind != Kind::kEnd) {
      NodePtr node;
      if (Peek().kind == Kind::kText) {
        MutableNode text = New(NodeKind::kText);
        text->name = Take().text;
        UQ_ASSIGN_OR_RETURN(node, Finish(std::move(text)));
      } else if (Peek().kind == Kind::kPrintBegin) {
        MutableNode print = New(NodeKind::kPrint);
        Take();
        UQ_ASSIGN_OR_RETURN(NodePtr value, ParseTuple(/*may_be_empty=*/false));
        if (Peek().kind != Kind::kPrintEnd) return Unexpected("}}");
        Take();
        print->operands.push_back(std::move(value));
        UQ_ASSIGN_OR_RETURN(node, Finish(std::move(print)));
      } else {
        Take();  // {%
        for (const absl::string_view end : ends) {
          if (!IsName(end)) continue;
          --nesting_;
          return body;
        }
        UQ_ASSIGN_OR_RETURN(node, ParseStatement());
      }
      body.push_back(std::move(node));
    }
    if (ends.size() > 0) return Unexpected(absl::StrCat("{% ", absl::StrJoin(ends, " or "), " %}"));
    --nesting_;
    return body;
  }

  absl::Status ExpectBlockEnd() {
    if (Peek().kind != Kind::kBlockEnd) return Unexpected("%}");
    Take();
    return absl::OkStatus();
  }
  // The %} of a tag, its body, and the tag that ends it.
  absl::Status ParseOnlyBody(absl::string_view end, Node* node) {
    UQ_RETURN_IF_ERROR(ExpectBlockEnd());
    UQ_ASSIGN_OR_RETURN(Body body, ParseBody({end}));
    node->blocks.push_back(std::move(body));
    return EndTag(end);
  }
  absl::Status EndTag(absl::string_view end) {
    UQ_RETURN_IF_ERROR(ExpectName(end));
    if (end == "endmacro" && Peek().kind == Kind::kName) Take();  // may say which
    return ExpectBlockEnd();
  }

  absl::StatusOr<NodePtr> ParseStatement() {
    const int line = Peek().line;
    UQ_ASSIGN_OR_RETURN(const std::string tag, ExpectAnyName());
    if (tag == "if") return ParseIf();
    if (tag == "for") return ParseFor();
    if (tag == "set") return ParseSet();
    if (tag == "macro") return ParseMacro();
    if (tag == "call") return ParseCall();
    if (tag == "filter") return ParseFilterBlock();
    if (tag == "with") return ParseWith();
    if (tag == "break" || tag == "continue") {
      MutableNode node = New(tag == "break" ? NodeKind::kBreak : NodeKind::kContinue);
      if (loops_ == 0) return InvalidTemplate(line, absl::StrCat("{% ", tag, " %} in no loop"));
      UQ_RETURN_IF_ERROR(ExpectBlockEnd());
      return Finish(std::move(node));
    }
    if (tag == "generation") {  // marks what an assistant says; prints its body
      MutableNode node = New(NodeKind::kBlock);
      UQ_RETURN_IF_ERROR(ParseOnlyBody("endgeneration", node.get()));
      return Finish(std::move(node));
    }
    return InvalidTemplate(line,
                           absl::StrCat("the tag {% ", tag.substr(0, 60), " %} ",
                                        tag.rfind("end", 0) == 0 || tag == "else" || tag == "elif"
                                            ? "ends nothing"
                                            : "is not supported"));
  }

  // What is assigned to: a name, names in a tuple, or a namespace's attribute.
  absl::StatusOr<NodePtr> ParseTarget(bool attributes) {
    MutableNode tuple = New(NodeKind::kTuple);
    bool is_tuple = false;
    const bool parenthesis = TakeOperator("(");
    while (Peek().kind == Kind::kName && !IsName("in")) {
      MutableNode node = New(NodeKind::kName);
      node->name = Take().text;
      UQ_ASSIGN_OR_RETURN(NodePtr target, Finish(std::move(node)));
      if (attributes && TakeOperator(".")) {
        MutableNode attribute = New(NodeKind::kAttribute);
        UQ_ASSIGN_OR_RETURN(attribute->name, ExpectAnyName());
        attribute->operands.push_back(std::move(target));
        UQ_ASSIGN_OR_RETURN(target, Finish(std::move(attribute)));
      }
      tuple->operands.push_back(std::move(target));
      if (!TakeOperator(",")) break;
      is_tuple = true;
    }
    if (parenthesis) UQ_RETURN_IF_ERROR(ExpectOperator(")"));
    if (tuple->operands.empty()) return Unexpected("a name to assign to");
    if (is_tuple) return Finish(std::move(tuple));
    NodePtr only = std::move(tuple->operands[0]);
    return only;
  }

  absl::StatusOr<NodePtr> ParseIf() {
    MutableNode node = New(NodeKind::kIf);
    while (true) {
      UQ_ASSIGN_OR_RETURN(NodePtr condition, ParseTuple(false));
      node->operands.push_back(std::move(condition));
      UQ_RETURN_IF_ERROR(ExpectBlockEnd());
      UQ_ASSIGN_OR_RETURN(Body body, ParseBody({"elif", "else", "endif"}));
      node->blocks.push_back(std::move(body));
      if (!TakeName("elif")) break;
    }
    if (TakeName("else")) {
      UQ_RETURN_IF_ERROR(ParseOnlyBody("endif", node.get()));
    } else {
      node->blocks.emplace_back();
      UQ_RETURN_IF_ERROR(EndTag("endif"));
    }
    return Finish(std::move(node));
  }

  absl::StatusOr<NodePtr> ParseFor() {
    MutableNode node = New(NodeKind::kFor);
    UQ_ASSIGN_OR_RETURN(NodePtr target, ParseTarget(/*attributes=*/false));
    UQ_RETURN_IF_ERROR(ExpectName("in"));
    UQ_ASSIGN_OR_RETURN(NodePtr list, ParseOr());
    NodePtr condition;
    if (TakeName("if")) {
      UQ_ASSIGN_OR_RETURN(condition, ParseExpression());
    }
    if (IsName("recursive"))
      return InvalidTemplate(node->line, "recursive loops are not supported");
    node->operands.push_back(std::move(target));
    node->operands.push_back(std::move(list));
    node->operands.push_back(std::move(condition));
    UQ_RETURN_IF_ERROR(ExpectBlockEnd());
    ++loops_;
    UQ_ASSIGN_OR_RETURN(Body body, ParseBody({"endfor", "else"}));
    --loops_;
    node->blocks.push_back(std::move(body));
    if (TakeName("else")) {
      UQ_RETURN_IF_ERROR(ParseOnlyBody("endfor", node.get()));
    } else {
      node->blocks.emplace_back();
      UQ_RETURN_IF_ERROR(EndTag("endfor"));
    }
    return Finish(std::move(node));
  }

  absl::StatusOr<NodePtr> ParseSet() {
    MutableNode node = New(NodeKind::kSet);
    UQ_ASSIGN_OR_RETURN(NodePtr target, ParseTarget(/*attributes=*/true));
    node->operands.push_back(std::move(target));
    if (TakeOperator("=")) {
      UQ_ASSIGN_OR_RETURN(NodePtr value, ParseTuple(false));
      node->operands.push_back(std::move(value));
      UQ_RETURN_IF_ERROR(ExpectBlockEnd());
      return Finish(std::move(node));
    }
    node->kind = NodeKind::kSetBlock;
    NodePtr filter;
    if (IsOperator("|")) {
      UQ_ASSIGN_OR_RETURN(filter, ParseFilters(nullptr, /*first_pipe_read=*/false));
    }
    node->operands.push_back(std::move(filter));
    UQ_RETURN_IF_ERROR(ParseOnlyBody("endset", node.get()));
    return Finish(std::move(node));
  }

  // What is within a macro or a call block is in none of the loops around it.
  absl::Status ParseClosure(absl::string_view end, Node* node) {
    const int loops = std::exchange(loops_, 0);
    UQ_RETURN_IF_ERROR(ParseOnlyBody(end, node));
    loops_ = loops;
    return absl::OkStatus();
  }

  absl::StatusOr<NodePtr> ParseMacro() {
    MutableNode node = New(NodeKind::kMacro);
    UQ_ASSIGN_OR_RETURN(node->name, ExpectAnyName());
    UQ_RETURN_IF_ERROR(ParseArguments(/*parameters=*/true, &node->arguments));
    UQ_RETURN_IF_ERROR(ParseClosure("endmacro", node.get()));
    return Finish(std::move(node));
  }

  absl::StatusOr<NodePtr> ParseCall() {
    MutableNode node = New(NodeKind::kCallBlock);
    if (IsOperator("(")) UQ_RETURN_IF_ERROR(ParseArguments(true, &node->arguments));
    UQ_ASSIGN_OR_RETURN(NodePtr call, ParseExpression());
    if (call->kind != NodeKind::kCall) return InvalidTemplate(node->line, "{% call %} of no call");
    node->operands.push_back(std::move(call));
    UQ_RETURN_IF_ERROR(ParseClosure("endcall", node.get()));
    return Finish(std::move(node));
  }

  absl::StatusOr<NodePtr> ParseFilterBlock() {
    MutableNode node = New(NodeKind::kFilterBlock);
    UQ_ASSIGN_OR_RETURN(NodePtr filter, ParseFilters(nullptr, /*first_pipe_read=*/true));
    node->operands.push_back(std::move(filter));
    UQ_RETURN_IF_ERROR(ParseOnlyBody("endfilter", node.get()));
    return Finish(std::move(node));
  }

  absl::StatusOr<NodePtr> ParseWith() {
    MutableNode node = New(NodeKind::kWith);
    while (Peek().kind == Kind::kName) {
      Argument argument;
      argument.name = Take().text;
      UQ_RETURN_IF_ERROR(ExpectOperator("="));
      UQ_ASSIGN_OR_RETURN(argument.value, ParseExpression());
      node->arguments.push_back(std::move(argument));
      if (!TakeOperator(",")) break;
    }
    UQ_RETURN_IF_ERROR(ParseOnlyBody("endwith", node.get()));
    return Finish(std::move(node));
  }

  int loops_ = 0;  // around
};

}  // namespace

absl::StatusOr<Body> Parse(absl::string_view source) {
  UQ_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace uniquanf::jinja
