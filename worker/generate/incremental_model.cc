#include "worker/generate/incremental_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/model/token_range.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

// Rows [first, first + count) of a matrix.
Tensor Rows(const Tensor& tensor, int64_t first, int64_t count) {
  const int64_t width = tensor.shape().back();
  char* data = static_cast<char*>(const_cast<void*>(tensor.data()));
  return Tensor::View(tensor.backend(),
                      data + first * width * static_cast<int64_t>(DTypeBytes(tensor.dtype())),
                      tensor.dtype(), {count, width});
}

}  // namespace

absl::StatusOr<std::unique_ptr<IncrementalModel>> IncrementalModel::Create(ResidentModel* model,
                                                                           int64_t batch,
                                                                           int64_t capacity) {
  UQ_CHECK(batch > 0 && capacity > 0);
  if (capacity > model->config().max_position_embeddings) {
    return InvalidInput(
        "SEQUENCE_TOO_LONG",
        absl::StrCat("sequences of ", capacity, " tokens are longer than the ",
                     model->config().max_position_embeddings, " positions of the model"));
  }
  auto result = std::unique_ptr<IncrementalModel>(new IncrementalModel(model, batch, capacity));
  UQ_RETURN_IF_ERROR(result->Allocate());
  UQ_RETURN_IF_ERROR(result->MakeStepRunners());
  return result;
}

absl::Status IncrementalModel::Allocate() {
  const ModelConfig& config = model_->config();
  const DType act = model_->act();
  for (const BlockSpec& spec : config.blocks) {
    UQ_ASSIGN_OR_RETURN(states_.emplace_back(),
                        BlockState::Create(backend_, spec, act, batch_, capacity_));
    capturable_ = capturable_ && spec.capturable();
  }
  UQ_ASSIGN_OR_RETURN(rope_, MakeRopeTables(backend_, config.ropes, capacity_));
  for (const RopeTable& table : rope_) {
    RopeTable row;
    for (const auto& [from, to] :
         {std::pair{&table.cos, &row.cos}, std::pair{&table.sin, &row.sin}}) {
      UQ_ASSIGN_OR_RETURN(*to, Tensor::Allocate(backend_, DType::kFloat32, {1, from->dim(1)}));
    }
    step_rope_.push_back(std::move(row));
  }
  UQ_ASSIGN_OR_RETURN(embedding_end_,
                      EmbeddingEnd::Create(backend_, model_->checkpoint(), act, capacity_, batch_));
  UQ_ASSIGN_OR_RETURN(ids_, Tensor::Allocate(backend_, DType::kInt32, {batch_}));
  UQ_ASSIGN_OR_RETURN(positions_, Tensor::Allocate(backend_, DType::kInt32, {batch_}));
  UQ_ASSIGN_OR_RETURN(position_, Tensor::Allocate(backend_, DType::kInt32, {1}));
  for (Tensor* rows : {&x_, &y_}) {
    UQ_ASSIGN_OR_RETURN(*rows, Tensor::Allocate(backend_, act, {batch_, config.hidden_size}));
  }
  UQ_ASSIGN_OR_RETURN(logits_, Tensor::Allocate(backend_, act, {batch_, config.vocab_size}));
  return absl::OkStatus();
}

absl::Status IncrementalModel::MakeStepRunners() {
  const std::vector<BlockSpec>& blocks = model_->config().blocks;
  uint64_t scratch_bytes = 0;
  for (size_t layer = 0; layer < blocks.size(); ++layer) {
    const Incremental step = {&states_[layer], &position_, nullptr};
    scratch_bytes = std::max(
        scratch_bytes, IncrementalBytes(backend_, blocks[layer], model_->act(), batch_, 1, step));
  }
  UQ_ASSIGN_OR_RETURN(
      scratch_, Tensor::Allocate(backend_, DType::kUint8, {static_cast<int64_t>(scratch_bytes)}));
  for (size_t layer = 0; layer < blocks.size(); ++layer) {
    const Incremental step = {&states_[layer], &position_, &scratch_};
    UQ_ASSIGN_OR_RETURN(std::unique_ptr<BlockRunner> runner,
                        BlockRunner::CreateIncremental(backend_, blocks[layer], model_->act(),
                                                       batch_, 1, &step_rope_, step));
    runner->set_packed(&model_->packed(static_cast<int>(layer)), model_->workspace());
    steps_.push_back(std::move(runner));
  }
  return absl::OkStatus();
}

absl::Status IncrementalModel::Begin(absl::Span<const int32_t> ids, Tensor* outputs) {
  const ModelConfig& config = model_->config();
  const DType act = model_->act();
  UQ_CHECK(!ids.empty() && ids.size() % batch_ == 0);
  const int64_t count = static_cast<int64_t>(ids.size()) / batch_, num_rows = batch_ * count;
  UQ_CHECK(count <= capacity_);
  UQ_RETURN_IF_ERROR(CheckTokens<int32_t>(ids, config.vocab_size));
  length_ = 0;
  RopeTables rope;
  for (const RopeTable& table : rope_) {
    rope.push_back({Rows(table.cos, 0, count), Rows(table.sin, 0, count)});
  }
  Tensor device_ids, x, y;
  UQ_ASSIGN_OR_RETURN(device_ids, Tensor::Allocate(backend_, DType::kInt32, {num_rows}));
  for (Tensor* rows : {&x, &y}) {
    UQ_ASSIGN_OR_RETURN(*rows, Tensor::Allocate(backend_, act, {num_rows, config.hidden_size}));
  }
  UQ_RETURN_IF_ERROR(
      backend_->CopyFromHost(device_ids.data(), ids.data(), device_ids.size_bytes()));
  ops::Embedding(backend_, device_ids, model_->embedding(), &x);
  for (int64_t s = 0; s < batch_; ++s) {
    Tensor sequence = Rows(x, s * count, count);
    UQ_RETURN_IF_ERROR(embedding_end_->Apply(&sequence));
  }
  Tensor scratch;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const BlockSpec& spec = config.blocks[layer];
    Incremental first = {&states_[layer], nullptr, nullptr};
    const auto bytes =
        static_cast<int64_t>(IncrementalBytes(backend_, spec, act, batch_, count, first));
    if (scratch.empty() || scratch.num_elements() < bytes) {
      scratch = Tensor();
      UQ_ASSIGN_OR_RETURN(scratch, Tensor::Allocate(backend_, DType::kUint8, {bytes}));
    }
    first.scratch = &scratch;
    UQ_ASSIGN_OR_RETURN(
        const std::unique_ptr<BlockRunner> runner,
        BlockRunner::CreateIncremental(backend_, spec, act, batch_, count, &rope, first));
    runner->set_packed(&model_->packed(layer), model_->workspace());
    runner->Forward(model_->weights(layer), x, &y);
    std::swap(x, y);
  }
  const size_t row_bytes = config.hidden_size * DTypeBytes(act);
  for (int64_t s = 0; s < batch_; ++s) {
    UQ_RETURN_IF_ERROR(backend_->CopyOnDevice(
        static_cast<char*>(x_.data()) + s * row_bytes,
        static_cast<const char*>(x.data()) + ((s + 1) * count - 1) * row_bytes, row_bytes));
  }
  model_->ApplyHead(x_, &logits_);
  UQ_RETURN_IF_ERROR(backend_->Synchronize());
  length_ = count;
  if (outputs != nullptr) *outputs = std::move(x);
  return absl::OkStatus();
}

absl::Status IncrementalModel::SetPosition(absl::Span<const int32_t> ids) {
  const auto position = static_cast<int32_t>(length_);
  const std::vector<int32_t> positions(batch_, position);
  UQ_RETURN_IF_ERROR(backend_->CopyFromHost(ids_.data(), ids.data(), ids_.size_bytes()));
  UQ_RETURN_IF_ERROR(backend_->CopyFromHost(position_.data(), &position, sizeof(position)));
  UQ_RETURN_IF_ERROR(
      backend_->CopyFromHost(positions_.data(), positions.data(), positions_.size_bytes()));
  for (size_t i = 0; i < rope_.size(); ++i) {
    for (const auto& [from, to] : {std::pair{&rope_[i].cos, &step_rope_[i].cos},
                                   std::pair{&rope_[i].sin, &step_rope_[i].sin}}) {
      const Tensor row = Rows(*from, position, 1);
      UQ_RETURN_IF_ERROR(backend_->CopyOnDevice(to->data(), row.data(), row.size_bytes()));
    }
  }
  return absl::OkStatus();
}

void IncrementalModel::Step() {
  ops::Embedding(backend_, ids_, model_->embedding(), &x_);
  step_status_.Update(embedding_end_->ApplyAt(positions_, &x_));
  Tensor *x = &x_, *y = &y_;
  for (size_t layer = 0; layer < steps_.size(); ++layer) {
    steps_[layer]->Forward(model_->weights(static_cast<int>(layer)), *x, y);
    std::swap(x, y);
  }
  model_->ApplyHead(*x, &logits_);
}

absl::Status IncrementalModel::Next(absl::Span<const int32_t> ids) {
  UQ_CHECK(static_cast<int64_t>(ids.size()) == batch_ && length_ > 0 && length_ < capacity_);
  UQ_RETURN_IF_ERROR(CheckTokens<int32_t>(ids, model_->config().vocab_size));
  UQ_RETURN_IF_ERROR(SetPosition(ids));
  if (capturable_) {
    UQ_RETURN_IF_ERROR(backend_->RunCaptured(&recorded_, [this] { Step(); }));
  } else {
    Step();
  }
  UQ_RETURN_IF_ERROR(step_status_);
  UQ_RETURN_IF_ERROR(backend_->Synchronize());
  ++length_;
  return absl::OkStatus();
}

}  // namespace uniquanf
