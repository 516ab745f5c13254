// Text files to token ids for calibration and evaluation: a model's own tokenizer and chat
// template, and the packing of documents into sequences of one length.
//
// Thread safety: TextTokenizer is used by one thread at a time.
// Errors: kInvalidArgument: those of text_files.h, tokenizer.h and chat_template.h; NO_TOKENIZER,
// TOO_FEW_SEQUENCES, TOO_FEW_TOKENS, TOKEN_OUT_OF_RANGE.
#ifndef UNIQUANF_WORKER_TEXT_TEXT_TOKENS_H_
#define UNIQUANF_WORKER_TEXT_TEXT_TOKENS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/object_store/object_store.h"
#include "worker/text/text_files.h"
#include "worker/text/tokenizer.h"

namespace uniquanf {

struct TextSettings {
  std::string field;              // as in ParseTextOptions
  bool truncate = false;          // each document makes one sequence; else all are concatenated
  std::string separator = "eos";  // between concatenated documents: eos, bos, none, or text
  int64_t min_tokens = 1;         // shorter documents are dropped
  std::string chat_template = "auto";  // auto: the model's; never: contents only
  bool special_tokens = true;          // what the tokenizer adds to plain text
  uint64_t shuffle_seed = 0;           // order of the documents; 0: the file's
};

// One file of text, in storage.
struct TextSource {
  std::string uri;            // named in messages
  int64_t num_sequences = 0;  // this file's share; 0: what the others leave
};

// What is recorded of a file; nothing of where it lies.
struct TextFacts {
  std::string sha256;  // of the file as it lies in storage
  uint64_t size_bytes = 0;
  std::string kind;           // text, json, jsonl
  int64_t num_documents = 0;  // in the file
  int64_t num_used = 0;       // whose tokens are in the result, in part at least
  int64_t num_too_short = 0;  // dropped
  int64_t num_refused = 0;    // dropped: the chat template refuses them
  int64_t num_sequences = 0;  // of the result
};

struct PackedText {
  int64_t num_sequences = 0, sequence_length = 0;
  std::vector<int32_t> ids;  // [num_sequences, sequence_length]; evaluation: one row
  std::vector<TextFacts> files;
  std::string tokenizer_sha256;
  std::string template_sha256;  // "" where no document was a conversation
  std::vector<std::string> warnings;
};

class TextTokenizer {
 public:
  // Reads tokenizer.json, tokenizer_config.json, config.json and chat_template.jinja of a model.
  static absl::StatusOr<std::unique_ptr<TextTokenizer>> Open(ObjectStore* model,
                                                             const TextSettings& settings);

  // Appends the ids of one document, none of them ≥ vocab_size.
  absl::Status Encode(const TextDocument& document, int64_t vocab_size, std::vector<int32_t>* ids);
  // The ids between concatenated documents.
  absl::StatusOr<std::vector<int32_t>> Separator() const;

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const TextSettings& settings() const { return settings_; }
  const std::string& tokenizer_sha256() const { return tokenizer_sha256_; }
  // Of the template that was used; "" until one was.
  const std::string& template_sha256() const { return template_sha256_; }

 private:
  TextTokenizer() = default;
  absl::Status ReadConfigs(ObjectStore* model);
  absl::StatusOr<int32_t> SpecialId(absl::string_view name) const;
  absl::StatusOr<std::string> Render(const nlohmann::ordered_json& conversation);

  TextSettings settings_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  TokenizerScratch scratch_;
  nlohmann::ordered_json config_;      // tokenizer_config.json; an object
  int64_t eos_id_ = -1, bos_id_ = -1;  // of config.json
  std::string template_text_;
  std::string tokenizer_sha256_, template_sha256_;
};

// Documents of several files as sequences of `sequence_length` tokens, `num_sequences` of them (0:
// all there are). A rest that fills no sequence is dropped.
absl::StatusOr<PackedText> PackCalibrationText(const std::vector<TextSource>& sources,
                                               TextTokenizer* tokenizer, int64_t num_sequences,
                                               int64_t sequence_length, int64_t vocab_size,
                                               const StoreOptions& options);
// All documents concatenated, at most `max_tokens` (0: all), at least `min_tokens`.
absl::StatusOr<PackedText> PackEvaluationText(const std::string& uri, TextTokenizer* tokenizer,
                                              int64_t min_tokens, int64_t max_tokens,
                                              int64_t vocab_size, const StoreOptions& options);

// As above, with the tokenizer of `model` and the settings' defaults.
absl::StatusOr<std::vector<int32_t>> ReadEvaluationText(const std::string& uri, ObjectStore* model,
                                                        int64_t min_tokens, int64_t max_tokens,
                                                        int64_t vocab_size,
                                                        const StoreOptions& options);

// Whole file `uri`, at most kMaxTextFileBytes.
absl::StatusOr<std::string> ReadTextFile(const std::string& uri, const StoreOptions& options);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_TEXT_TOKENS_H_
