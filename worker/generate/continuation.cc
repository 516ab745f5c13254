#include "worker/generate/continuation.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/generate/incremental_model.h"

namespace uniquanf {

const char* EndName(Continuation::End end) {
  switch (end) {
    case Continuation::End::kEndToken:
      return "end_token";
    case Continuation::End::kLength:
      return "length";
    case Continuation::End::kModelLength:
      return "model_length";
    case Continuation::End::kStopped:
      return "stopped";
  }
  return "";
}

absl::StatusOr<Continuation> Continue(ResidentModel* model, absl::Span<const int32_t> prompt,
                                      const ContinuationOptions& options) {
  UQ_CHECK(!prompt.empty());
  const auto length = static_cast<int64_t>(prompt.size());
  const int64_t room = model->config().max_position_embeddings - length;
  if (room < 1) {
    return InvalidInput("SEQUENCE_TOO_LONG",
                        absl::StrCat("the prompt has ", length, " tokens; the model has ",
                                     model->config().max_position_embeddings, " positions"));
  }
  const int64_t count = std::min(room, options.max_new_tokens);
  Continuation result;
  result.end =
      count < options.max_new_tokens ? Continuation::End::kModelLength : Continuation::End::kLength;
  if (count < 1) return result;
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<IncrementalModel> sequence,
                      IncrementalModel::Create(model, /*batch=*/1, length + count - 1));
  for (int64_t i = 0; i < count; ++i) {
    if (options.stop.StopRequested()) {
      result.end = Continuation::End::kStopped;
      break;
    }
    UQ_RETURN_IF_ERROR(i == 0 ? sequence->Begin(prompt)
                              : sequence->Next(absl::MakeConstSpan(&result.ids.back(), 1)));
    UQ_ASSIGN_OR_RETURN(const std::vector<float> logits, sequence->Logits());
    UQ_ASSIGN_OR_RETURN(const int32_t id, SampleToken(logits, options.sampling, options.sequence,
                                                      static_cast<uint64_t>(length + i)));
    if (std::binary_search(options.end.begin(), options.end.end(), id)) {
      result.end = Continuation::End::kEndToken;
      break;
    }
    result.ids.push_back(id);
    if (options.on_token) options.on_token(id);
  }
  return result;
}

}  // namespace uniquanf
