// Kinds of nodes of mixers without attention: causal convolutions and linear recurrences.
#include "worker/block/node_kernel.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

// A state in a block's shared memory, twice; what the device has of it (227 KiB) with room to
// spare.
constexpr int64_t kMaxStateOnCuda = 24 << 10;

class ConvKernel : public NodeKernel {
 public:
  ConvKernel(const ConvNode& node, int64_t seq_len) : node_(node), seq_len_(seq_len) {}
  std::vector<NodeInput> inputs() const override { return {{node_.in, GradientMode::kAdds}}; }
  int output() const override { return node_.out; }
  void Forward(NodeRun* run) override {
    ops::CausalConvForward(run->backend(), seq_len_, *run->value(node_.in),
                           run->weight(node_.weight), run->weight_or_null(node_.bias),
                           run->value(node_.out));
  }
  void Backward(NodeRun* run) override {
    if (!run->Wants(0)) return;
    bool add = false;
    Tensor* dx = run->Target(0, &add);
    ops::CausalConvBackward(run->backend(), seq_len_, run->gradient(), run->weight(node_.weight),
                            add, dx);
  }

 private:
  const ConvNode node_;
  const int64_t seq_len_;
};

class RecurrenceKernel : public NodeKernel {
 public:
  RecurrenceKernel(const RecurrenceNode& node, const NodeShape& shape)
      : node_(node), shape_(node.shape) {
    shape_.batch = shape.batch;
    shape_.seq_len = shape.seq_len;
  }
  std::vector<NodeInput> inputs() const override {
    std::vector<NodeInput> inputs;
    for (int slot : {node_.q, node_.k, node_.v, node_.a}) {
      inputs.push_back({slot, GradientMode::kOverwrites, /*kept=*/true});
    }
    if (node_.b >= 0) inputs.push_back({node_.b, GradientMode::kOverwrites, /*kept=*/true});
    return inputs;
  }
  int output() const override { return node_.out; }
  std::vector<NodeBuffer> buffers(const NodeShape& shape) const override {
    if (!shape.with_backward) return {};
    const auto bytes =
        static_cast<int64_t>(ops::RecurrenceBackwardScratchBytes(*shape.backend, shape_));
    return {{DType::kUint8, {bytes}, NodeBuffer::Life::kBackward}};
  }
  absl::Status Check(const NodeShape& shape) const override {
    return CheckRecurrence(shape_, shape);
  }
  void Forward(NodeRun* run) override {
    Borrow(run);
    ops::RecurrenceForward(run->backend(), shape_, *run->value(node_.q), *run->value(node_.k),
                           *run->value(node_.v), *run->value(node_.a), Value(run, node_.b),
                           run->value(node_.out));
  }
  void Backward(NodeRun* run) override {
    Borrow(run);
    const bool gated = node_.b >= 0;
    bool add = false;
    Tensor* targets[5] = {};
    for (int i = 0; i < (gated ? 5 : 4); ++i) targets[i] = run->Target(i, &add);
    ops::RecurrenceBackward(run->backend(), shape_, run->gradient(), *run->value(node_.q),
                            *run->value(node_.k), *run->value(node_.v), *run->value(node_.a),
                            Value(run, node_.b), run->buffer(0), targets[0], targets[1], targets[2],
                            targets[3], targets[4]);
    for (int i = 0; i < (gated ? 5 : 4); ++i) run->Finish(i);
  }

 private:
  static const Tensor* Value(NodeRun* run, int slot) {
    return slot < 0 ? nullptr : run->value(slot);
  }
  void Borrow(NodeRun* run) {
    shape_.a_log = &run->weight(node_.a_log);
    shape_.bias = &run->weight(node_.bias);
    shape_.skip = run->weight_or_null(node_.skip);
  }
  const RecurrenceNode node_;
  ops::RecurrenceShape shape_;
};

}  // namespace

absl::Status CheckRecurrence(const ops::RecurrenceShape& recurrence, const NodeShape& shape) {
  if (shape.backend->kind() == DeviceKind::kCpu || recurrence.state() <= kMaxStateOnCuda) {
    return absl::OkStatus();
  }
  return UnsupportedOnCuda("a recurrence with so large a state");
}

std::unique_ptr<NodeKernel> MakeConvKernel(const ConvNode& node, const NodeShape& shape) {
  return std::make_unique<ConvKernel>(node, shape.seq_len);
}
std::unique_ptr<NodeKernel> MakeRecurrenceKernel(const RecurrenceNode& node,
                                                 const NodeShape& shape) {
  return std::make_unique<RecurrenceKernel>(node, shape);
}

}  // namespace uniquanf
