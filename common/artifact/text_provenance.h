// What tokens were made of when they came as text: digests of files, tokenizer and chat template,
// and what was dropped. Part of the plan and of the manifest; holds nothing of where the files lie.
//
// Thread safety: plain values. Errors: kInvalidArgument with the reason that the caller gives.
#ifndef UNIQUANF_COMMON_ARTIFACT_TEXT_PROVENANCE_H_
#define UNIQUANF_COMMON_ARTIFACT_TEXT_PROVENANCE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/base/json_util.h"

namespace uniquanf {

struct TextFileProvenance {
  std::string sha256;  // of the file as it lies in storage
  uint64_t size_bytes = 0;
  std::string kind;           // text, json, jsonl
  int64_t num_documents = 0;  // in the file
  int64_t num_used = 0;       // whose tokens are in the result, in part at least
  int64_t num_too_short = 0;  // dropped
  int64_t num_refused = 0;    // dropped: the chat template refuses them
  int64_t num_sequences = 0;  // of the result
};

struct TextProvenance {
  std::string tokenizer_sha256;      // of tokenizer.json
  std::string chat_template_sha256;  // of the template's text; "" where none was used
  std::vector<TextFileProvenance> files;

  OrderedJson ToJson() const;
};

// Reads the member `name` of `object`, which may be missing; strict as JsonObjectReader is.
absl::Status ReadTextProvenance(JsonObjectReader* object, absl::string_view name,
                                absl::string_view reason, std::optional<TextProvenance>* out);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_ARTIFACT_TEXT_PROVENANCE_H_
