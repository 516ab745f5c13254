#include "worker/text/quiz_file.h"

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/json_util.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr char kReason[] = "INVALID_QUIZ";
constexpr size_t kMaxChoices = 26;

using Json = nlohmann::json;

// Reads one line; the first error stays.
class ItemReader {
 public:
  ItemReader(const Json& json, std::string place) : json_(json), place_(std::move(place)) {}

  absl::StatusOr<QuizItem> Read() {
    if (!json_.is_object()) return Error("the line is no object");
    if (json_.contains("endings")) return ReadEndings();
    UQ_ASSIGN_OR_RETURN(const std::string question, Text(json_, "question"));
    if (json_.contains("answerKey")) return ReadLabelled(question);
    if (json_.contains("choices")) return ReadLettered(question);
    QuizItem item;
    item.prompt = absl::StrCat("Question: ", question, "\nAnswer:");
    UQ_ASSIGN_OR_RETURN(item.answer, Text(json_, "answer"));
    item.result = FinalNumber(item.answer);
    if (item.result.empty()) return Error("\"answer\" holds no number");
    return item;
  }

 private:
  absl::Status Error(absl::string_view what) const {
    return InvalidInput(kReason, absl::StrCat(place_, ": ", what));
  }
  absl::StatusOr<std::string> Text(const Json& object, const char* member) const {
    const auto found = object.find(member);
    if (found == object.end() || !found->is_string()) {
      return Error(
          absl::StrCat("\"", member, "\" is missing or no text; see --help for the forms"));
    }
    return found->get<std::string>();
  }
  absl::StatusOr<std::vector<std::string>> Texts(const Json& object, const char* member) const {
    const auto found = object.find(member);
    if (found == object.end() || !found->is_array() || found->size() < 2 ||
        found->size() > kMaxChoices) {
      return Error(absl::StrCat("\"", member, "\" is no list of 2 to ", kMaxChoices, " texts"));
    }
    std::vector<std::string> texts;
    for (const Json& text : *found) {
      if (!text.is_string()) return Error(absl::StrCat("\"", member, "\" holds what is no text"));
      texts.push_back(text.get<std::string>());
    }
    return texts;
  }
  // A number from 0, as such or as text, or a letter from A.
  absl::StatusOr<int> Index(const char* member, size_t count) const {
    const auto found = json_.find(member);
    int64_t index = -1;
    if (found != json_.end() && found->is_number_integer()) {
      index = found->get<int64_t>();
    } else if (found != json_.end() && found->is_string()) {
      const std::string text = found->get<std::string>();
      if (text.size() == 1 && absl::ascii_isalpha(text[0])) {
        index = absl::ascii_toupper(text[0]) - 'A';
      } else if (!absl::SimpleAtoi(text, &index)) {
        index = -1;
      }
    }
    if (index >= 0 && index < static_cast<int64_t>(count)) return static_cast<int>(index);
    return Error(absl::StrCat("\"", member, "\" names none of the ", count, " choices"));
  }

  // The model says the letter.
  absl::StatusOr<QuizItem> ReadLettered(const std::string& question) const {
    UQ_ASSIGN_OR_RETURN(const std::vector<std::string> texts, Texts(json_, "choices"));
    QuizItem item;
    item.prompt = std::string(absl::StripAsciiWhitespace(question));
    for (size_t i = 0; i < texts.size(); ++i) {
      const std::string letter(1, static_cast<char>('A' + i));
      absl::StrAppend(&item.prompt, "\n", letter, ". ", texts[i]);
      item.choices.push_back(" " + letter);
    }
    absl::StrAppend(&item.prompt, "\nAnswer:");
    UQ_ASSIGN_OR_RETURN(item.correct, Index("answer", texts.size()));
    return item;
  }
  // The model says the text.
  absl::StatusOr<QuizItem> ReadLabelled(const std::string& question) const {
    const auto choices = json_.find("choices");
    if (choices == json_.end() || !choices->is_object()) {
      return Error("\"choices\" is no object with \"text\" and \"label\"");
    }
    UQ_ASSIGN_OR_RETURN(const std::vector<std::string> texts, Texts(*choices, "text"));
    UQ_ASSIGN_OR_RETURN(const std::vector<std::string> labels, Texts(*choices, "label"));
    UQ_ASSIGN_OR_RETURN(const std::string key, Text(json_, "answerKey"));
    QuizItem item;
    item.prompt = absl::StrCat("Question: ", question, "\nAnswer:");
    item.correct = -1;
    for (size_t i = 0; i < texts.size(); ++i) {
      item.choices.push_back(" " + texts[i]);
      if (i < labels.size() && labels[i] == key) item.correct = static_cast<int>(i);
    }
    if (labels.size() != texts.size() || item.correct < 0) {
      return Error("\"answerKey\" is none of the labels, or there are not as many as texts");
    }
    return item;
  }
  absl::StatusOr<QuizItem> ReadEndings() const {
    UQ_ASSIGN_OR_RETURN(const std::vector<std::string> texts, Texts(json_, "endings"));
    QuizItem item;
    UQ_ASSIGN_OR_RETURN(item.prompt, Text(json_, "ctx"));
    for (const std::string& text : texts) item.choices.push_back(" " + text);
    UQ_ASSIGN_OR_RETURN(item.correct, Index("label", texts.size()));
    return item;
  }

  const Json& json_;
  const std::string place_;
};

bool IsNumberCharacter(char c) { return absl::ascii_isdigit(c) || c == ',' || c == '.'; }

}  // namespace

absl::StatusOr<std::vector<QuizItem>> ParseQuiz(absl::string_view name, absl::string_view bytes) {
  std::vector<QuizItem> items;
  int64_t number = 0;
  for (absl::string_view line : absl::StrSplit(bytes, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    const std::string place = absl::StrCat(name, ", line ", number);
    UQ_ASSIGN_OR_RETURN(const Json json, ParseJson(line, place, kReason));
    UQ_ASSIGN_OR_RETURN(QuizItem item, ItemReader(json, place).Read());
    if (!items.empty() && items[0].choices.empty() != item.choices.empty()) {
      return InvalidInput(kReason, absl::StrCat(place, ": the line has ",
                                                item.choices.empty() ? "no choices" : "choices",
                                                ", unlike the first; a file is of one kind"));
    }
    items.push_back(std::move(item));
  }
  if (items.empty()) {
    return InvalidInput(kReason, absl::StrCat(name, " holds no question"));
  }
  return items;
}

std::string FinalNumber(absl::string_view text) {
  if (const size_t mark = text.find("####"); mark != absl::string_view::npos) {
    text.remove_prefix(mark + 4);
    text = text.substr(0, text.find('\n'));
  }
  std::string last;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!absl::ascii_isdigit(text[i])) continue;
    const bool negative =
        i > 0 && text[i - 1] == '-' && (i < 2 || !absl::ascii_isalnum(text[i - 2]));
    size_t end = i;
    while (end < text.size() && IsNumberCharacter(text[end])) ++end;
    std::string digits = negative ? "-" : "";
    bool fraction = false;
    for (const char c : text.substr(i, end - i)) {
      if (c == ',') continue;
      if (c == '.' && fraction) break;  // "1.2.3" is no number; its first part is
      fraction = fraction || c == '.';
      digits += c;
    }
    while (fraction && (digits.back() == '0' || digits.back() == '.')) {
      fraction = digits.back() != '.';
      digits.pop_back();
    }
    last = digits;
    i = end;
  }
  return last;
}

}  // namespace uniquanf
