#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "worker/export/gguf_file.h"

namespace uniquanf {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxTokenizerBytes = 256 << 20;
constexpr int kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;  // llama_token_type

// llama.cpp's names of splitting patterns.
struct Pattern {
  const char* name;
  const char* regex;
};
constexpr Pattern kPatterns[] = {
    {"llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
};

absl::Status Unknown(absl::string_view what) {
  return InvalidInput("EXPORT_NOT_POSSIBLE",
                      absl::StrCat("tokenizer.json: gguf's names for tokenizers have none for ",
                                   what, "; a file with another would split text differently"));
}

// The first node below `node` whose "type" is `type`.
const json* FindType(const json& node, absl::string_view type) {
  if (node.is_object()) {
    const auto name = node.find("type");
    if (name != node.end() && name->is_string() && name->get_ref<const std::string&>() == type) {
      return &node;
    }
  }
  if (node.is_structured()) {
    for (const json& child : node) {
      if (const json* found = FindType(child, type)) return found;
    }
  }
  return nullptr;
}

absl::StatusOr<std::string> PreTokenizer(const json& tokenizer) {
  const auto pre = tokenizer.find("pre_tokenizer");
  if (pre == tokenizer.end()) return Unknown("no pre_tokenizer");
  const json* bytes = FindType(*pre, "ByteLevel");
  if (bytes == nullptr) return Unknown("a tokenizer that is not byte-level");
  const json* split = FindType(*pre, "Split");
  if (split == nullptr) {
    if (bytes->value("use_regex", json(true)) == json(true)) return "gpt-2";
    return Unknown("a byte-level tokenizer without a pattern");
  }
  const auto pattern = split->find("pattern");
  const std::string regex = pattern != split->end() && pattern->is_object() &&
                                    pattern->contains("Regex") && (*pattern)["Regex"].is_string()
                                ? (*pattern)["Regex"].get<std::string>()
                                : "";
  for (const Pattern& known : kPatterns) {
    if (regex == known.regex) return known.name;
  }
  return Unknown(absl::StrCat("the pattern \"", regex, "\""));
}

absl::Status BadTokenizer(absl::string_view what) {
  return InvalidInput("INVALID_TOKENIZER", absl::StrCat("tokenizer.json: ", what));
}

absl::Status AddTokens(const json& tokenizer, int64_t vocab_size, GgufMetadata* metadata) {
  std::vector<std::string> tokens(vocab_size);
  std::vector<int32_t> types(vocab_size, kUnused);
  const auto put = [&](const std::string& text, const json& id, int type) -> absl::Status {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(vocab_size)) {
      return BadTokenizer(
          absl::StrCat("token \"", text, "\" has id ", id.dump(), "; the model has ", vocab_size));
    }
    tokens[id.get<uint64_t>()] = text;
    types[id.get<uint64_t>()] = type;
    return absl::OkStatus();
  };
  const json& model = tokenizer["model"];
  const auto vocab = model.find("vocab"), merges = model.find("merges");
  if (vocab == model.end() || !vocab->is_object() || merges == model.end() || !merges->is_array()) {
    return BadTokenizer("model.vocab or model.merges is missing");
  }
  for (const auto& [text, id] : vocab->items()) UQ_RETURN_IF_ERROR(put(text, id, kNormal));
  const auto added = tokenizer.find("added_tokens");
  for (const json& token : added != tokenizer.end() && added->is_array() ? *added : json::array()) {
    if (!token.is_object() || !token.contains("content") || !token["content"].is_string() ||
        !token.contains("id")) {
      return BadTokenizer("an added token has no content or id");
    }
    const bool special = token.value("special", json(false)) == json(true);
    UQ_RETURN_IF_ERROR(
        put(token["content"].get<std::string>(), token["id"], special ? kControl : kUserDefined));
  }
  for (int64_t id = 0; id < vocab_size; ++id) {
    if (types[id] == kUnused) tokens[id] = absl::StrCat("[PAD", id, "]");
  }
  std::vector<std::string> rules;
  for (const json& merge : *merges) {
    if (merge.is_string()) {
      rules.push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      rules.push_back(absl::StrCat(merge[0].get<std::string>(), " ", merge[1].get<std::string>()));
    } else {
      return BadTokenizer("a merge is neither a string nor a pair of strings");
    }
  }
  metadata->Add("tokenizer.ggml.tokens", tokens);
  metadata->Add("tokenizer.ggml.token_type", types);
  metadata->Add("tokenizer.ggml.merges", rules);
  return absl::OkStatus();
}

// Whether the tokenizer puts the begin token before a text.
bool AddsBegin(const json& tokenizer) {
  const auto post = tokenizer.find("post_processor");
  if (post == tokenizer.end()) return false;
  const json* single = FindType(*post, "TemplateProcessing");
  if (single == nullptr || !single->contains("single")) return false;
  const json& parts = (*single)["single"];
  return parts.is_array() && !parts.empty() && parts[0].is_object() &&
         parts[0].contains("SpecialToken");
}

void AddId(const ConfigJson& config, const char* field, const char* key, int64_t vocab_size,
           GgufMetadata* metadata) {
  auto id = config.find(field);
  if (id == config.end()) return;
  const ConfigJson value = id->is_array() && !id->empty() ? (*id)[0] : *id;
  if (!value.is_number_unsigned() || value.get<int64_t>() >= vocab_size) return;
  metadata->Add(key, value.get<uint32_t>());
}

absl::Status AddChatTemplate(ObjectStore* store, GgufMetadata* metadata) {
  const absl::StatusOr<std::string> file = store->Read("chat_template.jinja", kMaxTokenizerBytes);
  if (file.ok()) {
    metadata->Add("tokenizer.chat_template", *file);
    return absl::OkStatus();
  }
  if (!absl::IsNotFound(file.status())) return file.status();
  const absl::StatusOr<std::string> text = store->Read("tokenizer_config.json", kMaxTokenizerBytes);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  if (!text.ok()) return text.status();
  UQ_ASSIGN_OR_RETURN(const json config,
                      ParseJson(*text, "tokenizer_config.json", "INVALID_TOKENIZER"));
  if (config.is_object() && config.contains("chat_template") &&
      config["chat_template"].is_string()) {
    metadata->Add("tokenizer.chat_template", config["chat_template"].get<std::string>());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status AddVocabulary(ObjectStore* store, const ConfigJson& config, int64_t vocab_size,
                           GgufMetadata* metadata) {
  const absl::StatusOr<std::string> text = store->Read("tokenizer.json", kMaxTokenizerBytes);
  if (absl::IsNotFound(text.status())) {
    return InvalidInput("EXPORT_NOT_POSSIBLE",
                        "a gguf file holds the vocabulary, and the artifact has no tokenizer.json");
  }
  if (!text.ok()) return text.status();
  UQ_ASSIGN_OR_RETURN(const json tokenizer,
                      ParseJson(*text, "tokenizer.json", "INVALID_TOKENIZER"));
  if (!tokenizer.is_object() || !tokenizer.contains("model") || !tokenizer["model"].is_object()) {
    return BadTokenizer("there is no model");
  }
  if (tokenizer["model"].value("type", json("BPE")) != json("BPE")) {
    return Unknown(absl::StrCat("model type ", tokenizer["model"]["type"].dump()));
  }
  UQ_ASSIGN_OR_RETURN(const std::string pre, PreTokenizer(tokenizer));
  metadata->Add("tokenizer.ggml.model", std::string("gpt2"));
  metadata->Add("tokenizer.ggml.pre", pre);
  UQ_RETURN_IF_ERROR(AddTokens(tokenizer, vocab_size, metadata));
  AddId(config, "bos_token_id", "tokenizer.ggml.bos_token_id", vocab_size, metadata);
  AddId(config, "eos_token_id", "tokenizer.ggml.eos_token_id", vocab_size, metadata);
  AddId(config, "pad_token_id", "tokenizer.ggml.padding_token_id", vocab_size, metadata);
  metadata->Add("tokenizer.ggml.add_bos_token", AddsBegin(tokenizer));
  return AddChatTemplate(store, metadata);
}

}  // namespace uniquanf
