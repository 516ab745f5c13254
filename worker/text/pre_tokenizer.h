// The pre-tokenizer of a tokenizer.json: cuts text into the pieces that the model encodes.
//
// Thread safety: immutable, thread-safe. Errors: kInvalidArgument (INVALID_TOKENIZER,
// UNSUPPORTED_TOKENIZER, TEXT_TOO_COMPLEX).
#ifndef UNIQUANF_WORKER_TEXT_PRE_TOKENIZER_H_
#define UNIQUANF_WORKER_TEXT_PRE_TOKENIZER_H_

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/text/pattern.h"

namespace uniquanf {

class PreTokenizer {
 public:
  // `json`: the member "pre_tokenizer", null where there is none.
  static absl::StatusOr<PreTokenizer> Create(const nlohmann::json& json);

  // Calls `emit` for every piece of `text`, in order; no piece is empty. `at_start`: the text
  // begins where the whole input does. Where byte_level(), the last step is left to the receiver:
  // to take the piece's bytes for their printable characters.
  using Emit = absl::FunctionRef<void(absl::string_view piece)>;
  absl::Status Split(absl::string_view text, bool at_start, Emit emit) const;
  bool byte_level() const { return byte_level_; }

 private:
  enum class Kind { kPattern, kCharacters, kWords, kAddPrefixSpace, kBytes, kMetaspace };
  enum class Scheme { kAlways, kFirst, kNever };
  struct Step {
    explicit Step(Kind step_kind, Pattern step_pattern = {})
        : kind(step_kind), pattern(std::move(step_pattern)) {}
    Kind kind;
    Pattern pattern;
    bool (*is_match)(char32_t) = nullptr;
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;
    std::string replacement;
    Scheme scheme = Scheme::kNever;
  };
  absl::Status Add(const nlohmann::json& json, int depth);
  absl::Status AddSplit(const nlohmann::json& json);
  absl::Status AddByteLevel(const nlohmann::json& json);
  absl::Status AddMetaspace(const nlohmann::json& json);
  void AddCharacters(bool (*is_match)(char32_t), SplitBehavior behavior);
  absl::Status Run(size_t step, absl::string_view text, bool at_start, Emit emit) const;
  absl::Status Cut(const Step& step, absl::string_view text, std::vector<PiecePart>* parts) const;

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_PRE_TOKENIZER_H_
