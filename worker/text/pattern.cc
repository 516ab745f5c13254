#include "worker/text/pattern.h"

#include "common/base/status.h"
#include "worker/text/tokenizer_file.h"

namespace uniquanf {

absl::StatusOr<Pattern> Pattern::Create(const nlohmann::json& owner) {
  const auto it = owner.find("pattern");
  if (it != owner.end() && it->is_object() && it->size() == 1 && it->begin()->is_string()) {
    const std::string& text = it->begin()->get_ref<const std::string&>();
    if (it->begin().key() == "Regex" || text.empty()) return FromRegex(text);
    if (it->begin().key() == "String") return FromString(text);
  }
  return BadTokenizer("a pattern is neither {\"String\": …} nor {\"Regex\": …}");
}

absl::StatusOr<Pattern> Pattern::FromRegex(absl::string_view regex) {
  Pattern pattern;
  UQ_ASSIGN_OR_RETURN(pattern.regex_, Regex::Compile(regex));
  return pattern;
}

Pattern Pattern::FromString(absl::string_view text) {
  Pattern pattern;
  pattern.string_ = std::string(text);
  return pattern;
}

absl::Status Pattern::Find(absl::string_view text, std::vector<PiecePart>* parts) const {
  size_t previous = 0;
  const auto add = [&](size_t start, size_t end) {
    if (previous != start) parts->push_back({previous, start, false});
    parts->push_back({start, end, true});
    previous = end;
  };
  if (regex_ == nullptr) {
    for (size_t at = text.find(string_); at != absl::string_view::npos;
         at = text.find(string_, previous)) {
      add(at, at + string_.size());
    }
  } else {
    RegexMatches matches(*regex_, text);
    while (matches.Next()) add(matches.start(), matches.end());
    UQ_RETURN_IF_ERROR(matches.status());
  }
  if (previous != text.size()) parts->push_back({previous, text.size(), false});
  return absl::OkStatus();
}

}  // namespace uniquanf
