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
#include "common/artifact/text_provenance.h"
#include "common/object_store/open_data.h"
#include "common/spec/quantization_spec.h"
#include "worker/text/chat_template.h"
#include "worker/text/text_files.h"
#include "worker/text/tokenizer.h"

namespace uniquanf {

struct TextSettings {
  std::string field;  // as in ParseTextOptions
  bool field_may_miss = false;
  bool truncate = false;  // each document makes one sequence; else all are concatenated
  // Between concatenated documents: eos, bos, none, or text with C's escapes.
  std::string separator = "eos";
  int64_t min_tokens = 1;  // shorter documents are dropped
  TextChatTemplate chat_template = TextChatTemplate::kConversations;
  bool special_tokens = true;  // what the tokenizer adds to plain text
  uint64_t shuffle_seed = 0;   // order of the documents; 0: the file's
};

// Those of a job.
TextSettings TextSettingsOf(const QuantizationSpec& spec);

// One file of text, in storage.
struct TextSource {
  std::string uri;            // named in messages
  int64_t num_sequences = 0;  // this file's share; 0: what the others leave
};

struct PackedText {
  int64_t num_sequences = 0, sequence_length = 0;
  std::vector<int32_t> ids;  // [num_sequences, sequence_length]; evaluation: one row
  TextProvenance provenance;
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
  // Of the chat template that was used; "" until one was.
  const std::string& template_sha256() const { return template_sha256_; }

 private:
  TextTokenizer() = default;
  absl::Status ReadConfigs(ObjectStore* model);
  absl::StatusOr<int32_t> SpecialId(absl::string_view name) const;
  absl::StatusOr<std::string> Render(const nlohmann::ordered_json& conversation);

  TextSettings settings_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  TokenizerScratch scratch_;
  nlohmann::ordered_json config_;            // tokenizer_config.json; an object
  int64_t eos_id_ = -1, bos_id_ = -1;        // of config.json
  absl::StatusOr<ChatTemplates> templates_;  // its error counts when a conversation comes
  std::string tokenizer_sha256_, template_sha256_;
};

// Documents of several files as sequences of `sequence_length` tokens, `num_sequences` of them (0:
// all there are). A rest that fills no sequence is dropped.
absl::StatusOr<PackedText> PackCalibrationText(const std::vector<TextSource>& sources,
                                               TextTokenizer* tokenizer, int64_t num_sequences,
                                               int64_t sequence_length, int64_t vocab_size,
                                               const DataOptions& options,
                                               bool fewer_will_do = false);
// All documents concatenated, at most `max_tokens` (0: all), at least `min_tokens`.
absl::StatusOr<PackedText> PackEvaluationText(const std::string& uri, TextTokenizer* tokenizer,
                                              int64_t min_tokens, int64_t max_tokens,
                                              int64_t vocab_size, const DataOptions& options);

// As above, with the tokenizer of `model` and the settings of a job that hold for evaluation: all
// but the least number of tokens and the order; samples without the job's field are read by the
// common ones.
absl::StatusOr<PackedText> ReadEvaluationText(const std::string& uri, ObjectStore* model,
                                              TextSettings settings, int64_t min_tokens,
                                              int64_t max_tokens, int64_t vocab_size,
                                              const DataOptions& options);

// Whole file `uri`, at most kMaxTextFileBytes.
absl::StatusOr<std::string> ReadTextFile(const std::string& uri, const DataOptions& options);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_TEXT_TOKENS_H_
