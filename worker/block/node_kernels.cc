// The kinds of nodes that consist of one op.
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/block/node_kernel.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

class LinearKernel : public NodeKernel {
 public:
  explicit LinearKernel(const LinearNode& node) : node_(node) {}
  std::vector<NodeInput> inputs() const override {
    return {{node_.in, GradientMode::kAdds, /*kept=*/true}};
  }
  int output() const override { return node_.out; }
  bool trains() const override { return true; }
  void Forward(NodeRun* run) override {
    run->Observe(node_.weight, *run->value(node_.in));
    run->Multiply(*run->value(node_.in), node_.weight, node_.bias, run->value(node_.out));
  }
  void Backward(NodeRun* run) override {
    if (run->Wants(0)) {
      bool add = false;
      Tensor* din = run->Target(0, &add);
      ops::LinearBackwardInput(run->backend(), run->gradient(), run->weight(node_.weight), add,
                               din);
    }
    run->WeightGradient(node_.weight, run->gradient(), *run->value(node_.in));
    run->ReportGradient(node_.weight);
  }

 private:
  const LinearNode node_;
};

class RmsNormKernel : public NodeKernel {
 public:
  RmsNormKernel(const NormNode& node, int64_t rows_a_token)
      : node_(node), rows_a_token_(rows_a_token) {}
  std::vector<NodeInput> inputs() const override {
    return {{node_.in, GradientMode::kAdds, /*kept=*/true}};
  }
  int output() const override { return node_.out; }
  std::vector<NodeBuffer> buffers(const NodeShape& shape) const override {
    return {{DType::kFloat32, {shape.num_tokens() * rows_a_token_}, NodeBuffer::Life::kKept}};
  }
  void Forward(NodeRun* run) override {
    ops::RmsNormForward(run->backend(), *run->value(node_.in), run->weight(node_.weight),
                        node_.shape.eps, run->value(node_.out), run->buffer(0));
  }
  void Backward(NodeRun* run) override {
    if (!run->Wants(0)) return;
    run->NormGradient(node_.weight, node_.shape, *run->value(node_.in), *run->buffer(0));
    bool add = false;
    Tensor* dx = run->Target(0, &add);
    ops::RmsNormBackward(run->backend(), run->gradient(), *run->value(node_.in),
                         run->weight(node_.weight), *run->buffer(0), add, dx);
  }

 private:
  const NormNode node_;
  const int64_t rows_a_token_;
};

class NormKernel : public NodeKernel {
 public:
  NormKernel(const NormNode& node, int64_t rows_a_token)
      : node_(node), rows_a_token_(rows_a_token) {}
  std::vector<NodeInput> inputs() const override {
    return {{node_.in, GradientMode::kAdds, /*kept=*/true}};
  }
  int output() const override { return node_.out; }
  std::vector<NodeBuffer> buffers(const NodeShape& shape) const override {
    return {{DType::kFloat32, {shape.num_tokens() * rows_a_token_, 2}, NodeBuffer::Life::kKept}};
  }
  void Forward(NodeRun* run) override {
    ops::NormForward(run->backend(), node_.shape, *run->value(node_.in),
                     run->weight_or_null(node_.weight), run->weight_or_null(node_.bias),
                     run->value(node_.out), run->buffer(0));
  }
  void Backward(NodeRun* run) override {
    if (!run->Wants(0)) return;
    run->NormGradient(node_.weight, node_.shape, *run->value(node_.in), *run->buffer(0));
    bool add = false;
    Tensor* dx = run->Target(0, &add);
    ops::NormBackward(run->backend(), node_.shape, run->gradient(), *run->value(node_.in),
                      run->weight_or_null(node_.weight), *run->buffer(0), add, dx);
  }

 private:
  const NormNode node_;
  const int64_t rows_a_token_;
};

class RopeKernel : public NodeKernel {
 public:
  explicit RopeKernel(const RopeNode& node) : node_(node) {}
  std::vector<NodeInput> inputs() const override { return {{node_.in, GradientMode::kTransforms}}; }
  int output() const override { return node_.out; }
  bool in_place() const override { return true; }
  void Forward(NodeRun* run) override { Rotate(run, /*inverse=*/false, run->value(node_.out)); }
  void Backward(NodeRun* run) override {
    if (!run->Wants(0)) return;
    bool add = false;
    Rotate(run, /*inverse=*/true, run->Target(0, &add));
    run->Finish(0);
  }

 private:
  void Rotate(NodeRun* run, bool inverse, Tensor* x) const {
    const RopeTable& table = run->rope(node_.table);
    const ops::RopeShape& shape = node_.shape;
    if (shape.interleaved || 2 * table.cos.dim(1) != shape.head_size) {
      ops::RopePart(run->backend(), table.cos, table.sin, shape, inverse, x);
    } else {
      ops::Rope(run->backend(), table.cos, table.sin, shape.num_heads, inverse, x);
    }
  }
  const RopeNode node_;
};

class AttentionKernel : public NodeKernel {
 public:
  AttentionKernel(const AttentionNode& node, const NodeShape& shape) : node_(node) {
    shape_ = node.shape;
    shape_.batch = shape.batch;
    shape_.seq_len = shape.seq_len;
  }
  std::vector<NodeInput> inputs() const override {
    return {{node_.q, GradientMode::kOverwrites, true},
            {node_.k, GradientMode::kOverwrites, true},
            {node_.v, GradientMode::kOverwrites, true}};
  }
  int output() const override { return node_.out; }
  bool keeps_output() const override { return true; }
  std::vector<NodeBuffer> buffers(const NodeShape& shape) const override {
    std::vector<NodeBuffer> buffers = {
        {DType::kFloat32, {shape.batch, shape_.num_heads, shape.seq_len}, NodeBuffer::Life::kKept}};
    if (shape.with_backward) {
      const auto bytes =
          static_cast<int64_t>(ops::AttentionBackwardScratchBytes(*shape.backend, shape_));
      buffers.push_back({DType::kUint8, {bytes}, NodeBuffer::Life::kBackward});
    }
    return buffers;
  }
  void Forward(NodeRun* run) override {
    Borrow(run);
    ops::AttentionForward(run->backend(), shape_, *run->value(node_.q), *run->value(node_.k),
                          *run->value(node_.v), run->value(node_.out), run->buffer(0));
  }
  void Backward(NodeRun* run) override {
    Borrow(run);
    bool add = false;
    Tensor *dq = run->Target(0, &add), *dk = run->Target(1, &add), *dv = run->Target(2, &add);
    ops::AttentionBackward(run->backend(), shape_, run->gradient(), *run->value(node_.q),
                           *run->value(node_.k), *run->value(node_.v), *run->value(node_.out),
                           *run->buffer(0), run->buffer(1), dq, dk, dv);
    for (int i = 0; i < 3; ++i) run->Finish(i);
  }

 private:
  void Borrow(NodeRun* run) {
    shape_.sinks = run->weight_or_null(node_.sinks);
    shape_.slopes = run->weight_or_null(node_.slopes);
  }
  const AttentionNode node_;
  ops::AttentionShape shape_;
};

class ActivationKernel : public NodeKernel {
 public:
  explicit ActivationKernel(const ActivationNode& node) : node_(node) {}
  std::vector<NodeInput> inputs() const override {
    std::vector<NodeInput> inputs = {{node_.gate, GradientMode::kOverwrites, true}};
    if (node_.up >= 0) inputs.push_back({node_.up, GradientMode::kOverwrites, true});
    return inputs;
  }
  int output() const override { return node_.out; }
  void Forward(NodeRun* run) override {
    const Tensor* up = node_.up < 0 ? nullptr : run->value(node_.up);
    if (up != nullptr && node_.kind == ops::Activation::kSilu) {
      ops::SwiGluForward(run->backend(), *run->value(node_.gate), *up, run->value(node_.out));
    } else {
      ops::ActivationForward(run->backend(), node_.kind, *run->value(node_.gate), up,
                             run->value(node_.out));
    }
  }
  void Backward(NodeRun* run) override {
    bool add = false;
    Tensor* dgate = run->Target(0, &add);
    if (node_.up < 0) {
      ops::ActivationBackward(run->backend(), node_.kind, run->gradient(), *run->value(node_.gate),
                              nullptr, dgate, nullptr);
    } else {
      Tensor* dup = run->Target(1, &add);
      const Tensor &gate = *run->value(node_.gate), &up = *run->value(node_.up);
      if (node_.kind == ops::Activation::kSilu) {
        ops::SwiGluBackward(run->backend(), run->gradient(), gate, up, dgate, dup);
      } else {
        ops::ActivationBackward(run->backend(), node_.kind, run->gradient(), gate, &up, dgate, dup);
      }
      run->Finish(1);
    }
    run->Finish(0);
  }

 private:
  const ActivationNode node_;
};

class AddKernel : public NodeKernel {
 public:
  explicit AddKernel(const AddNode& node) : node_(node) {}
  std::vector<NodeInput> inputs() const override {
    return {{node_.a, GradientMode::kPasses},
            {node_.b, node_.factor == 1 ? GradientMode::kPasses : GradientMode::kTransforms}};
  }
  int output() const override { return node_.out; }
  void Forward(NodeRun* run) override {
    const Tensor &a = *run->value(node_.a), &b = *run->value(node_.b);
    if (node_.factor == 1) {
      ops::Add(run->backend(), a, b, run->value(node_.out));
    } else {
      ops::AddScaled(run->backend(), a, b, node_.factor, run->value(node_.out));
    }
  }
  void Backward(NodeRun* run) override {
    if (node_.factor == 1 || !run->Wants(1)) return;
    bool add = false;
    Tensor* db = run->Target(1, &add);
    ops::Scale(run->backend(), *db, node_.factor, db);
    run->Finish(1);
  }

 private:
  const AddNode node_;
};

class ScaleKernel : public NodeKernel {
 public:
  explicit ScaleKernel(const ScaleNode& node) : node_(node) {}
  std::vector<NodeInput> inputs() const override { return {{node_.in, GradientMode::kTransforms}}; }
  int output() const override { return node_.out; }
  bool in_place() const override { return true; }
  void Forward(NodeRun* run) override { Scale(run, run->value(node_.out)); }
  void Backward(NodeRun* run) override {
    if (!run->Wants(0)) return;
    bool add = false;
    Scale(run, run->Target(0, &add));
    run->Finish(0);
  }

 private:
  void Scale(NodeRun* run, Tensor* x) const { ops::Scale(run->backend(), *x, node_.factor, x); }
  const ScaleNode node_;
};

class ClipKernel : public NodeKernel {
 public:
  explicit ClipKernel(const ClipNode& node) : node_(node) {}
  std::vector<NodeInput> inputs() const override {
    return {{node_.in, GradientMode::kTransforms, /*kept=*/true}};
  }
  int output() const override { return node_.out; }
  void Forward(NodeRun* run) override {
    ops::Clip(run->backend(), *run->value(node_.in), node_.limit, run->value(node_.out));
  }
  void Backward(NodeRun* run) override {
    if (!run->Wants(0)) return;
    bool add = false;
    Tensor* dx = run->Target(0, &add);
    ops::ClipBackward(run->backend(), *dx, *run->value(node_.in), node_.limit, dx);
    run->Finish(0);
  }

 private:
  const ClipNode node_;
};

class SigmoidGateKernel : public NodeKernel {
 public:
  explicit SigmoidGateKernel(const SigmoidGateNode& node) : node_(node) {}
  std::vector<NodeInput> inputs() const override {
    return {{node_.in, GradientMode::kOverwrites, true},
            {node_.gate, GradientMode::kOverwrites, true}};
  }
  int output() const override { return node_.out; }
  void Forward(NodeRun* run) override {
    ops::SigmoidGateForward(run->backend(), *run->value(node_.in), *run->value(node_.gate),
                            run->value(node_.out));
  }
  void Backward(NodeRun* run) override {
    bool add = false;
    Tensor *dx = run->Target(0, &add), *dgate = run->Target(1, &add);
    ops::SigmoidGateBackward(run->backend(), run->gradient(), *run->value(node_.in),
                             *run->value(node_.gate), dx, dgate);
    run->Finish(0);
    run->Finish(1);
  }

 private:
  const SigmoidGateNode node_;
};

struct Maker {
  const BlockSpec& spec;
  const NodeShape& shape;
  int index;
  using Kernel = std::unique_ptr<NodeKernel>;
  Kernel operator()(const LinearNode& node) const { return std::make_unique<LinearKernel>(node); }
  Kernel operator()(const NormNode& node) const {
    const int64_t rows = spec.slots[node.in] / node.shape.width;
    if (IsPlainRmsNorm(spec, node)) return std::make_unique<RmsNormKernel>(node, rows);
    return std::make_unique<NormKernel>(node, rows);
  }
  Kernel operator()(const RopeNode& node) const { return std::make_unique<RopeKernel>(node); }
  Kernel operator()(const AttentionNode& node) const {
    if (shape.incremental != nullptr) return MakeIncrementalKernel(node, index, shape);
    return std::make_unique<AttentionKernel>(node, shape);
  }
  Kernel operator()(const ActivationNode& node) const {
    return std::make_unique<ActivationKernel>(node);
  }
  Kernel operator()(const XieluNode& node) const { return MakeXieluKernel(node); }
  Kernel operator()(const ScaleByNode& node) const { return MakeScaleByKernel(node); }
  Kernel operator()(const SliceNode& node) const { return MakeSliceKernel(node); }
  Kernel operator()(const JoinNode& node) const { return MakeJoinKernel(node); }
  Kernel operator()(const ConvNode& node) const {
    if (shape.incremental != nullptr) return MakeIncrementalKernel(node, index, shape);
    return MakeConvKernel(node, shape);
  }
  Kernel operator()(const RecurrenceNode& node) const {
    if (shape.incremental != nullptr) return MakeIncrementalKernel(node, index, shape);
    return MakeRecurrenceKernel(node, shape);
  }
  Kernel operator()(const AddNode& node) const { return std::make_unique<AddKernel>(node); }
  Kernel operator()(const ScaleNode& node) const { return std::make_unique<ScaleKernel>(node); }
  Kernel operator()(const ClipNode& node) const { return std::make_unique<ClipKernel>(node); }
  Kernel operator()(const SigmoidGateNode& node) const {
    return std::make_unique<SigmoidGateKernel>(node);
  }
  Kernel operator()(const ExpertsNode& node) const { return MakeExpertsKernel(spec, node); }
};

}  // namespace

absl::Status UnsupportedOnCuda(absl::string_view op) {
  return MakeError(absl::StatusCode::kUnimplemented, "UNSUPPORTED_ON_DEVICE",
                   absl::StrCat(op, " is not implemented on CUDA; use --device=cpu"));
}

bool IsPlainRmsNorm(const BlockSpec& spec, const NormNode& node) {
  return !node.shape.center && node.bias < 0 && node.weight >= 0 &&
         spec.tensors[node.weight].num_elements() == node.shape.width;
}

std::unique_ptr<NodeKernel> MakeNodeKernel(const BlockSpec& spec, int index,
                                           const NodeShape& shape) {
  return std::visit(Maker{spec, shape, index}, spec.nodes[index]);
}

}  // namespace uniquanf
