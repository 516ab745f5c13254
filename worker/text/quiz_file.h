// Questions with known answers, one JSON object a line, in the forms that people have:
//
//   choices   {"question", "choices": [texts], "answer": number or letter}            as in MMLU
//             {"question", "choices": {"text": [], "label": []}, "answerKey": label}  as in ARC
//             {"ctx", "endings": [texts], "label": number}                            as in
//             HellaSwag
//   answers   {"question", "answer": "… #### 42"}                                     as in GSM8K
//
// Thread safety: free functions. Errors: kInvalidArgument (INVALID_QUIZ) names line and member.
#ifndef UNIQUANF_WORKER_TEXT_QUIZ_FILE_H_
#define UNIQUANF_WORKER_TEXT_QUIZ_FILE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

struct QuizItem {
  std::string prompt;  // as the model reads it, to "Answer:" or the end of the context
  // What may follow, each with its leading space; empty: the answer is to be written.
  std::vector<std::string> choices;
  int correct = 0;     // of `choices`
  std::string answer;  // where it is to be written: the whole of it, and
  std::string result;  // what counts of it: the last number
};

// At least one item, all of one kind. `name` is told in messages.
absl::StatusOr<std::vector<QuizItem>> ParseQuiz(absl::string_view name, absl::string_view bytes);

// The number behind "####", or the last one in the text: "1,234.50" is "1234.5"; "" without one.
std::string FinalNumber(absl::string_view text);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_QUIZ_FILE_H_
