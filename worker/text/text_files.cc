#include "worker/text/text_files.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/file_kind.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "worker/text/unicode.h"
#include "worker/text/unpack.h"

namespace uniquanf {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFields[] = {"messages", "conversations", "text",
                                   "content",  "prompt",        "input_ids"};
constexpr size_t kMaxDocuments = 50'000'000;

absl::Status BadFile(absl::string_view name, absl::string_view message) {
  return InvalidInput("INVALID_TEXT_FILE", absl::StrCat("text file ", name, ": ", message));
}

// Members in the file's order, which a chat template shows.
absl::StatusOr<Json> ParseOrdered(absl::string_view text, const std::string& what) {
  UQ_RETURN_IF_ERROR(ParseJson(text, what, "INVALID_TEXT_FILE").status());
  return Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
}

// One sample of JSON into a document.
class SampleReader {
 public:
  SampleReader(absl::string_view name, const ParseTextOptions& options)
      : name_(name), field_(options.field), field_may_miss_(options.field_may_miss) {}

  absl::StatusOr<TextDocument> Read(const Json& sample, const std::string& where) const {
    if (!sample.is_object()) return ReadValue(sample, where, "");
    if (!field_.empty()) {
      const auto it = sample.find(field_);
      if (it != sample.end()) return ReadMember(sample, *it, where, field_);
      if (!field_may_miss_) return NoField(sample, where, absl::StrCat("\"", field_, "\""));
    }
    for (const char* field : kFields) {
      const auto it = sample.find(field);
      if (it != sample.end() && !it->is_null()) return ReadMember(sample, *it, where, field);
    }
    if (sample.size() == 1 && sample.begin()->is_string()) {
      return ReadValue(*sample.begin(), where, "");
    }
    return NoField(sample, where, absl::StrCat("none of ", absl::StrJoin(kFields, ", ")));
  }

 private:
  absl::Status NoField(const Json& sample, const std::string& where,
                       const std::string& missing) const {
    std::vector<std::string> names;
    for (const auto& [key, value] : sample.items()) {
      if (names.size() < 20) names.push_back(key.substr(0, 60));
    }
    return InvalidInput("NO_TEXT", absl::StrCat("text file ", name_, ", ", where,
                                                ": the sample has ", field_.empty() ? "" : "no ",
                                                missing, "; it has: ", absl::StrJoin(names, ", "),
                                                "; name the field of the text"));
  }
  absl::StatusOr<TextDocument> ReadMember(const Json& sample, const Json& value,
                                          const std::string& where, absl::string_view field) const {
    UQ_ASSIGN_OR_RETURN(TextDocument document, ReadValue(value, where, field));
    if (document.has_ids) {
      const auto mask = sample.find("attention_mask");
      if (mask != sample.end()) UQ_RETURN_IF_ERROR(KeepUnmasked(*mask, where, &document.ids));
    }
    if (document.conversation.is_null()) return document;
    for (const auto& [key, member] : sample.items()) {
      if (key != field && key != "messages") document.conversation[key] = member;
    }
    return document;
  }
  absl::Status KeepUnmasked(const Json& mask, const std::string& where,
                            std::vector<int64_t>* ids) const {
    const absl::Status bad =
        BadFile(name_, absl::StrCat(where, ": attention_mask is no list of ", ids->size(),
                                    " zeros and ones, one for each of input_ids"));
    if (!mask.is_array() || mask.size() != ids->size()) return bad;
    std::vector<int64_t> kept;
    for (size_t i = 0; i < ids->size(); ++i) {
      if (!mask[i].is_number_unsigned() || mask[i].get<uint64_t>() > 1) return bad;
      if (mask[i].get<uint64_t>() == 1) kept.push_back((*ids)[i]);
    }
    *ids = std::move(kept);
    return absl::OkStatus();
  }
  absl::StatusOr<TextDocument> ReadValue(const Json& value, const std::string& where,
                                         absl::string_view field) const {
    TextDocument document;
    if (value.is_string()) {
      document.text = value.get<std::string>();
      return document;
    }
    const bool list = value.is_array();
    if (list && (value.empty() || value[0].is_number())) {
      document.has_ids = true;
      for (const Json& id : value) {
        if (!id.is_number_integer() || id.get<int64_t>() < 0) {
          return BadFile(name_, absl::StrCat(where, ": a list of token ids has the member ",
                                             id.dump().substr(0, 60)));
        }
        document.ids.push_back(id.get<int64_t>());
      }
      return document;
    }
    if (list && value[0].is_object()) {
      UQ_ASSIGN_OR_RETURN(document.conversation["messages"], Messages(value, where));
      return document;
    }
    return BadFile(
        name_,
        absl::StrCat(where, ": ", field.empty() ? "the sample" : absl::StrCat("\"", field, "\""),
                     " is neither text, nor a conversation (a list of {\"role\", "
                     "\"content\"}), nor a list of token ids"));
  }
  // Roles and contents; also {"from", "value"} with the speakers' common names.
  absl::StatusOr<Json> Messages(const Json& list, const std::string& where) const {
    Json messages = list;
    for (Json& message : messages) {
      if (message.is_object() && message.contains("from") && message.contains("value") &&
          !message.contains("role")) {
        const std::string from =
            message["from"].is_string() ? message["from"].get<std::string>() : "";
        message["role"] = from == "human" ? "user" : from == "gpt" ? "assistant" : from;
        message["content"] = message["value"];
        message.erase("from");
        message.erase("value");
      }
      if (!message.is_object() || !message.contains("role") || !message["role"].is_string()) {
        return BadFile(name_, absl::StrCat(where, ": a message of the conversation has no role"));
      }
    }
    return messages;
  }

  const absl::string_view name_;
  const std::string field_;
  const bool field_may_miss_;
};

absl::Status ReadLines(absl::string_view name, absl::string_view bytes, const SampleReader& reader,
                       std::vector<TextDocument>* documents) {
  int64_t line = 0;
  while (!bytes.empty()) {
    ++line;
    const size_t end = std::min(bytes.find('\n'), bytes.size());
    const absl::string_view text = absl::StripAsciiWhitespace(bytes.substr(0, end));
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
    if (text.empty()) continue;
    const std::string where = absl::StrCat("line ", line);
    UQ_ASSIGN_OR_RETURN(const Json sample,
                        ParseOrdered(text, absl::StrCat("text file ", name, ", ", where)));
    UQ_ASSIGN_OR_RETURN(TextDocument document, reader.Read(sample, where));
    documents->push_back(std::move(document));
    if (documents->size() > kMaxDocuments) return BadFile(name, "it has too many samples");
  }
  return absl::OkStatus();
}

absl::Status ReadArray(absl::string_view name, const Json& json, const SampleReader& reader,
                       std::vector<TextDocument>* documents) {
  if (!json.is_array()) return BadFile(name, "it is JSON, but no list of samples");
  if (!json.empty() && json[0].is_number()) {
    UQ_ASSIGN_OR_RETURN(TextDocument document, reader.Read(json, "the list"));
    documents->push_back(std::move(document));
    return absl::OkStatus();
  }
  for (size_t i = 0; i < json.size(); ++i) {
    UQ_ASSIGN_OR_RETURN(TextDocument document, reader.Read(json[i], absl::StrCat("sample ", i)));
    documents->push_back(std::move(document));
  }
  return absl::OkStatus();
}

void ReadPlain(absl::string_view bytes, bool lines, std::vector<TextDocument>* documents) {
  const auto add = [documents](absl::string_view text) {
    documents->emplace_back();
    documents->back().text = std::string(text);
  };
  if (!lines) return add(bytes);
  while (!bytes.empty()) {
    const size_t end = std::min(bytes.find('\n'), bytes.size());
    add(absl::StripSuffix(bytes.substr(0, end), "\r"));
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
  }
}

// By its first line: a whole object, so that others follow.
bool LooksLikeLines(absl::string_view bytes) {
  const absl::string_view line =
      absl::StripAsciiWhitespace(bytes.substr(0, std::min(bytes.find('\n'), bytes.size())));
  return !line.empty() && (line[0] == '{' || line[0] == '[') &&
         Json::accept(line.begin(), line.end());
}

}  // namespace

absl::StatusOr<TextFileContent> ParseTextFile(absl::string_view name, std::string bytes,
                                              const ParseTextOptions& options) {
  UQ_ASSIGN_OR_RETURN(const std::string unpacked,
                      Unpack(name, std::move(bytes), kMaxTextFileBytes));
  absl::string_view text = unpacked;
  if (absl::StartsWith(text, "\xEF\xBB\xBF")) text.remove_prefix(3);
  if (absl::StripLeadingAsciiWhitespace(text).empty()) {
    return InvalidInput("NO_TEXT", absl::StrCat("text file ", name, " is empty"));
  }
  absl::string_view base = name;
  for (const char* suffix : {".gz", ".zst", ".zstd"}) base = absl::StripSuffix(base, suffix);
  const bool txt =
      absl::EndsWith(base, ".txt") || absl::EndsWith(base, ".text") || absl::EndsWith(base, ".md");
  const bool jsonl = absl::EndsWith(base, ".jsonl") || absl::EndsWith(base, ".ndjson");
  const bool json = absl::EndsWith(base, ".json");
  if (const std::string what = DescribeFileKind(text); !what.empty() && !txt) {
    return BadFile(name, absl::StrCat("it is ", what));
  }
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid != absl::string_view::npos) {
    const std::string what = DescribeFileKind(text);
    return BadFile(name, what.empty() ? absl::StrCat("byte ", invalid,
                                                     " belongs to no UTF-8 character; convert it")
                                      : absl::StrCat("it is ", what));
  }
  TextFileContent content;
  const SampleReader reader(name, options);
  // Files of the hub named .json often hold lines.
  if (jsonl || (!txt && LooksLikeLines(text) && text.find('\n') != absl::string_view::npos &&
                !Json::accept(text.begin(), text.end()))) {
    content.kind = "jsonl";
    UQ_RETURN_IF_ERROR(ReadLines(name, text, reader, &content.documents));
  } else if (json || (!txt && Json::accept(text.begin(), text.end()))) {
    content.kind = "json";
    UQ_ASSIGN_OR_RETURN(const Json parsed, ParseOrdered(text, absl::StrCat("text file ", name)));
    if (parsed.is_object()) {
      UQ_ASSIGN_OR_RETURN(TextDocument document, reader.Read(parsed, "the object"));
      content.documents.push_back(std::move(document));
    } else {
      UQ_RETURN_IF_ERROR(ReadArray(name, parsed, reader, &content.documents));
    }
  } else {
    content.kind = "text";
    ReadPlain(text, options.lines, &content.documents);
  }
  if (content.documents.empty()) {
    return InvalidInput("NO_TEXT", absl::StrCat("text file ", name, " has no samples"));
  }
  return content;
}

}  // namespace uniquanf
