// The "pattern" of a split or a replacement: a string or a regex.
//
// Thread safety: immutable, thread-safe. Errors: kInvalidArgument (INVALID_TOKENIZER,
// TEXT_TOO_COMPLEX).
#ifndef UNIQUANF_WORKER_TEXT_PATTERN_H_
#define UNIQUANF_WORKER_TEXT_PATTERN_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/text/pieces.h"
#include "worker/text/regex.h"

namespace uniquanf {

class Pattern {
 public:
  // Of the object that has the member "pattern": {"String": …} or {"Regex": …}.
  static absl::StatusOr<Pattern> Create(const nlohmann::json& owner);
  static absl::StatusOr<Pattern> FromRegex(absl::string_view regex);
  static Pattern FromString(absl::string_view text);  // REQUIRES: not empty

  // Appends the parts of `text`: its matches and what lies between, none of the latter empty.
  absl::Status Find(absl::string_view text, std::vector<PiecePart>* parts) const;
  const Regex* regex() const { return regex_.get(); }

 private:
  std::string string_;
  std::shared_ptr<const Regex> regex_;  // null: `string_`
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_PATTERN_H_
