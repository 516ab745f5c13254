// A decoder block as data: a list of tensors and a list of nodes.
//
// The tensors say what a block consists of: expected tensors of a checkpoint, reading, upload,
// memory plan, quantizer states, layer state, shard, manifest and export all walk this one list,
// and none of them knows how many there are or what they do. The nodes say what is computed; the
// runner (block.h) knows how each kind of node runs forward and backward, and no family.
//
// Plain values, thread-safe. Made from traits (block_traits.h) by the families of worker/model.
#ifndef UNIQUANF_WORKER_BLOCK_BLOCK_SPEC_H_
#define UNIQUANF_WORKER_BLOCK_BLOCK_SPEC_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "worker/backend/tensor.h"
#include "worker/ops/op.h"

namespace uniquanf {

enum class TensorRole {
  kLinear,  // [N outputs, K inputs], act on the device: a linear layer that may be quantized
  kMatrix,  // [N, K], act: a linear layer that is never quantized (a router)
  kVector,  // f32: norm weights, biases, other parameters; never quantized
};

// How a tensor lies in the checkpoint, when that differs from what the block computes with. Forms
// combine: an expert of a stacked tensor may be transposed, and a slice of its rows.
struct StoredForm {
  std::string name;         // inside the layer: "self_attn.qkv_proj.weight"
  Shape shape;              // as stored
  int64_t expert = -1;      // index in the leading dimension of a stacked tensor; −1: not stacked
  bool transposed = false;  // a matrix stored as [K, N]
  // Row r of the tensor is row offset + r / run · period + r % run of the stored one (column, where
  // that is transposed): contiguous slices, slices a head or a group of heads, every second row.
  // run 0: all rows.
  int64_t row_offset = 0, row_run = 0, row_period = 0;
  float added = 0;  // added to the values as they are read: 1 for norms that scale by 1 + w
  // The values of a tensor that no checkpoint holds, because they follow from the config; its name
  // is empty.
  std::vector<float> constant;

  // The stored tensor is this tensor, value by value (perhaps in another shape).
  bool IsPlain() const { return expert < 0 && !transposed && row_run == 0; }
};

struct TensorSpec {
  std::string module;  // of a linear layer inside its decoder layer, unique: "self_attn.q_proj"
  TensorRole role = TensorRole::kVector;
  Shape shape;  // as the block computes with it
  StoredForm stored;

  int64_t num_elements() const;
  int64_t num_outputs() const { return shape[0]; }  // of a matrix
  int64_t num_inputs() const { return shape[1]; }
  // Calls visit(i, at, step) for every row: its elements, from i on, are the stored tensor's
  // elements at, at + step, ...; there are row_width() of them.
  void ForEachRow(const std::function<void(int64_t, int64_t, int64_t)>& visit) const;
  int64_t row_width() const {
    return shape.empty() || shape[0] == 0 ? 1 : num_elements() / shape[0];
  }
  // The first element of the stored tensor that this one needs, and one past the last.
  std::pair<int64_t, int64_t> StoredRange() const;
  // Copies this tensor's values out of the stored tensor's, the elements from `first_stored` on,
  // and back into the whole stored tensor. Neither knows `added`.
  void Gather(const float* stored_values, int64_t first_stored, float* values) const;
  void Scatter(const float* values, float* stored_values) const;
};

// --- nodes: ops over slots. A slot is an activation [T, width] that one node writes and any number
// read; slot 0 is the block's input, the last node writes its output. `weight` and the like are
// indices of tensors; −1: none.
struct LinearNode {
  int in, out;
  int weight, bias = -1;
};
// RMS norm or layer norm over rows of shape.width elements, of which a token has some. A weight of
// more elements has a row for each of them.
struct NormNode {
  int in, out;
  ops::NormShape shape;
  int weight = -1, bias = -1;
};
struct RopeNode {
  int in, out;
  int table;  // index of RopeTables
  ops::RopeShape shape;
};
struct AttentionNode {
  int q, k, v, out;
  ops::AttentionShape shape;  // batch, seq_len and the tensors are the runner's
  int sinks = -1;
  int slopes = -1;
};
struct ActivationNode {  // out = f(gate) · up, or f(gate) where up is −1
  ops::Activation kind;
  int gate, up, out;
};
// out = xIELU(in); the parameters are tensors of one element each.
struct XieluNode {
  int in, out;
  int positive, negative, beta, epsilon;
};
struct AddNode {  // out = a + factor · b
  int a, b, out;
  float factor = 1;
};
struct ScaleNode {  // out = factor · in
  int in, out;
  float factor;
};
struct ScaleByNode {  // out = in · tensor[0]
  int in, out;
  int tensor;
};
// A part of each head: element i of head h of `out` is element h · head_size + offset + i of `in`.
struct SliceNode {
  int in, out;
  int num_heads;
  int64_t head_size, offset, width;
};
// Heads side by side: head h of `out` is [a's head h; b's head h], or b itself where all heads
// share it.
struct JoinNode {
  int a, b, out;
  int num_heads;
  int64_t a_width, b_width;  // of a head
  bool b_shared;
};
// A causal convolution of each channel by itself; weight [channels, taps].
struct ConvNode {
  int in, out;
  int weight, bias = -1;
};
struct RecurrenceNode {
  int q, k, v, a, b, out;      // b −1 unless shape.delta
  ops::RecurrenceShape shape;  // batch, seq_len and the tensors are the runner's
  int a_log, bias, skip = -1;
};
struct ClipNode {  // out = in limited to ±limit
  int in, out;
  float limit;
};
struct SigmoidGateNode {  // out = in · σ(gate); the gate is as wide, or one number a token
  int in, gate, out;
};
// A sparse mixture: each token goes through top_k of the experts, whose outputs are added with the
// router's weights. Expert e is down(f(gate) · up) of its rows; up −1: down(f(gate)).
struct ExpertsNode {
  struct Expert {
    int gate, up, down;
    int gate_bias = -1, up_bias = -1, down_bias = -1;
  };
  int in, router_in, out;
  ops::RouterShape router;
  int router_weight, router_bias = -1, correction = -1, scales = -1;
  bool scale_input = false;  // the weights multiply the experts' inputs instead of their outputs
  ops::Activation activation;
  int64_t size;  // of an expert's inner layer
  std::vector<Expert> experts;
};
using Node = std::variant<LinearNode, NormNode, RopeNode, AttentionNode, ActivationNode, XieluNode,
                          AddNode, ScaleNode, ScaleByNode, SliceNode, JoinNode, ConvNode,
                          RecurrenceNode, ClipNode, SigmoidGateNode, ExpertsNode>;

// One decoder block. A tensor is named by its index in `tensors`, a linear layer that may be
// quantized by its place in `linears` ("linear l"), which is the order in which linear layers are
// initialized, listed and stored.
//
// The backward pass runs the nodes in reverse, so where one slot feeds several nodes the gradients
// are added from the last of them to the first: an order that is part of the result's bits.
struct BlockSpec {
  int64_t hidden_size = 0;  // H
  std::vector<TensorSpec> tensors;
  std::vector<int> linears;    // indices in `tensors`
  std::vector<int64_t> slots;  // widths
  std::vector<Node> nodes;

  int num_linears() const { return static_cast<int>(linears.size()); }
  const TensorSpec& linear(int l) const { return tensors[linears[l]]; }
  std::pair<int64_t, int64_t> LinearShape(int l) const {  // {N, K}
    return {linear(l).num_outputs(), linear(l).num_inputs()};
  }
  // The linear layer with this module name, or the tensor with this stored name; −1: none.
  int FindLinear(absl::string_view module) const;
  int FindTensor(absl::string_view stored_name) const;
  // False where a forward or backward pass needs values on the host, so that it cannot be recorded
  // (Backend::RunCaptured).
  bool capturable() const;
  // These append; they return the index. A kLinear tensor is also listed in `linears`.
  int AddTensor(TensorSpec tensor);
  int AddSlot(int64_t width);
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BLOCK_BLOCK_SPEC_H_
