// Nodes that look at other tokens than their own, for sequences that come in parts: a first part of
// any length, then a token at a time. What they need of the tokens before lies in a BlockState.
#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/block/node_kernel.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

// Forward only.
class IncrementalKernel : public NodeKernel {
 public:
  IncrementalKernel(int index, const NodeShape& shape)
      : index_(index), batch_(shape.batch), seq_len_(shape.seq_len), in_(*shape.incremental) {}
  void Backward(NodeRun* run) override { UQ_CHECK(false); }

 protected:
  bool IsFirst() const { return in_.position == nullptr; }
  const Tensor& position() const { return *in_.position; }
  // Looked up late: kernels are also made to plan memory, without a state.
  Tensor& state(int i) { return in_.state->of(index_)[i]; }

  // Rows [begin, end) of each sequence of `source` [B·L, W] to `at` of `target` [B, capacity, W].
  void CopyRows(Backend* backend, const Tensor& source, int64_t begin, int64_t end, int64_t at,
                Tensor* target) const {
    if (begin >= end) return;
    const int64_t width = target->dim(2), capacity = target->dim(1);
    const auto row_bytes = width * static_cast<int64_t>(DTypeBytes(source.dtype()));
    for (int64_t s = 0; s < batch_; ++s) {
      // A failing device is reported by the next Synchronize, as for ops.
      backend
          ->CopyOnDevice(
              static_cast<char*>(target->data()) + (s * capacity + at) * row_bytes,
              static_cast<const char*>(source.data()) + (s * seq_len_ + begin) * row_bytes,
              (end - begin) * row_bytes)
          .IgnoreError();
    }
  }

  const int index_;
  const int64_t batch_, seq_len_;

 private:
  const Incremental in_;
};

class AttentionKernel : public IncrementalKernel {
 public:
  AttentionKernel(const AttentionNode& node, int index, const NodeShape& shape)
      : IncrementalKernel(index, shape), node_(node), shape_(node.shape) {
    shape_.batch = batch_;
    shape_.seq_len = seq_len_;
  }
  std::vector<NodeInput> inputs() const override {
    return {{node_.q, GradientMode::kNone},
            {node_.k, GradientMode::kNone},
            {node_.v, GradientMode::kNone}};
  }
  int output() const override { return node_.out; }
  std::vector<NodeBuffer> buffers(const NodeShape& shape) const override {
    if (!IsFirst()) return {};
    return {{DType::kFloat32, {batch_, shape_.num_heads, seq_len_}, NodeBuffer::Life::kForward}};
  }
  void Forward(NodeRun* run) override {
    shape_.sinks = run->weight_or_null(node_.sinks);
    shape_.slopes = run->weight_or_null(node_.slopes);
    const Tensor &q = *run->value(node_.q), &k = *run->value(node_.k), &v = *run->value(node_.v);
    if (!IsFirst()) {
      ops::AttentionStep(run->backend(), shape_, q, k, v, position(), &state(0), &state(1),
                         run->value(node_.out));
      return;
    }
    ops::AttentionForward(run->backend(), shape_, q, k, v, run->value(node_.out), run->buffer(0));
    for (const auto& [source, i] : {std::pair{&k, 0}, std::pair{&v, 1}}) {
      // Token t goes to row t mod capacity; only the last ones stay.
      const int64_t capacity = state(i).dim(1), first = std::max<int64_t>(0, seq_len_ - capacity);
      const int64_t wrap = std::min(seq_len_, (first + capacity - 1) / capacity * capacity);
      CopyRows(run->backend(), *source, first, wrap, first % capacity, &state(i));
      CopyRows(run->backend(), *source, wrap, seq_len_, 0, &state(i));
    }
  }

 private:
  const AttentionNode node_;
  ops::AttentionShape shape_;
};

class ConvKernel : public IncrementalKernel {
 public:
  ConvKernel(const ConvNode& node, int index, const NodeShape& shape)
      : IncrementalKernel(index, shape), node_(node) {}
  std::vector<NodeInput> inputs() const override { return {{node_.in, GradientMode::kNone}}; }
  int output() const override { return node_.out; }
  void Forward(NodeRun* run) override {
    const Tensor &x = *run->value(node_.in), &weight = run->weight(node_.weight);
    const Tensor* bias = run->weight_or_null(node_.bias);
    if (!IsFirst()) {
      ops::CausalConvStep(run->backend(), x, weight, bias, &state(0), run->value(node_.out));
      return;
    }
    ops::CausalConvForward(run->backend(), seq_len_, x, weight, bias, run->value(node_.out));
    run->backend()->FillZero(state(0).data(), state(0).size_bytes()).IgnoreError();
    const int64_t kept = state(0).dim(1), count = std::min(kept, seq_len_);
    CopyRows(run->backend(), x, seq_len_ - count, seq_len_, kept - count, &state(0));
  }

 private:
  const ConvNode node_;
};

class RecurrenceKernel : public IncrementalKernel {
 public:
  RecurrenceKernel(const RecurrenceNode& node, int index, const NodeShape& shape)
      : IncrementalKernel(index, shape), node_(node), shape_(node.shape) {
    shape_.batch = batch_;
    shape_.seq_len = seq_len_;
  }
  std::vector<NodeInput> inputs() const override {
    std::vector<NodeInput> inputs;
    for (int slot : {node_.q, node_.k, node_.v, node_.a, node_.b}) {
      if (slot >= 0) inputs.push_back({slot, GradientMode::kNone});
    }
    return inputs;
  }
  int output() const override { return node_.out; }
  absl::Status Check(const NodeShape& shape) const override {
    return CheckRecurrence(shape_, shape);
  }
  void Forward(NodeRun* run) override {
    shape_.a_log = &run->weight(node_.a_log);
    shape_.bias = &run->weight(node_.bias);
    shape_.skip = run->weight_or_null(node_.skip);
    shape_.states = &state(0);
    if (IsFirst()) {
      run->backend()->FillZero(state(0).data(), state(0).size_bytes()).IgnoreError();
    }
    ops::RecurrenceForward(run->backend(), shape_, *run->value(node_.q), *run->value(node_.k),
                           *run->value(node_.v), *run->value(node_.a),
                           node_.b < 0 ? nullptr : run->value(node_.b), run->value(node_.out));
  }

 private:
  const RecurrenceNode node_;
  ops::RecurrenceShape shape_;
};

// What a node keeps of the tokens before.
struct StateShapes {
  const BlockSpec& spec;
  DType act;
  int64_t batch, capacity;
  using Shapes = std::vector<std::pair<DType, Shape>>;
  Shapes operator()(const AttentionNode& node) const {
    const int64_t rows = node.shape.window > 0 ? std::min(capacity, node.shape.window) : capacity;
    return {{act, {batch, rows, spec.slots[node.k]}}, {act, {batch, rows, spec.slots[node.v]}}};
  }
  Shapes operator()(const ConvNode& node) const {
    return {{act, {batch, spec.tensors[node.weight].shape[1] - 1, spec.slots[node.in]}}};
  }
  Shapes operator()(const RecurrenceNode& node) const {
    return {{DType::kFloat32, {batch, node.shape.num_heads, node.shape.state()}}};
  }
  template <typename Other>
  Shapes operator()(const Other&) const {
    return {};
  }
};

}  // namespace

absl::StatusOr<BlockState> BlockState::Create(Backend* backend, const BlockSpec& spec, DType act,
                                              int64_t batch, int64_t capacity) {
  UQ_CHECK(batch > 0 && capacity > 0);
  BlockState state;
  state.batch_ = batch;
  const StateShapes shapes = {spec, act, batch, capacity};
  for (const Node& node : spec.nodes) {
    std::vector<Tensor>& tensors = state.tensors_.emplace_back();
    for (auto& [dtype, shape] : std::visit(shapes, node)) {
      UQ_ASSIGN_OR_RETURN(tensors.emplace_back(), Tensor::Allocate(backend, dtype, shape));
    }
  }
  return state;
}

uint64_t BlockState::size_bytes() const {
  uint64_t bytes = 0;
  for (const std::vector<Tensor>& tensors : tensors_) {
    for (const Tensor& tensor : tensors) bytes += tensor.size_bytes();
  }
  return bytes;
}

std::unique_ptr<NodeKernel> MakeIncrementalKernel(const AttentionNode& node, int index,
                                                  const NodeShape& shape) {
  return std::make_unique<AttentionKernel>(node, index, shape);
}
std::unique_ptr<NodeKernel> MakeIncrementalKernel(const ConvNode& node, int index,
                                                  const NodeShape& shape) {
  return std::make_unique<ConvKernel>(node, index, shape);
}
std::unique_ptr<NodeKernel> MakeIncrementalKernel(const RecurrenceNode& node, int index,
                                                  const NodeShape& shape) {
  return std::make_unique<RecurrenceKernel>(node, index, shape);
}

}  // namespace uniquanf
