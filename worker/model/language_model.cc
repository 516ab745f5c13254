#include "worker/model/language_model.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/model/forward_sequences.h"
#include "worker/model/model_ends.h"
#include "worker/model/token_range.h"
#include "worker/ops/op.h"

namespace uniquanf {

namespace {

// Rows that are read before they are copied to the device, float32.
constexpr int64_t kRowsAtOnceBytes = 256 << 20;

// The part of the embedding table that some tokens need.
struct EmbeddingPart {
  Tensor rows;               // [distinct tokens, H] act, on the device
  std::vector<int32_t> ids;  // of the tokens, as row numbers
};

absl::StatusOr<EmbeddingPart> UploadEmbedding(Backend* backend, const Checkpoint& checkpoint,
                                              DType act, const std::vector<int32_t>& tokens) {
  const int64_t hidden_size = checkpoint.config().hidden_size;
  EmbeddingPart part;
  std::vector<int32_t> row_of(checkpoint.config().vocab_size, -1), distinct;
  for (int32_t token : tokens) row_of[token] = 0;
  for (size_t token = 0; token < row_of.size(); ++token) {
    if (row_of[token] < 0) continue;
    row_of[token] = static_cast<int32_t>(distinct.size());
    distinct.push_back(static_cast<int32_t>(token));
  }
  part.ids.reserve(tokens.size());
  for (int32_t token : tokens) part.ids.push_back(row_of[token]);

  const auto num_rows = static_cast<int64_t>(distinct.size());
  // The CPU looks bf16 up as it is.
  UQ_ASSIGN_OR_RETURN(const SourceTensor stored,
                      checkpoint.FindRaw(checkpoint.config().ends.embedding + ".weight"));
  const bool narrow =
      backend->kind() == DeviceKind::kCpu && stored.info.dtype == SafetensorsDType::kBF16;
  UQ_ASSIGN_OR_RETURN(part.rows, Tensor::Allocate(backend, narrow ? DType::kBfloat16 : act,
                                                  {num_rows, hidden_size}));
  const int64_t at_once =
      std::min(num_rows, std::max<int64_t>(1, kRowsAtOnceBytes / (hidden_size * sizeof(float))));
  std::vector<float> values(at_once * hidden_size);
  for (int64_t first = 0; first < num_rows; first += at_once) {
    const int64_t count = std::min(at_once, num_rows - first);
    UQ_RETURN_IF_ERROR(checkpoint.LoadEmbeddingRows(
        absl::MakeConstSpan(distinct).subspan(first, count), values.data()));
    UQ_RETURN_IF_ERROR(
        part.rows.CopyFromFloats(values.data(), first * hidden_size, count * hidden_size));
  }
  return part;
}

}  // namespace

absl::StatusOr<Tensor> EmbedTokens(Backend* backend, const Checkpoint& checkpoint, DType act,
                                   const std::vector<int32_t>& ids, int64_t num_sequences,
                                   int64_t seq_len) {
  UQ_CHECK(static_cast<int64_t>(ids.size()) == num_sequences * seq_len);
  const int64_t vocab_size = checkpoint.config().vocab_size;
  const int64_t hidden_size = checkpoint.config().hidden_size;
  UQ_RETURN_IF_ERROR(CheckTokens<int32_t>(ids, vocab_size));
  UQ_ASSIGN_OR_RETURN(Tensor hidden,
                      Tensor::Allocate(backend, act, {num_sequences, seq_len, hidden_size}));
  UQ_ASSIGN_OR_RETURN(const EmbeddingPart table, UploadEmbedding(backend, checkpoint, act, ids));
  UQ_ASSIGN_OR_RETURN(Tensor device_ids,
                      Tensor::Allocate(backend, DType::kInt32, {num_sequences * seq_len}));
  UQ_RETURN_IF_ERROR(
      backend->CopyFromHost(device_ids.data(), table.ids.data(), device_ids.size_bytes()));
  ops::Embedding(backend, device_ids, table.rows, &hidden);
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<EmbeddingEnd> end,
                      EmbeddingEnd::Create(backend, checkpoint, act, seq_len));
  const size_t bytes = hidden.size_bytes() / std::max<int64_t>(1, num_sequences);
  for (int64_t s = 0; s < num_sequences; ++s) {
    Tensor row = Tensor::View(backend, static_cast<char*>(hidden.data()) + s * bytes, act,
                              {seq_len, hidden_size});
    UQ_RETURN_IF_ERROR(end->Apply(&row));
  }
  UQ_RETURN_IF_ERROR(backend->Synchronize());
  return hidden;
}

absl::StatusOr<SequenceBuffer> EmbedSequences(Backend* backend, const Checkpoint& checkpoint,
                                              DType act, SequenceBuffer::Placement placement,
                                              const std::vector<int32_t>& ids,
                                              int64_t num_sequences, int64_t seq_len) {
  UQ_CHECK(static_cast<int64_t>(ids.size()) == num_sequences * seq_len);
  const int64_t vocab_size = checkpoint.config().vocab_size;
  const int64_t hidden_size = checkpoint.config().hidden_size;
  UQ_RETURN_IF_ERROR(CheckTokens<int32_t>(ids, vocab_size));
  UQ_ASSIGN_OR_RETURN(
      SequenceBuffer hidden,
      SequenceBuffer::Allocate(backend, placement, act, num_sequences, seq_len, hidden_size));
  UQ_ASSIGN_OR_RETURN(const EmbeddingPart table, UploadEmbedding(backend, checkpoint, act, ids));
  UQ_ASSIGN_OR_RETURN(Tensor device_ids, Tensor::Allocate(backend, DType::kInt32, {seq_len}));
  UQ_ASSIGN_OR_RETURN(Tensor row, Tensor::Allocate(backend, act, {seq_len, hidden_size}));
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<EmbeddingEnd> end,
                      EmbeddingEnd::Create(backend, checkpoint, act, seq_len));
  for (int64_t s = 0; s < num_sequences; ++s) {
    UQ_RETURN_IF_ERROR(backend->CopyFromHost(device_ids.data(), table.ids.data() + s * seq_len,
                                             device_ids.size_bytes()));
    ops::Embedding(backend, device_ids, table.rows, &row);
    UQ_RETURN_IF_ERROR(end->Apply(&row));
    UQ_RETURN_IF_ERROR(hidden.Store(s, row));
  }
  UQ_RETURN_IF_ERROR(backend->Synchronize());
  return hidden;
}

LoadSequence LoadFrom(Backend* backend, const Tensor& hidden) {
  return [backend, &hidden](int64_t s, Tensor* x) {
    const char* from = static_cast<const char*>(hidden.data()) + s * x->size_bytes();
    return backend->CopyOnDevice(x->data(), from, x->size_bytes());
  };
}

StoreSequence StoreTo(Backend* backend, Tensor* hidden) {
  return [backend, hidden](int64_t s, const Tensor& y) {
    char* to = static_cast<char*>(hidden->data()) + s * y.size_bytes();
    return backend->CopyOnDevice(to, y.data(), y.size_bytes());
  };
}

absl::StatusOr<DeviceBlock> LoadDeviceBlock(Backend* backend, const Checkpoint& checkpoint,
                                            int layer, DType act, bool keep_packed) {
  StoredBlock stored;
  if (keep_packed) {
    UQ_ASSIGN_OR_RETURN(stored, checkpoint.LoadStoredBlock(layer));
  } else {
    UQ_ASSIGN_OR_RETURN(stored.values, checkpoint.LoadBlock(layer));
  }
  DeviceBlock block;
  UQ_ASSIGN_OR_RETURN(block.weights, UploadStoredBlock(backend, checkpoint.config().blocks[layer],
                                                       act, stored, &block.packed));
  int64_t max_outputs = 0, max_inputs = 0;
  for (const packed::PackedWeights& linear : block.packed) {
    max_outputs = std::max(max_outputs, linear.num_outputs);
    max_inputs = std::max(max_inputs, linear.num_inputs);
  }
  if (max_outputs > 0) {
    UQ_ASSIGN_OR_RETURN(block.workspace,
                        packed::Workspace::Create(backend, act, max_outputs, max_inputs));
  }
  return block;
}

absl::Status ForwardSequences(Backend* backend, const BlockSpec& spec, DType act,
                              const RopeTables& rope, const BlockWeights& weights,
                              int64_t num_sequences, int64_t seq_len, const LoadSequence& load,
                              const StoreSequence& store, const PackedBlock* packed,
                              packed::Workspace* workspace) {
  UQ_ASSIGN_OR_RETURN(std::unique_ptr<BlockRunner> runner,
                      BlockRunner::Create(backend, spec, act, 1, seq_len, &rope, false));
  runner->set_packed(packed, workspace);
  UQ_ASSIGN_OR_RETURN(Tensor x, Tensor::Allocate(backend, act, {seq_len, spec.hidden_size}));
  UQ_ASSIGN_OR_RETURN(Tensor y, Tensor::Allocate(backend, act, {seq_len, spec.hidden_size}));
  for (int64_t s = 0; s < num_sequences; ++s) {
    UQ_RETURN_IF_ERROR(load(s, &x));
    runner->Forward(weights, x, &y);
    UQ_RETURN_IF_ERROR(store(s, y));
  }
  return backend->Synchronize();
}

absl::Status ForwardBlockInPlace(Backend* backend, const BlockSpec& spec, const RopeTables& rope,
                                 const BlockWeights& weights, Tensor* hidden) {
  return ForwardBlock(backend, spec, rope, weights, *hidden, hidden);
}

absl::Status ForwardBlock(Backend* backend, const BlockSpec& spec, const RopeTables& rope,
                          const BlockWeights& weights, const Tensor& hidden, Tensor* out) {
  UQ_CHECK(hidden.shape().size() == 3 && hidden.shape() == out->shape());
  return ForwardSequences(backend, spec, hidden.dtype(), rope, weights, hidden.dim(0),
                          hidden.dim(1), LoadFrom(backend, hidden), StoreTo(backend, out));
}

absl::Status ForwardBlock(Backend* backend, const BlockSpec& spec, const RopeTables& rope,
                          const BlockWeights& weights, const SequenceBuffer& hidden,
                          SequenceBuffer* out, const StopToken& stop) {
  UQ_CHECK(hidden.shape() == out->shape());
  return ForwardSequences(
      backend, spec, hidden.dtype(), rope, weights, hidden.shape()[0], hidden.shape()[1],
      [&](int64_t s, Tensor* x) -> absl::Status {
        if (stop.StopRequested()) return absl::CancelledError("the forward pass was cancelled");
        return hidden.Load(s, 0, x);
      },
      [out](int64_t s, const Tensor& y) { return out->Store(s, y); });
}

}  // namespace uniquanf
