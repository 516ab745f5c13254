// Text to token ids and back, as a model's tokenizer.json says; equal to the ids of Hugging Face's
// tokenizers library, which defines that file. BPE models (byte-level and with byte fallback).
// Truncation and padding in the file are ignored.
//
// Thread safety: Tokenizer is immutable and thread-safe; TokenizerScratch and TextStream belong to
// one thread. Errors: kInvalidArgument: INVALID_TOKENIZER, UNSUPPORTED_TOKENIZER for the file,
// INVALID_UTF8, TEXT_TOO_LONG, TEXT_TOO_COMPLEX for a text.
#ifndef UNIQUANF_WORKER_TEXT_TOKENIZER_H_
#define UNIQUANF_WORKER_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/text/added_tokens.h"
#include "worker/text/bpe.h"
#include "worker/text/decoder.h"
#include "worker/text/normalizer.h"
#include "worker/text/pre_tokenizer.h"

namespace uniquanf {

// Largest document that is encoded at once.
inline constexpr size_t kMaxDocumentBytes = 256 << 20;

struct EncodeOptions {
  // Adds what the file's post-processor adds (a token for the beginning, say).
  bool add_special_tokens = true;
  // Special tokens that stand in the text are text like any other.
  bool literal_special = false;
};

// Buffers and the memory of words seen. For one tokenizer only.
struct TokenizerScratch {
  BpeScratch bpe;
};

class Tokenizer {
 public:
  // `json`: the bytes of a tokenizer.json.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Create(absl::string_view json);

  // Appends the ids of `text`.
  absl::Status Encode(absl::string_view text, const EncodeOptions& options,
                      TokenizerScratch* scratch, std::vector<int32_t>* ids) const;

  // The text of `ids`, valid UTF-8; ids without a token are skipped. `skip_special`: so are special
  // tokens.
  std::string Decode(const std::vector<int32_t>& ids, bool skip_special) const;

  // The id of a token, added or the model's, or -1.
  int64_t FindToken(absl::string_view token) const;
  // One more than the largest id there is.
  int64_t id_bound() const { return id_bound_; }

 private:
  Tokenizer() = default;
  absl::Status ReadPostProcessor(const nlohmann::json& json, int depth);
  absl::Status ReadTemplate(const nlohmann::json& json);
  absl::Status EncodeText(absl::string_view text, bool at_start, bool literal_special,
                          TokenizerScratch* scratch, std::vector<int32_t>* ids) const;

  std::unique_ptr<BpeModel> model_;
  AddedTokens added_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  Decoder decoder_;
  std::vector<int32_t> before_, after_;  // of the post-processor
  int64_t id_bound_ = 0;
};

// Text of ids that come one by one: gives out what will not change any more, so that no character
// is cut in two. The tokenizer is borrowed.
class TextStream {
 public:
  TextStream(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}
  // The text that `id` completes; often empty within a character of several tokens.
  std::string Add(int32_t id);
  // What is left, U+FFFD for an unfinished character.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  const bool skip_special_;
  std::vector<int32_t> ids_;  // those whose text still matters to what follows
  std::string given_;         // the part of their text that was given out
  size_t num_given_ = 0;      // ids behind `given_`
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_TOKENIZER_H_
