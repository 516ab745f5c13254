#include "worker/generate/special_tokens.h"

#include <gtest/gtest.h>

#include "common/base/status.h"

namespace uniquanf {
namespace {

TEST(SpecialTokensTest, GenerationConfigComesFirst) {
  const auto tokens = ParseSpecialTokens(R"({"bos_token_id": 1, "eos_token_id": 2})",
                                         R"({"eos_token_id": [9, 4]})", 10);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->begin, 1);
  EXPECT_EQ(tokens->end, (std::vector<int32_t>{4, 9}));
}

TEST(SpecialTokensTest, NullAndMissingAreNone) {
  const auto tokens = ParseSpecialTokens(R"({"bos_token_id": null})", "", 10);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->begin, -1);
  EXPECT_TRUE(tokens->end.empty());
}

TEST(SpecialTokensTest, WrongValuesAreNamed) {
  for (const char* generation :
       {R"({"eos_token_id": "two"})", R"({"eos_token_id": 10})", R"({"eos_token_id": [1, -1]})",
        R"({"bos_token_id": 1.5})", R"({"eos_token_id": {"a": 1}})", "[]", "{"}) {
    const auto tokens = ParseSpecialTokens("{}", generation, 10);
    EXPECT_EQ(ErrorReason(tokens.status()), "INVALID_MODEL_CONFIG") << generation;
  }
}

}  // namespace
}  // namespace uniquanf
