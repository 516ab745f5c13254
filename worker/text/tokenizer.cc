#include "worker/text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "common/base/status.h"
#include "worker/text/tokenizer_file.h"
#include "worker/text/unicode.h"

namespace uniquanf {
namespace {

constexpr size_t kMaxTemplateIds = 1024;

const nlohmann::json& MemberOrNull(const nlohmann::json& object, const char* name) {
  static const nlohmann::json null;
  const auto it = object.find(name);
  return it == object.end() ? null : *it;
}

absl::StatusOr<int32_t> IdOf(const nlohmann::json& value) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > TokenizerFile::kMaxId) {
    return BadTokenizer("the post-processor names a token without a valid id");
  }
  return value.get<int32_t>();
}

}  // namespace

absl::Status Tokenizer::ReadTemplate(const nlohmann::json& json) {
  const nlohmann::json& single = MemberOrNull(json, "single");
  const nlohmann::json& special = MemberOrNull(json, "special_tokens");
  if (!single.is_array() || !special.is_object()) {
    return BadTokenizer("the post-processor has no template \"single\" or no \"special_tokens\"");
  }
  std::vector<int32_t> before, after;
  int num_sequences = 0;
  for (const nlohmann::json& piece : single) {
    if (!piece.is_object()) return BadTokenizer("the post-processor's template has no objects");
    if (piece.contains("Sequence")) {
      ++num_sequences;
      continue;
    }
    absl::Status status;
    const nlohmann::json& token = MemberOrNull(piece, "SpecialToken");
    const std::string name = token.is_object() ? StringOr(token, "id", "", &status) : "";
    const nlohmann::json& entry = MemberOrNull(special, name.c_str());
    const nlohmann::json& ids = entry.is_object() ? MemberOrNull(entry, "ids") : entry;
    if (!ids.is_array()) {
      return BadTokenizer(absl::StrCat("the post-processor's template names the special token \"",
                                       name.substr(0, 100), "\", which has no ids"));
    }
    for (const nlohmann::json& value : ids) {
      UQ_ASSIGN_OR_RETURN(const int32_t id, IdOf(value));
      (num_sequences > 0 ? after : before).push_back(id);
    }
  }
  if (num_sequences != 1) {
    return UnsupportedTokenizer("its post-processor does not put the text once into its template");
  }
  before_.insert(before_.begin(), before.begin(), before.end());
  after_.insert(after_.end(), after.begin(), after.end());
  return absl::OkStatus();
}

absl::Status Tokenizer::ReadPostProcessor(const nlohmann::json& json, int depth) {
  if (json.is_null()) return absl::OkStatus();
  const std::string type = TypeOf(json);
  if (type == "ByteLevel") return absl::OkStatus();  // offsets only
  if (type == "TemplateProcessing") return ReadTemplate(json);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    for (const char* name : {"cls", "sep"}) {
      const nlohmann::json& pair = MemberOrNull(json, name);
      if (!pair.is_array() || pair.size() != 2) {
        return BadTokenizer(absl::StrCat("the post-processor has no pair \"", name, "\""));
      }
      UQ_ASSIGN_OR_RETURN(const int32_t id, IdOf(pair[1]));
      if (absl::string_view(name) == "cls") {
        before_.insert(before_.begin(), id);
      } else {
        after_.push_back(id);
      }
    }
    return absl::OkStatus();
  }
  if (type == "Sequence") {
    const nlohmann::json& members = MemberOrNull(json, "processors");
    if (!members.is_array() || members.size() > 100 || depth > 8) {
      return BadTokenizer("the post-processor \"Sequence\" has no list of at most 100 members");
    }
    for (const nlohmann::json& member : members) {
      UQ_RETURN_IF_ERROR(ReadPostProcessor(member, depth + 1));
    }
    return absl::OkStatus();
  }
  return UnsupportedTokenizer(
      absl::StrCat("its post-processor is of the kind \"", type, "\", which is not supported"));
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Create(absl::string_view json) {
  UQ_ASSIGN_OR_RETURN(TokenizerFile file, TokenizerFile::Parse(json));
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer());
  UQ_ASSIGN_OR_RETURN(tokenizer->model_, BpeModel::Create(&file));
  UQ_ASSIGN_OR_RETURN(tokenizer->normalizer_,
                      Normalizer::Create(MemberOrNull(file.rest, "normalizer")));
  UQ_ASSIGN_OR_RETURN(tokenizer->pre_tokenizer_,
                      PreTokenizer::Create(MemberOrNull(file.rest, "pre_tokenizer")));
  UQ_ASSIGN_OR_RETURN(
      tokenizer->added_,
      AddedTokens::Create(MemberOrNull(file.rest, "added_tokens"), tokenizer->normalizer_));
  UQ_ASSIGN_OR_RETURN(tokenizer->decoder_, Decoder::Create(MemberOrNull(file.rest, "decoder")));
  UQ_RETURN_IF_ERROR(tokenizer->ReadPostProcessor(MemberOrNull(file.rest, "post_processor"), 0));
  if (tokenizer->before_.size() + tokenizer->after_.size() > kMaxTemplateIds) {
    return BadTokenizer("the post-processor adds more than 1024 tokens");
  }
  tokenizer->id_bound_ = tokenizer->model_->id_bound();
  for (const AddedToken& token : tokenizer->added_.tokens()) {
    tokenizer->id_bound_ = std::max<int64_t>(tokenizer->id_bound_, token.id + 1);
  }
  return tokenizer;
}

absl::Status Tokenizer::EncodeText(absl::string_view text, bool at_start, bool literal_special,
                                   TokenizerScratch* scratch, std::vector<int32_t>* ids) const {
  std::string storage;
  UQ_ASSIGN_OR_RETURN(const absl::string_view normal, normalizer_.Apply(text, &storage));
  std::vector<TextPart> parts;
  added_.Split(normal, /*normalized=*/true, literal_special, &parts);
  for (const TextPart& part : parts) {
    if (part.id >= 0) {
      ids->push_back(part.id);
      continue;
    }
    UQ_RETURN_IF_ERROR(pre_tokenizer_.Split(
        normal.substr(part.start, part.end - part.start), at_start && part.start == 0,
        [&](absl::string_view piece) {
          model_->Encode(piece, pre_tokenizer_.byte_level(), &scratch->bpe, ids);
        }));
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::Encode(absl::string_view text, const EncodeOptions& options,
                               TokenizerScratch* scratch, std::vector<int32_t>* ids) const {
  if (text.size() > kMaxDocumentBytes) {
    return InvalidInput("TEXT_TOO_LONG",
                        absl::StrCat("a document has ", text.size(), " bytes; at most ",
                                     kMaxDocumentBytes, " are encoded at once; split it"));
  }
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid != absl::string_view::npos) {
    return InvalidInput("INVALID_UTF8",
                        absl::StrCat("the text is not UTF-8: byte ", invalid, " of a document of ",
                                     text.size(), " bytes belongs to no character; convert it"));
  }
  if (options.add_special_tokens) ids->insert(ids->end(), before_.begin(), before_.end());
  std::vector<TextPart> parts;
  added_.Split(text, /*normalized=*/false, options.literal_special, &parts);
  for (const TextPart& part : parts) {
    if (part.id >= 0) {
      ids->push_back(part.id);
    } else {
      UQ_RETURN_IF_ERROR(EncodeText(text.substr(part.start, part.end - part.start), part.start == 0,
                                    options.literal_special, scratch, ids));
    }
  }
  if (options.add_special_tokens) ids->insert(ids->end(), after_.begin(), after_.end());
  return absl::OkStatus();
}

std::string Tokenizer::Decode(const std::vector<int32_t>& ids, bool skip_special) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    if (const AddedToken* added = added_.FindId(id); added != nullptr) {
      if (!(skip_special && added->special)) tokens.push_back(added->content);
    } else if (const std::string* token = model_->TokenOf(id); token != nullptr) {
      tokens.push_back(*token);
    }
  }
  return decoder_.Decode(std::move(tokens));
}

int64_t Tokenizer::FindToken(absl::string_view token) const {
  const AddedToken* added = added_.FindContent(token);
  return added != nullptr ? added->id : model_->Find(token);
}

std::string TextStream::Add(int32_t id) {
  ids_.push_back(id);
  std::string text = tokenizer_.Decode(ids_, skip_special_);
  // What the last tokens' bytes make may still become a character; what lies before will not.
  size_t stable = text.size();
  for (int i = 0; i < 3; ++i) {
    if (absl::EndsWith(absl::string_view(text).substr(0, stable), "\xEF\xBF\xBD")) stable -= 3;
  }
  if (stable <= given_.size() || !absl::StartsWith(text, given_)) return "";
  std::string fresh = text.substr(given_.size(), stable - given_.size());
  if (stable < text.size()) {
    given_ = text.substr(0, stable);
    return fresh;
  }
  // The ids behind the last output stay as context: a decoder may treat the first token otherwise.
  ids_.erase(ids_.begin(), ids_.begin() + num_given_);
  num_given_ = ids_.size();
  given_ = tokenizer_.Decode(ids_, skip_special_);
  return fresh;
}

std::string TextStream::Finish() {
  const std::string text = tokenizer_.Decode(ids_, skip_special_);
  std::string rest = absl::StartsWith(text, given_) ? text.substr(given_.size()) : "";
  ids_.clear();
  given_.clear();
  num_given_ = 0;
  return rest;
}

}  // namespace uniquanf
