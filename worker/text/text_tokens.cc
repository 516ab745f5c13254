#include "worker/text/text_tokens.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_join.h"
#include "common/base/digest.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "worker/text/tokenizer_file.h"

namespace uniquanf {
namespace {

constexpr uint64_t kMaxConfigBytes = 64 << 20;
constexpr uint64_t kShuffleStream = 0x74657874;  // apart from other draws of the same seed

// The object's bytes, "" where there is none.
absl::StatusOr<std::string> ReadIfThere(ObjectStore* store, absl::string_view key,
                                        uint64_t max_bytes) {
  absl::StatusOr<std::string> bytes = store->Read(key, max_bytes);
  if (absl::IsNotFound(bytes.status())) return std::string();
  return bytes;
}

std::vector<size_t> DocumentOrder(size_t num_documents, uint64_t seed) {
  std::vector<size_t> order(num_documents);
  std::iota(order.begin(), order.end(), size_t{0});
  if (seed == 0) return order;
  for (size_t i = num_documents; i > 1; --i) {
    const Philox4 draw = PhiloxAt(seed, kShuffleStream, i);
    const uint64_t wide = static_cast<uint64_t>(draw.v[0]) << 32 | draw.v[1];
    std::swap(order[i - 1], order[wide % i]);
  }
  return order;
}

// Turns one file's documents into rows behind those of `packed`.
class Packer {
 public:
  Packer(TextTokenizer* tokenizer, int64_t sequence_length, int64_t vocab_size)
      : tokenizer_(tokenizer), length_(sequence_length), vocab_size_(vocab_size) {}

  // At most `max_rows` (0: all). `length` 0: one row of everything, up to `max_tokens` (0: all).
  absl::Status AddFile(const std::string& uri, std::string bytes, int64_t max_rows,
                       int64_t max_tokens, PackedText* packed) {
    TextFileProvenance facts;
    facts.sha256 = Sha256Hex(bytes);
    facts.size_bytes = bytes.size();
    ParseTextOptions parse;
    parse.field = tokenizer_->settings().field;
    parse.field_may_miss = tokenizer_->settings().field_may_miss;
    // A sequence a document would be one sequence a file: plain text is then taken by lines.
    parse.lines = tokenizer_->settings().truncate;
    UQ_ASSIGN_OR_RETURN(TextFileContent content, ParseTextFile(uri, std::move(bytes), parse));
    facts.kind = content.kind;
    facts.num_documents = static_cast<int64_t>(content.documents.size());
    UQ_ASSIGN_OR_RETURN(const std::vector<int32_t> separator, tokenizer_->Separator());
    const int64_t wanted = length_ > 0 ? max_rows * length_ : max_tokens;
    std::vector<int32_t> rows, ids;
    for (const size_t index :
         DocumentOrder(content.documents.size(), tokenizer_->settings().shuffle_seed)) {
      if (wanted > 0 && static_cast<int64_t>(rows.size()) >= wanted) break;
      ids.clear();
      const absl::Status encoded = tokenizer_->Encode(content.documents[index], vocab_size_, &ids);
      content.documents[index] = TextDocument();  // no longer needed
      const std::string reason = ErrorReason(encoded);
      if (reason == "CHAT_TEMPLATE_REFUSED" || reason == "CHAT_TEMPLATE_FAILED") {
        if (facts.num_refused++ == 0) first_refusal_ = encoded;
        continue;
      }
      if (!encoded.ok()) return Annotate(encoded, absl::StrCat("text file ", uri));
      AddDocument(ids, separator, &rows, &facts);
    }
    if (length_ > 0) {
      facts.num_sequences = static_cast<int64_t>(rows.size()) / length_;
      if (max_rows > 0) facts.num_sequences = std::min(facts.num_sequences, max_rows);
      rows.resize(facts.num_sequences * length_);
    } else {
      if (wanted > 0 && static_cast<int64_t>(rows.size()) > wanted) rows.resize(wanted);
      facts.num_sequences = 1;
    }
    if (facts.num_refused == facts.num_documents) {
      return Annotate(first_refusal_, absl::StrCat("text file ", uri, ": every sample is refused"));
    }
    if (facts.num_refused > 0) {
      packed->warnings.push_back(
          absl::StrCat("the chat template refused ", facts.num_refused, " of ", facts.num_documents,
                       " conversations; the first because: ", first_refusal_.message()));
    }
    packed->ids.insert(packed->ids.end(), rows.begin(), rows.end());
    packed->num_sequences += facts.num_sequences;
    packed->provenance.files.push_back(std::move(facts));
    return absl::OkStatus();
  }

 private:
  void AddDocument(const std::vector<int32_t>& ids, const std::vector<int32_t>& separator,
                   std::vector<int32_t>* rows, TextFileProvenance* facts) {
    const TextSettings& settings = tokenizer_->settings();
    const bool one_row = settings.truncate && length_ > 0;
    const int64_t least = std::max<int64_t>(settings.min_tokens, one_row ? length_ : 1);
    if (static_cast<int64_t>(ids.size()) < least) {
      ++facts->num_too_short;
      return;
    }
    ++facts->num_used;
    if (!one_row && !rows->empty()) rows->insert(rows->end(), separator.begin(), separator.end());
    rows->insert(rows->end(), ids.begin(), one_row ? ids.begin() + length_ : ids.end());
  }

  TextTokenizer* const tokenizer_;
  const int64_t length_, vocab_size_;
  absl::Status first_refusal_;
};

void AddDigests(const TextTokenizer& tokenizer, PackedText* packed) {
  packed->provenance.tokenizer_sha256 = tokenizer.tokenizer_sha256();
  packed->provenance.chat_template_sha256 = tokenizer.template_sha256();
}

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::string& uri, const DataOptions& options) {
  UQ_ASSIGN_OR_RETURN(const ObjectLocation location, OpenDataLocation(uri, options));
  absl::StatusOr<std::string> bytes = location.store->Read(location.key, kMaxTextFileBytes);
  if (!bytes.ok()) return Annotate(bytes.status(), absl::StrCat("text file ", uri));
  return bytes;
}

absl::StatusOr<std::unique_ptr<TextTokenizer>> TextTokenizer::Open(ObjectStore* model,
                                                                   const TextSettings& settings) {
  std::unique_ptr<TextTokenizer> result(new TextTokenizer());
  result->settings_ = settings;
  UQ_ASSIGN_OR_RETURN(const std::string json,
                      ReadIfThere(model, "tokenizer.json", TokenizerFile::kMaxBytes));
  if (json.empty()) {
    return InvalidInput(
        "NO_TOKENIZER",
        absl::StrCat("the model at ", model->uri(),
                     " has no tokenizer.json, which text needs; put the model's there, or give a "
                     "safetensors file of token ids"));
  }
  absl::StatusOr<std::unique_ptr<const Tokenizer>> tokenizer = Tokenizer::Create(json);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), absl::StrCat("model ", model->uri()));
  result->tokenizer_ = std::move(*tokenizer);
  result->tokenizer_sha256_ = Sha256Hex(json);
  UQ_RETURN_IF_ERROR(result->ReadConfigs(model));
  return result;
}

absl::Status TextTokenizer::ReadConfigs(ObjectStore* model) {
  UQ_ASSIGN_OR_RETURN(config_, ReadTokenizerConfig(model));
  templates_ = ReadChatTemplates(model, config_);
  UQ_ASSIGN_OR_RETURN(const std::string model_config,
                      ReadIfThere(model, "config.json", kMaxConfigBytes));
  const nlohmann::json parsed = nlohmann::json::parse(model_config, nullptr, false);
  for (const auto& [name, id] : {std::pair{"eos_token_id", &eos_id_}, {"bos_token_id", &bos_id_}}) {
    if (!parsed.is_object() || !parsed.contains(name)) continue;
    const nlohmann::json& value =
        parsed[name].is_array() && !parsed[name].empty() ? parsed[name][0] : parsed[name];
    if (value.is_number_unsigned()) *id = value.get<int64_t>();
  }
  return absl::OkStatus();
}

absl::StatusOr<int32_t> TextTokenizer::SpecialId(absl::string_view name) const {
  const std::map<std::string, std::string> tokens = SpecialTokens(config_);
  const auto it = tokens.find(absl::StrCat(name, "_token"));
  if (it != tokens.end()) {
    const int64_t id = tokenizer_->FindToken(it->second);
    if (id >= 0) return static_cast<int32_t>(id);
  }
  const int64_t id = name == "eos" ? eos_id_ : bos_id_;
  if (id >= 0 && id < tokenizer_->id_bound()) return static_cast<int32_t>(id);
  return NotFound("NO_SUCH_TOKEN", absl::StrCat("the model names no ", name, " token"));
}

absl::StatusOr<std::vector<int32_t>> TextTokenizer::Separator() const {
  std::vector<int32_t> ids;
  if (settings_.separator == "none" || settings_.separator.empty()) return ids;
  if (settings_.separator == "eos" || settings_.separator == "bos") {
    const absl::StatusOr<int32_t> id = SpecialId(settings_.separator);
    if (id.ok()) ids.push_back(*id);
    return ids;
  }
  TokenizerScratch scratch;
  EncodeOptions options;
  options.add_special_tokens = false;
  std::string text, error;
  if (!absl::CUnescape(settings_.separator, &text, &error)) {
    return InvalidInput("INVALID_SPEC", absl::StrCat("text_separator: ", error));
  }
  UQ_RETURN_IF_ERROR(tokenizer_->Encode(text, options, &scratch, &ids));
  return ids;
}

absl::Status TextTokenizer::Encode(const TextDocument& document, int64_t vocab_size,
                                   std::vector<int32_t>* ids) {
  const size_t before = ids->size();
  if (document.has_ids) {
    for (const int64_t id : document.ids) {
      if (id >= vocab_size) {
        return InvalidInput("TOKEN_OUT_OF_RANGE",
                            absl::StrCat("token id ", id, " is outside the model's vocabulary of ",
                                         vocab_size, "; was it made with another tokenizer?"));
      }
      ids->push_back(static_cast<int32_t>(id));
    }
    return absl::OkStatus();
  }
  EncodeOptions options;
  options.add_special_tokens = settings_.special_tokens;
  std::string rendered;
  const bool plain = document.conversation.is_null();
  if (!plain || settings_.chat_template == TextChatTemplate::kAlways) {
    UQ_ASSIGN_OR_RETURN(
        rendered, plain ? Render({{"messages", {{{"role", "user"}, {"content", document.text}}}}})
                        : Render(document.conversation));
    // Templates print the tokens for beginning and end themselves.
    if (settings_.chat_template != TextChatTemplate::kNever) options.add_special_tokens = false;
  }
  UQ_RETURN_IF_ERROR(tokenizer_->Encode(rendered.empty() && plain ? document.text : rendered,
                                        options, &scratch_, ids));
  for (size_t i = before; i < ids->size(); ++i) {
    if ((*ids)[i] < vocab_size) continue;
    return InvalidInput("TOKEN_OUT_OF_RANGE",
                        absl::StrCat("the tokenizer gives the id ", (*ids)[i],
                                     ", but the model's vocabulary has only ", vocab_size,
                                     " entries; is its tokenizer.json of another model?"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> TextTokenizer::Render(const nlohmann::ordered_json& conversation) {
  if (settings_.chat_template != TextChatTemplate::kNever) {
    UQ_RETURN_IF_ERROR(templates_.status());
    const ChatTemplate* chat_template = templates_->For(conversation);
    if (chat_template == nullptr) {
      return InvalidInput(
          "NO_CHAT_TEMPLATE",
          "the sample is a conversation, but the model has no chat template (chat_template.jinja, "
          "or "
          "chat_template in tokenizer_config.json); to take the contents as text set "
          "text_chat_template to never");
    }
    if (template_sha256_.empty()) template_sha256_ = Sha256Hex(chat_template->source());
    return chat_template->Render(conversation, ChatOptions());
  }
  std::vector<std::string> contents;
  for (const nlohmann::ordered_json& message : conversation["messages"]) {
    const auto content = message.find("content");
    if (content == message.end()) continue;
    if (content->is_string()) contents.push_back(content->get<std::string>());
    if (!content->is_array()) continue;
    for (const nlohmann::ordered_json& part : *content) {  // {"type": "text", "text": …}
      if (part.is_object() && part.contains("text") && part["text"].is_string()) {
        contents.push_back(part["text"].get<std::string>());
      }
    }
  }
  return absl::StrJoin(contents, "\n");
}

absl::StatusOr<PackedText> PackCalibrationText(const std::vector<TextSource>& sources,
                                               TextTokenizer* tokenizer, int64_t num_sequences,
                                               int64_t sequence_length, int64_t vocab_size,
                                               const DataOptions& options, bool fewer_will_do) {
  PackedText packed;
  packed.sequence_length = sequence_length;
  int64_t given = 0;
  for (const TextSource& source : sources) given += source.num_sequences;
  Packer packer(tokenizer, sequence_length, vocab_size);
  for (const TextSource& source : sources) {
    int64_t wanted = source.num_sequences;
    if (wanted == 0 && num_sequences > 0) {
      wanted = num_sequences - given;
      if (wanted <= 0) continue;  // the others' counts fill the set
    }
    UQ_ASSIGN_OR_RETURN(std::string bytes, ReadTextFile(source.uri, options));
    UQ_RETURN_IF_ERROR(packer.AddFile(source.uri, std::move(bytes), wanted, 0, &packed));
    const TextFileProvenance& facts = packed.provenance.files.back();
    if (source.num_sequences == 0) given += facts.num_sequences;
    if (fewer_will_do && source.num_sequences == 0) wanted = 1;
    if (facts.num_sequences < std::max<int64_t>(wanted, 1)) {
      return InvalidInput(
          "TOO_FEW_SEQUENCES",
          absl::StrCat("text file ", source.uri, " makes ", facts.num_sequences, " sequences of ",
                       sequence_length, " tokens, but ", std::max<int64_t>(wanted, 1),
                       " are asked for (", facts.num_documents, " documents, of them ",
                       facts.num_too_short, " too short and ", facts.num_refused,
                       " refused); give more text, fewer --num-samples or a smaller "
                       "--sequence-length"));
    }
  }
  AddDigests(*tokenizer, &packed);
  return packed;
}

absl::StatusOr<PackedText> PackEvaluationText(const std::string& uri, TextTokenizer* tokenizer,
                                              int64_t min_tokens, int64_t max_tokens,
                                              int64_t vocab_size, const DataOptions& options) {
  PackedText packed;
  Packer packer(tokenizer, 0, vocab_size);
  UQ_ASSIGN_OR_RETURN(std::string bytes, ReadTextFile(uri, options));
  UQ_RETURN_IF_ERROR(packer.AddFile(uri, std::move(bytes), 0, max_tokens, &packed));
  packed.sequence_length = static_cast<int64_t>(packed.ids.size());
  if (packed.sequence_length < min_tokens) {
    return InvalidInput("TOO_FEW_TOKENS",
                        absl::StrCat("text file ", uri, " has ", packed.sequence_length,
                                     " tokens; one evaluation window needs ", min_tokens));
  }
  AddDigests(*tokenizer, &packed);
  return packed;
}

absl::StatusOr<PackedText> ReadEvaluationText(const std::string& uri, ObjectStore* model,
                                              TextSettings settings, int64_t min_tokens,
                                              int64_t max_tokens, int64_t vocab_size,
                                              const DataOptions& options) {
  settings.field_may_miss = true;
  settings.min_tokens = 1;
  settings.shuffle_seed = 0;
  settings.truncate = false;
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<TextTokenizer> tokenizer,
                      TextTokenizer::Open(model, settings));
  return PackEvaluationText(uri, tokenizer.get(), min_tokens, max_tokens, vocab_size, options);
}

TextSettings TextSettingsOf(const QuantizationSpec& spec) {
  TextSettings settings;
  settings.field = spec.text_field;
  settings.truncate = spec.text_packing == TextPacking::kTruncate;
  settings.separator = spec.text_separator;
  settings.min_tokens = spec.text_min_tokens;
  settings.chat_template = spec.text_chat_template;
  settings.special_tokens = spec.text_special_tokens == TextSpecialTokens::kAdd;
  settings.shuffle_seed = spec.text_shuffle_seed;
  return settings;
}

}  // namespace uniquanf
