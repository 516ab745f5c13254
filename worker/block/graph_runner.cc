// Runs a block's nodes forward in order and backward in reverse, in the memory that GraphPlan gave
// them. Knows no kind of node but for one pair that has a fused op.
#include <utility>
#include <variant>

#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/block/graph_plan.h"
#include "worker/block/node_kernel.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

std::vector<std::unique_ptr<NodeKernel>> MakeKernels(const BlockSpec& spec,
                                                     const NodeShape& shape) {
  std::vector<std::unique_ptr<NodeKernel>> kernels;
  for (int i = 0; i < static_cast<int>(spec.nodes.size()); ++i) {
    kernels.push_back(MakeNodeKernel(spec, i, shape));
  }
  return kernels;
}

class GraphRunner : public BlockRunner, private NodeRun {
 public:
  GraphRunner(Backend* backend, const BlockSpec& spec, const NodeShape& shape,
              const RopeTables* rope)
      : backend_(backend),
        spec_(spec),
        shape_(shape),
        rope_(rope),
        kernels_(MakeKernels(spec, shape)),
        plan_(spec, kernels_, shape),
        linear_of_(spec.tensors.size(), -1) {
    for (int l = 0; l < spec.num_linears(); ++l) linear_of_[spec.linears[l]] = l;
  }

  absl::Status Allocate(Tensor* arena) {
    for (const auto& kernel : kernels_) UQ_RETURN_IF_ERROR(kernel->Check(shape_));
    const auto bytes = static_cast<int64_t>(plan_.arena_bytes());
    if (arena != nullptr) {
      UQ_CHECK(arena->num_elements() >= bytes);
      arena_ = Tensor::View(backend_, arena->data(), DType::kUint8, {bytes});
    } else {
      UQ_ASSIGN_OR_RETURN(arena_, Tensor::Allocate(backend_, DType::kUint8, {bytes}));
    }
    const int num_slots = static_cast<int>(spec_.slots.size());
    values_.resize(num_slots);
    gradients_.resize(num_slots);
    for (int slot = 0; slot < num_slots; ++slot) {
      values_[slot] = SlotView(plan_.value(slot), slot);
      gradients_[slot] = SlotView(plan_.gradient(slot), slot);
    }
    const int num_nodes = static_cast<int>(kernels_.size());
    buffers_.resize(num_nodes);
    temporaries_.resize(num_nodes);
    inputs_.resize(num_nodes);
    for (int node = 0; node < num_nodes; ++node) {
      inputs_[node] = kernels_[node]->inputs();
      const std::vector<NodeBuffer> buffers = kernels_[node]->buffers(shape_);
      for (size_t b = 0; b < buffers.size(); ++b) {
        buffers_[node].push_back(
            View(plan_.buffer(node, static_cast<int>(b)), buffers[b].dtype, buffers[b].shape));
      }
      if (!shape_.with_backward) continue;
      for (size_t i = 0; i < inputs_[node].size(); ++i) {
        temporaries_[node].push_back(
            SlotView(plan_.temporary(node, static_cast<int>(i)), inputs_[node][i].slot));
      }
    }
    return absl::OkStatus();
  }

  void Forward(const BlockWeights& weights, const Tensor& x, Tensor* y) override {
    weights_ = &weights;
    Borrow(x, &values_[0]);
    Borrow(*y, &values_[kernels_.back()->output()]);
    for (node_ = 0; node_ < num_nodes(); ++node_) {
      if (plan_.fused(node_)) {
        AddAndNorm();
        continue;
      }
      if (packed_ != nullptr && MultiplyTogether()) continue;
      if (kernels_[node_]->in_place()) {
        CopyInto(values_[inputs_[node_][0].slot], &values_[kernels_[node_]->output()]);
      }
      kernels_[node_]->Forward(this);
    }
    ran_forward_ = true;
  }

  void Backward(const BlockWeights& weights, const Tensor& dy, bool accumulate,
                BlockGradients* gradients, Tensor* dx,
                const std::function<void(int)>& on_gradient) override {
    UQ_CHECK(shape_.with_backward && ran_forward_);
    UQ_CHECK(static_cast<int>(gradients->size()) == spec_.num_linears());
    weights_ = &weights;
    weight_gradients_ = gradients;
    accumulate_ = accumulate;
    on_gradient_ = &on_gradient;
    with_dx_ = dx != nullptr;
    filled_.assign(spec_.slots.size(), false);
    Borrow(dy, &gradients_[kernels_.back()->output()]);
    if (dx != nullptr) Borrow(*dx, &gradients_[0]);
    for (node_ = num_nodes() - 1; node_ >= 0; --node_) {
      if (!plan_.wants(kernels_[node_]->output(), with_dx_)) continue;
      // First, since a kernel may change the output's gradient in place.
      for (int i = 0; i < static_cast<int>(inputs_[node_].size()); ++i) {
        if (inputs_[node_][i].gradient == GradientMode::kPasses && Wants(i)) PassGradient(i);
      }
      kernels_[node_]->Backward(this);
    }
    ran_forward_ = false;
  }

  void set_norm_gradients(std::vector<Tensor>* gradients) override { norm_gradients_ = gradients; }
  void set_observer(LinearObserver observer) override { observer_ = std::move(observer); }
  void set_packed(const PackedBlock* packed, packed::Workspace* workspace) override {
    UQ_CHECK(!shape_.with_backward);
    packed_ = packed == nullptr || packed->empty() ? nullptr : packed;
    workspace_ = workspace;
  }

 private:
  int num_nodes() const { return static_cast<int>(kernels_.size()); }

  // NodeRun.
  Backend* backend() const override { return backend_; }
  const Tensor& weight(int tensor) const override { return (*weights_)[tensor]; }
  void Multiply(const Tensor& x, int weight, int bias, Tensor* y) override {
    if (IsPacked(weight)) {
      const packed::Product product = {&(*packed_)[weight], weight_or_null(bias), y};
      packed::LinearForward(backend_, x, {&product, 1}, workspace_);
    } else {
      ops::LinearForward(backend_, x, this->weight(weight), weight_or_null(bias), y);
    }
  }
  const RopeTable& rope(int table) const override { return (*rope_)[table]; }
  Tensor* value(int slot) override { return &values_[slot]; }
  Tensor* buffer(int index) override { return &buffers_[node_][index]; }
  void Observe(int tensor, const Tensor& input) override {
    if (observer_ && linear_of_[tensor] >= 0) observer_(linear_of_[tensor], input);
  }
  const Tensor& gradient() override { return gradients_[kernels_[node_]->output()]; }
  bool Wants(int i) const override { return plan_.wants(inputs_[node_][i].slot, with_dx_); }

  Tensor* Target(int i, bool* add) override {
    const auto [slot, mode, kept] = inputs_[node_][i];
    Tensor* target =
        filled_[slot] && mode != GradientMode::kAdds ? &temporaries_[node_][i] : &gradients_[slot];
    if (mode == GradientMode::kTransforms) CopyInto(gradient(), target);
    *add = filled_[slot] && mode == GradientMode::kAdds;
    if (mode == GradientMode::kAdds) filled_[slot] = true;
    return target;
  }

  void Finish(int i) override {
    const int slot = inputs_[node_][i].slot;
    if (filled_[slot]) {
      ops::Add(backend_, gradients_[slot], temporaries_[node_][i], &gradients_[slot]);
    }
    filled_[slot] = true;
  }

  void WeightGradient(int tensor, const Tensor& dout, const Tensor& input) override {
    const int l = linear_of_[tensor];
    if (l < 0 || (*weight_gradients_)[l].empty()) return;
    ops::LinearBackwardWeight(backend_, dout, input, accumulate_, &(*weight_gradients_)[l]);
  }

  void ZeroWeightGradient(int tensor) override {
    const int l = linear_of_[tensor];
    if (l < 0 || (*weight_gradients_)[l].empty() || accumulate_) return;
    Tensor& gradient = (*weight_gradients_)[l];
    backend_->FillZero(gradient.data(), gradient.size_bytes()).IgnoreError();
  }

  void NormGradient(int tensor, const ops::NormShape& shape, const Tensor& input,
                    const Tensor& stats) override {
    if (norm_gradients_ == nullptr || tensor < 0 || (*norm_gradients_)[tensor].empty()) return;
    ops::NormBackwardWeight(backend_, shape, gradient(), input, stats, accumulate_,
                            &(*norm_gradients_)[tensor]);
  }

  void ReportGradient(int tensor) override {
    const int l = linear_of_[tensor];
    if (l < 0 || (*weight_gradients_)[l].empty()) return;
    if (*on_gradient_ != nullptr) (*on_gradient_)(l);
  }

  void PassGradient(int i) {
    const int slot = inputs_[node_][i].slot;
    if (filled_[slot]) {
      ops::Add(backend_, gradients_[slot], gradient(), &gradients_[slot]);
    } else if (slot != 0 && plan_.gradient(slot) == plan_.gradient(kernels_[node_]->output())) {
      Borrow(gradient(), &gradients_[slot]);
    } else {
      CopyInto(gradient(), &gradients_[slot]);
    }
    filled_[slot] = true;
  }

  bool IsPacked(int tensor) const { return packed_ != nullptr && (*packed_)[tensor].bits > 0; }

  // Runs packed linear layers that follow each other and read the same slot as one product, which
  // the device may make with one launch. None of them writes over what another one reads: all that
  // lives at the first one's event, but not at the last one's, is of the nodes between. False: the
  // node is no such layer.
  bool MultiplyTogether() {
    std::vector<packed::Product> products;
    const auto* first = std::get_if<LinearNode>(&spec_.nodes[node_]);
    if (observer_ || first == nullptr || !IsPacked(first->weight)) return false;
    int end = node_;
    for (; end < num_nodes() && end - node_ < packed::kMaxProducts; ++end) {
      const auto* linear = std::get_if<LinearNode>(&spec_.nodes[end]);
      if (linear == nullptr || linear->in != first->in || !IsPacked(linear->weight)) break;
      products.push_back(
          {&(*packed_)[linear->weight], weight_or_null(linear->bias), &values_[linear->out]});
    }
    packed::LinearForward(backend_, values_[first->in], products, workspace_);
    node_ = end - 1;
    return true;
  }

  void AddAndNorm() {
    const auto& add = std::get<AddNode>(spec_.nodes[node_]);
    const auto& norm = std::get<NormNode>(spec_.nodes[++node_]);
    ops::AddRmsNormForward(backend_, values_[add.a], values_[add.b], weight(norm.weight),
                           norm.shape.eps, &values_[add.out], &values_[norm.out], buffer(0));
  }

  Tensor View(int storage, DType dtype, Shape shape) {
    return Tensor::View(backend_, arena_.u8() + plan_.offset(storage), dtype, std::move(shape));
  }
  Tensor SlotView(int storage, int slot) {
    if (storage < 0) return Tensor();
    return View(storage, shape_.act, {shape_.num_tokens(), spec_.slots[slot]});
  }

  // Makes *view another name of the tensor. Kernels write only where the caller expects it.
  void Borrow(const Tensor& tensor, Tensor* view) {
    if (view->data() == tensor.data() && view->shape() == tensor.shape()) return;
    *view =
        Tensor::View(backend_, const_cast<void*>(tensor.data()), tensor.dtype(), tensor.shape());
  }

  void CopyInto(const Tensor& source, Tensor* target) {
    if (source.data() == target->data()) return;
    // A failing device is reported by the next Synchronize, as for ops.
    backend_->CopyOnDevice(target->data(), source.data(), source.size_bytes()).IgnoreError();
  }

  Backend* const backend_;
  const BlockSpec& spec_;
  const NodeShape shape_;
  const RopeTables* const rope_;
  const std::vector<std::unique_ptr<NodeKernel>> kernels_;
  const GraphPlan plan_;
  std::vector<int> linear_of_;  // by tensor
  LinearObserver observer_;
  Tensor arena_;
  std::vector<Tensor> values_, gradients_;  // by slot: views
  std::vector<std::vector<Tensor>> buffers_, temporaries_;
  std::vector<std::vector<NodeInput>> inputs_;
  // Of the pass that runs.
  int node_ = 0;
  bool ran_forward_ = false, accumulate_ = false, with_dx_ = false;
  const BlockWeights* weights_ = nullptr;
  const PackedBlock* packed_ = nullptr;  // null: nothing is packed
  packed::Workspace* workspace_ = nullptr;
  BlockGradients* weight_gradients_ = nullptr;
  std::vector<Tensor>* norm_gradients_ = nullptr;
  const std::function<void(int)>* on_gradient_ = nullptr;
  std::vector<bool> filled_;  // slots whose gradient holds something
};

}  // namespace

absl::StatusOr<std::unique_ptr<BlockRunner>> BlockRunner::Create(
    Backend* backend, const BlockSpec& spec, DType act, int64_t batch, int64_t seq_len,
    const RopeTables* rope, bool with_backward, Tensor* arena) {
  const NodeShape shape = {backend, act, batch, seq_len, with_backward};
  auto runner = std::make_unique<GraphRunner>(backend, spec, shape, rope);
  UQ_RETURN_IF_ERROR(runner->Allocate(arena));
  return runner;
}

absl::StatusOr<std::unique_ptr<BlockRunner>> BlockRunner::CreateIncremental(
    Backend* backend, const BlockSpec& spec, DType act, int64_t batch, int64_t seq_len,
    const RopeTables* rope, const Incremental& incremental) {
  UQ_CHECK(batch == incremental.state->batch() &&
           (incremental.position == nullptr || seq_len == 1));
  const NodeShape shape = {backend, act, batch, seq_len, /*with_backward=*/false, &incremental};
  auto runner = std::make_unique<GraphRunner>(backend, spec, shape, rope);
  UQ_RETURN_IF_ERROR(runner->Allocate(incremental.scratch));
  return runner;
}

uint64_t IncrementalBytes(Backend* backend, const BlockSpec& spec, DType act, int64_t batch,
                          int64_t seq_len, const Incremental& incremental) {
  const NodeShape shape = {backend, act, batch, seq_len, /*with_backward=*/false, &incremental};
  const std::vector<std::unique_ptr<NodeKernel>> kernels = MakeKernels(spec, shape);
  return GraphPlan(spec, kernels, shape).arena_bytes();
}

uint64_t BlockRunnerBytes(const Backend& backend, const BlockSpec& spec, DType act, int64_t batch,
                          int64_t seq_len, bool with_backward) {
  const NodeShape shape = {&backend, act, batch, seq_len, with_backward};
  const std::vector<std::unique_ptr<NodeKernel>> kernels = MakeKernels(spec, shape);
  return GraphPlan(spec, kernels, shape).arena_bytes();
}

}  // namespace uniquanf
