#include "worker/generate/resident_model.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/types/span.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

// Rows of the embedding that are read before they are copied to the device, float32.
constexpr int64_t kBytesAtOnce = 64 << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<ResidentModel>> ResidentModel::Load(Backend* backend,
                                                                   const Checkpoint& checkpoint,
                                                                   const ResidentOptions& options) {
  auto model = std::unique_ptr<ResidentModel>(new ResidentModel(backend, checkpoint, options.act));
  const ModelConfig& config = checkpoint.config();
  const uint64_t before = backend->memory().allocated_bytes;
  int64_t max_outputs = 0, max_inputs = 0;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    if (options.stop.StopRequested()) return absl::CancelledError("loading was cancelled");
    const BlockSpec& spec = config.blocks[layer];
    StoredBlock block;
    if (options.keep_packed) {
      UQ_ASSIGN_OR_RETURN(block, checkpoint.LoadStoredBlock(layer));
    } else {
      UQ_ASSIGN_OR_RETURN(block.values, checkpoint.LoadBlock(layer));
    }
    Layer& on_device = model->layers_.emplace_back();
    UQ_ASSIGN_OR_RETURN(on_device.weights,
                        UploadStoredBlock(backend, spec, options.act, block, &on_device.packed));
    for (const packed::PackedWeights& linear : on_device.packed) {
      max_outputs = std::max(max_outputs, linear.num_outputs);
      max_inputs = std::max(max_inputs, linear.num_inputs);
    }
    if (options.progress) options.progress(layer + 1, config.num_layers);
  }
  UQ_RETURN_IF_ERROR(model->LoadEnds());
  model->weight_bytes_ = backend->memory().allocated_bytes - before;
  if (max_outputs > 0) {
    UQ_ASSIGN_OR_RETURN(model->workspace_,
                        packed::Workspace::Create(backend, options.act, max_outputs, max_inputs));
  }
  return model;
}

absl::Status ResidentModel::LoadEnds() {
  const ModelConfig& config = checkpoint_.config();
  UQ_ASSIGN_OR_RETURN(head_, HeadEnd::Create(backend_, checkpoint_, act_, kHeadRows));
  if (config.ends.tied && !config.ends.head_rows_normalized) return absl::OkStatus();
  const int64_t vocab_size = config.vocab_size, width = config.hidden_size;
  UQ_ASSIGN_OR_RETURN(embedding_,
                      Tensor::Allocate(backend_, head_->head().dtype(), {vocab_size, width}));
  const int64_t at_once = std::clamp<int64_t>(kBytesAtOnce / (width * 4), 1, vocab_size);
  std::vector<float> values(at_once * width);
  std::vector<int32_t> ids(at_once);
  for (int64_t first = 0; first < vocab_size; first += at_once) {
    const int64_t count = std::min(at_once, vocab_size - first);
    std::iota(ids.begin(), ids.end(), static_cast<int32_t>(first));
    UQ_RETURN_IF_ERROR(
        checkpoint_.LoadEmbeddingRows(absl::MakeConstSpan(ids).subspan(0, count), values.data()));
    UQ_RETURN_IF_ERROR(embedding_.CopyFromFloats(values.data(), first * width, count * width));
  }
  return absl::OkStatus();
}

void ResidentModel::ApplyHead(const Tensor& x, Tensor* logits) {
  const int64_t width = config().hidden_size, vocab_size = config().vocab_size;
  const int64_t num_rows = x.num_elements() / width;
  const auto bytes = static_cast<int64_t>(DTypeBytes(act_));
  for (int64_t row = 0; row < num_rows; row += kHeadRows) {
    const int64_t count = std::min(kHeadRows, num_rows - row);
    const Tensor in = Tensor::View(
        backend_, static_cast<char*>(const_cast<void*>(x.data())) + row * width * bytes, act_,
        {count, width});
    Tensor out =
        Tensor::View(backend_, static_cast<char*>(logits->data()) + row * vocab_size * bytes, act_,
                     {count, vocab_size});
    head_->Apply(in, &out);
  }
}

}  // namespace uniquanf
