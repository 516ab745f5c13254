#include "worker/model/language_model.h"

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/model/forward_sequences.h"
#include "worker/ops/op.h"

namespace uniquanf {

absl::Status CheckTokens(const std::vector<int32_t>& ids, size_t num_ids, int64_t vocab_size) {
  for (size_t i = 0; i < num_ids; ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_size) continue;
    return InvalidInput("TOKEN_OUT_OF_RANGE",
                        absl::StrCat("token id ", ids[i], " at position ", i,
                                     " is outside the model's vocabulary of ", vocab_size,
                                     "; were the tokens made by this model's tokenizer?"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Tensor> EmbedTokens(Backend* backend, const Checkpoint& checkpoint, DType act,
                                   const std::vector<int32_t>& ids, int64_t num_sequences,
                                   int64_t seq_len) {
  UQ_CHECK(static_cast<int64_t>(ids.size()) == num_sequences * seq_len);
  const int64_t vocab_size = checkpoint.config().vocab_size;
  const int64_t hidden_size = checkpoint.config().blocks.front().hidden_size;
  UQ_RETURN_IF_ERROR(CheckTokens(ids, ids.size(), vocab_size));
  UQ_ASSIGN_OR_RETURN(Tensor hidden,
                      Tensor::Allocate(backend, act, {num_sequences, seq_len, hidden_size}));
  Tensor table;
  {
    UQ_ASSIGN_OR_RETURN(const std::vector<float> rows, checkpoint.LoadEmbedding());
    UQ_ASSIGN_OR_RETURN(table,
                        Tensor::FromFloats(backend, act, {vocab_size, hidden_size}, rows.data()));
  }
  UQ_ASSIGN_OR_RETURN(Tensor device_ids,
                      Tensor::Allocate(backend, DType::kInt32, {num_sequences * seq_len}));
  UQ_RETURN_IF_ERROR(backend->CopyFromHost(device_ids.data(), ids.data(), device_ids.size_bytes()));
  ops::Embedding(backend, device_ids, table, &hidden);
  UQ_RETURN_IF_ERROR(backend->Synchronize());
  return hidden;
}

absl::Status ForwardSequences(Backend* backend, const BlockConfig& config, const RopeTables& rope,
                              const BlockWeights& weights, const Tensor& hidden, Tensor* out,
                              const std::function<absl::Status()>& each) {
  UQ_CHECK(hidden.shape().size() == 3 && hidden.shape() == out->shape());
  const int64_t seq_len = hidden.dim(1);
  UQ_ASSIGN_OR_RETURN(
      std::unique_ptr<BlockRunner> runner,
      BlockRunner::Create(backend, config, hidden.dtype(), 1, seq_len, &rope, false));
  UQ_ASSIGN_OR_RETURN(Tensor x,
                      Tensor::Allocate(backend, hidden.dtype(), {seq_len, config.hidden_size}));
  UQ_ASSIGN_OR_RETURN(Tensor y,
                      Tensor::Allocate(backend, hidden.dtype(), {seq_len, config.hidden_size}));
  const size_t sequence_bytes = x.size_bytes();
  for (int64_t s = 0; s < hidden.dim(0); ++s) {
    UQ_RETURN_IF_ERROR(backend->CopyOnDevice(
        x.data(), static_cast<const char*>(hidden.data()) + s * sequence_bytes, sequence_bytes));
    runner->Forward(weights, x, &y);
    UQ_RETURN_IF_ERROR(backend->CopyOnDevice(static_cast<char*>(out->data()) + s * sequence_bytes,
                                             y.data(), sequence_bytes));
    if (each) UQ_RETURN_IF_ERROR(each());
  }
  return backend->Synchronize();
}

absl::Status ForwardBlockInPlace(Backend* backend, const BlockConfig& config,
                                 const RopeTables& rope, const BlockWeights& weights,
                                 Tensor* hidden) {
  return ForwardSequences(backend, config, rope, weights, *hidden, hidden, nullptr);
}

absl::Status ForwardBlock(Backend* backend, const BlockConfig& config, const RopeTables& rope,
                          const BlockWeights& weights, const Tensor& hidden, Tensor* out) {
  return ForwardSequences(backend, config, rope, weights, hidden, out, nullptr);
}

}  // namespace uniquanf
