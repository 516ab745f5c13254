// The expressions of a template, over its tokens, by Jinja2's precedences. Errors as in
// jinja_parser.h.
#ifndef UNIQUANF_WORKER_TEXT_JINJA_EXPRESSION_PARSER_H_
#define UNIQUANF_WORKER_TEXT_JINJA_EXPRESSION_PARSER_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/text/jinja_parser.h"
#include "worker/text/jinja_token_stream.h"

namespace uniquanf::jinja {

class ExpressionParser : protected TokenStream {
 protected:
  using MutableNode = std::unique_ptr<Node>;

  explicit ExpressionParser(std::vector<Token> tokens) : TokenStream(std::move(tokens)) {}

  // Anything: conditionals and all below.
  absl::StatusOr<NodePtr> ParseExpression();
  // Anything but a conditional: what a loop goes over, so that an "if" behind it is the loop's.
  absl::StatusOr<NodePtr> ParseOr();
  // Expressions separated by commas, as a tuple where there is a comma.
  absl::StatusOr<NodePtr> ParseTuple(bool may_be_empty);
  // What follows "|" without it: a name, perhaps with arguments; and further ones behind "|".
  absl::StatusOr<NodePtr> ParseFilters(NodePtr operand, bool first_pipe_read);
  absl::StatusOr<NodePtr> ParsePostfix(NodePtr operand);
  absl::StatusOr<NodePtr> ParsePrimary();
  // (a, b=c, *d); parameters: names, perhaps with defaults.
  absl::Status ParseArguments(bool parameters, std::vector<Argument>* arguments);

  MutableNode New(NodeKind kind) const;
  // A finished node; error when it is nested too deep.
  absl::StatusOr<NodePtr> Finish(MutableNode node) const;
  // Counts what is open around; error when too much is. Leave with --nesting_.
  absl::Status Enter();

  int nesting_ = 0;

 private:
  absl::StatusOr<NodePtr> ParseAnd();
  absl::StatusOr<NodePtr> ParseNot();
  absl::StatusOr<NodePtr> ParseCompare();
  absl::StatusOr<NodePtr> ParseSum();
  absl::StatusOr<NodePtr> ParseConcatenation();
  absl::StatusOr<NodePtr> ParseProduct();
  absl::StatusOr<NodePtr> ParsePower();
  absl::StatusOr<NodePtr> ParseUnary(bool with_filters);
  absl::StatusOr<NodePtr> ParseFiltersAndTests(NodePtr operand);
  absl::StatusOr<NodePtr> ParseTest(NodePtr operand);
  absl::StatusOr<NodePtr> ParseSubscript(NodePtr operand);
  absl::StatusOr<NodePtr> ParseList();
  absl::StatusOr<NodePtr> ParseDict();
  absl::StatusOr<NodePtr> Binary(NodeKind kind, std::string name, NodePtr left,
                                 NodePtr right) const;
};

}  // namespace uniquanf::jinja

#endif  // UNIQUANF_WORKER_TEXT_JINJA_EXPRESSION_PARSER_H_
