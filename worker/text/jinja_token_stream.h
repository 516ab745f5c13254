// The tokens of a template, read one after the other. Errors as in jinja_parser.h.
#ifndef UNIQUANF_WORKER_TEXT_JINJA_TOKEN_STREAM_H_
#define UNIQUANF_WORKER_TEXT_JINJA_TOKEN_STREAM_H_

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/text/jinja_lexer.h"

namespace uniquanf::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& Peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  Token Take();
  bool IsOperator(absl::string_view text) const;
  bool IsName(absl::string_view text) const;
  bool TakeOperator(absl::string_view text);
  bool TakeName(absl::string_view text);
  absl::Status ExpectOperator(absl::string_view text);
  absl::Status ExpectName(absl::string_view text);
  absl::StatusOr<std::string> ExpectAnyName();
  absl::Status Unexpected(absl::string_view expected) const;

 private:
  std::vector<Token> tokens_;  // the last is kEnd
  size_t at_ = 0;
};

}  // namespace uniquanf::jinja

#endif  // UNIQUANF_WORKER_TEXT_JINJA_TOKEN_STREAM_H_
