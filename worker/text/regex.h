// Regular expressions of tokenizer.json: Oniguruma, the engine that those files are written for.
// Patterns and texts are untrusted: the length of a pattern, the steps of a match and its stack are
// bounded.
//
// Thread safety: Regex is immutable and thread-safe; RegexMatches belongs to one thread.
// Errors: kInvalidArgument (INVALID_TOKENIZER for a pattern, TEXT_TOO_COMPLEX for a text that a
// match gives up on).
#ifndef UNIQUANF_WORKER_TEXT_REGEX_H_
#define UNIQUANF_WORKER_TEXT_REGEX_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

class Regex {
 public:
  static constexpr size_t kMaxPatternBytes = 64 << 10;

  static absl::StatusOr<std::shared_ptr<const Regex>> Compile(absl::string_view pattern);
  ~Regex();
  const std::string& pattern() const { return pattern_; }

 private:
  friend class RegexMatches;
  struct Impl;
  Regex();
  std::string pattern_;
  bool search_only_ = false;  // the pattern looks at where the search began
  std::unique_ptr<Impl> impl_;
};

// The successive matches of a regex in a text, leftmost first, none overlapping; an empty match
// directly behind a match is skipped. `text` is valid UTF-8 and outlives the object.
class RegexMatches {
 public:
  RegexMatches(const Regex& regex, absl::string_view text);
  ~RegexMatches();
  // Moves to the next match; false at the end of them, or when the engine gave up (see status).
  bool Next();
  size_t start() const { return start_; }
  size_t end() const { return end_; }
  const absl::Status& status() const { return status_; }

 private:
  struct Scratch;
  const Regex& regex_;
  const absl::string_view text_;
  Scratch* scratch_;  // one a thread and nesting level, kept for the next
  size_t from_ = 0, start_ = 0, end_ = 0;
  size_t last_end_ = absl::string_view::npos;
  absl::Status status_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_REGEX_H_
