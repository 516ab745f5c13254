// Added tokens of a tokenizer.json: contents that are cut out of text before anything else.
//
// Thread safety: immutable, thread-safe. Errors: kInvalidArgument (INVALID_TOKENIZER).
#ifndef UNIQUANF_WORKER_TEXT_ADDED_TOKENS_H_
#define UNIQUANF_WORKER_TEXT_ADDED_TOKENS_H_

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/text/normalizer.h"

namespace uniquanf {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false, lstrip = false, rstrip = false, normalized = false, special = false;
};

// A part of a text: the bytes of an added token (id ≥ 0) or text (id -1).
struct TextPart {
  int32_t id;
  size_t start, end;
};

// Finds the longest of many strings at the leftmost place.
class TokenTrie {
 public:
  TokenTrie() : first_{}, nodes_(1) {}
  void Add(absl::string_view content, int32_t token);
  // The first match at or behind `from`: {token, start, end}; token -1 where there is none.
  TextPart Find(absl::string_view text, size_t from) const;
  bool empty() const { return nodes_.size() == 1; }

 private:
  std::array<bool, 256> first_;
  struct Node {
    int32_t token = -1;
  };
  std::vector<Node> nodes_;
  absl::flat_hash_map<uint64_t, uint32_t> edges_;  // by node << 8 | byte
};

class AddedTokens {
 public:
  static constexpr size_t kMaxContentBytes = 4096;

  // `json`: the member "added_tokens"; contents with `normalized` pass `normalizer` first.
  static absl::StatusOr<AddedTokens> Create(const nlohmann::json& json,
                                            const Normalizer& normalizer);

  // Appends the parts of `text`, in order; text parts are not empty. `normalized`: looks for the
  // tokens that are found in normalized text. `literal_special`: special tokens are text.
  void Split(absl::string_view text, bool normalized, bool literal_special,
             std::vector<TextPart>* parts) const;
  const AddedToken* FindId(int64_t id) const;
  const AddedToken* FindContent(absl::string_view content) const;
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  std::vector<AddedToken> tokens_;
  absl::flat_hash_map<int32_t, size_t> by_id_;
  absl::flat_hash_map<std::string, size_t> by_content_;
  TokenTrie raw_, normalized_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_ADDED_TOKENS_H_
