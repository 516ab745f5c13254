#include "worker/text/quiz_file.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

QuizItem One(const std::string& line) {
  const auto items = ParseQuiz("quiz.jsonl", line);
  EXPECT_TRUE(items.ok()) << items.status();
  return items.ok() ? items->front() : QuizItem();
}

TEST(QuizFileTest, LetteredChoices) {
  for (const char* answer : {"2", "\"2\"", "\"C\"", "\"c\""}) {
    const QuizItem item = One(absl::StrCat(
        R"({"question": "How many? ", "subject": "x", "choices": ["1", "2", "3"], "answer": )",
        answer, "}"));
    EXPECT_EQ(item.prompt, "How many?\nA. 1\nB. 2\nC. 3\nAnswer:");
    EXPECT_EQ(item.choices, (std::vector<std::string>{" A", " B", " C"}));
    EXPECT_EQ(item.correct, 2);
  }
}

TEST(QuizFileTest, LabelledChoices) {
  const QuizItem item =
      One(R"({"question": "Q", "choices": {"text": ["x", "y z"], "label": ["1", "2"]}, )"
          R"("answerKey": "2"})");
  EXPECT_EQ(item.prompt, "Question: Q\nAnswer:");
  EXPECT_EQ(item.choices, (std::vector<std::string>{" x", " y z"}));
  EXPECT_EQ(item.correct, 1);
}

TEST(QuizFileTest, Endings) {
  const QuizItem item = One(R"({"ctx": "A man", "endings": ["sits", "flies"], "label": "1"})");
  EXPECT_EQ(item.prompt, "A man");
  EXPECT_EQ(item.choices[1], " flies");
  EXPECT_EQ(item.correct, 1);
}

TEST(QuizFileTest, WrittenAnswers) {
  const QuizItem item = One(R"({"question": "Q", "answer": "7 and 8 is 15\n#### 1,500"})");
  EXPECT_TRUE(item.choices.empty());
  EXPECT_EQ(item.result, "1500");
}

TEST(QuizFileTest, FinalNumbers) {
  EXPECT_EQ(FinalNumber("no"), "");
  EXPECT_EQ(FinalNumber("it is $1,234.50."), "1234.5");
  EXPECT_EQ(FinalNumber("3 then -4"), "-4");
  EXPECT_EQ(FinalNumber("10-4"), "4");
  EXPECT_EQ(FinalNumber("12.00 apples"), "12");
  EXPECT_EQ(FinalNumber("5 #### 6\n7"), "6");
  EXPECT_EQ(FinalNumber("100"), "100");
  EXPECT_EQ(FinalNumber("...,"), "");
  EXPECT_EQ(FinalNumber("0"), "0");
}

TEST(QuizFileTest, WrongLinesAreNamed) {
  for (
      const char* line :
      {"", "[]", "{", R"({"question": 3})", R"({"question": "q", "answer": "none"})",
       R"({"question": "q", "choices": ["a"], "answer": 0})",
       R"({"question": "q", "choices": ["a", "b"], "answer": 2})",
       R"({"question": "q", "choices": ["a", "b"], "answer": "E"})",
       R"({"question": "q", "choices": ["a", 1], "answer": 0})",
       R"({"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"})",
       R"({"question": "q", "choices": {"text": ["a", "b"]}, "answerKey": "A"})",
       R"({"endings": ["a", "b"], "label": 0})", R"({"ctx": "c", "endings": "ab", "label": 0})"}) {
    const auto items = ParseQuiz("quiz.jsonl", line);
    EXPECT_EQ(ErrorReason(items.status()), "INVALID_QUIZ") << line;
    EXPECT_NE(items.status().message().find("quiz.jsonl"), std::string::npos) << line;
  }
  const auto mixed = ParseQuiz("f", R"({"question": "q", "answer": "1"})"
                                    "\n"
                                    R"({"ctx": "c", "endings": ["a", "b"], "label": 0})");
  EXPECT_EQ(ErrorReason(mixed.status()), "INVALID_QUIZ");
  EXPECT_NE(mixed.status().message().find("line 2"), std::string::npos);
}

}  // namespace
}  // namespace uniquanf
