// A template's text as tokens, with the whitespace rules that transformers sets: the line break
// behind a block goes (trim_blocks), and so does what indents a block (lstrip_blocks).
//
// Thread safety: free functions. Errors: kInvalidArgument with reason INVALID_CHAT_TEMPLATE.
#ifndef UNIQUANF_WORKER_TEXT_JINJA_LEXER_H_
#define UNIQUANF_WORKER_TEXT_JINJA_LEXER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf::jinja {

struct Token {
  enum class Kind {
    kText,        // printed as it is
    kBlockBegin,  // {%
    kBlockEnd,
    kPrintBegin,  // {{
    kPrintEnd,
    kName,
    kString,  // `text` is unescaped
    kInt,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string text;
  int line = 0;  // from 1
};

inline constexpr size_t kMaxTemplateBytes = 1 << 20;

// A mistake in the text of a template.
absl::Status InvalidTemplate(int line, absl::string_view message);

// `source` is any bytes. The last token is kEnd.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

}  // namespace uniquanf::jinja

#endif  // UNIQUANF_WORKER_TEXT_JINJA_LEXER_H_
