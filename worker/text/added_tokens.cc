#include "worker/text/added_tokens.h"

#include <algorithm>

#include "common/base/status.h"
#include "worker/text/tokenizer_file.h"
#include "worker/text/unicode.h"

namespace uniquanf {

void TokenTrie::Add(absl::string_view content, int32_t token) {
  if (content.empty()) return;
  first_[static_cast<uint8_t>(content[0])] = true;
  uint32_t node = 0;
  for (const char byte : content) {
    const uint64_t edge = static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
    const auto [it, inserted] = edges_.emplace(edge, static_cast<uint32_t>(nodes_.size()));
    if (inserted) nodes_.emplace_back();
    node = it->second;
  }
  if (nodes_[node].token < 0) nodes_[node].token = token;
}

TextPart TokenTrie::Find(absl::string_view text, size_t from) const {
  if (empty()) return {-1, text.size(), text.size()};
  for (size_t start = from; start < text.size(); ++start) {
    if (!first_[static_cast<uint8_t>(text[start])]) continue;
    TextPart longest{-1, start, start};
    uint32_t node = 0;
    for (size_t at = start; at < text.size(); ++at) {
      const auto it =
          edges_.find(static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(text[at]));
      if (it == edges_.end()) break;
      node = it->second;
      if (nodes_[node].token >= 0) longest = {nodes_[node].token, start, at + 1};
    }
    if (longest.id >= 0) return longest;
  }
  return {-1, text.size(), text.size()};
}

absl::StatusOr<AddedTokens> AddedTokens::Create(const nlohmann::json& json,
                                                const Normalizer& normalizer) {
  AddedTokens result;
  if (json.is_null()) return result;
  if (!json.is_array()) return BadTokenizer("\"added_tokens\" is no list");
  for (const nlohmann::json& entry : json) {
    AddedToken token;
    absl::Status status;
    const auto id = entry.is_object() ? entry.find("id") : entry.end();
    if (!entry.is_object() || id == entry.end() || !id->is_number_unsigned() ||
        id->get<uint64_t>() > TokenizerFile::kMaxId) {
      return BadTokenizer(
          absl::StrCat("an added token has no id from 0 to ", TokenizerFile::kMaxId));
    }
    token.id = id->get<int32_t>();
    token.content = StringOr(entry, "content", "", &status);
    token.single_word = BoolOr(entry, "single_word", false, &status);
    token.lstrip = BoolOr(entry, "lstrip", false, &status);
    token.rstrip = BoolOr(entry, "rstrip", false, &status);
    token.special = BoolOr(entry, "special", false, &status);
    token.normalized = BoolOr(entry, "normalized", !token.special, &status);
    UQ_RETURN_IF_ERROR(status);
    if (token.content.size() > kMaxContentBytes) {
      return BadTokenizer(absl::StrCat("the added token ", token.id, " has ", token.content.size(),
                                       " bytes; at most ", kMaxContentBytes, " are supported"));
    }
    if (token.content.empty()) continue;
    if (result.by_id_.contains(token.id)) {
      return BadTokenizer(absl::StrCat("two added tokens have the id ", token.id));
    }
    const size_t index = result.tokens_.size();
    if (!result.by_content_.emplace(token.content, index).second) continue;
    result.by_id_[token.id] = index;
    if (token.normalized) {
      std::string storage;
      UQ_ASSIGN_OR_RETURN(const absl::string_view content,
                          normalizer.Apply(token.content, &storage));
      result.normalized_.Add(content, static_cast<int32_t>(index));
      token.content = std::string(content);  // what the reference decodes it to
    } else {
      result.raw_.Add(token.content, static_cast<int32_t>(index));
    }
    result.tokens_.push_back(std::move(token));
  }
  return result;
}

void AddedTokens::Split(absl::string_view text, bool normalized, bool literal_special,
                        std::vector<TextPart>* parts) const {
  const TokenTrie& trie = normalized ? normalized_ : raw_;
  size_t done = 0;
  for (TextPart match = trie.Find(text, 0); match.id >= 0; match = trie.Find(text, match.end)) {
    const AddedToken& token = tokens_[match.id];
    if (literal_special && token.special) continue;
    size_t start = match.start, end = match.end;
    if (token.single_word) {
      if (start > 0 && IsWordCharacter(PreviousCodePoint(text, start))) continue;
      size_t at = end;
      if (end < text.size() && IsWordCharacter(NextCodePoint(text, &at))) continue;
    }
    if (token.lstrip) {  // never into the part before
      while (start > done && IsWhitespace(PreviousCodePoint(text, start))) {
        do {
          --start;
        } while (start > done && (text[start] & 0xC0) == 0x80);
      }
    }
    if (token.rstrip) {
      for (size_t at = end; at < text.size() && IsWhitespace(NextCodePoint(text, &at));) end = at;
    }
    if (done < start) parts->push_back({-1, done, start});
    parts->push_back({token.id, start, end});
    done = std::max(done, end);
  }
  if (done < text.size()) parts->push_back({-1, done, text.size()});
}

const AddedToken* AddedTokens::FindId(int64_t id) const {
  const auto it = by_id_.find(static_cast<int32_t>(id));
  return it == by_id_.end() ? nullptr : &tokens_[it->second];
}

const AddedToken* AddedTokens::FindContent(absl::string_view content) const {
  const auto it = by_content_.find(std::string(content));
  return it == by_content_.end() ? nullptr : &tokens_[it->second];
}

}  // namespace uniquanf
