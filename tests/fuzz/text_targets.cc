// What worker/text reads: tokenizer.json, text of users, files of text.
#include <iterator>

#include "absl/strings/match.h"
#include "common/base/check.h"
#include "common/base/file_kind.h"
#include "tests/fuzz/fuzz_target.h"
#include "worker/generate/special_tokens.h"
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
