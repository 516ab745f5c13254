// The tokenizer against what the tokenizers library makes of 440 texts, and its refusals.
#include "worker/text/tokenizer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/digest.h"
#include "tests/support/status_matchers.h"
#include "worker/text/pre_tokenizer.h"

namespace uniquanf {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

constexpr char kGoldens[] = UNIQUANF_SOURCE_DIR "/tests/golden/tokenizers/";

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

Json TinyTokenizer() {
  return Json::parse(ReadAll(UNIQUANF_SOURCE_DIR "/examples/tiny/tokenizer.json"));
}

// As the script that made the digests joins and hashes them.
std::string Digest(const Tokenizer& tokenizer, const std::string& text, TokenizerScratch* scratch) {
  Sha256 hash;
  for (const bool special : {true, false}) {
    std::vector<int32_t> ids;
    EncodeOptions options;
    options.add_special_tokens = special;
    const absl::Status status = tokenizer.Encode(text, options, scratch, &ids);
    EXPECT_THAT(status, IsOk());
    hash.Update(absl::StrCat(absl::StrJoin(ids, " "), "\n"));
    for (const bool skip : {false, true}) hash.Update(tokenizer.Decode(ids, skip) + "\n");
  }
  return hash.FinishHex().substr(0, 8);
}

void ExpectEqualToLibrary(const Tokenizer& tokenizer, const Json& texts, const std::string& digests,
                          const std::string& name) {
  ASSERT_GE(digests.size(), 8u * 400) << name;
  ASSERT_LE(digests.size(), 8 * texts.size()) << name;
  TokenizerScratch scratch;
  int differences = 0;
  for (size_t i = 0; i < digests.size() / 8; ++i) {
    const std::string text = texts[i].get<std::string>();
    if (Digest(tokenizer, text, &scratch) == digests.substr(8 * i, 8)) continue;
    if (++differences <= 3) ADD_FAILURE() << name << " differs on text " << i << ": " << text;
  }
  EXPECT_EQ(differences, 0) << name;
}

Json Patched(Json tokenizer, const Json& patch) {
  for (const auto& [key, value] : patch.items()) {
    if (key == "model") {
      for (const auto& [member, setting] : value.items()) tokenizer["model"][member] = setting;
    } else if (key == "extra_vocab") {
      for (const Json& token : value) {
        Json& vocab = tokenizer["model"]["vocab"];
        if (!vocab.contains(token)) vocab[token.get<std::string>()] = vocab.size();
      }
    } else {
      tokenizer[key] = value;
    }
  }
  return tokenizer;
}

TEST(TokenizerTest, EveryKindOfMemberGivesTheLibrarysIdsAndTexts) {
  const Json texts = Json::parse(ReadAll(std::string(kGoldens) + "texts.json"));
  const Json expected = Json::parse(ReadAll(std::string(kGoldens) + "expected.json"));
  const Json variants = Json::parse(ReadAll(std::string(kGoldens) + "variants.json"));
  ASSERT_GE(texts.size(), 400u);
  ASSERT_GE(expected["variants"].size(), 40u);
  for (const auto& [name, digests] : expected["variants"].items()) {
    const auto tokenizer = Tokenizer::Create(Patched(TinyTokenizer(), variants[name]).dump());
    ASSERT_THAT(tokenizer, IsOk()) << name;
    ExpectEqualToLibrary(**tokenizer, texts, digests.get<std::string>(), name);
  }
}

// The files are others' and not part of this project: scripts/tokenizer_oracle fetches them.
TEST(TokenizerTest, RealTokenizersGiveTheLibrarysIdsAndTexts) {
  const char* directory = std::getenv("UNIQUANF_TOKENIZERS");
  if (directory == nullptr) {
    GTEST_SKIP() << "UNIQUANF_TOKENIZERS names no folder of NAME/tokenizer.json files";
  }
  const Json texts = Json::parse(ReadAll(std::string(kGoldens) + "texts.json"));
  const Json expected = Json::parse(ReadAll(std::string(kGoldens) + "expected.json"));
  for (const auto& [name, entry] : expected["files"].items()) {
    const std::string json = ReadAll(absl::StrCat(directory, "/", name, "/tokenizer.json"));
    ASSERT_EQ(Sha256Hex(json), entry["sha256"].get<std::string>()) << name;
    const auto tokenizer = Tokenizer::Create(json);
    ASSERT_THAT(tokenizer, IsOk()) << name;
    ExpectEqualToLibrary(**tokenizer, texts, entry["digests"].get<std::string>(), name);
  }
}

// The patterns of 141 published tokenizers, some with several behaviors.
TEST(TokenizerTest, PatternsOfPublishedModelsSplitAsInTheLibrary) {
  const Json golden = Json::parse(ReadAll(std::string(kGoldens) + "regex_cases.json"));
  ASSERT_EQ(golden["cases"].size(), 146u);
  for (const Json& item : golden["cases"]) {
    const std::string name = item["name"].get<std::string>();
    const auto pre_tokenizer = PreTokenizer::Create({{"type", "Split"},
                                                     {"pattern", {{"Regex", item["pattern"]}}},
                                                     {"behavior", item["behavior"]},
                                                     {"invert", item["invert"]}});
    std::string digest = "refused";
    if (pre_tokenizer.ok()) {
      Sha256 hash;
      for (const Json& text : golden["texts"]) {
        std::vector<std::string> pieces;
        const std::string bytes = text.get<std::string>();
        EXPECT_THAT(
            pre_tokenizer->Split(
                bytes, true, [&pieces](absl::string_view piece) { pieces.emplace_back(piece); }),
            IsOk())
            << name;
        hash.Update(absl::StrCat(absl::StrJoin(pieces, "\x1f"), "\x1e"));
      }
      digest = hash.FinishHex().substr(0, 16);
    }
    const bool differs = golden["exceptions"].contains(name);
    EXPECT_EQ(digest == item["digest"].get<std::string>(), !differs)
        << name << (differs ? " is equal now; take it from the exceptions: " : ": ")
        << item["pattern"];
  }
}

TEST(TokenizerTest, StreamedTextIsTheTextOfAllIdsAndNeverCutsACharacter) {
  const auto tokenizer = Tokenizer::Create(TinyTokenizer().dump());
  ASSERT_THAT(tokenizer, IsOk());
  const Json texts = Json::parse(ReadAll(std::string(kGoldens) + "texts.json"));
  TokenizerScratch scratch;
  for (const Json& text : texts) {
    std::vector<int32_t> ids;
    ASSERT_THAT((*tokenizer)->Encode(text.get<std::string>(), {}, &scratch, &ids), IsOk());
    TextStream stream(**tokenizer, false);
    std::string all;
    for (const int32_t id : ids) {
      const std::string part = stream.Add(id);
      if (text.get<std::string>().find("\xEF\xBF\xBD") == std::string::npos) {
        EXPECT_EQ(part.find("\xEF\xBF\xBD"), std::string::npos);
      }
      all += part;
    }
    all += stream.Finish();
    EXPECT_EQ(all, (*tokenizer)->Decode(ids, false));
  }
}

TEST(TokenizerTest, SpecialTokensInTheTextCanBeTakenLiterally) {
  const auto tokenizer = Tokenizer::Create(TinyTokenizer().dump());
  ASSERT_THAT(tokenizer, IsOk());
  TokenizerScratch scratch;
  std::vector<int32_t> found, literal;
  ASSERT_THAT((*tokenizer)->Encode("<|end_of_text|>", {false, false}, &scratch, &found), IsOk());
  ASSERT_THAT((*tokenizer)->Encode("<|end_of_text|>", {false, true}, &scratch, &literal), IsOk());
  EXPECT_EQ(found, std::vector<int32_t>{1});
  EXPECT_GT(literal.size(), 1u);
  EXPECT_EQ((*tokenizer)->Decode(literal, true), "<|end_of_text|>");
}

TEST(TokenizerTest, WhatIsNotSupportedIsRefusedByName) {
  const auto refusal = [](const Json& patch) {
    return Tokenizer::Create(Patched(TinyTokenizer(), patch).dump()).status();
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  for (const char* type : {"Unigram", "WordPiece", "WordLevel"}) {
    const absl::Status status = refusal({{"model", {{"type", type}}}});
    EXPECT_THAT(status, FailsWith(kInvalid, "UNSUPPORTED_TOKENIZER"));
    EXPECT_THAT(status.message(), HasSubstr(type));
  }
  for (const char* member : {"normalizer", "pre_tokenizer", "decoder", "post_processor"}) {
    const absl::Status status = refusal({{member, {{"type", "Precompiled"}}}});
    EXPECT_THAT(status, FailsWith(kInvalid, "UNSUPPORTED_TOKENIZER"));
    EXPECT_THAT(status.message(), HasSubstr("Precompiled"));
  }
  EXPECT_THAT(refusal({{"model", {{"dropout", 0.5}}}}),
              FailsWith(kInvalid, "UNSUPPORTED_TOKENIZER"));
}

TEST(TokenizerTest, DamagedFilesAreRefused) {
  const auto refusal = [](const Json& patch) {
    return Tokenizer::Create(Patched(TinyTokenizer(), patch).dump()).status();
  };
  const auto invalid = FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_TOKENIZER");
  EXPECT_THAT(Tokenizer::Create("").status(), invalid);
  EXPECT_THAT(Tokenizer::Create("[]").status(), invalid);
  EXPECT_THAT(Tokenizer::Create("{}").status(), invalid);
  EXPECT_THAT(Tokenizer::Create(std::string(1000, '[')).status(), invalid);
  for (
      const char* patch : {
          R"({"model": {"merges": ["a b c"]}})",
          R"({"model": {"merges": ["qqq zzz"]}})",
          R"({"model": {"merges": [["a"]]}})",
          R"({"model": {"merges": "a b"}})",
          R"({"model": {"merges": [7]}})",
          R"({"model": {"vocab": {"a": 1, "b": 1}}})",
          R"({"model": {"vocab": {"a": -1}}})",
          R"({"model": {"vocab": {"a": 1073741824}}})",
          R"({"model": {"vocab": {"a": {"b": 1}}}})",
          R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"}})",
          R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Cut"}})",
          R"({"added_tokens": [{"id": 5000, "content": "x"}, {"id": 5000, "content": "y"}]})",
          R"({"added_tokens": [{"id": -1, "content": "x"}]})",
      }) {
    EXPECT_THAT(refusal(Json::parse(patch)), invalid) << patch;
  }
}

TEST(TokenizerTest, TextThatIsNoUtf8IsRefusedByByte) {
  const auto tokenizer = Tokenizer::Create(TinyTokenizer().dump());
  ASSERT_THAT(tokenizer, IsOk());
  TokenizerScratch scratch;
  std::vector<int32_t> ids;
  const absl::Status status = (*tokenizer)->Encode("abc\xFF", {}, &scratch, &ids);
  EXPECT_THAT(status, FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_UTF8"));
  EXPECT_THAT(status.message(), HasSubstr("byte 3"));
}

TEST(TokenizerTest, AMatchThatBacktracksForEverIsGivenUp) {
  const Json patch = {{"pre_tokenizer",
                       {{"type", "Split"},
                        {"pattern", {{"Regex", "(a|aa|aaa)+$|(a*)*b"}}},
                        {"behavior", "Isolated"}}}};
  const auto tokenizer = Tokenizer::Create(Patched(TinyTokenizer(), patch).dump());
  ASSERT_THAT(tokenizer, IsOk());
  TokenizerScratch scratch;
  std::vector<int32_t> ids;
  const std::string text = std::string(60, 'a') + "!";
  EXPECT_THAT((*tokenizer)->Encode(text, {}, &scratch, &ids),
              FailsWith(absl::StatusCode::kInvalidArgument, "TEXT_TOO_COMPLEX"));
}

TEST(TokenizerTest, OnePieceOfAMegabyteIsMergedInOneGo) {
  const auto tokenizer =
      Tokenizer::Create(Patched(TinyTokenizer(), {{"pre_tokenizer", nullptr}}).dump());
  ASSERT_THAT(tokenizer, IsOk());
  TokenizerScratch scratch;
  std::vector<int32_t> ids;
  std::string text;
  while (text.size() < (1 << 20)) text += "therewasapieceoftextwithoutanyspace";
  ASSERT_THAT((*tokenizer)->Encode(text, {}, &scratch, &ids), IsOk());
  EXPECT_LT(ids.size(), text.size() / 2);
  EXPECT_EQ((*tokenizer)->Decode(ids, true), text);
}

}  // namespace
}  // namespace uniquanf
