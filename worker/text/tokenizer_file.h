// tokenizer.json as data: the vocabulary and merges of its BPE model, which make up nearly all of
// its bytes, in compact form, and all else as JSON. The file is untrusted.
//
// Thread safety: plain values. Errors: kInvalidArgument (INVALID_TOKENIZER for what is no tokenizer
// file, UNSUPPORTED_TOKENIZER for kinds that this program does not have).
#ifndef UNIQUANF_WORKER_TEXT_TOKENIZER_FILE_H_
#define UNIQUANF_WORKER_TEXT_TOKENIZER_FILE_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

struct TokenizerFile {
  static constexpr size_t kMaxBytes = 256 << 20;
  static constexpr int64_t kMaxId = (1 << 24) - 1;

  std::vector<std::pair<std::string, uint32_t>> vocab;      // in the file's order, ids ≤ kMaxId
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  nlohmann::json rest;                                      // without model.vocab and model.merges

  static absl::StatusOr<TokenizerFile> Parse(absl::string_view json);
};

absl::Status BadTokenizer(absl::string_view message);
absl::Status UnsupportedTokenizer(absl::string_view message);
// The "type" of a member such as a normalizer; "" where there is none.
std::string TypeOf(const nlohmann::json& value);
// Members that may be missing or null, then `fallback`; another type is an error in `*status`,
// which keeps the first.
bool BoolOr(const nlohmann::json& object, const char* name, bool fallback, absl::Status* status);
std::string StringOr(const nlohmann::json& object, const char* name, const std::string& fallback,
                     absl::Status* status);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_TOKENIZER_FILE_H_
