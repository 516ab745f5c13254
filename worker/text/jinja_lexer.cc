#include "worker/text/jinja_lexer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/status.h"
#include "worker/text/unicode.h"

namespace uniquanf::jinja {
namespace {

using Kind = Token::Kind;
constexpr absl::string_view kSpaces = " \t\n\r\f\v";

bool IsNameStart(char c) {
  return absl::ascii_isalpha(static_cast<unsigned char>(c)) || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : source_(source) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) {
      const size_t open = FindOpening();
      const absl::string_view text = source_.substr(at_, open - at_);
      if (open == source_.size()) {
        AddText(text);
        at_ = open;
        break;
      }
      const char kind = source_[open + 1];
      const char sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
      AddText(TextBefore(text, kind, sign));
      Advance(open + 2 + (sign == '-' || (sign == '+' && kind != '{') ? 1 : 0));
      if (kind == '#') {
        UQ_RETURN_IF_ERROR(SkipComment());
      } else if (kind == '%' && StartsRaw()) {
        UQ_RETURN_IF_ERROR(AddRaw());
      } else {
        UQ_RETURN_IF_ERROR(AddCode(kind == '%'));
      }
    }
    Add(Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::Status Invalid(absl::string_view message) const { return InvalidTemplate(line_, message); }
  void Add(Kind kind, absl::string_view text) {
    tokens_.push_back({kind, std::string(text), line_});
  }
  void AddText(absl::string_view text) {
    if (!text.empty()) Add(Kind::kText, text);
  }
  // Moves on, counting lines.
  void Advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + to, '\n'));
    at_ = to;
  }
  size_t FindOpening() const {
    size_t at = source_.find('{', at_);
    for (; at != absl::string_view::npos && at + 1 < source_.size();
         at = source_.find('{', at + 1)) {
      const char next = source_[at + 1];
      if (next == '{' || next == '%' || next == '#') return at;
    }
    return source_.size();
  }
  // `text` lies before an opening of this kind.
  absl::string_view TextBefore(absl::string_view text, char kind, char sign) const {
    if (sign == '-') {
      const size_t last = text.find_last_not_of(kSpaces);
      return text.substr(0, last == absl::string_view::npos ? 0 : last + 1);
    }
    if (sign == '+' || kind == '{') return text;
    const size_t newline = text.rfind('\n');
    const size_t start = newline == absl::string_view::npos ? 0 : newline + 1;
    if (start == 0 && !line_starting_) return text;
    return text.find_first_not_of(kSpaces, start) == absl::string_view::npos ? text.substr(0, start)
                                                                             : text;
  }
  // Behind a closing delimiter; `strip`: it was written with a minus.
  void Close(size_t to, bool strip, bool trim) {
    size_t end = to;
    if (strip) {
      end = std::min(source_.find_first_not_of(kSpaces, to), source_.size());
    } else if (trim && to < source_.size() && source_[to] == '\n') {
      end = to + 1;
    }
    Advance(end);
    line_starting_ = source_[end - 1] == '\n';
  }
  absl::Status SkipComment() {
    const size_t end = source_.find("#}", at_);
    if (end == absl::string_view::npos) return Invalid("the comment has no #}");
    const char sign = end > at_ ? source_[end - 1] : ' ';
    Close(end + 2, sign == '-', sign != '+');
    return absl::OkStatus();
  }

  // {% raw %} … {% endraw %}: text.
  bool StartsRaw() const {
    const size_t start = std::min(source_.find_first_not_of(kSpaces, at_), source_.size());
    if (!absl::StartsWith(source_.substr(start), "raw")) return false;
    const size_t next = source_.find_first_not_of(kSpaces, start + 3);
    return next != absl::string_view::npos && (absl::StartsWith(source_.substr(next), "%}") ||
                                               absl::StartsWith(source_.substr(next), "-%}"));
  }
  absl::Status AddRaw() {
    const size_t close = source_.find("%}", at_);
    Close(close + 2, source_[close - 1] == '-', /*trim=*/false);
    size_t open = at_;
    while (true) {
      open = source_.find("{%", open);
      if (open == absl::string_view::npos) return Invalid("{% raw %} has no {% endraw %}");
      const char sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
      size_t name = open + 2 + (sign == '-' || sign == '+' ? 1 : 0);
      name = std::min(source_.find_first_not_of(kSpaces, name), source_.size());
      if (absl::StartsWith(source_.substr(name), "endraw")) {
        const size_t end = source_.find("%}", name);
        if (end == absl::string_view::npos) return Invalid("{% endraw has no %}");
        AddText(TextBefore(source_.substr(at_, open - at_), '%', sign));
        Close(end + 2, source_[end - 1] == '-', source_[end - 1] != '+');
        return absl::OkStatus();
      }
      ++open;
    }
  }

  // The tokens of a block or an expression, up to what closes it.
  absl::Status AddCode(bool block) {
    Add(block ? Kind::kBlockBegin : Kind::kPrintBegin, "");
    const absl::string_view close = block ? "%}" : "}}";
    std::string brackets;
    while (true) {
      Advance(std::min(source_.find_first_not_of(kSpaces, at_), source_.size()));
      if (at_ == source_.size()) return Invalid(absl::StrCat("a tag has no ", close));
      const absl::string_view rest = source_.substr(at_);
      const bool signed_end =
          (rest[0] == '-' || (rest[0] == '+' && block)) && absl::StartsWith(rest.substr(1), close);
      if (brackets.empty() && (signed_end || absl::StartsWith(rest, close))) {
        Add(block ? Kind::kBlockEnd : Kind::kPrintEnd, "");
        Close(at_ + (signed_end ? 3 : 2), signed_end && rest[0] == '-', block && !signed_end);
        return absl::OkStatus();
      }
      if (rest[0] == '"' || rest[0] == '\'') {
        UQ_RETURN_IF_ERROR(AddString(rest));
      } else if (IsDigit(rest[0])) {
        AddNumber(rest);
      } else if (IsNameStart(rest[0])) {
        size_t length = 1;
        while (length < rest.size() && (IsNameStart(rest[length]) || IsDigit(rest[length]))) {
          ++length;
        }
        Add(Kind::kName, rest.substr(0, length));
        at_ += length;
      } else {
        UQ_RETURN_IF_ERROR(AddOperator(rest, &brackets));
      }
    }
  }
  absl::Status AddOperator(absl::string_view rest, std::string* brackets) {
    for (const absl::string_view two : {"//", "**", "==", "!=", ">=", "<="}) {
      if (!absl::StartsWith(rest, two)) continue;
      Add(Kind::kOperator, two);
      at_ += 2;
      return absl::OkStatus();
    }
    if (!absl::StrContains("+-/*%~[](){}><=.:|,", rest[0])) {
      return Invalid(
          absl::StrCat("unexpected character \"", absl::CHexEscape(rest.substr(0, 1)), "\""));
    }
    if (absl::StrContains("([{", rest[0])) brackets->push_back(rest[0]);
    if (absl::StrContains(")]}", rest[0])) {
      const char opening = rest[0] == ')' ? '(' : rest[0] == ']' ? '[' : '{';
      if (brackets->empty() || brackets->back() != opening) {
        return Invalid(absl::StrCat("unexpected \"", rest.substr(0, 1), "\""));
      }
      brackets->pop_back();
    }
    Add(Kind::kOperator, rest.substr(0, 1));
    ++at_;
    return absl::OkStatus();
  }
  void AddNumber(absl::string_view rest) {
    const auto digits = [rest](size_t from) {
      while (from < rest.size() && IsDigit(rest[from])) ++from;
      return from;
    };
    size_t length = digits(0);
    bool real = false;
    // Behind a dot it is an index: a.0.1.
    const bool index =
        !tokens_.empty() && tokens_.back().kind == Kind::kOperator && tokens_.back().text == ".";
    if (!index && length + 1 < rest.size() && rest[length] == '.' && IsDigit(rest[length + 1])) {
      length = digits(length + 1);
      real = true;
    }
    if (!index && length < rest.size() && (rest[length] == 'e' || rest[length] == 'E')) {
      const size_t sign =
          length + 1 < rest.size() && absl::StrContains("+-", rest[length + 1]) ? 1 : 0;
      const size_t end = digits(length + 1 + sign);
      if (end > length + 1 + sign) {
        length = end;
        real = true;
      }
    }
    Add(real ? Kind::kFloat : Kind::kInt, rest.substr(0, length));
    at_ += length;
  }
  absl::Status AddString(absl::string_view rest) {
    std::string text;
    for (size_t i = 1; i < rest.size(); ++i) {
      if (rest[i] == rest[0]) {
        if (FindInvalidUtf8(text) != absl::string_view::npos) {
          return Invalid("a string has an escape that is no character");
        }
        Add(Kind::kString, text);
        Advance(at_ + i + 1);
        return absl::OkStatus();
      }
      if (rest[i] != '\\') {
        text.push_back(rest[i]);
      } else if (!AddEscape(rest, &i, &text)) {
        return Invalid("a string has an escape that is no character");
      }
    }
    return Invalid("a string does not end");
  }
  // As in Python's string literals; `*i` is at the backslash and moves to the last character.
  static bool AddEscape(absl::string_view rest, size_t* i, std::string* text) {
    if (*i + 1 >= rest.size()) return false;
    const char c = rest[++*i];
    static constexpr absl::string_view kLetters = "\\'\"nrtbfva", kMeanings = "\\'\"\n\r\t\b\f\v\a";
    const size_t known = kLetters.find(c);
    if (known != absl::string_view::npos) {
      text->push_back(kMeanings[known]);
      return true;
    }
    if (c == '\n') return true;
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      if (IsDigit(c) || c == 'N') return false;  // octal and named ones
      text->push_back('\\');
      text->push_back(c);
      return true;
    }
    uint32_t code = 0;
    if (*i + digits >= rest.size() || !absl::SimpleHexAtoi(rest.substr(*i + 1, digits), &code)) {
      return false;
    }
    *i += digits;
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
    AppendCodePoint(code, text);
    return true;
  }

  const absl::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // what comes next begins a line
  std::vector<Token> tokens_;
};

}  // namespace

absl::Status InvalidTemplate(int line, absl::string_view message) {
  return InvalidInput("INVALID_CHAT_TEMPLATE",
                      absl::StrCat("chat template, line ", line, ": ", message));
}

absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    return InvalidTemplate(1, absl::StrCat("it has ", source.size(), " bytes; at most ",
                                           kMaxTemplateBytes, " are supported"));
  }
  if (FindInvalidUtf8(source) != absl::string_view::npos) {
    return InvalidTemplate(1, "it is not UTF-8");
  }
  std::string text = absl::StrReplaceAll(source, {{"\r\n", "\n"}, {"\r", "\n"}});
  if (absl::EndsWith(text, "\n")) text.pop_back();
  return Lexer(text).Run();
}

}  // namespace uniquanf::jinja
