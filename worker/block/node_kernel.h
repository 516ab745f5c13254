// What a kind of node does, forward and backward, and what memory it wants. Internal to
// worker/block: a kind of node is a struct of block_spec.h's Node and a NodeKernel made for it.
//
// Thread safety: as BlockRunner.
#ifndef UNIQUANF_WORKER_BLOCK_NODE_KERNEL_H_
#define UNIQUANF_WORKER_BLOCK_NODE_KERNEL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/block/block.h"

namespace uniquanf {

// How a node's backward pass gives the gradient of an input.
enum class GradientMode {
  kNone,        // it gives none
  kAdds,        // overwrites or adds, as NodeRun::Target says
  kOverwrites,  // can only overwrite: the runner adds where that is needed
  kTransforms,  // works in place on the output's gradient
  kPasses,      // the output's gradient is the input's; the kernel does nothing
};

struct NodeInput {
  int slot;
  GradientMode gradient;
  bool kept = false;  // the backward pass reads its value
};

// A buffer of a node's own.
struct NodeBuffer {
  enum class Life { kForward, kBackward, kKept };  // kKept: from the forward to the backward pass
  DType dtype;
  Shape shape;
  Life life;
};

// The surroundings of a runner's nodes.
struct NodeShape {
  const Backend* backend;
  DType act;
  int64_t batch, seq_len;
  bool with_backward;
  const Incremental* incremental = nullptr;  // null: whole sequences at once
  int64_t num_tokens() const { return batch * seq_len; }
};

// kUnimplemented (UNSUPPORTED_ON_DEVICE): "OP is not implemented on CUDA; ...".
absl::Status UnsupportedOnCuda(absl::string_view op);

// What a kernel sees of the runner while it runs.
class NodeRun {
 public:
  virtual ~NodeRun() = default;
  virtual Backend* backend() const = 0;
  virtual const Tensor& weight(int tensor) const = 0;
  const Tensor* weight_or_null(int tensor) const { return tensor < 0 ? nullptr : &weight(tensor); }
  // y = x · weightᵀ + bias, from whatever form the weight has.
  virtual void Multiply(const Tensor& x, int weight, int bias, Tensor* y) = 0;
  virtual const RopeTable& rope(int table) const = 0;
  virtual Tensor* value(int slot) = 0;
  virtual Tensor* buffer(int index) = 0;  // of this node's buffers
  // Linear layers call this with what they multiply, before they do.
  virtual void Observe(int tensor, const Tensor& input) = 0;

  // Backward only. The gradient of the node's output.
  virtual const Tensor& gradient() = 0;
  // Whether somebody needs the gradient of input `i` of this node.
  virtual bool Wants(int i) const = 0;
  // Where the gradient of input i goes: kAdds kernels add when *add is true; kOverwrites kernels
  // overwrite what is returned and call Finish(i) then; kTransforms kernels find the output's
  // gradient in it, change it, and call Finish(i). REQUIRES: Wants(i).
  virtual Tensor* Target(int i, bool* add) = 0;
  virtual void Finish(int i) = 0;
  // dW = doutᵀ · input of a linear layer, when somebody wants it. Then ReportGradient once the
  // weight is not read any more.
  virtual void WeightGradient(int tensor, const Tensor& dout, const Tensor& input) = 0;
  // The same of a layer that no token reached.
  virtual void ZeroWeightGradient(int tensor) = 0;
  virtual void ReportGradient(int tensor) = 0;
  // The gradient of a norm's weight, when somebody wants it: before the node's Target of its input.
  // stats: as the norm's forward op left them.
  virtual void NormGradient(int tensor, const ops::NormShape& shape, const Tensor& input,
                            const Tensor& stats) = 0;
};

class NodeKernel {
 public:
  virtual ~NodeKernel() = default;
  virtual std::vector<NodeInput> inputs() const = 0;
  virtual int output() const = 0;
  virtual bool keeps_output() const { return false; }  // the backward pass reads it
  virtual bool trains() const { return false; }        // it holds linear layers
  // The output may be written over input 0's value, when nobody needs that any more; the runner
  // copies it there otherwise.
  virtual bool in_place() const { return false; }
  virtual std::vector<NodeBuffer> buffers(const NodeShape& shape) const { return {}; }
  // kUnimplemented (UNSUPPORTED_ON_DEVICE) names what the backend cannot do.
  virtual absl::Status Check(const NodeShape& shape) const { return absl::OkStatus(); }
  virtual void Forward(NodeRun* run) = 0;
  virtual void Backward(NodeRun* run) = 0;
};

// Of node `index`.
std::unique_ptr<NodeKernel> MakeNodeKernel(const BlockSpec& spec, int index,
                                           const NodeShape& shape);
// In node_parts.cc.
std::unique_ptr<NodeKernel> MakeXieluKernel(const XieluNode& node);
std::unique_ptr<NodeKernel> MakeScaleByKernel(const ScaleByNode& node);
std::unique_ptr<NodeKernel> MakeSliceKernel(const SliceNode& node);
std::unique_ptr<NodeKernel> MakeJoinKernel(const JoinNode& node);
// In node_recurrent.cc.
std::unique_ptr<NodeKernel> MakeConvKernel(const ConvNode& node, const NodeShape& shape);
std::unique_ptr<NodeKernel> MakeRecurrenceKernel(const RecurrenceNode& node,
                                                 const NodeShape& shape);
// In node_incremental.cc: of a node that looks at other tokens than its own, where
// shape.incremental is not null.
std::unique_ptr<NodeKernel> MakeIncrementalKernel(const AttentionNode& node, int index,
                                                  const NodeShape& shape);
std::unique_ptr<NodeKernel> MakeIncrementalKernel(const ConvNode& node, int index,
                                                  const NodeShape& shape);
std::unique_ptr<NodeKernel> MakeIncrementalKernel(const RecurrenceNode& node, int index,
                                                  const NodeShape& shape);
// In node_experts.cc.
std::unique_ptr<NodeKernel> MakeExpertsKernel(const BlockSpec& spec, const ExpertsNode& node);

// kUnimplemented where the device cannot hold a recurrence's state.
absl::Status CheckRecurrence(const ops::RecurrenceShape& recurrence, const NodeShape& shape);

// An RMS norm with one row of weights and nothing else: it has ops of its own, alone and with an
// addition before it.
bool IsPlainRmsNorm(const BlockSpec& spec, const NormNode& node);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BLOCK_NODE_KERNEL_H_
