#include "worker/text/jinja_token_stream.h"

#include "absl/strings/str_cat.h"

namespace uniquanf::jinja {

using Kind = Token::Kind;

Token TokenStream::Take() {
  Token token = Peek();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool TokenStream::IsOperator(absl::string_view text) const {
  return Peek().kind == Kind::kOperator && Peek().text == text;
}
bool TokenStream::IsName(absl::string_view text) const {
  return Peek().kind == Kind::kName && Peek().text == text;
}
bool TokenStream::TakeOperator(absl::string_view text) {
  if (!IsOperator(text)) return false;
  Take();
  return true;
}
bool TokenStream::TakeName(absl::string_view text) {
  if (!IsName(text)) return false;
  Take();
  return true;
}
absl::Status TokenStream::ExpectOperator(absl::string_view text) {
  return TakeOperator(text) ? absl::OkStatus() : Unexpected(absl::StrCat("\"", text, "\""));
}
absl::Status TokenStream::ExpectName(absl::string_view text) {
  return TakeName(text) ? absl::OkStatus() : Unexpected(absl::StrCat("\"", text, "\""));
}
absl::StatusOr<std::string> TokenStream::ExpectAnyName() {
  if (Peek().kind != Kind::kName) return Unexpected("a name");
  return Take().text;
}

absl::Status TokenStream::Unexpected(absl::string_view expected) const {
  const Token& token = Peek();
  const std::string what = token.kind == Kind::kEnd          ? "the end"
                           : token.kind == Kind::kBlockEnd   ? "%}"
                           : token.kind == Kind::kPrintEnd   ? "}}"
                           : token.kind == Kind::kBlockBegin ? "{%"
                           : token.kind == Kind::kPrintBegin ? "{{"
                                                             : token.text.substr(0, 60);
  return InvalidTemplate(token.line,
                         absl::StrCat("expected ", expected, ", but there is \"", what, "\""));
}

}  // namespace uniquanf::jinja
