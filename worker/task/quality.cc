#include "worker/task/quality.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status.h"
#include "worker/generate/incremental_model.h"
#include "worker/generate/sampler.h"
#include "worker/model/language_model.h"
#include "worker/task/rounded_model.h"
#include "worker/task/task_context.h"
#include "worker/text/text_tokens.h"

namespace uniquanf {
namespace {

// Windows whose predictions are compared token by token.
constexpr int64_t kComparedWindows = 16;
constexpr int64_t kNumTexts = 3, kPromptTokens = 24, kNewTokens = 40;
// Of the device's free memory that a whole model may take for a few lines of text.
constexpr double kMemoryForTexts = 0.5;

// `sequences` rows of kNewTokens ids, the most probable each time.
absl::StatusOr<std::vector<int32_t>> WriteTexts(const Checkpoint& checkpoint,
                                                const std::vector<int32_t>& prompts,
                                                int64_t num_texts, int64_t pass,
                                                const TaskEnvironment& env) {
  ResidentOptions options;
  options.act = env.act;
  options.stop = env.stop;
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<ResidentModel> model,
                      ResidentModel::Load(env.backend, checkpoint, options));
  const int64_t given = static_cast<int64_t>(prompts.size()) / num_texts;
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<IncrementalModel> sequences,
                      IncrementalModel::Create(model.get(), num_texts, given + kNewTokens));
  std::vector<int32_t> ids(num_texts * kNewTokens), last;
  for (int64_t t = 0; t < kNewTokens; ++t) {
    if (IsCancelled(env)) return CancelledError();
    ReportProgress(env, "writing text", pass * kNewTokens + t, 2 * kNewTokens);
    UQ_RETURN_IF_ERROR(t == 0 ? sequences->Begin(prompts) : sequences->Next(last));
    UQ_ASSIGN_OR_RETURN(const std::vector<float> logits, sequences->Logits());
    UQ_ASSIGN_OR_RETURN(last, SampleTokens(logits, num_texts, {}, 0, given + t));
    for (int64_t s = 0; s < num_texts; ++s) ids[s * kNewTokens + t] = last[s];
  }
  return ids;
}

// The original's weights as the device would hold them.
uint64_t ResidentBytes(const Checkpoint& original, DType act) {
  uint64_t elements = 0;
  for (const std::string& name : original.TensorNames()) {
    const auto tensor = original.FindRaw(name);
    if (tensor.ok()) elements += static_cast<uint64_t>(tensor->info.num_elements());
  }
  return elements * DTypeBytes(act);
}

class QualityRun {
 public:
  QualityRun(const Plan& plan, const Checkpoint& original, const Checkpoint& artifact,
             const std::vector<ManifestModule>& modules, const std::vector<int32_t>& tokens,
             const TaskEnvironment& env)
      : plan_(plan),
        original_(original),
        artifact_(artifact),
        modules_(modules),
        tokens_(tokens),
        env_(env),
        num_passes_(plan.spec.evaluation_baseline == EvaluationBaseline::kNone ? 2 : 3) {}

  absl::StatusOr<Evaluation> Run() {
    Tensor kept_original, kept_artifact;
    UQ_ASSIGN_OR_RETURN(const Perplexity before, Evaluate(original_, &kept_original));
    UQ_ASSIGN_OR_RETURN(const Perplexity after, Evaluate(artifact_, &kept_artifact));
    result_.perplexity = {before.perplexity, after.perplexity, after.num_tokens};
    CheckOriginal(before);
    if (std::isfinite(before.perplexity) && std::isfinite(after.perplexity)) {
      UQ_ASSIGN_OR_RETURN(const Agreement agreement,
                          ComparePredictions(env_.backend, original_, kept_original, artifact_,
                                             kept_artifact, env_.stop));
      result_.report.divergence = agreement.divergence;
      result_.report.same_top_token = agreement.same_top;
      result_.report.num_compared_tokens = agreement.num_tokens;
    }
    kept_original = Tensor();
    kept_artifact = Tensor();
    if (plan_.spec.evaluation_baseline == EvaluationBaseline::kRtn) {
      const std::unique_ptr<Checkpoint> rounded =
          NewRoundedModel(env_.backend, &original_, &modules_);
      UQ_ASSIGN_OR_RETURN(const Perplexity baseline, Evaluate(*rounded, nullptr));
      result_.report.baseline_perplexity = baseline.perplexity;
    }
    result_.report.verdict = QualityVerdict(result_.perplexity, result_.report);
    UQ_RETURN_IF_ERROR(CheckTarget());
    UQ_RETURN_IF_ERROR(AddTexts());
    return std::move(result_);
  }

 private:
  absl::StatusOr<Perplexity> Evaluate(const Checkpoint& checkpoint, Tensor* kept) {
    PerplexityOptions options;
    options.window = plan_.spec.evaluation_window;
    options.max_windows = plan_.spec.evaluation_max_windows;
    options.act = env_.act;
    options.kept = kept;
    options.max_kept = kComparedWindows;
    options.progress = [this](int64_t done, int64_t total) {
      ReportProgress(env_, "evaluating", pass_ * total + done, num_passes_ * total);
    };
    options.stop = env_.stop;
    auto perplexity = EvaluatePerplexity(env_.backend, checkpoint, tokens_, options);
    ++pass_;
    return perplexity;
  }

  // A model that predicts no better than chance was damaged before, or reads tokens of another
  // tokenizer.
  void CheckOriginal(const Perplexity& before) {
    const auto vocab_size = static_cast<double>(original_.config().vocab_size);
    if (before.perplexity < vocab_size / 2) return;
    result_.warnings.push_back(absl::StrFormat(
        "the original model does not predict the evaluation tokens: its perplexity is %.4g, and a "
        "guess among its %d tokens has %.4g; is the checkpoint whole, and are the tokens of its "
        "own tokenizer?",
        before.perplexity, original_.config().vocab_size, vocab_size));
  }

  absl::Status CheckTarget() const {
    const double limit = plan_.spec.max_perplexity_increase;
    const double before = result_.perplexity.perplexity_before;
    const double after = result_.perplexity.perplexity_after;
    if (limit == 0 || after <= before * (1 + limit)) return absl::OkStatus();
    return FailedPrecondition(
        "QUALITY_TARGET",
        absl::StrFormat("perplexity went from %.4f to %.4f (%+.2f%%), more than "
                        "max_perplexity_increase allows (%+.2f%%); nothing is published. Use more "
                        "bits, smaller groups, or a better calibration, or allow more",
                        before, after, 100 * (after / before - 1), 100 * limit));
  }

  // Three beginnings out of the evaluation tokens. Quietly none where something is missing: they
  // are for people to look at.
  absl::Status AddTexts() {
    const int64_t window = plan_.spec.evaluation_window;
    const int64_t num_windows = static_cast<int64_t>(tokens_.size()) / window;
    const int64_t given = std::min(kPromptTokens, window);
    if (num_windows < 1 || given + kNewTokens > original_.config().max_position_embeddings ||
        static_cast<double>(ResidentBytes(original_, env_.act)) >
            kMemoryForTexts * static_cast<double>(env_.backend->memory().free_bytes)) {
      return absl::OkStatus();
    }
    const auto text = TextTokenizer::Open(original_.store().get(), TextSettings());
    if (!text.ok()) return absl::OkStatus();
    const int64_t num_texts = std::min(kNumTexts, num_windows);
    std::vector<int32_t> prompts;
    for (int64_t i = 0; i < num_texts; ++i) {
      const auto begin = tokens_.begin() + i * (num_windows / num_texts) * window;
      prompts.insert(prompts.end(), begin, begin + given);
    }
    const auto before = WriteTexts(original_, prompts, num_texts, 0, env_);
    const auto after = before.ok() ? WriteTexts(artifact_, prompts, num_texts, 1, env_) : before;
    if (IsCancelled(env_)) return CancelledError();
    if (!after.ok()) {
      result_.warnings.push_back(
          absl::StrCat("no texts were written for the report: ", after.status().message()));
      return absl::OkStatus();
    }
    const auto part = [&](const std::vector<int32_t>& ids, int64_t i) {
      const int64_t length = static_cast<int64_t>(ids.size()) / num_texts;
      return (*text)->tokenizer().Decode({ids.begin() + i * length, ids.begin() + (i + 1) * length},
                                         /*skip_special=*/true);
    };
    for (int64_t i = 0; i < num_texts; ++i) {
      result_.report.texts.push_back({part(prompts, i), part(*before, i), part(*after, i)});
    }
    return absl::OkStatus();
  }

  const Plan& plan_;
  const Checkpoint& original_;
  const Checkpoint& artifact_;
  const std::vector<ManifestModule>& modules_;
  const std::vector<int32_t>& tokens_;
  const TaskEnvironment& env_;
  const int64_t num_passes_;
  int64_t pass_ = 0;
  Evaluation result_;
};

}  // namespace

int64_t ReportTextTokens() { return kNumTexts * (kPromptTokens + kNewTokens) * 2; }

std::string QualityVerdict(const ManifestEvaluation& perplexity, const QualityReport& report) {
  const double increase = perplexity.perplexity_after / perplexity.perplexity_before - 1;
  const char* words = "unusable: it does not predict text any more";
  for (const auto& [limit, phrase] : {std::pair{0.01, "as good as the original"},
                                      {0.05, "close to the original"},
                                      {0.15, "noticeably worse than the original"},
                                      {0.5, "much worse than the original"},
                                      {2.0, "badly damaged"}}) {
    if (!(increase <= limit)) continue;
    words = phrase;
    break;
  }
  std::string verdict =
      absl::StrFormat("The artifact is %s: perplexity %+.2f%%", words, 100 * increase);
  if (report.num_compared_tokens > 0) {
    absl::StrAppendFormat(&verdict, "; the most probable token is the same at %.1f%% of the tokens",
                          100 * report.same_top_token);
  }
  if (report.baseline_perplexity.has_value()) {
    const double baseline = *report.baseline_perplexity / perplexity.perplexity_before - 1;
    absl::StrAppendFormat(&verdict, "; rounding to nearest at the same bits would cost %+.2f%%",
                          100 * baseline);
  }
  return verdict + ".";
}

absl::StatusOr<Evaluation> EvaluateQuality(const Plan& plan, const Checkpoint& original,
                                           const Checkpoint& artifact,
                                           const std::vector<ManifestModule>& modules,
                                           const std::vector<int32_t>& tokens,
                                           const TaskEnvironment& env) {
  return QualityRun(plan, original, artifact, modules, tokens, env).Run();
}

}  // namespace uniquanf
