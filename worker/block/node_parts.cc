// Kinds of nodes that move parts of heads, and those whose numbers are tensors.
#include "worker/block/node_kernel.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

class XieluKernel : public NodeKernel {
 public:
  explicit XieluKernel(const XieluNode& node) : node_(node) {}
  std::vector<NodeInput> inputs() const override {
    return {{node_.in, GradientMode::kOverwrites, /*kept=*/true}};
  }
  int output() const override { return node_.out; }
  void Forward(NodeRun* run) override {
    ops::XieluForward(run->backend(), Parameters(run), *run->value(node_.in),
                      run->value(node_.out));
  }
  void Backward(NodeRun* run) override {
    if (!run->Wants(0)) return;
    bool add = false;
    ops::XieluBackward(run->backend(), Parameters(run), run->gradient(), *run->value(node_.in),
                       run->Target(0, &add));
    run->Finish(0);
  }

 private:
  ops::XieluParameters Parameters(NodeRun* run) const {
    return {&run->weight(node_.positive), &run->weight(node_.negative), &run->weight(node_.beta),
            &run->weight(node_.epsilon)};
  }
  const XieluNode node_;
};

class ScaleByKernel : public NodeKernel {
 public:
  explicit ScaleByKernel(const ScaleByNode& node) : node_(node) {}
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
  void Scale(NodeRun* run, Tensor* x) const {
    ops::ScaleBy(run->backend(), *x, run->weight(node_.tensor), x);
  }
  const ScaleByNode node_;
};

class SliceKernel : public NodeKernel {
 public:
  explicit SliceKernel(const SliceNode& node) : node_(node) {}
  std::vector<NodeInput> inputs() const override { return {{node_.in, GradientMode::kAdds}}; }
  int output() const override { return node_.out; }
  void Forward(NodeRun* run) override {
    const ops::HeadsShape in = {node_.num_heads, node_.head_size, node_.offset};
    const ops::HeadsShape out = {node_.num_heads, node_.width, 0};
    ops::CopyHeads(run->backend(), node_.width, in, *run->value(node_.in), ops::CopyMode::kPart,
                   out, run->value(node_.out));
  }
  void Backward(NodeRun* run) override {
    if (!run->Wants(0)) return;
    bool add = false;
    Tensor* dx = run->Target(0, &add);
    ops::CopyHeads(run->backend(), node_.width, {node_.num_heads, node_.width, 0}, run->gradient(),
                   add ? ops::CopyMode::kAdd : ops::CopyMode::kClearRest,
                   {node_.num_heads, node_.head_size, node_.offset}, dx);
  }

 private:
  const SliceNode node_;
};

class JoinKernel : public NodeKernel {
 public:
  explicit JoinKernel(const JoinNode& node) : node_(node) {}
  std::vector<NodeInput> inputs() const override {
    return {{node_.a, GradientMode::kAdds}, {node_.b, GradientMode::kAdds}};
  }
  int output() const override { return node_.out; }
  void Forward(NodeRun* run) override {
    for (int i : {0, 1}) {
      ops::CopyHeads(run->backend(), Width(i), Input(i), *run->value(i == 0 ? node_.a : node_.b),
                     ops::CopyMode::kPart, Output(i), run->value(node_.out));
    }
  }
  void Backward(NodeRun* run) override {
    for (int i : {0, 1}) {
      if (!run->Wants(i)) continue;
      bool add = false;
      Tensor* dx = run->Target(i, &add);
      ops::CopyHeads(run->backend(), Width(i), Output(i), run->gradient(),
                     add ? ops::CopyMode::kAdd : ops::CopyMode::kPart, Input(i), dx);
    }
  }

 private:
  int64_t Width(int i) const { return i == 0 ? node_.a_width : node_.b_width; }
  ops::HeadsShape Input(int i) const {
    return {i == 1 && node_.b_shared ? 1 : node_.num_heads, Width(i), 0};
  }
  ops::HeadsShape Output(int i) const {
    return {node_.num_heads, node_.a_width + node_.b_width, i == 0 ? 0 : node_.a_width};
  }
  const JoinNode node_;
};

}  // namespace

std::unique_ptr<NodeKernel> MakeXieluKernel(const XieluNode& node) {
  return std::make_unique<XieluKernel>(node);
}
std::unique_ptr<NodeKernel> MakeScaleByKernel(const ScaleByNode& node) {
  return std::make_unique<ScaleByKernel>(node);
}
std::unique_ptr<NodeKernel> MakeSliceKernel(const SliceNode& node) {
  return std::make_unique<SliceKernel>(node);
}
std::unique_ptr<NodeKernel> MakeJoinKernel(const JoinNode& node) {
  return std::make_unique<JoinKernel>(node);
}

}  // namespace uniquanf
