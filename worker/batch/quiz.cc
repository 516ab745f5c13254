// `uniquanf-batch quiz`: how many questions of a file a model answers, and how many another one.
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/base/terminal_progress.h"
#include "common/object_store/caching_store.h"
#include "common/spec/spec_flags.h"
#include "worker/batch/batch.h"
#include "worker/generate/choice_score.h"
#include "worker/generate/continuation.h"
#include "worker/generate/special_tokens.h"
#include "worker/model/token_range.h"
#include "worker/text/quiz_file.h"
#include "worker/text/text_tokens.h"

namespace uniquanf::batch {
namespace {

struct QuizFlags {
  std::string model, compare, questions, examples;
  int64_t shots = 0, limit = 0, max_new_tokens = 256;
  bool json = false;
  DeviceFlags device;
  CacheFlags cache;
};

// What a model made of the questions.
struct QuizResult {
  int64_t num_questions = 0, num_correct = 0;
  // Choices only: by the log-likelihood a byte of the choice's text.
  int64_t num_correct_by_length = 0;
  std::vector<std::string> answers;  // by question; choices: the number of the one chosen

  double accuracy() const { return static_cast<double>(num_correct) / num_questions; }
  double accuracy_by_length() const {
    return static_cast<double>(num_correct_by_length) / num_questions;
  }
  double error() const { return std::sqrt(accuracy() * (1 - accuracy()) / num_questions); }
};

std::string Solved(const QuizItem& item) {
  return item.choices.empty() ? absl::StrCat(item.prompt, " ", item.answer)
                              : item.prompt + item.choices[item.correct];
}

class QuizRun {
 public:
  QuizRun(const QuizFlags& flags, const std::vector<QuizItem>& items, std::string examples)
      : flags_(flags), items_(items), examples_(std::move(examples)) {}

  absl::StatusOr<QuizResult> Run(const std::string& model_uri, const std::string& label) {
    DType act = DType::kFloat32;
    UQ_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, flags_.device.MakeBackend(&act));
    UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> store,
                        OpenObjectStoreThrough(AbsoluteUri(model_uri), OpenCache(flags_.cache)));
    UQ_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                        Checkpoint::Open(store, /*allow_quantized=*/true));
    UQ_ASSIGN_OR_RETURN(text_, TextTokenizer::Open(store.get(), TextSettings()));
    scratch_ = TokenizerScratch();
    UQ_ASSIGN_OR_RETURN(special_, ReadSpecialTokens(store.get(), checkpoint->config_json(),
                                                    checkpoint->config().vocab_size));
    ResidentOptions options;
    options.act = act;
    options.stop = [] { return Interrupted(); };
    UQ_ASSIGN_OR_RETURN(const std::unique_ptr<ResidentModel> model,
                        ResidentModel::Load(backend.get(), *checkpoint, options));
    TerminalProgress progress(STDERR_FILENO, DetectTerminal(STDERR_FILENO), SystemClock());
    QuizResult result;
    for (const QuizItem& item : items_) {
      if (Interrupted()) return absl::CancelledError("interrupted");
      ++result.num_questions;
      UQ_RETURN_IF_ERROR(item.choices.empty() ? Write(model.get(), item, &result)
                                              : Choose(model.get(), item, &result));
      ProgressRow row;
      row.label = label;
      row.fraction = static_cast<double>(result.num_questions) / static_cast<double>(items_.size());
      progress.Update({row});
    }
    return result;
  }

 private:
  absl::StatusOr<std::vector<int32_t>> Encode(const std::string& text, int64_t vocab_size) {
    std::vector<int32_t> ids;
    UQ_RETURN_IF_ERROR(text_->tokenizer().Encode(text, EncodeOptions(), &scratch_, &ids));
    UQ_RETURN_IF_ERROR(CheckTokens<int32_t>(ids, vocab_size));
    if (ids.empty() && special_.begin >= 0) ids.push_back(special_.begin);
    return ids;
  }

  absl::Status Choose(ResidentModel* model, const QuizItem& item, QuizResult* result) {
    const int64_t vocab_size = model->config().vocab_size;
    const std::string context = examples_ + item.prompt;
    UQ_ASSIGN_OR_RETURN(const std::vector<int32_t> given, Encode(context, vocab_size));
    std::vector<ChoiceTokens> choices;
    for (const std::string& choice : item.choices) {
      ChoiceTokens& tokens = choices.emplace_back();
      UQ_ASSIGN_OR_RETURN(tokens.ids, Encode(context + choice, vocab_size));
      // Where the choice's first characters made one token with the context's last ones, at least
      // one token is scored.
      tokens.first =
          std::min(static_cast<int64_t>(given.size()), static_cast<int64_t>(tokens.ids.size()) - 1);
      if (tokens.first < 1) {
        return InvalidInput("EMPTY_PROMPT", "a question and its choice make fewer than two tokens");
      }
    }
    UQ_ASSIGN_OR_RETURN(const std::vector<double> scores, ScoreChoices(model, std::move(choices)));
    int best = 0, best_by_length = 0;
    const auto by_length = [&](int c) {
      return scores[c] / static_cast<double>(item.choices[c].size() - 1);
    };
    for (int c = 1; c < static_cast<int>(scores.size()); ++c) {
      if (scores[c] > scores[best]) best = c;
      if (by_length(c) > by_length(best_by_length)) best_by_length = c;
    }
    result->num_correct += best == item.correct ? 1 : 0;
    result->num_correct_by_length += best_by_length == item.correct ? 1 : 0;
    result->answers.push_back(absl::StrCat(best));
    return absl::OkStatus();
  }

  absl::Status Write(ResidentModel* model, const QuizItem& item, QuizResult* result) {
    UQ_ASSIGN_OR_RETURN(const std::vector<int32_t> prompt,
                        Encode(examples_ + item.prompt, model->config().vocab_size));
    ContinuationOptions options;
    options.max_new_tokens = flags_.max_new_tokens;
    options.end = special_.end;
    // The next question is not the model's to ask.
    std::string written;
    TextStream stream(text_->tokenizer(), /*skip_special=*/true);
    options.on_token = [&](int32_t id) { written += stream.Add(id); };
    options.stop = [&written] {
      return Interrupted() || absl::StrContains(written, "\nQuestion:");
    };
    UQ_RETURN_IF_ERROR(Continue(model, prompt, options).status());
    if (Interrupted()) return absl::CancelledError("interrupted");
    written += stream.Finish();
    written.resize(std::min(written.size(), written.find("\nQuestion:")));
    const std::string answer = FinalNumber(written);
    result->num_correct += answer == item.result ? 1 : 0;
    result->answers.push_back(answer);
    return absl::OkStatus();
  }

  const QuizFlags& flags_;
  const std::vector<QuizItem>& items_;
  const std::string examples_;  // solved questions before each
  std::unique_ptr<TextTokenizer> text_;
  TokenizerScratch scratch_;
  BoundaryTokens special_;
};

nlohmann::ordered_json ToJson(const std::string& model, const QuizResult& result, bool choices) {
  nlohmann::ordered_json json;
  json["model"] = model;
  json["num_questions"] = result.num_questions;
  json["accuracy"] = result.accuracy();
  json["standard_error"] = result.error();
  if (choices) json["accuracy_by_length"] = result.accuracy_by_length();
  return json;
}

absl::Status RunQuiz(const QuizFlags& flags) {
  UQ_ASSIGN_OR_RETURN(const std::string bytes, ReadTextFile(AbsoluteUri(flags.questions), {}));
  UQ_ASSIGN_OR_RETURN(std::vector<QuizItem> items, ParseQuiz(flags.questions, bytes));
  std::vector<QuizItem> solved;
  if (!flags.examples.empty()) {
    UQ_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(AbsoluteUri(flags.examples), {}));
    UQ_ASSIGN_OR_RETURN(solved, ParseQuiz(flags.examples, text));
  } else {
    // The file's own first ones, which are not asked then.
    const int64_t count = std::min<int64_t>(flags.shots, items.size());
    solved.assign(items.begin(), items.begin() + count);
    items.erase(items.begin(), items.begin() + count);
  }
  if (static_cast<int64_t>(solved.size()) < flags.shots || items.empty()) {
    return InvalidInput("TOO_FEW_QUESTIONS",
                        absl::StrCat("--shots ", flags.shots, " are more solved questions than ",
                                     "there are beside those to ask"));
  }
  std::string examples;
  for (int64_t i = 0; i < flags.shots; ++i) absl::StrAppend(&examples, Solved(solved[i]), "\n\n");
  if (flags.limit > 0 && flags.limit < static_cast<int64_t>(items.size())) {
    items.resize(flags.limit);
  }
  const bool choices = !items[0].choices.empty();
  QuizRun run(flags, items, examples);
  std::vector<std::pair<std::string, QuizResult>> results;
  for (const std::string& model : {flags.model, flags.compare}) {
    if (model.empty()) continue;
    UQ_ASSIGN_OR_RETURN(QuizResult result, run.Run(model, model));
    results.emplace_back(model, std::move(result));
  }
  int64_t same = 0;
  for (size_t i = 0; results.size() == 2 && i < items.size(); ++i) {
    same += results[0].second.answers[i] == results[1].second.answers[i] ? 1 : 0;
  }
  if (flags.json) {
    nlohmann::ordered_json json;
    for (const auto& [model, result] : results) {
      json["results"].push_back(ToJson(model, result, choices));
    }
    if (results.size() == 2) json["same_answers"] = same;
    PrintJsonLine(json);
    return absl::OkStatus();
  }
  for (const auto& [model, result] : results) {
    std::printf("%s: %lld of %lld right, %.2f%% (± %.2f)", model.c_str(),
                static_cast<long long>(result.num_correct),
                static_cast<long long>(result.num_questions), 100 * result.accuracy(),
                100 * result.error());
    if (choices) std::printf("; by length of the choice %.2f%%", 100 * result.accuracy_by_length());
    std::printf("\n");
  }
  if (results.size() == 2) {
    std::printf("the same answer to %lld of %lld questions\n", static_cast<long long>(same),
                static_cast<long long>(items.size()));
  }
  return absl::OkStatus();
}

}  // namespace

int Quiz(const std::vector<std::string>& arguments) {
  QuizFlags flags;
  FlagSet flag_set("uniquanf-batch quiz MODEL --questions FILE.jsonl [flags]",
                   "How many questions a checkpoint or an artifact answers. A line of the file is "
                   "an object as in MMLU (question, choices, answer), ARC (question, choices with "
                   "text and label, answerKey), HellaSwag (ctx, endings, label) or GSM8K "
                   "(question, answer with \"#### NUMBER\"). Of choices the most probable counts "
                   "(in MMLU's form: of the letters); answers are written, and their last number "
                   "counts.");
  flag_set.Positional("MODEL", true, &flags.model, "checkpoint or artifact with a tokenizer.json");
  flag_set.String("questions", "FILE.jsonl", &flags.questions, "one question a line");
  flag_set.String("compare", "MODEL", &flags.compare, "ask this one too: before and after");
  flag_set.Int64("shots", &flags.shots, 0, 1000, "solved questions before each");
  flag_set.String("examples", "FILE.jsonl", &flags.examples,
                  "where the solved ones are from; default: the first of the questions, which are "
                  "not asked then");
  flag_set.Int64("limit", &flags.limit, 0, 1 << 30, "questions asked; 0: all");
  flag_set.Int64("max-new-tokens", &flags.max_new_tokens, 1, 1 << 20,
                 "of an answer that is written");
  flag_set.Bool("json", &flags.json, "print JSON");
  flags.device.AddTo(&flag_set);
  flags.cache.AddTo(&flag_set);
  int exit_code = kOk;
  if (!ParseOrExplain(&flag_set, arguments, &exit_code)) return exit_code;
  if (flags.questions.empty()) {
    std::fprintf(stderr, "error: --questions is required\nTry --help.\n");
    return kUsage;
  }
  if (const absl::Status cache = flags.cache.Check(); !cache.ok()) {
    std::fprintf(stderr, "error: %s\nTry --help.\n", std::string(cache.message()).c_str());
    return kUsage;
  }
  const absl::Status status = RunQuiz(flags);
  return status.ok() ? kOk : Fail(status, flags.json);
}

}  // namespace uniquanf::batch
