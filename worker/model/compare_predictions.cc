// Two models' next-token distributions, token by token. Logits come in chunks and are compared on
// the host.
#include <algorithm>
#include <cmath>
#include <vector>

#include "common/base/check.h"
#include "common/base/parallel.h"
#include "common/base/status.h"
#include "worker/backend/vector_math.h"
#include "worker/model/language_model.h"
#include "worker/model/model_ends.h"

namespace uniquanf {
namespace {

constexpr int64_t kLogitsElements = 1 << 23;  // of a chunk

struct Row {
  double divergence = 0;
  bool same_top = false;
};

struct Normalizer {
  float top = 0;
  double log_sum = 0;  // of exp(x − top)
  int64_t best = 0;
};
Normalizer Normalize(const float* x, int64_t n) {
  Normalizer result;
  for (int64_t i = 1; i < n; ++i) {
    if (x[i] > x[result.best]) result.best = i;
  }
  result.top = x[result.best];
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += PortableExp(x[i] - result.top);
  result.log_sum = std::log(sum);
  return result;
}

Row Compare(const float* original, const float* other, int64_t n) {
  const Normalizer p = Normalize(original, n), q = Normalize(other, n);
  const double shift = (q.top + q.log_sum) - (p.top + p.log_sum);
  Row row;
  for (int64_t i = 0; i < n; ++i) {
    const double probability = std::exp(original[i] - p.top - p.log_sum);
    row.divergence += probability * (static_cast<double>(original[i]) - other[i] + shift);
  }
  row.same_top = p.best == q.best;
  return row;
}

}  // namespace

absl::StatusOr<Agreement> ComparePredictions(Backend* backend, const Checkpoint& original,
                                             const Tensor& kept_original, const Checkpoint& other,
                                             const Tensor& kept_other, const StopToken& stop) {
  UQ_CHECK(kept_original.shape() == kept_other.shape());
  const int64_t num_windows = kept_original.dim(0), length = kept_original.dim(1);
  const int64_t width = kept_original.dim(2), vocab_size = original.config().vocab_size;
  const DType act = kept_original.dtype();
  const int64_t chunk = std::clamp<int64_t>(kLogitsElements / vocab_size, 1, length - 1);
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<HeadEnd> head,
                      HeadEnd::Create(backend, original, act, chunk));
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<HeadEnd> other_head,
                      HeadEnd::Create(backend, other, act, chunk));
  UQ_ASSIGN_OR_RETURN(Tensor logits, Tensor::Allocate(backend, act, {chunk, vocab_size}));
  const auto values_of = [&](HeadEnd* end, const Tensor& kept, int64_t row,
                             int64_t count) -> absl::StatusOr<std::vector<float>> {
    const int64_t bytes = width * static_cast<int64_t>(DTypeBytes(act));
    char* data = static_cast<char*>(const_cast<void*>(kept.data())) + row * bytes;
    Tensor out = Tensor::View(backend, logits.data(), act, {count, vocab_size});
    end->Apply(Tensor::View(backend, data, act, {count, width}), &out);
    return out.ToFloats();
  };
  Agreement total;
  for (int64_t s = 0; s < num_windows; ++s) {
    // The last token of a window predicts what no perplexity counts.
    for (int64_t begin = 0; begin < length - 1; begin += chunk) {
      if (stop.StopRequested()) return absl::CancelledError("the evaluation was cancelled");
      const int64_t count = std::min(chunk, length - 1 - begin), row = s * length + begin;
      UQ_ASSIGN_OR_RETURN(const std::vector<float> p,
                          values_of(head.get(), kept_original, row, count));
      UQ_ASSIGN_OR_RETURN(const std::vector<float> q,
                          values_of(other_head.get(), kept_other, row, count));
      std::vector<Row> rows(count);
      ParallelRanges(count, 16, [&](int64_t first, int64_t end) {
        for (int64_t i = first; i < end; ++i) {
          rows[i] = Compare(p.data() + i * vocab_size, q.data() + i * vocab_size, vocab_size);
        }
      });
      for (const Row& of_token : rows) {
        total.divergence += of_token.divergence;
        total.same_top += of_token.same_top ? 1 : 0;
      }
      total.num_tokens += count;
    }
  }
  if (!std::isfinite(total.divergence)) {
    return InvalidInput("LOGITS_NOT_FINITE",
                        "the logits of the original or of the quantized model hold a NaN or an "
                        "infinity");
  }
  total.divergence /= static_cast<double>(total.num_tokens);
  total.same_top /= static_cast<double>(total.num_tokens);
  return total;
}

}  // namespace uniquanf
