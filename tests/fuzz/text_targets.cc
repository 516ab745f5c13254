// What worker/text reads: tokenizer.json, text of users, files of text.
#include <iterator>

#include "absl/strings/match.h"
#include "common/base/check.h"
#include "common/base/file_kind.h"
#include "tests/fuzz/fuzz_target.h"
#include "worker/generate/special_tokens.h"
#include "worker/text/chat_template.h"
#include "worker/text/quiz_file.h"
#include "worker/text/text_files.h"
#include "worker/text/tokenizer.h"

namespace uniquanf {
namespace {

// A byte-level tokenizer with few words: every byte has a token, as in GPT-2's table of characters.
const std::string& SmallTokenizer() {
  static const std::string* const json = [] {
    auto* text = new std::string(
        R"({"version":"1.0","added_tokens":[{"id":258,"content":"<s>",)"
        R"("single_word":false,"lstrip":false,"rstrip":false,"normalized":false,)"
        R"("special":true}],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel",)"
        R"("add_prefix_space":false,"trim_offsets":true,"use_regex":true},)"
        R"("post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,)"
        R"("trim_offsets":true,"use_regex":true},"model":{"type":"BPE","dropout":null,)"
        R"("unk_token":null,"continuing_subword_prefix":null,)"
        R"("end_of_word_suffix":null,"fuse_unk":false,"vocab":{)");
    const auto append = [text](int code) {
      if (code < 0x80) {
        if (code == '"' || code == '\\') *text += '\\';
        *text += static_cast<char>(code);
      } else {
        *text += static_cast<char>(0xC0 | code >> 6);
        *text += static_cast<char>(0x80 | (code & 63));
      }
    };
    int next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool itself =
          (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
      *text += byte == 0 ? "\"" : ",\"";
      append(itself ? byte : next++);
      *text += "\":" + std::to_string(byte);
    }
    *text += R"(,"he":256,"ll":257},"merges":["h e","l l"]}})";
    return text;
  }();
  return *json;
}

// Any file: what it makes of a text is ids within its own bound, and text.
bool RunTokenizerFile(absl::string_view bytes) {
  const auto tokenizer = Tokenizer::Create(bytes);
  if (!tokenizer.ok()) {
    CheckRefusal(tokenizer.status());
    return false;
  }
  TokenizerScratch scratch;
  std::vector<int32_t> ids;
  for (const char* text : {"hello, W\xC3\xB6rld 12345  \n<s>\xE2\x82\xAC", "", "   "}) {
    const absl::Status status = (*tokenizer)->Encode(text, {}, &scratch, &ids);
    if (!status.ok()) CheckRefusal(status);
  }
  for (const int32_t id : ids) UQ_CHECK(id >= 0 && id < (*tokenizer)->id_bound());
  (void)(*tokenizer)->Decode(ids, false);
  (void)(*tokenizer)->Decode(ids, true);
  return true;
}

// Any text: refused, or given back by its ids, whole and streamed.
bool RunTokenizerInput(absl::string_view bytes) {
  static const Tokenizer* const tokenizer = [] {
    auto made = Tokenizer::Create(SmallTokenizer());
    UQ_CHECK(made.ok());
    return made->release();
  }();
  static TokenizerScratch* const scratch = new TokenizerScratch;
  std::vector<int32_t> ids;
  const absl::Status status = tokenizer->Encode(bytes, {}, scratch, &ids);
  if (!status.ok()) {
    CheckRefusal(status);
    return false;
  }
  UQ_CHECK(tokenizer->Decode(ids, false) == bytes);
  TextStream stream(*tokenizer, false);
  std::string streamed;
  for (const int32_t id : ids) streamed += stream.Add(id);
  UQ_CHECK(streamed + stream.Finish() == bytes);
  return true;
}

// Any template: parsed and rendered, or refused.
bool RunChatTemplate(absl::string_view bytes) {
  static const auto* const conversation = new nlohmann::ordered_json(nlohmann::ordered_json::parse(
      R"({"messages": [{"role": "system", "content": "Be brief."},)"
      R"({"role": "user", "content": [{"type": "text", "text": "hi"}]},)"
      R"({"role": "assistant", "content": null, "tool_calls": [{"x": 1.5}]}],)"
      R"("tools": [{"name": "f", "parameters": {"b": true}}]})"));
  const auto parsed = ChatTemplate::Parse(bytes, {{"bos_token", "<s>"}});
  if (!parsed.ok()) {
    CheckRefusal(parsed.status());
    return false;
  }
  const auto text = (*parsed)->Render(*conversation, ChatOptions());
  if (!text.ok()) CheckRefusal(text.status());
  return true;
}

// Any JSON as the conversation of a template that looks at all of it.
bool RunConversation(absl::string_view bytes) {
  static const auto* const parsed = [] {
    return new std::shared_ptr<const ChatTemplate>(*ChatTemplate::Parse(
        "{% for m in messages %}{{ m.role }}: {{ m.content if m.content is string else "
        "m.content|tojson }}{{ m }}{{ m.keys()|list }}{% endfor %}{{ tools|tojson(indent=1) }}",
        {}));
  }();
  const auto json = nlohmann::ordered_json::parse(bytes.begin(), bytes.end(), nullptr,
                                                  /*allow_exceptions=*/false);
  if (json.is_discarded()) return false;
  const auto text = (*parsed)->Render(json, ChatOptions());
  if (!text.ok()) CheckRefusal(text.status());
  return text.ok();
}

// The first byte chooses the name and so the kind.
bool RunTextFile(absl::string_view bytes) {
  constexpr const char* kNames[] = {"a.txt", "a.json", "a.jsonl", "a.jsonl.gz", "a.zst", "a"};
  if (bytes.empty()) return false;
  ParseTextOptions options;
  options.lines = (bytes[0] & 8) != 0;
  if ((bytes[0] & 16) != 0) options.field = "text";
  const auto content = ParseTextFile(kNames[static_cast<unsigned char>(bytes[0]) % 6],
                                     std::string(bytes.substr(1)), options);
  if (!content.ok()) {
    CheckRefusal(content.status());
    return false;
  }
  UQ_CHECK(content->kind[0] != '\0');
  for (const TextDocument& document : content->documents) {
    UQ_CHECK(document.has_ids || document.ids.empty());
  }
  (void)DescribeFileKind(bytes);
  return true;
}

// Questions: each has either choices and the number of one, or a result.
bool RunQuizFile(absl::string_view bytes) {
  const auto items = ParseQuiz("quiz.jsonl", bytes);
  if (!items.ok()) {
    CheckRefusal(items.status());
    return false;
  }
  for (const QuizItem& item : *items) {
    UQ_CHECK(item.choices.empty() != item.result.empty());
    UQ_CHECK(item.choices.empty() ||
             (item.correct >= 0 && item.correct < std::ssize(item.choices)));
  }
  return true;
}

// A model's boundary tokens are ids of its vocabulary.
bool RunSpecialTokens(absl::string_view bytes) {
  const auto tokens = ParseSpecialTokens("{}", bytes, 100);
  if (!tokens.ok()) {
    CheckRefusal(tokens.status());
    return false;
  }
  for (const int32_t id : tokens->end) UQ_CHECK(id >= 0 && id < 100);
  return tokens->begin >= -1 && tokens->begin < 100;
}

}  // namespace

std::vector<FuzzTarget> TextTargets() {
  return {
      {"TokenizerFile",
       RunTokenizerFile,
       {SmallTokenizer()},
       {"\"merges\"", "\"vocab\"", "\"BPE\"", "\"Split\"", "\"pattern\":{\"Regex\":\"(a+)+$\"}",
        "\"Sequence\"", "\"Replace\"", "\"NFC\"", "\"Prepend\"", "\"byte_fallback\":true",
        "\"TemplateProcessing\"", "\"normalizer\":{\"type\":\"NFKC\"}"}},
      {"TokenizerInput",
       RunTokenizerInput,
       {"hello <s> W\xC3\xB6rld 12345 \xE2\x82\xAC\n\n  it's"},
       {"\xF0\x9F\x98\x80", "\xED\xA0\x80", "<s>", "\xC0\x80", "\xEF\xBF\xBD", "\xE2\x80\xA8"},
       0.7},
      {"ChatTemplate",
       RunChatTemplate,
       {"{{ bos_token }}{% for m in messages %}{% if loop.first and m.role == 'system' %}"
        "{% set s = m.content|trim ~ '\\n' %}{% else %}{{ s[1:] }}{{ m['content'][0].text }}"
        "{% endif %}{%- endfor -%}{# c #}",
        "{% macro f(a, b=[1, 2.5]) %}{{ caller(a) if caller else b|join(',') }}{% endmacro %}"
        "{% set n = namespace(x={'a': none}) %}{% call(y) f(3) %}{{ y * 2 }}{% endcall %}"
        "{% set n.x = n.x.get('a') is none %}{{ tools|tojson(indent=2) }}{{ f(b='x'.split('y')) }}",
        "{% for k, v in {'a': 1}.items() if v is not string %}{{ loop.index0 % 2 }}{% break %}"
        "{% endfor %}{% filter upper %}a{% endfilter %}{{ messages|selectattr('role', 'eq', 'user')"
        "|map(attribute='content')|list|length ** 2 // 3 }}{{ raise_exception('no') }}"},
       {"{%-",
        "-%}",
        "{{",
        "}}",
        "{#",
        "|default(",
        "|sort",
        "is defined",
        "[::-1]",
        "[1:",
        "namespace(",
        "range(9)",
        "strftime_now('%d')",
        "{% raw %}",
        "{% endraw %}",
        "recursive",
        "loop.nextitem",
        "|map('map', 'upper')",
        "'\\u00e9'",
        "not in"}},
      {"Conversation",
       RunConversation,
       {"{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"tools\":[{\"a\":1}]}",
        "[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]"},
       {"18446744073709551615", "1e400", "[[[[[[", "null", "\\u0000", "-0.0"}},
      {"TextFile",
       RunTextFile,
       {std::string(1, '\0') + "plain text\nof lines", "\x01[{\"text\":\"a\"}]",
        "\x02{\"text\":\"a\"}\n{\"messages\":[{\"role\":\"user\",\"content\":\"b\"}]}\n",
        "\x02{\"input_ids\":[1,2,3]}\n"},
       {"\"messages\"", "\"conversations\"", "\"input_ids\":[-1]", "\x1f\x8b\x08",
        "\x28\xb5\x2f\xfd", "version https://git-lfs.github.com/spec/v1"}},
      {"QuizFile",
       RunQuizFile,
       {R"({"question":"q","choices":["a","b"],"answer":1})",
        R"({"question":"q","choices":{"text":["a","b"],"label":["A","B"]},"answerKey":"B"})",
        R"({"ctx":"c","endings":["a","b"],"label":"0"})",
        R"({"question":"q","answer":"so it is\n#### 1,234.50"})"},
       {"\"choices\"", "\"answerKey\"", "\"endings\"", "####", "-1", "\"label\":[]", "1.2.3,,"}},
      {"SpecialTokens",
       RunSpecialTokens,
       {R"({"bos_token_id":1,"eos_token_id":[2,3]})"},
       {"null", "[]", "-1", "1e3", "99999999999999999999"}},
  };
}

}  // namespace uniquanf
