// A model's chat template: a conversation to the text that the model was trained on.
//
// The language is the part of Jinja2 that templates of models use, with Python's meaning
// (jinja_*.h), in transformers' environment: trim_blocks and lstrip_blocks, immutable lists, its
// functions raise_exception, strftime_now and tojson. Templates and conversations are untrusted:
// size, nesting, steps and what is made are bounded.
//
// Thread safety: immutable, thread-safe. Errors: kInvalidArgument: INVALID_CHAT_TEMPLATE,
// CHAT_TEMPLATE_REFUSED (the template's own refusal of this conversation), CHAT_TEMPLATE_FAILED (it
// cannot take this conversation), CHAT_TEMPLATE_TOO_COMPLEX.
#ifndef UNIQUANF_WORKER_TEXT_CHAT_TEMPLATE_H_
#define UNIQUANF_WORKER_TEXT_CHAT_TEMPLATE_H_

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

// What strftime_now tells where results must not depend on the day: 2025-01-01, noon, UTC.
absl::Time ChatTemplateDay();

struct ChatOptions {
  // Ends with what an answer begins with.
  bool add_generation_prompt = false;
  absl::Time now = ChatTemplateDay();
  // An object of further variables (enable_thinking, …), or null.
  nlohmann::ordered_json variables;
};

class ChatTemplate {
 public:
  // `special_tokens`: texts by variable, {"bos_token", "<s>"}.
  static absl::StatusOr<std::shared_ptr<const ChatTemplate>> Parse(
      absl::string_view source, std::map<std::string, std::string> special_tokens);

  // `conversation`: an object with "messages", a list of {"role", "content", …}; its other members
  // ("tools", "documents", …) are variables too. A list is taken as the messages.
  absl::StatusOr<std::string> Render(const nlohmann::ordered_json& conversation,
                                     const ChatOptions& options) const;
  const std::string& source() const { return source_; }
  ~ChatTemplate();

 private:
  struct Tree;
  ChatTemplate();
  std::string source_;
  std::map<std::string, std::string> special_tokens_;
  std::unique_ptr<const Tree> tree_;
};

// What a model's folder has for chats.
struct ChatTemplates {
  std::shared_ptr<const ChatTemplate> chat;   // null: none
  std::shared_ptr<const ChatTemplate> tools;  // of its own for conversations with tools, or null

  // The one for a conversation; null: none.
  const ChatTemplate* For(const nlohmann::ordered_json& conversation) const;
};

// tokenizer_config.json of a model; an empty object where there is none.
absl::StatusOr<nlohmann::ordered_json> ReadTokenizerConfig(ObjectStore* model);

// The texts of a tokenizer_config.json's special tokens, by member: bos_token, eos_token, ….
std::map<std::string, std::string> SpecialTokens(const nlohmann::ordered_json& tokenizer_config);

// The templates of chat_template.jinja, else of tokenizer_config.json, else of chat_template.json.
absl::StatusOr<ChatTemplates> ReadChatTemplates(ObjectStore* model,
                                                const nlohmann::ordered_json& tokenizer_config);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_CHAT_TEMPLATE_H_
