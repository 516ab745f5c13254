#include "worker/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/base/parallel.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "worker/backend/vector_math.h"

namespace uniquanf {
namespace {

// In [0, 1), 53 bits.
double Draw(uint64_t seed, uint64_t sequence, uint64_t position) {
  const Philox4 words = PhiloxAt(seed, sequence, position);
  const uint64_t bits = (static_cast<uint64_t>(words.v[0]) << 32 | words.v[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

// The first of `order` at which the sum of weights passes draw · their sum.
int32_t Pick(const std::vector<float>& weights, absl::Span<const int32_t> order, double draw) {
  double total = 0;
  for (int32_t id : order) total += weights[id];
  double sum = 0;
  for (int32_t id : order) {
    sum += weights[id];
    if (sum > draw * total) return id;
  }
  return order.back();  // not reached but by rounding
}

// By falling weight, the lower id first of equals; as many as make `part` of the sum of all.
std::vector<int32_t> Nucleus(const std::vector<float>& weights, double part) {
  std::vector<int32_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](int32_t a, int32_t b) {
    return weights[a] != weights[b] ? weights[a] > weights[b] : a < b;
  };
  double total = 0;
  for (float weight : weights) total += weight;
  // Sorted a piece at a time: few tokens hold most of the probability.
  double sum = 0;
  size_t sorted = 0;
  for (size_t piece = 64; sorted < order.size(); piece *= 8) {
    const size_t end = std::min(order.size(), sorted + piece);
    std::partial_sort(order.begin() + static_cast<int64_t>(sorted),
                      order.begin() + static_cast<int64_t>(end), order.end(), before);
    for (; sorted < end; ++sorted) {
      sum += weights[order[sorted]];
      if (sum < part * total) continue;
      order.resize(sorted + 1);
      return order;
    }
  }
  return order;
}

}  // namespace

absl::StatusOr<int32_t> SampleToken(absl::Span<const float> logits, const Sampling& sampling,
                                    uint64_t sequence, uint64_t position) {
  int32_t best = 0;
  bool finite = true;
  for (size_t i = 0; i < logits.size(); ++i) {
    finite = finite && std::isfinite(logits[i]);
    if (logits[i] > logits[best]) best = static_cast<int32_t>(i);
  }
  if (!finite) {
    return InvalidInput("LOGITS_NOT_FINITE",
                        absl::StrCat("the model's logits at position ", position,
                                     " hold a NaN or an infinity; try --precision f32"));
  }
  if (sampling.temperature == 0) return best;
  const float top = logits[best], inverse = static_cast<float>(1 / sampling.temperature);
  std::vector<float> weights(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) weights[i] = PortableExp((logits[i] - top) * inverse);
  const double draw = Draw(sampling.seed, sequence, position);
  if (sampling.top_p < 1) return Pick(weights, Nucleus(weights, sampling.top_p), draw);
  std::vector<int32_t> all(weights.size());
  std::iota(all.begin(), all.end(), 0);
  return Pick(weights, all, draw);
}

absl::StatusOr<std::vector<int32_t>> SampleTokens(absl::Span<const float> logits, int64_t batch,
                                                  const Sampling& sampling, uint64_t first_sequence,
                                                  uint64_t position) {
  const int64_t vocab_size = static_cast<int64_t>(logits.size()) / batch;
  std::vector<int32_t> ids(batch);
  std::vector<absl::Status> statuses(batch);
  ParallelRanges(batch, 1, [&](int64_t s, int64_t) {
    const absl::StatusOr<int32_t> id = SampleToken(logits.subspan(s * vocab_size, vocab_size),
                                                   sampling, first_sequence + s, position);
    statuses[s] = id.status();
    if (id.ok()) ids[s] = *id;
  });
  for (const absl::Status& status : statuses) UQ_RETURN_IF_ERROR(status);
  return ids;
}

}  // namespace uniquanf
