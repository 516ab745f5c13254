#include "worker/generate/choice_score.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/generate/incremental_model.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

// At most `max_tokens`, the last ones.
void KeepLast(int64_t max_tokens, ChoiceTokens* choice) {
  const int64_t dropped = static_cast<int64_t>(choice->ids.size()) - max_tokens;
  if (dropped <= 0) return;
  choice->ids.erase(choice->ids.begin(), choice->ids.begin() + dropped);
  choice->first = std::max<int64_t>(1, choice->first - dropped);
}

// Of rows [row, row + targets) of `outputs`: log p of each target, summed.
absl::StatusOr<double> SumLogProbabilities(ResidentModel* model, const Tensor& outputs, int64_t row,
                                           const std::vector<int32_t>& targets) {
  Backend* backend = model->backend();
  const auto count = static_cast<int64_t>(targets.size());
  const int64_t width = model->config().hidden_size, vocab_size = model->config().vocab_size;
  char* data = static_cast<char*>(const_cast<void*>(outputs.data())) +
               row * width * static_cast<int64_t>(DTypeBytes(model->act()));
  const Tensor x = Tensor::View(backend, data, model->act(), {count, width});
  UQ_ASSIGN_OR_RETURN(Tensor logits, Tensor::Allocate(backend, model->act(), {count, vocab_size}));
  UQ_ASSIGN_OR_RETURN(Tensor ids, Tensor::Allocate(backend, DType::kInt32, {count}));
  UQ_ASSIGN_OR_RETURN(Tensor nll, Tensor::Allocate(backend, DType::kFloat32, {count}));
  UQ_RETURN_IF_ERROR(backend->CopyFromHost(ids.data(), targets.data(), ids.size_bytes()));
  model->ApplyHead(x, &logits);
  ops::CrossEntropy(backend, logits, ids, &nll);
  UQ_ASSIGN_OR_RETURN(const std::vector<float> values, nll.ToFloats());
  double sum = 0;
  for (float value : values) sum -= value;
  if (std::isfinite(sum)) return sum;
  return InvalidInput("LOGITS_NOT_FINITE",
                      "the model's logits hold a NaN or an infinity; try --precision f32");
}

}  // namespace

absl::StatusOr<std::vector<double>> ScoreChoices(ResidentModel* model,
                                                 std::vector<ChoiceTokens> choices) {
  // Side by side, shorter ones filled up behind their end, where nothing of theirs looks.
  int64_t length = 0;
  for (ChoiceTokens& choice : choices) {
    UQ_CHECK(choice.first >= 1 && choice.first < static_cast<int64_t>(choice.ids.size()));
    KeepLast(model->config().max_position_embeddings, &choice);
    length = std::max(length, static_cast<int64_t>(choice.ids.size()));
  }
  const auto batch = static_cast<int64_t>(choices.size());
  std::vector<int32_t> ids(batch * length, 0);
  for (int64_t c = 0; c < batch; ++c) {
    std::copy(choices[c].ids.begin(), choices[c].ids.end(), ids.begin() + c * length);
  }
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<IncrementalModel> sequences,
                      IncrementalModel::Create(model, batch, length));
  Tensor outputs;
  UQ_RETURN_IF_ERROR(sequences->Begin(ids, &outputs));
  std::vector<double> scores;
  for (int64_t c = 0; c < batch; ++c) {
    const ChoiceTokens& choice = choices[c];
    const std::vector<int32_t> targets(choice.ids.begin() + choice.first, choice.ids.end());
    UQ_ASSIGN_OR_RETURN(
        scores.emplace_back(),
        SumLogProbabilities(model, outputs, c * length + choice.first - 1, targets));
  }
  return scores;
}

}  // namespace uniquanf
