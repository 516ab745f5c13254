// The normalizer of a tokenizer.json: what text goes through between added tokens.
//
// Thread safety: immutable, thread-safe. Errors: kInvalidArgument (INVALID_TOKENIZER,
// UNSUPPORTED_TOKENIZER; TEXT_TOO_COMPLEX and TEXT_TOO_LONG for a text).
#ifndef UNIQUANF_WORKER_TEXT_NORMALIZER_H_
#define UNIQUANF_WORKER_TEXT_NORMALIZER_H_

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

// Largest text between two steps; a normalizer can multiply what it is given.
inline constexpr size_t kMaxNormalizedBytes = 512 << 20;

class Normalizer {
 public:
  // `json`: the member "normalizer", null where there is none.
  static absl::StatusOr<Normalizer> Create(const nlohmann::json& json);

  // `text` (valid UTF-8) after every step. The result is `text` itself, or lies in `*storage`.
  absl::StatusOr<absl::string_view> Apply(absl::string_view text, std::string* storage) const;
  bool empty() const { return steps_.empty(); }

 private:
  // Changes the text and returns true, or leaves it to be as it is.
  using Step = std::function<absl::StatusOr<bool>(absl::string_view text, std::string* out)>;
  absl::Status Add(const nlohmann::json& json, int depth);
  absl::Status AddReplace(const nlohmann::json& json);
  absl::Status AddBert(const nlohmann::json& json);
  absl::Status AddStrip(const nlohmann::json& json);

  std::vector<Step> steps_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_NORMALIZER_H_
