// Documents out of text files: plain text, JSON and JSON Lines, each also compressed by gzip or
// zstd. Files are untrusted: sizes and nesting are bounded, also behind the compression.
//
// The kind is told by the name (.txt, .json, .jsonl; .gz, .zst behind it), else by the first bytes.
// Thread safety: free functions, plain values.
// Errors: kInvalidArgument: INVALID_TEXT_FILE (what is none of these, by its name where it is
// known; broken JSON, by line; not UTF-8, by byte), TEXT_FILE_TOO_LARGE, NO_TEXT (an empty file, no
// field).
#ifndef UNIQUANF_WORKER_TEXT_TEXT_FILES_H_
#define UNIQUANF_WORKER_TEXT_TEXT_FILES_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

// Of one file, unpacked and not.
inline constexpr uint64_t kMaxTextFileBytes = uint64_t{2} << 30;

// One sample of a file: text, a conversation, or ids that are tokens already.
struct TextDocument {
  std::string text;
  // A conversation: an object with "messages" and what else the sample has (tools, …), for a chat
  // template; else null.
  nlohmann::ordered_json conversation;
  std::vector<int64_t> ids;
  bool has_ids = false;
};

struct TextFileContent {
  const char* kind = "";  // "text", "json", "jsonl"
  std::vector<TextDocument> documents;
};

struct ParseTextOptions {
  // The member of each object that holds the sample; "": the first there is of messages,
  // conversations, text, content, prompt, input_ids.
  std::string field;
  // Each line of plain text is a document; else the whole file is one.
  bool lines = false;
  // Objects without `field` are read as if none was named.
  bool field_may_miss = false;
};

// `name`: the file's, for its kind and for messages; `bytes`: as it lies in storage.
absl::StatusOr<TextFileContent> ParseTextFile(absl::string_view name, std::string bytes,
                                              const ParseTextOptions& options);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_TEXT_FILES_H_
