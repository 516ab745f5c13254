#include "worker/text/decoder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "common/base/status.h"
#include "worker/text/pattern.h"
#include "worker/text/tokenizer_file.h"
#include "worker/text/unicode.h"

namespace uniquanf {
namespace {

constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";

// Characters back to bytes, of all tokens at once: a character may be spread over several.
void JoinByteLevel(std::vector<std::string>* tokens) {
  std::string bytes;
  for (const std::string& token : *tokens) {
    const size_t before = bytes.size();
    for (size_t at = 0; at < token.size();) {
      const int byte = ByteOfCharacter(NextCodePoint(token, &at));
      if (byte < 0) {  // not of this alphabet: the token is text
        bytes.resize(before);
        bytes += token;
        break;
      }
      bytes.push_back(static_cast<char>(byte));
    }
  }
  *tokens = {ReplaceInvalidUtf8(bytes)};
}

// "<0xHH>" as a byte, or -1.
int ByteOfToken(absl::string_view token) {
  if (token.size() != 6 || !absl::StartsWith(token, "<0x") || token[5] != '>') return -1;
  int byte;
  return absl::SimpleHexAtoi(token.substr(3, 2), &byte) ? byte : -1;
}

void JoinFallbackBytes(std::vector<std::string>* tokens) {
  std::vector<std::string> out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (FindInvalidUtf8(bytes) == absl::string_view::npos) {
      out.push_back(bytes);
    } else {
      for (size_t i = 0; i < bytes.size(); ++i) out.emplace_back(kReplacement);
    }
    bytes.clear();
  };
  for (std::string& token : *tokens) {
    const int byte = ByteOfToken(token);
    if (byte >= 0) {
      bytes.push_back(static_cast<char>(byte));
    } else {
      flush();
      out.push_back(std::move(token));
    }
  }
  flush();
  *tokens = std::move(out);
}

}  // namespace

absl::Status Decoder::AddReplace(const nlohmann::json& json) {
  absl::Status status;
  const std::string content = StringOr(json, "content", "", &status);
  UQ_RETURN_IF_ERROR(status);
  UQ_ASSIGN_OR_RETURN(const Pattern pattern, Pattern::Create(json));
  steps_.push_back([pattern, content](std::vector<std::string>* tokens) {
    for (std::string& token : *tokens) {
      std::vector<PiecePart> parts;
      if (!pattern.Find(token, &parts).ok()) continue;
      std::string out;
      for (const PiecePart& part : parts) {
        out.append(part.matched ? content : token.substr(part.start, part.end - part.start));
      }
      token = std::move(out);
    }
  });
  return absl::OkStatus();
}

absl::Status Decoder::AddStrip(const nlohmann::json& json) {
  absl::Status status;
  const std::string content = StringOr(json, "content", " ", &status);
  UQ_RETURN_IF_ERROR(status);
  if (content.empty()) return BadTokenizer("the decoder \"Strip\" strips nothing");
  int64_t counts[2];
  const char* names[2] = {"start", "stop"};
  for (int i = 0; i < 2; ++i) {
    const auto it = json.find(names[i]);
    if (it == json.end() || !it->is_number_unsigned()) {
      return BadTokenizer(absl::StrCat("the decoder \"Strip\" has no count \"", names[i], "\""));
    }
    counts[i] = static_cast<int64_t>(std::min<uint64_t>(it->get<uint64_t>(), 1 << 20));
  }
  steps_.push_back(
      [content, start = counts[0], stop = counts[1]](std::vector<std::string>* tokens) {
        for (std::string& token : *tokens) {
          absl::string_view rest = token;
          for (int64_t i = 0; i < start && absl::StartsWith(rest, content); ++i) {
            rest.remove_prefix(content.size());
          }
          for (int64_t i = 0; i < stop && absl::EndsWith(rest, content); ++i) {
            rest.remove_suffix(content.size());
          }
          token = std::string(rest);
        }
      });
  return absl::OkStatus();
}

absl::Status Decoder::AddMetaspace(const nlohmann::json& json) {
  absl::Status status;
  const std::string replacement = StringOr(json, "replacement", "\xE2\x96\x81", &status);
  const bool drops_first = StringOr(json, "prepend_scheme", "always", &status) != "never" &&
                           BoolOr(json, "add_prefix_space", true, &status);
  UQ_RETURN_IF_ERROR(status);
  if (replacement.empty()) return BadTokenizer("Metaspace replaces spaces by nothing");
  steps_.push_back([replacement, drops_first](std::vector<std::string>* tokens) {
    for (size_t i = 0; i < tokens->size(); ++i) {
      std::string& token = (*tokens)[i];
      token = absl::StrReplaceAll(token, {{replacement, i == 0 && drops_first ? "" : " "}});
    }
  });
  return absl::OkStatus();
}

absl::Status Decoder::Add(const nlohmann::json& json, int depth) {
  if (json.is_null()) return absl::OkStatus();
  none_ = false;
  const std::string type = TypeOf(json);
  absl::Status status;
  if (type == "Sequence") {
    const auto it = json.find("decoders");
    if (it == json.end() || !it->is_array() || it->size() > 100 || depth > 8) {
      return BadTokenizer("the decoder \"Sequence\" has no list of at most 100 decoders");
    }
    for (const nlohmann::json& member : *it) UQ_RETURN_IF_ERROR(Add(member, depth + 1));
    return absl::OkStatus();
  }
  if (type == "Replace") return AddReplace(json);
  if (type == "Strip") return AddStrip(json);
  if (type == "Metaspace") return AddMetaspace(json);
  if (type == "ByteLevel") {
    steps_.push_back(JoinByteLevel);
  } else if (type == "ByteFallback") {
    steps_.push_back(JoinFallbackBytes);
  } else if (type == "Fuse") {
    steps_.push_back(
        [](std::vector<std::string>* tokens) { *tokens = {absl::StrJoin(*tokens, "")}; });
  } else if (type == "BPEDecoder") {
    const std::string suffix = StringOr(json, "suffix", "</w>", &status);
    UQ_RETURN_IF_ERROR(status);
    if (suffix.empty()) return BadTokenizer("the decoder \"BPEDecoder\" has an empty suffix");
    steps_.push_back([suffix](std::vector<std::string>* tokens) {
      for (size_t i = 0; i < tokens->size(); ++i) {
        (*tokens)[i] =
            absl::StrReplaceAll((*tokens)[i], {{suffix, i + 1 == tokens->size() ? "" : " "}});
      }
    });
  } else {
    return UnsupportedTokenizer(
        absl::StrCat("its decoder is of the kind \"", type, "\", which is not supported"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Decoder> Decoder::Create(const nlohmann::json& json) {
  Decoder decoder;
  UQ_RETURN_IF_ERROR(decoder.Add(json, 0));
  return decoder;
}

std::string Decoder::Decode(std::vector<std::string> tokens) const {
  if (none_) return absl::StrJoin(tokens, " ");
  for (const Step& step : steps_) step(&tokens);
  return absl::StrJoin(tokens, "");
}

}  // namespace uniquanf
