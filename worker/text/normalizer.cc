#include "worker/text/normalizer.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "common/base/status.h"
#include "worker/text/pattern.h"
#include "worker/text/tokenizer_file.h"
#include "worker/text/unicode.h"

namespace uniquanf {
namespace {

// Characters below U+0300 are in composed form already.
bool IsComposed(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char byte) { return static_cast<uint8_t>(byte) < 0xCC; });
}

template <typename Keep>
void FilterCharacters(absl::string_view text, std::string* out, Keep keep) {
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const char32_t c = NextCodePoint(text, &at);
    if (keep(c)) out->append(text.data() + start, at - start);
  }
}

// What the reference's Nmt does: some controls go, spaces of other kinds become spaces.
void Nmt(absl::string_view text, std::string* out) {
  for (size_t at = 0; at < text.size();) {
    const char32_t c = NextCodePoint(text, &at);
    if ((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F ||
        c == 0x9F) {
      continue;
    }
    const bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                       (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xFEFF || c == 0xFFFD;
    AppendCodePoint(space ? ' ' : c, out);
  }
}

bool IsChinese(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

void Lowercase(absl::string_view text, std::string* out) {
  for (size_t at = 0; at < text.size();) AppendLowercase(NextCodePoint(text, &at), out);
}

}  // namespace

absl::Status Normalizer::AddReplace(const nlohmann::json& json) {
  absl::Status status;
  const std::string content = StringOr(json, "content", "", &status);
  UQ_RETURN_IF_ERROR(status);
  UQ_ASSIGN_OR_RETURN(const auto pattern, Pattern::Create(json));
  steps_.push_back(
      [pattern, content](absl::string_view text, std::string* out) -> absl::StatusOr<bool> {
        std::vector<PiecePart> parts;
        UQ_RETURN_IF_ERROR(pattern.Find(text, &parts));
        for (const PiecePart& part : parts) {
          if (part.matched) {
            *out += content;
          } else {
            out->append(text.data() + part.start, part.end - part.start);
          }
          if (out->size() > kMaxNormalizedBytes) break;
        }
        return true;
      });
  return absl::OkStatus();
}

absl::Status Normalizer::AddStrip(const nlohmann::json& json) {
  absl::Status status;
  const bool left = BoolOr(json, "strip_left", true, &status);
  const bool right = BoolOr(json, "strip_right", true, &status);
  UQ_RETURN_IF_ERROR(status);
  steps_.push_back([left, right](absl::string_view text, std::string* out) -> absl::StatusOr<bool> {
    size_t start = 0, end = text.size();
    for (size_t at = 0; left && start < end && IsWhitespace(NextCodePoint(text, &at));) start = at;
    while (right && end > start && IsWhitespace(PreviousCodePoint(text, end))) {
      do {
        --end;
      } while (end > start && (text[end] & 0xC0) == 0x80);
    }
    out->assign(text.data() + start, end - start);
    return true;
  });
  return absl::OkStatus();
}

absl::Status Normalizer::AddBert(const nlohmann::json& json) {
  absl::Status status;
  const bool clean = BoolOr(json, "clean_text", true, &status);
  const bool chinese = BoolOr(json, "handle_chinese_chars", true, &status);
  const bool lowercase = BoolOr(json, "lowercase", true, &status);
  const bool strip = BoolOr(json, "strip_accents", lowercase, &status);
  UQ_RETURN_IF_ERROR(status);
  steps_.push_back([=](absl::string_view text, std::string* out) -> absl::StatusOr<bool> {
    for (size_t at = 0; at < text.size();) {
      char32_t c = NextCodePoint(text, &at);
      if (clean && (c == 0 || c == 0xFFFD || IsControl(c))) continue;
      if (clean && IsWhitespace(c)) c = ' ';
      const bool padded = chinese && IsChinese(c);
      if (padded) out->push_back(' ');
      AppendCodePoint(c, out);
      if (padded) out->push_back(' ');
    }
    if (strip) {
      const std::string parts = ToNormalForm(*out, NormalForm::kNfd);
      out->clear();
      FilterCharacters(parts, out, [](char32_t c) { return !IsNonspacingMark(c); });
    }
    if (lowercase) {
      const std::string cased = std::move(*out);
      out->clear();
      Lowercase(cased, out);
    }
    return true;
  });
  return absl::OkStatus();
}

absl::Status Normalizer::Add(const nlohmann::json& json, int depth) {
  if (json.is_null()) return absl::OkStatus();
  const std::string type = TypeOf(json);
  if (type == "Sequence") {
    const auto it = json.find("normalizers");
    if (it == json.end() || !it->is_array() || it->size() > 100 || depth > 8) {
      return BadTokenizer("the normalizer \"Sequence\" has no list of at most 100 normalizers");
    }
    for (const nlohmann::json& member : *it) UQ_RETURN_IF_ERROR(Add(member, depth + 1));
    return absl::OkStatus();
  }
  const std::pair<const char*, NormalForm> forms[] = {{"NFC", NormalForm::kNfc},
                                                      {"NFD", NormalForm::kNfd},
                                                      {"NFKC", NormalForm::kNfkc},
                                                      {"NFKD", NormalForm::kNfkd}};
  for (const auto& [name, form] : forms) {
    if (type != name) continue;
    steps_.push_back(
        [form = form](absl::string_view text, std::string* out) -> absl::StatusOr<bool> {
          if (form == NormalForm::kNfc ? IsComposed(text) : IsAscii(text)) return false;
          *out = ToNormalForm(text, form);
          return true;
        });
    return absl::OkStatus();
  }
  if (type == "Replace") return AddReplace(json);
  if (type == "Strip") return AddStrip(json);
  if (type == "BertNormalizer") return AddBert(json);
  if (type == "Prepend") {
    absl::Status status;
    const std::string prefix = StringOr(json, "prepend", "", &status);
    steps_.push_back([prefix](absl::string_view text, std::string* out) -> absl::StatusOr<bool> {
      if (text.empty()) return false;
      *out = absl::StrCat(prefix, text);
      return true;
    });
    return status;
  }
  void (*apply)(absl::string_view, std::string*) = nullptr;
  if (type == "Lowercase") apply = Lowercase;
  if (type == "Nmt") apply = Nmt;
  if (type == "ByteLevel") apply = AppendByteLevel;
  if (type == "StripAccents") {
    apply = [](absl::string_view text, std::string* out) {
      FilterCharacters(text, out, [](char32_t c) { return !IsMark(c); });
    };
  }
  if (apply == nullptr) {
    return UnsupportedTokenizer(
        absl::StrCat("its normalizer is of the kind \"", type, "\", which is not supported"));
  }
  steps_.push_back([apply](absl::string_view text, std::string* out) -> absl::StatusOr<bool> {
    apply(text, out);
    return true;
  });
  return absl::OkStatus();
}

absl::StatusOr<Normalizer> Normalizer::Create(const nlohmann::json& json) {
  Normalizer normalizer;
  UQ_RETURN_IF_ERROR(normalizer.Add(json, 0));
  return normalizer;
}

absl::StatusOr<absl::string_view> Normalizer::Apply(absl::string_view text,
                                                    std::string* storage) const {
  for (const Step& step : steps_) {
    std::string out;
    UQ_ASSIGN_OR_RETURN(const bool changed, step(text, &out));
    if (!changed) continue;
    if (out.size() > kMaxNormalizedBytes) {
      return InvalidInput("TEXT_TOO_LONG",
                          absl::StrCat("the tokenizer's normalizer makes more than ",
                                       kMaxNormalizedBytes, " bytes of one document"));
    }
    *storage = std::move(out);
    text = *storage;
  }
  return text;
}

}  // namespace uniquanf
