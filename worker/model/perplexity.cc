#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/model/forward_sequences.h"
#include "worker/model/language_model.h"
#include "worker/model/model_ends.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

// Elements of a chunk of logits: 64 MiB in f32, whatever the vocabulary.
constexpr int64_t kLogitsElements = 1 << 24;

// Counts (block, window) units, reports them, and asks whether to go on.
class Ticker {
 public:
  Ticker(const PerplexityOptions& options, int64_t total) : options_(options), total_(total) {}
  absl::Status Tick() {
    ++done_;
    if (options_.progress) options_.progress(done_, total_);
    if (options_.stop.StopRequested()) {
      return absl::CancelledError("the evaluation was cancelled");
    }
    return absl::OkStatus();
  }

 private:
  const PerplexityOptions& options_;
  int64_t total_, done_ = 0;
};

// Final norm, LM head and cross entropy over windows [S, L, H]: the sum of the negative log
// likelihoods of ids[s][1..L) given what comes before.
absl::StatusOr<double> SumNegativeLogLikelihood(Backend* backend, const Checkpoint& checkpoint,
                                                const Tensor& hidden,
                                                const std::vector<int32_t>& ids, Ticker* ticker,
                                                uint64_t* head_bytes) {
  const ModelConfig& config = checkpoint.config();
  const DType act = hidden.dtype();
  const int64_t window = hidden.dim(1), width = hidden.dim(2), vocab_size = config.vocab_size;
  const int64_t chunk = std::clamp<int64_t>(kLogitsElements / vocab_size, 1, window);
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<HeadEnd> head,
                      HeadEnd::Create(backend, checkpoint, act, chunk));
  *head_bytes = head->head().size_bytes();
  UQ_ASSIGN_OR_RETURN(Tensor x, Tensor::Allocate(backend, act, {chunk, width}));
  UQ_ASSIGN_OR_RETURN(Tensor logits, Tensor::Allocate(backend, act, {chunk, vocab_size}));
  UQ_ASSIGN_OR_RETURN(Tensor targets, Tensor::Allocate(backend, DType::kInt32, {chunk}));
  UQ_ASSIGN_OR_RETURN(Tensor nll, Tensor::Allocate(backend, DType::kFloat32, {chunk}));
  // Rows beyond the end of a window's last chunk are computed and not counted.
  UQ_RETURN_IF_ERROR(backend->FillZero(x.data(), x.size_bytes()));

  double total = 0;
  std::vector<int32_t> host_targets(chunk);
  const size_t row_bytes = width * DTypeBytes(act);
  for (int64_t s = 0; s < hidden.dim(0); ++s) {
    for (int64_t begin = 0; begin < window - 1; begin += chunk) {
      const int64_t count = std::min(chunk, window - 1 - begin);
      std::fill(host_targets.begin(), host_targets.end(), -1);
      std::copy_n(ids.begin() + s * window + begin + 1, count, host_targets.begin());
      UQ_RETURN_IF_ERROR(backend->CopyOnDevice(
          x.data(), static_cast<const char*>(hidden.data()) + (s * window + begin) * row_bytes,
          count * row_bytes));
      UQ_RETURN_IF_ERROR(
          backend->CopyFromHost(targets.data(), host_targets.data(), targets.size_bytes()));
      head->Apply(x, &logits);
      ops::CrossEntropy(backend, logits, targets, &nll);
      UQ_ASSIGN_OR_RETURN(const std::vector<float> values, nll.ToFloats());
      for (int64_t i = 0; i < count; ++i) total += values[i];
    }
    UQ_RETURN_IF_ERROR(ticker->Tick());
  }
  return total;
}

}  // namespace

absl::StatusOr<Perplexity> EvaluatePerplexity(Backend* backend, const Checkpoint& checkpoint,
                                              const std::vector<int32_t>& tokens,
                                              const PerplexityOptions& options) {
  const ModelConfig& config = checkpoint.config();
  if (options.window < 2) {
    return InvalidInput("INVALID_EVALUATION_WINDOW",
                        absl::StrCat("the window is ", options.window,
                                     " tokens; it must be at least 2, to predict one"));
  }
  int64_t num_windows = static_cast<int64_t>(tokens.size()) / options.window;
  if (options.max_windows > 0) num_windows = std::min(num_windows, options.max_windows);
  if (num_windows == 0) {
    return InvalidInput("TOO_FEW_TOKENS",
                        absl::StrCat("there are ", tokens.size(), " evaluation tokens, fewer than ",
                                     "one window of ", options.window));
  }
  const std::vector<int32_t> ids(tokens.begin(), tokens.begin() + num_windows * options.window);
  UQ_ASSIGN_OR_RETURN(Tensor hidden, EmbedTokens(backend, checkpoint, options.act, ids, num_windows,
                                                 options.window));
  UQ_ASSIGN_OR_RETURN(const RopeTables rope, MakeRopeTables(backend, config.ropes, options.window));
  Perplexity result;
  const auto count_weights = [&result](uint64_t bytes) {
    result.peak_weight_bytes = std::max(result.peak_weight_bytes, bytes);
    result.total_weight_bytes += bytes;
  };
  Ticker ticker(options, (config.num_layers + 1) * num_windows);
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const uint64_t before = backend->memory().allocated_bytes;
    UQ_ASSIGN_OR_RETURN(DeviceBlock block, LoadDeviceBlock(backend, checkpoint, layer, options.act,
                                                           options.keep_packed));
    count_weights(backend->memory().allocated_bytes - before);
    const StoreSequence store = StoreTo(backend, &hidden);
    UQ_RETURN_IF_ERROR(ForwardSequences(
        backend, config.blocks[layer], options.act, rope, block.weights, num_windows,
        options.window, LoadFrom(backend, hidden),
        [&](int64_t s, const Tensor& y) -> absl::Status {
          UQ_RETURN_IF_ERROR(store(s, y));
          return ticker.Tick();
        },
        &block.packed, &block.workspace));
  }
  if (options.kept != nullptr) {
    const int64_t count = std::min(options.max_kept, num_windows);
    UQ_ASSIGN_OR_RETURN(*options.kept, Tensor::Allocate(backend, options.act,
                                                        {count, options.window, hidden.dim(2)}));
    UQ_RETURN_IF_ERROR(
        backend->CopyOnDevice(options.kept->data(), hidden.data(), options.kept->size_bytes()));
  }
  uint64_t head_bytes = 0;
  UQ_ASSIGN_OR_RETURN(const double total, SumNegativeLogLikelihood(backend, checkpoint, hidden, ids,
                                                                   &ticker, &head_bytes));
  count_weights(head_bytes);
  result.num_tokens = (options.window - 1) * num_windows;
  result.mean_nll = total / static_cast<double>(result.num_tokens);
  result.perplexity = std::exp(result.mean_nll);
  return result;
}

}  // namespace uniquanf
