#include "common/artifact/text_provenance.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr auto kRequired = JsonObjectReader::kRequired;
constexpr size_t kMaxFiles = 1000;

void ReadDigest(JsonObjectReader* reader, absl::string_view name, bool may_be_empty,
                std::string* out) {
  reader->Read(name, kRequired, out);
  const bool hex = out->size() == 64 && std::all_of(out->begin(), out->end(), [](char c) {
                     return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
                   });
  if (reader->ok() && !hex && !(may_be_empty && out->empty())) {
    reader->Fail(absl::StrCat(reader->PathOf(name), " is no SHA-256 digest"));
  }
}

absl::Status ParseFile(const nlohmann::json& value, const std::string& path,
                       absl::string_view reason, TextFileProvenance* file) {
  JsonObjectReader reader(value, path, reason);
  ReadDigest(&reader, "sha256", false, &file->sha256);
  reader.Read("size_bytes", kRequired, &file->size_bytes);
  reader.Read("kind", kRequired, &file->kind);
  const std::pair<const char*, int64_t*> counts[] = {{"num_documents", &file->num_documents},
                                                     {"num_used", &file->num_used},
                                                     {"num_too_short", &file->num_too_short},
                                                     {"num_refused", &file->num_refused},
                                                     {"num_sequences", &file->num_sequences}};
  for (const auto& [name, count] : counts) {
    reader.Read(name, kRequired, count);
    if (*count < 0) reader.Fail(absl::StrCat(reader.PathOf(name), " is negative"));
  }
  return reader.Finish();
}

}  // namespace

OrderedJson TextProvenance::ToJson() const {
  OrderedJson json = {{"tokenizer_sha256", tokenizer_sha256},
                      {"chat_template_sha256", chat_template_sha256},
                      {"files", OrderedJson::array()}};
  for (const TextFileProvenance& file : files) {
    json["files"].push_back({{"sha256", file.sha256},
                             {"size_bytes", file.size_bytes},
                             {"kind", file.kind},
                             {"num_documents", file.num_documents},
                             {"num_used", file.num_used},
                             {"num_too_short", file.num_too_short},
                             {"num_refused", file.num_refused},
                             {"num_sequences", file.num_sequences}});
  }
  return json;
}

absl::Status ReadTextProvenance(JsonObjectReader* object, absl::string_view name,
                                absl::string_view reason, std::optional<TextProvenance>* out) {
  const nlohmann::json* value = object->ReadObject(name, JsonObjectReader::kOptional);
  if (value == nullptr) return absl::OkStatus();
  const std::string path = object->PathOf(name);
  JsonObjectReader reader(*value, path, reason);
  TextProvenance text;
  ReadDigest(&reader, "tokenizer_sha256", false, &text.tokenizer_sha256);
  ReadDigest(&reader, "chat_template_sha256", true, &text.chat_template_sha256);
  const nlohmann::json* files = reader.ReadArray("files", kRequired);
  if (files != nullptr && files->size() > kMaxFiles) reader.Fail("too many files of text");
  UQ_RETURN_IF_ERROR(reader.Finish());
  for (size_t i = 0; i < files->size(); ++i) {
    UQ_RETURN_IF_ERROR(ParseFile((*files)[i], absl::StrCat(path, ".files[", i, "]"), reason,
                                 &text.files.emplace_back()));
  }
  *out = std::move(text);
  return absl::OkStatus();
}

}  // namespace uniquanf
