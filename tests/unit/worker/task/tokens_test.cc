// Token files as people have them: padded, empty, repeating themselves, or no token files at all.
#include "worker/task/tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/model_fixture.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr int64_t kRows = 4, kColumns = 8;

class TokensTest : public testing::Test {
 protected:
  absl::StatusOr<CalibrationTokens> Read(int64_t num_samples = 0, int64_t sequence_length = 0) {
    WriteTokenFile(file_, entries_);
    return ReadCalibrationTokens(file_, num_samples, sequence_length, 128);
  }
  void Mask(std::vector<int32_t> values) {
    entries_["attention_mask"] = {{kRows, kColumns}, std::move(values)};
  }

  TempDir dir_;
  const std::string file_ = dir_.File("tokens.safetensors");
  std::map<std::string, FixtureTokens> entries_ = {
      {"input_ids", RandomTokens({kRows, kColumns}, 128, 1)}};
};

TEST_F(TokensTest, PaddedSequencesAreRefusedWherePaddingWouldBeUsed) {
  std::vector<int32_t> mask(kRows * kColumns, 1);
  Mask(mask);
  EXPECT_OK(Read());
  mask[2 * kColumns + 6] = mask[2 * kColumns + 7] = 0;
  Mask(mask);
  EXPECT_THAT(Read(), FailsWith(kInvalid, "PADDED_SEQUENCES",
                                AllOf(HasSubstr("attention_mask[2, 6] = 0"),
                                      HasSubstr("--sequence-length"))));
  EXPECT_OK(Read(2));
  EXPECT_OK(Read(0, 6));
  // On the left as well.
  mask.assign(kRows * kColumns, 1);
  mask[0] = 0;
  Mask(mask);
  EXPECT_THAT(Read(1), FailsWith(kInvalid, "PADDED_SEQUENCES", HasSubstr("[0, 0]")));
}

TEST_F(TokensTest, MasksAreValidatedLikeIds) {
  std::vector<int32_t> mask(kRows * kColumns, 1);
  mask[9] = 2;
  Mask(mask);
  EXPECT_THAT(Read(), FailsWith(kInvalid, "INVALID_ATTENTION_MASK", HasSubstr("[1, 1] = 2")));
  entries_["attention_mask"] = {{kRows, kColumns - 1}, std::vector<int32_t>(28, 1)};
  EXPECT_THAT(Read(), FailsWith(kInvalid, "TENSOR_SHAPE", HasSubstr("attention_mask")));
}

TEST_F(TokensTest, WhatIsIgnoredIsNamed) {
  entries_["position_ids"] = entries_["labels"] = entries_["input_ids"];
  entries_["valid"] = RandomTokens({100}, 128, 2);
  ASSERT_OK_AND_ASSIGN(const CalibrationTokens tokens, Read());
  EXPECT_THAT(CalibrationWarnings(tokens),
              Contains(AllOf(HasSubstr("labels, position_ids"), Not(HasSubstr("valid")))));
}

TEST_F(TokensTest, EmptyFilesAreCalledEmpty) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{0, 128}, {4, 0}}) {
    entries_["input_ids"] = {shape, {}};
    EXPECT_THAT(Read(4), FailsWith(kInvalid, "EMPTY_TOKEN_FILE", Not(HasSubstr("num-samples 0"))));
  }
}

TEST_F(TokensTest, SetsThatRepeatThemselvesAreWarnedOf) {
  ASSERT_OK_AND_ASSIGN(CalibrationTokens tokens, Read());
  EXPECT_THAT(CalibrationWarnings(tokens), IsEmpty());
  std::copy_n(tokens.ids.begin(), kColumns, tokens.ids.begin() + 3 * kColumns);
  EXPECT_THAT(CalibrationWarnings(tokens), Contains(HasSubstr("only 3 differ")));

  tokens.num_samples = 64;
  tokens.sequence_length = 128;
  tokens.ids.resize(64 * 128);
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    tokens.ids[i] = static_cast<int32_t>((i * i + i / 128) % 61);
  }
  EXPECT_THAT(CalibrationWarnings(tokens), Contains(HasSubstr("distinct tokens")));
  std::fill(tokens.ids.begin(), tokens.ids.begin() + 6000, 1);
  EXPECT_THAT(CalibrationWarnings(tokens), Contains(HasSubstr("are the id 1")));
}

TEST_F(TokensTest, OtherFilesAreCalledWhatTheyAre) {
  const std::pair<std::string, const char*> files[] = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"},
      {"PAR1" + std::string(60, '\2'), "a Parquet file"},
      {"{\"text\": \"hello world\"}\n{\"text\": \"hello again\"}\n", "a JSON file"}};
  for (const auto& [bytes, what] : files) {
    WriteFile(file_, bytes);
    const auto read = ReadCalibrationTokens(file_, 0, 0, 128);
    EXPECT_EQ(read.status().code(), kInvalid);
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(what));
  }
}

}  // namespace
}  // namespace uniquanf
