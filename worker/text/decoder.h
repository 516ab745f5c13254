// The decoder of a tokenizer.json: tokens back to text.
//
// Thread safety: immutable, thread-safe. Errors: kInvalidArgument (INVALID_TOKENIZER,
// UNSUPPORTED_TOKENIZER).
#ifndef UNIQUANF_WORKER_TEXT_DECODER_H_
#define UNIQUANF_WORKER_TEXT_DECODER_H_

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace uniquanf {

class Decoder {
 public:
  // `json`: the member "decoder", null where there is none (tokens are then joined by spaces).
  static absl::StatusOr<Decoder> Create(const nlohmann::json& json);
  // The text of `tokens`; valid UTF-8, U+FFFD where the tokens' bytes are not.
  std::string Decode(std::vector<std::string> tokens) const;

 private:
  using Step = std::function<void(std::vector<std::string>* tokens)>;
  absl::Status Add(const nlohmann::json& json, int depth);
  absl::Status AddReplace(const nlohmann::json& json);
  absl::Status AddStrip(const nlohmann::json& json);
  absl::Status AddMetaspace(const nlohmann::json& json);

  std::vector<Step> steps_;
  bool none_ = true;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_DECODER_H_
