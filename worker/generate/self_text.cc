#include "worker/generate/self_text.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "worker/generate/sampler.h"

namespace uniquanf {
namespace {

// The draws of prompts lie beyond those of any position.
constexpr uint64_t kPromptDraw = uint64_t{1} << 63;

}  // namespace

absl::StatusOr<std::unique_ptr<SelfTextWriter>> SelfTextWriter::Create(ResidentModel* model,
                                                                       SelfTextOptions options) {
  UQ_CHECK(options.sequence_length > 0 && options.temperature > 0 && options.prompt_length > 0);
  if (!options.corpus.empty()) {
    UQ_CHECK(options.corpus_length > 0 && options.corpus.size() % options.corpus_length == 0);
    options.prompt_length =
        std::min({options.prompt_length, options.corpus_length, options.sequence_length});
  } else {
    options.prompt_length = 1;
  }
  const int64_t length = options.sequence_length;
  auto writer = std::unique_ptr<SelfTextWriter>(new SelfTextWriter(model, std::move(options)));
  UQ_ASSIGN_OR_RETURN(writer->sequences_, IncrementalModel::Create(model, kBatch, length));
  return writer;
}

std::vector<int32_t> SelfTextWriter::Prompt(uint64_t sequence) const {
  const Philox4 draw = PhiloxAt(options_.seed, sequence, kPromptDraw);
  const auto below = [&](int word, int64_t bound) {
    return static_cast<int64_t>(static_cast<uint64_t>(draw.v[word]) * bound >> 32);
  };
  if (options_.corpus.empty()) {
    if (options_.begin >= 0) return {options_.begin};
    return {static_cast<int32_t>(below(0, model_->config().vocab_size))};
  }
  const auto num_rows = static_cast<int64_t>(options_.corpus.size()) / options_.corpus_length;
  const int64_t row = below(0, num_rows);
  const int64_t at = below(1, options_.corpus_length - options_.prompt_length + 1);
  const auto begin = options_.corpus.begin() + row * options_.corpus_length + at;
  return {begin, begin + options_.prompt_length};
}

absl::StatusOr<std::vector<int32_t>> SelfTextWriter::WriteBatch(int64_t batch) {
  const int64_t length = options_.sequence_length, given = options_.prompt_length;
  const auto first = static_cast<uint64_t>(batch * kBatch);
  const Sampling sampling = {options_.temperature, /*top_p=*/1, options_.seed};
  std::vector<int32_t> prompts, ids(kBatch * length);
  for (int64_t s = 0; s < kBatch; ++s) {
    const std::vector<int32_t> prompt = Prompt(first + s);
    prompts.insert(prompts.end(), prompt.begin(), prompt.end());
    std::copy(prompt.begin(), prompt.end(), ids.begin() + s * length);
  }
  for (int64_t t = given; t < length; ++t) {
    if (options_.stop.StopRequested()) return absl::CancelledError("writing text was cancelled");
    if (t == given) {
      UQ_RETURN_IF_ERROR(sequences_->Begin(prompts));
    } else {
      std::vector<int32_t> last(kBatch);
      for (int64_t s = 0; s < kBatch; ++s) last[s] = ids[s * length + t - 1];
      UQ_RETURN_IF_ERROR(sequences_->Next(last));
    }
    UQ_ASSIGN_OR_RETURN(const std::vector<float> logits, sequences_->Logits());
    UQ_ASSIGN_OR_RETURN(const std::vector<int32_t> next,
                        SampleTokens(logits, kBatch, sampling, first, t));
    for (int64_t s = 0; s < kBatch; ++s) ids[s * length + t] = next[s];
    if (options_.progress) options_.progress(t + 1, length);
  }
  return ids;
}

absl::StatusOr<std::vector<int32_t>> WriteSelfText(ResidentModel* model,
                                                   const SelfTextOptions& options,
                                                   int64_t num_sequences) {
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<SelfTextWriter> writer,
                      SelfTextWriter::Create(model, options));
  std::vector<int32_t> ids;
  for (int64_t batch = 0; batch * SelfTextWriter::kBatch < num_sequences; ++batch) {
    UQ_ASSIGN_OR_RETURN(const std::vector<int32_t> written, writer->WriteBatch(batch));
    ids.insert(ids.end(), written.begin(), written.end());
  }
  ids.resize(num_sequences * options.sequence_length);
  return ids;
}

}  // namespace uniquanf
