#include "worker/text/chat_template.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "worker/text/jinja_interpreter.h"
#include "worker/text/jinja_parser.h"
#include "worker/text/tokenizer_file.h"

namespace uniquanf {
namespace {

using Json = nlohmann::ordered_json;
using jinja::Value;

constexpr uint64_t kMaxConfigBytes = 64 << 20;

// The object's bytes, "" where there is none.
absl::StatusOr<std::string> ReadIfThere(ObjectStore* store, absl::string_view key) {
  absl::StatusOr<std::string> bytes = store->Read(key, kMaxConfigBytes);
  if (absl::IsNotFound(bytes.status())) return std::string();
  return bytes;
}

// Members in the file's order, which templates show.
absl::StatusOr<Json> ReadObject(ObjectStore* store, absl::string_view key) {
  UQ_ASSIGN_OR_RETURN(const std::string text, ReadIfThere(store, key));
  if (text.empty()) return Json::object();
  UQ_RETURN_IF_ERROR(ParseJson(text, key, "INVALID_TOKENIZER").status());
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return BadTokenizer(absl::StrCat(key, " is no object"));
  return json;
}

std::string StringMember(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

// A template by itself, or a list of {"name", "template"}.
void ReadMember(const Json& owner, std::string* chat, std::string* tools) {
  const auto it = owner.find("chat_template");
  if (it == owner.end()) return;
  if (it->is_string()) *chat = it->get<std::string>();
  if (!it->is_array()) return;
  for (const Json& entry : *it) {
    if (!entry.is_object()) continue;
    const std::string name = StringMember(entry, "name");
    if (name == "default") *chat = StringMember(entry, "template");
    if (name == "tool_use") *tools = StringMember(entry, "template");
  }
}

}  // namespace

absl::Time ChatTemplateDay() {
  return absl::FromCivil(absl::CivilSecond(2025, 1, 1, 12), absl::UTCTimeZone());
}

struct ChatTemplate::Tree {
  jinja::Body body;
};

ChatTemplate::ChatTemplate() = default;
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::shared_ptr<const ChatTemplate>> ChatTemplate::Parse(
    absl::string_view source, std::map<std::string, std::string> special_tokens) {
  UQ_ASSIGN_OR_RETURN(jinja::Body body, jinja::Parse(source));
  std::shared_ptr<ChatTemplate> result(new ChatTemplate());
  result->source_ = std::string(source);
  result->special_tokens_ = std::move(special_tokens);
  result->tree_ = std::make_unique<const Tree>(Tree{std::move(body)});
  return std::shared_ptr<const ChatTemplate>(std::move(result));
}

absl::StatusOr<std::string> ChatTemplate::Render(const Json& conversation,
                                                 const ChatOptions& options) const {
  absl::flat_hash_map<std::string, Value> variables;
  for (const auto& [name, text] : special_tokens_) variables[name] = Value::String(text);
  // Not given is None to transformers' templates, not undefined.
  variables["tools"] = Value::None();
  variables["documents"] = Value::None();
  const auto add = [&variables](const Json& object) -> absl::Status {
    for (const auto& [name, member] : object.items()) {
      UQ_ASSIGN_OR_RETURN(variables[name], Value::FromJson(member));
    }
    return absl::OkStatus();
  };
  if (conversation.is_array()) {
    UQ_ASSIGN_OR_RETURN(variables["messages"], Value::FromJson(conversation));
  } else if (conversation.is_object()) {
    UQ_RETURN_IF_ERROR(add(conversation));
  }
  if (variables.find("messages") == variables.end()) {
    return jinja::Failed("the conversation has no messages");
  }
  if (options.variables.is_object()) UQ_RETURN_IF_ERROR(add(options.variables));
  variables["add_generation_prompt"] = Value::Bool(options.add_generation_prompt);
  return jinja::Interpreter(options.now).Render(tree_->body, std::move(variables));
}

const ChatTemplate* ChatTemplates::For(const Json& conversation) const {
  if (tools != nullptr && conversation.is_object()) {
    const auto it = conversation.find("tools");
    if (it != conversation.end() && it->is_array() && !it->empty()) return tools.get();
  }
  return chat.get();
}

absl::StatusOr<Json> ReadTokenizerConfig(ObjectStore* model) {
  return ReadObject(model, "tokenizer_config.json");
}

std::map<std::string, std::string> SpecialTokens(const Json& tokenizer_config) {
  std::map<std::string, std::string> tokens;
  for (const auto& [name, value] : tokenizer_config.items()) {
    if (!absl::EndsWith(name, "_token")) continue;
    if (value.is_string()) tokens[name] = value.get<std::string>();
    if (value.is_object()) {
      const std::string content = StringMember(value, "content");
      if (!content.empty()) tokens[name] = content;
    }
  }
  return tokens;
}

absl::StatusOr<ChatTemplates> ReadChatTemplates(ObjectStore* model, const Json& tokenizer_config) {
  std::string chat, tools;
  ReadMember(tokenizer_config, &chat, &tools);
  UQ_ASSIGN_OR_RETURN(const std::string file, ReadIfThere(model, "chat_template.jinja"));
  if (!file.empty()) {
    chat = file;
    UQ_ASSIGN_OR_RETURN(tools, ReadIfThere(model, "additional_chat_templates/tool_use.jinja"));
  } else if (chat.empty()) {
    UQ_ASSIGN_OR_RETURN(const Json json, ReadObject(model, "chat_template.json"));
    ReadMember(json, &chat, &tools);
  }
  std::map<std::string, std::string> tokens = SpecialTokens(tokenizer_config);
  if (tokens.empty()) {  // as older folders have it
    UQ_ASSIGN_OR_RETURN(const Json legacy, ReadObject(model, "special_tokens_map.json"));
    tokens = SpecialTokens(legacy);
  }
  ChatTemplates result;
  for (const auto& [text, parsed] : {std::pair{&chat, &result.chat}, {&tools, &result.tools}}) {
    if (text->empty()) continue;
    UQ_ASSIGN_OR_RETURN(*parsed, ChatTemplate::Parse(*text, tokens));
  }
  return result;
}

}  // namespace uniquanf
