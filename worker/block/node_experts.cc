// A sparse mixture of experts. The router's choice is copied to the host, where the tokens are
// sorted by expert; every expert then multiplies the rows that reached it and no others, and the
// outputs are added to the tokens in the order of the router's choice. So sums have a fixed order,
// and an expert costs what its tokens cost.
#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "worker/block/node_kernel.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

// On CUDA an expert's rows begin at, and are filled up with zeros to, a multiple of this: matrix
// products then see aligned operands, and few shapes.
constexpr int64_t kPaddedRows = 16;

class ExpertsKernel : public NodeKernel {
 public:
  ExpertsKernel(const BlockSpec& spec, const ExpertsNode& node)
      : node_(node), hidden_(spec.slots[node.in]), num_experts_(node.router.num_experts) {
    UQ_CHECK(static_cast<int>(node_.experts.size()) == num_experts_);
  }

  std::vector<NodeInput> inputs() const override {
    return {{node_.in, GradientMode::kAdds, /*kept=*/true},
            {node_.router_in, GradientMode::kAdds, /*kept=*/true}};
  }
  int output() const override { return node_.out; }
  bool trains() const override { return true; }

  std::vector<NodeBuffer> buffers(const NodeShape& shape) const override {
    using Life = NodeBuffer::Life;
    const int64_t tokens = shape.num_tokens(), chosen = tokens * node_.router.top_k;
    const int64_t rows = Capacity(shape);
    std::vector<NodeBuffer> buffers(kNumBuffers);
    buffers[kLogits] = {shape.act, {tokens, num_experts_}, Life::kKept};
    buffers[kIds] = {DType::kInt32, {chosen}, Life::kKept};
    buffers[kWeights] = {DType::kFloat32, {chosen}, Life::kKept};
    buffers[kRowTokens] = {DType::kInt32, {rows}, Life::kKept};
    buffers[kPositions] = {DType::kInt32, {chosen}, Life::kKept};
    buffers[kIn] = {shape.act, {rows, hidden_}, Life::kKept};
    buffers[kGate] = {shape.act, {rows, node_.size}, Life::kKept};
    buffers[kUp] = {shape.act, {rows, node_.size}, Life::kKept};
    buffers[kActivated] = {shape.act, {rows, node_.size}, Life::kKept};
    buffers[kOut] = {shape.act, {rows, hidden_}, Life::kKept};
    buffers[kProducts] = {DType::kFloat32, {node_.scale_input ? chosen : 0}, Life::kForward};
    if (!shape.with_backward) {
      buffers.resize(kDOut);
      return buffers;
    }
    buffers[kDOut] = {shape.act, {rows, hidden_}, Life::kBackward};
    buffers[kDActivated] = {shape.act, {rows, node_.size}, Life::kBackward};
    buffers[kDGate] = {shape.act, {rows, node_.size}, Life::kBackward};
    buffers[kDUp] = {shape.act, {rows, node_.size}, Life::kBackward};
    buffers[kDIn] = {shape.act, {rows, hidden_}, Life::kBackward};
    buffers[kDWeights] = {DType::kFloat32, {chosen}, Life::kBackward};
    buffers[kDLogits] = {shape.act, {tokens, num_experts_}, Life::kBackward};
    return buffers;
  }

  void Forward(NodeRun* run) override {
    Backend* backend = run->backend();
    const Tensor& x = *run->value(node_.in);
    ops::LinearForward(backend, *run->value(node_.router_in), run->weight(node_.router_weight),
                       run->weight_or_null(node_.router_bias), run->buffer(kLogits));
    node_.router.scales = run->weight_or_null(node_.scales);
    ops::RouteForward(backend, node_.router, *run->buffer(kLogits),
                      run->weight_or_null(node_.correction), run->buffer(kIds),
                      run->buffer(kWeights));
    Sort(run);
    Tensor in = Rows(run, kIn, 0, num_rows_), all = Rows(run, kOut, 0, num_rows_);
    if (node_.scale_input) {
      // The rows' own values and the products that come with them are not needed here.
      backend->FillZero(in.data(), in.size_bytes()).IgnoreError();
      backend->FillZero(all.data(), all.size_bytes()).IgnoreError();
      ops::CombineRowsBackward(backend, x, all, *run->buffer(kPositions), *run->buffer(kWeights),
                               &in, run->buffer(kProducts));
    } else {
      ops::GatherRows(backend, x, Rows(run, kRowTokens, 0, num_rows_), &in);
    }
    for (int e = 0; e < num_experts_; ++e) {
      const auto [first, count] = ranges_[e];
      if (count == 0) continue;
      const ExpertsNode::Expert& expert = node_.experts[e];
      const Tensor rows = Rows(run, kIn, first, count);
      Tensor gate = Rows(run, kGate, first, count), up = Rows(run, kUp, first, count);
      Tensor activated = Rows(run, kActivated, first, count), out = Rows(run, kOut, first, count);
      run->Observe(expert.gate, rows);
      run->Multiply(rows, expert.gate, expert.gate_bias, &gate);
      if (expert.up >= 0) {
        run->Observe(expert.up, rows);
        run->Multiply(rows, expert.up, expert.up_bias, &up);
      }
      ops::ActivationForward(backend, node_.activation, gate, expert.up < 0 ? nullptr : &up,
                             &activated);
      run->Observe(expert.down, activated);
      run->Multiply(activated, expert.down, expert.down_bias, &out);
    }
    ops::CombineRows(backend, all, *run->buffer(kPositions), OutputWeights(run),
                     /*accumulate=*/false, run->value(node_.out));
  }

  void Backward(NodeRun* run) override {
    Backend* backend = run->backend();
    Tensor dout = Rows(run, kDOut, 0, num_rows_), din = Rows(run, kDIn, 0, num_rows_);
    if (node_.scale_input) {
      ops::GatherRows(backend, run->gradient(), Rows(run, kRowTokens, 0, num_rows_), &dout);
    } else {
      // Rows that only fill up have no gradient.
      backend->FillZero(dout.data(), dout.size_bytes()).IgnoreError();
      ops::CombineRowsBackward(backend, run->gradient(), Rows(run, kOut, 0, num_rows_),
                               *run->buffer(kPositions), *run->buffer(kWeights), &dout,
                               run->buffer(kDWeights));
    }
    for (int e = 0; e < num_experts_; ++e) BackwardOf(run, e);
    if (node_.scale_input) {
      // The weights' gradients are the tokens' products with those of their rows; what else comes
      // with them goes where nobody reads any more.
      ops::CombineRowsBackward(backend, *run->value(node_.in), din, *run->buffer(kPositions),
                               *run->buffer(kWeights), &dout, run->buffer(kDWeights));
    }
    bool add = false;
    if (run->Wants(0)) {
      Tensor* dx = run->Target(0, &add);
      ops::CombineRows(backend, din, *run->buffer(kPositions), InputWeights(run), add, dx);
    }
    if (run->Wants(1)) {
      ops::RouteBackward(backend, node_.router, *run->buffer(kLogits), *run->buffer(kIds),
                         *run->buffer(kDWeights), run->buffer(kDLogits));
      Tensor* dx = run->Target(1, &add);
      ops::LinearBackwardInput(backend, *run->buffer(kDLogits), run->weight(node_.router_weight),
                               add, dx);
    }
  }

 private:
  enum Buffer {
    kLogits,     // [T, E]
    kIds,        // [T, k]
    kWeights,    // [T, k]
    kRowTokens,  // [R] the token of each row; −1: fills up
    kPositions,  // [T, k] the row of each token's choices
    kIn,         // [R, H]
    kGate,       // [R, I]
    kUp,
    kActivated,
    kOut,       // [R, H]
    kProducts,  // [T, k]
    kDOut,      // backward only from here
    kDActivated,
    kDGate,
    kDUp,
    kDIn,
    kDWeights,
    kDLogits,
    kNumBuffers
  };

  // Null: ones.
  const Tensor* OutputWeights(NodeRun* run) const {
    return node_.scale_input ? nullptr : run->buffer(kWeights);
  }
  const Tensor* InputWeights(NodeRun* run) const {
    return node_.scale_input ? run->buffer(kWeights) : nullptr;
  }
  int64_t Padding(const Backend& backend) const {
    return backend.kind() == DeviceKind::kCpu ? 1 : kPaddedRows;
  }
  int64_t Capacity(const NodeShape& shape) const {
    return shape.num_tokens() * node_.router.top_k + num_experts_ * (Padding(*shape.backend) - 1);
  }

  // Rows [first, first + count) of a buffer.
  static Tensor Rows(NodeRun* run, Buffer index, int64_t first, int64_t count) {
    Tensor* buffer = run->buffer(index);
    Shape shape = buffer->shape();
    const size_t row_bytes = buffer->size_bytes() / static_cast<size_t>(shape[0]);
    shape[0] = count;
    return Tensor::View(run->backend(), static_cast<char*>(buffer->data()) + first * row_bytes,
                        buffer->dtype(), std::move(shape));
  }

  // Sorts the choices by expert and then by token.
  void Sort(NodeRun* run) {
    Backend* backend = run->backend();
    const Tensor& ids = *run->buffer(kIds);
    const int64_t chosen = ids.num_elements(), k = node_.router.top_k;
    ids_.resize(chosen);
    // A failing device is reported by the next Synchronize; the ids are then those of the last
    // pass.
    std::fill(ids_.begin(), ids_.end(), 0);
    backend->CopyToHost(ids_.data(), ids.data(), ids.size_bytes()).IgnoreError();
    ranges_.assign(num_experts_, {0, 0});
    for (int32_t& id : ids_) {
      id = std::clamp(id, 0, num_experts_ - 1);
      ++ranges_[id].second;
    }
    const int64_t padding = Padding(*backend);
    num_rows_ = 0;
    for (auto& [first, count] : ranges_) {
      count = (count + padding - 1) / padding * padding;
      first = num_rows_;
      num_rows_ += count;
    }
    row_tokens_.assign(num_rows_, -1);
    positions_.resize(chosen);
    std::vector<int64_t> next(num_experts_);
    for (int e = 0; e < num_experts_; ++e) next[e] = ranges_[e].first;
    for (int64_t i = 0; i < chosen; ++i) {
      const int64_t row = next[ids_[i]]++;
      row_tokens_[row] = static_cast<int32_t>(i / k);
      positions_[i] = static_cast<int32_t>(row);
    }
    const Tensor rows = Rows(run, kRowTokens, 0, num_rows_);
    backend->CopyFromHost(const_cast<void*>(rows.data()), row_tokens_.data(), rows.size_bytes())
        .IgnoreError();
    backend
        ->CopyFromHost(run->buffer(kPositions)->data(), positions_.data(),
                       positions_.size() * sizeof(int32_t))
        .IgnoreError();
  }

  void BackwardOf(NodeRun* run, int e) {
    Backend* backend = run->backend();
    const ExpertsNode::Expert& expert = node_.experts[e];
    const auto [first, count] = ranges_[e];
    if (count == 0) {
      for (int tensor : {expert.gate, expert.up, expert.down}) {
        if (tensor < 0) continue;
        run->ZeroWeightGradient(tensor);
        run->ReportGradient(tensor);
      }
      return;
    }
    const Tensor rows = Rows(run, kIn, first, count), dout = Rows(run, kDOut, first, count);
    const Tensor gate = Rows(run, kGate, first, count), up = Rows(run, kUp, first, count);
    const Tensor activated = Rows(run, kActivated, first, count);
    Tensor dactivated = Rows(run, kDActivated, first, count);
    Tensor dgate = Rows(run, kDGate, first, count), dup = Rows(run, kDUp, first, count);
    Tensor din = Rows(run, kDIn, first, count);
    ops::LinearBackwardInput(backend, dout, run->weight(expert.down), false, &dactivated);
    run->WeightGradient(expert.down, dout, activated);
    run->ReportGradient(expert.down);
    const bool gated = expert.up >= 0;
    ops::ActivationBackward(backend, node_.activation, dactivated, gate, gated ? &up : nullptr,
                            &dgate, gated ? &dup : nullptr);
    ops::LinearBackwardInput(backend, dgate, run->weight(expert.gate), false, &din);
    run->WeightGradient(expert.gate, dgate, rows);
    run->ReportGradient(expert.gate);
    if (!gated) return;
    ops::LinearBackwardInput(backend, dup, run->weight(expert.up), true, &din);
    run->WeightGradient(expert.up, dup, rows);
    run->ReportGradient(expert.up);
  }

  ExpertsNode node_;
  const int64_t hidden_;
  const int num_experts_;
  // Of the last forward pass, on the host.
  int64_t num_rows_ = 0;
  std::vector<std::pair<int64_t, int64_t>> ranges_;  // first row and number of rows of each expert
  std::vector<int32_t> ids_, row_tokens_, positions_;
};

}  // namespace

std::unique_ptr<NodeKernel> MakeExpertsKernel(const BlockSpec& spec, const ExpertsNode& node) {
  return std::make_unique<ExpertsKernel>(spec, node);
}

}  // namespace uniquanf
