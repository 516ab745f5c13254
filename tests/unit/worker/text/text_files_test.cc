// Text files as documents, and documents as sequences of tokens.
#include "worker/text/text_files.h"

#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "worker/text/text_tokens.h"

namespace uniquanf {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::vector<std::string> Texts(const absl::StatusOr<TextFileContent>& content) {
  EXPECT_THAT(content, IsOk());
  std::vector<std::string> texts;
  if (content.ok()) {
    for (const TextDocument& document : content->documents) texts.push_back(document.text);
  }
  return texts;
}

std::string Gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(compressBound(text.size()) + 100, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

TEST(TextFilesTest, TheKindComesFromNameAndContent) {
  const std::string lines = "{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n";
  EXPECT_THAT(Texts(ParseTextFile("x.jsonl", lines, {})), ElementsAre("a", "b"));
  EXPECT_THAT(Texts(ParseTextFile("x.json", lines, {})), ElementsAre("a", "b"));
  EXPECT_THAT(Texts(ParseTextFile("x", lines, {})), ElementsAre("a", "b"));
  EXPECT_THAT(Texts(ParseTextFile("x.txt", lines, {})), ElementsAre(lines));
  EXPECT_THAT(Texts(ParseTextFile("x.json", "[\"a\", {\"content\": \"b\"}]", {})),
              ElementsAre("a", "b"));
  EXPECT_THAT(Texts(ParseTextFile("x", "\xEF\xBB\xBFplain\ntext\n", {})),
              ElementsAre("plain\ntext\n"));
  EXPECT_THAT(Texts(ParseTextFile("x.txt", "a\r\n\nb", {"", true})), ElementsAre("a", "", "b"));
}

TEST(TextFilesTest, CompressedFilesAreUnpackedWithinBounds) {
  const std::string lines = "{\"text\": \"a\"}\n{\"text\": \"b\"}\n";
  EXPECT_THAT(Texts(ParseTextFile("x.jsonl.gz", Gzip(lines), {})), ElementsAre("a", "b"));
  EXPECT_THAT(Texts(ParseTextFile("x.jsonl.gz", Gzip(lines) + Gzip("\"c\"\n"), {})),
              ElementsAre("a", "b", "c"));
  EXPECT_THAT(Texts(ParseTextFile("x.jsonl.zst", Zstd(lines), {})), ElementsAre("a", "b"));
  const std::string gzip = Gzip(std::string(100000, 'x')), zstd = Zstd(std::string(100000, 'x'));
  for (const std::string& packed : {gzip, zstd}) {
    EXPECT_THAT(ParseTextFile("x", packed.substr(0, packed.size() - 5), {}),
                FailsWith(kInvalid, "INVALID_TEXT_FILE"));
  }
}

TEST(TextFilesTest, SamplesAreTextConversationsOrIds) {
  const auto content =
      ParseTextFile("x.jsonl",
                    "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"tools\": [1]}\n"
                    "{\"conversations\": [{\"from\": \"human\", \"value\": \"hi\"}]}\n"
                    "{\"input_ids\": [1, 2, 3], \"attention_mask\": [1, 1, 0]}\n[4, 5]\n",
                    {});
  ASSERT_THAT(content, IsOk());
  ASSERT_EQ(content->documents.size(), 4u);
  EXPECT_EQ(content->documents[0].conversation.dump(),
            R"({"messages":[{"role":"user","content":"hi"}],"tools":[1]})");
  EXPECT_EQ(content->documents[1].conversation["messages"][0]["role"], "user");
  EXPECT_EQ(content->documents[1].conversation["messages"][0]["content"], "hi");
  EXPECT_THAT(content->documents[2].ids, ElementsAre(1, 2));
  EXPECT_THAT(content->documents[3].ids, ElementsAre(4, 5));
}

TEST(TextFilesTest, ErrorsNameLineFieldAndByte) {
  const auto message = [](const std::string& name, const std::string& bytes,
                          const ParseTextOptions& options = {}) {
    const auto content = ParseTextFile(name, bytes, options);
    EXPECT_FALSE(content.ok());
    return std::string(content.status().message());
  };
  EXPECT_THAT(message("x.jsonl", "{\"text\": \"a\"}\n{\"text\": \n"), HasSubstr("line 2"));
  EXPECT_THAT(message("x.jsonl", "{\"body\": \"a\", \"id\": 3}\n"), HasSubstr("body"));
  EXPECT_THAT(message("x.jsonl", "{\"text\": \"a\"}\n", {"article", false}),
              HasSubstr("\"article\""));
  EXPECT_THAT(message("x.jsonl", "{\"text\": 7}\n"), HasSubstr("\"text\""));
  EXPECT_THAT(message("x.jsonl", "{\"input_ids\": [1, 2], \"attention_mask\": [1, 2]}\n"),
              HasSubstr("attention_mask"));
  EXPECT_THAT(message("x.txt", "ab\xFF"), HasSubstr("byte 2"));
  EXPECT_THAT(message("x.txt", " \n"), HasSubstr("empty"));
  EXPECT_THAT(message("x.jsonl", "\"" + std::string(100, '[') + "\n"), HasSubstr("line 1"));
  EXPECT_THAT(message("x", "PAR1 and so on"), HasSubstr("Parquet"));
  EXPECT_THAT(message("x", "version https://git-lfs.github.com/spec/v1\noid"), HasSubstr("LFS"));
}

class TextTokensTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& bytes) {
    std::ofstream(dir_.path() + "/" + name, std::ios::binary) << bytes;
    return dir_.path() + "/" + name;
  }
  std::unique_ptr<TextTokenizer> Open(const TextSettings& settings) {
    auto tokenizer =
        TextTokenizer::Open(OpenObjectStore(UNIQUANF_SOURCE_DIR "/examples/tiny")->get(), settings);
    EXPECT_THAT(tokenizer, IsOk());
    return std::move(*tokenizer);
  }
  TempDir dir_;
};

TEST_F(TextTokensTest, DocumentsAreConcatenatedWithASeparatorAndTheRestIsDropped) {
  const std::string file =
      Write("a.jsonl", "{\"text\":\"one two three four\"}\n{\"text\":\"five\"}\n");
  TextSettings settings;
  settings.special_tokens = false;
  auto tokenizer = Open(settings);
  std::vector<int32_t> one, five;
  TextDocument document;
  document.text = "one two three four";
  ASSERT_THAT(tokenizer->Encode(document, 1 << 20, &one), IsOk());
  document.text = "five";
  ASSERT_THAT(tokenizer->Encode(document, 1 << 20, &five), IsOk());
  const std::vector<int32_t> separator = *tokenizer->Separator();
  std::vector<int32_t> all = one;
  all.insert(all.end(), separator.begin(), separator.end());
  all.insert(all.end(), five.begin(), five.end());
  const auto packed = PackCalibrationText({{file, 0}}, tokenizer.get(), 0, 2, 1 << 20, {});
  ASSERT_THAT(packed, IsOk());
  EXPECT_EQ(packed->num_sequences, static_cast<int64_t>(all.size()) / 2);
  all.resize(all.size() / 2 * 2);
  EXPECT_EQ(packed->ids, all);
  EXPECT_EQ(packed->provenance.files[0].num_documents, 2);
  EXPECT_EQ(packed->provenance.files[0].sha256.size(), 64u);
}

TEST_F(TextTokensTest, TruncationDropsShortDocumentsAndCountsThem) {
  const std::string file = Write("a.txt",
                                 "a rather long line of text for this\nshort\n"
                                 "another rather long line of text for that\n");
  TextSettings settings;
  settings.truncate = true;
  auto tokenizer = Open(settings);
  const auto packed = PackCalibrationText({{file, 0}}, tokenizer.get(), 2, 6, 1 << 20, {});
  ASSERT_THAT(packed, IsOk());
  EXPECT_EQ(packed->num_sequences, 2);
  EXPECT_EQ(packed->provenance.files[0].num_too_short, 1);
  EXPECT_EQ(packed->provenance.files[0].num_used, 2);
  const auto more = PackCalibrationText({{file, 0}}, tokenizer.get(), 3, 6, 1 << 20, {});
  EXPECT_THAT(more, FailsWith(kInvalid, "TOO_FEW_SEQUENCES"));
  EXPECT_THAT(more.status().message(), HasSubstr("1 too short"));
}

TEST_F(TextTokensTest, AMixTakesItsCountsAndTheRestFromTheOther) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += absl::StrCat("word ", i, " ");
  const std::string a = Write("a.txt", text), b = Write("b.txt", text);
  auto tokenizer = Open({});
  const auto packed = PackCalibrationText({{a, 3}, {b, 0}}, tokenizer.get(), 8, 16, 1 << 20, {});
  ASSERT_THAT(packed, IsOk());
  EXPECT_EQ(packed->num_sequences, 8);
  EXPECT_EQ(packed->provenance.files[0].num_sequences, 3);
  EXPECT_EQ(packed->provenance.files[1].num_sequences, 5);
}

TEST_F(TextTokensTest, TheSeedOrdersDocumentsAndNothingElseDoes) {
  std::string lines;
  for (int i = 0; i < 50; ++i) lines += absl::StrCat("{\"text\": \"sample number ", i, "\"}\n");
  const std::string file = Write("a.jsonl", lines);
  const auto ids = [&](uint64_t seed) {
    TextSettings settings;
    settings.shuffle_seed = seed;
    auto tokenizer = Open(settings);
    return PackCalibrationText({{file, 0}}, tokenizer.get(), 4, 8, 1 << 20, {})->ids;
  };
  EXPECT_EQ(ids(7), ids(7));
  EXPECT_NE(ids(7), ids(8));
  EXPECT_NE(ids(7), ids(0));
}

TEST_F(TextTokensTest, IdsBeyondTheModelsVocabularyAreRefused) {
  const std::string file = Write("a.txt", "some text");
  auto tokenizer = Open({});
  EXPECT_THAT(PackCalibrationText({{file, 0}}, tokenizer.get(), 0, 1, 2, {}),
              FailsWith(kInvalid, "TOKEN_OUT_OF_RANGE"));
}

TEST_F(TextTokensTest, AModelWithoutTokenizerSaysWhatToDo) {
  const auto tokenizer = TextTokenizer::Open(OpenObjectStore(dir_.path())->get(), {});
  EXPECT_THAT(tokenizer.status(), FailsWith(kInvalid, "NO_TOKENIZER"));
  EXPECT_THAT(tokenizer.status().message(), HasSubstr("tokenizer.json"));
}

}  // namespace
}  // namespace uniquanf
