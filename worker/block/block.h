// Runs one decoder block forward and backward. What the block computes is data (block_spec.h);
// there is one runner for every family.
//
// Thread safety: as Backend. Shapes in worker/ops/op.h's notation.
#ifndef UNIQUANF_WORKER_BLOCK_BLOCK_H_
#define UNIQUANF_WORKER_BLOCK_BLOCK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/backend/backend.h"
#include "worker/backend/tensor.h"
#include "worker/block/block_spec.h"
#include "worker/packed/packed_linear.h"

namespace uniquanf {

// A block's tensors on a device, by their index in BlockSpec::tensors: matrices are act, vectors
// f32.
using BlockWeights = std::vector<Tensor>;
// Gradients of the linear layers' weights by linear, [N, K] each; act, or f32 where they are summed
// over calls.
using BlockGradients = std::vector<Tensor>;

// Linear layers that multiply from their packed form, by their index in BlockSpec::tensors; those
// of 0 bits are not packed. May be empty.
using PackedBlock = std::vector<packed::PackedWeights>;

// Rotary tables [L, rotated width / 2] f32, made by worker/model from the model's config.
struct RopeTable {
  Tensor cos, sin;
};
using RopeTables = std::vector<RopeTable>;  // a node names one by its index

// Called with the input [rows, K] of linear layer l in each forward pass, before it is used.
using LinearObserver = std::function<void(int l, const Tensor& input)>;

// What a block keeps of the tokens that went through it, so that the next one can follow: keys and
// values of attention (as many as its window, where it has one), the last inputs of convolutions,
// states of recurrences. For `batch` sequences of the same length, up to `capacity` tokens.
class BlockState {
 public:
  static absl::StatusOr<BlockState> Create(Backend* backend, const BlockSpec& spec, DType act,
                                           int64_t batch, int64_t capacity);
  int64_t batch() const { return batch_; }
  uint64_t size_bytes() const;
  // Of a node of the spec; none for most.
  std::vector<Tensor>& of(int node) { return tensors_[node]; }

 private:
  int64_t batch_ = 0;
  std::vector<std::vector<Tensor>> tensors_;
};

// How a runner goes through a sequence in parts.
struct Incremental {
  BlockState* state = nullptr;  // borrowed, as all here
  // Null: the first part, seq_len tokens from position 0 on; what the state holds is overwritten.
  // Else one more token of each sequence, at this position [1] i32 on the device, with rotary
  // tables of one row, that of the position. REQUIRES: it is the next one, below the capacity.
  const Tensor* position = nullptr;
  // kUint8, IncrementalBytes of it; layers that run one after the other may share it.
  Tensor* scratch = nullptr;
};

// Activations and scratch for `batch` sequences of `seq_len` tokens; made once, used every step.
class BlockRunner {
 public:
  // `spec` and `rope` are borrowed. with_backward = false allocates much less. Runners of which one
  // at a time is between its Forward and the end of its Backward may share an `arena`, a borrowed
  // kUint8 tensor of at least BlockRunnerBytes; null: one of its own. Error: kUnimplemented
  // (UNSUPPORTED_ON_DEVICE) names the op that the backend has not.
  static absl::StatusOr<std::unique_ptr<BlockRunner>> Create(
      Backend* backend, const BlockSpec& spec, DType act, int64_t batch, int64_t seq_len,
      const RopeTables* rope, bool with_backward, Tensor* arena = nullptr);
  // Forward only, and in parts; `rope` are the tables of the part's positions.
  static absl::StatusOr<std::unique_ptr<BlockRunner>> CreateIncremental(
      Backend* backend, const BlockSpec& spec, DType act, int64_t batch, int64_t seq_len,
      const RopeTables* rope, const Incremental& incremental);
  virtual ~BlockRunner() = default;

  // y[T, H] from x[T, H]; keeps what Backward needs (x is borrowed until then).
  virtual void Forward(const BlockWeights& weights, const Tensor& x, Tensor* y) = 0;
  // From dy[T, H] of the last Forward: gradients of the linear layers. The gradient for x is
  // computed only when dx is not null: nothing trained lies before it. `on_gradient(l)` is called
  // as soon as the gradient of linear layer l has been issued, before the next one's (so that its
  // update can be issued too, and gradients may share memory): the layer's weight is not read after
  // that and may change; may be null. An empty
  // (*gradients)[l] is not computed, and on_gradient(l) is not called. With `accumulate` the
  // gradients are added to what they hold. Uses up what Forward kept. REQUIRES: with_backward;
  // Forward was called with the same weights; gradients has one entry a linear.
  virtual void Backward(const BlockWeights& weights, const Tensor& dy, bool accumulate,
                        BlockGradients* gradients, Tensor* dx,
                        const std::function<void(int)>& on_gradient) = 0;
  // By tensor: where the backward pass leaves the gradients of norms' weights, f32; empty: nowhere.
  // Borrowed; null: none is computed. They are computed in a backward pass that gives dx.
  virtual void set_norm_gradients(std::vector<Tensor>* gradients) = 0;
  // Null: nobody. The observer must not change the tensor.
  virtual void set_observer(LinearObserver observer) = 0;
  // Forward passes only: linear layers that are packed multiply from there, and their tensors in
  // the weights may be empty. Both are borrowed.
  virtual void set_packed(const PackedBlock* packed, packed::Workspace* workspace) = 0;
};

// Device bytes a BlockRunner allocates; for planning.
uint64_t BlockRunnerBytes(const Backend& backend, const BlockSpec& spec, DType act, int64_t batch,
                          int64_t seq_len, bool with_backward);

// The same of CreateIncremental's scratch.
uint64_t IncrementalBytes(Backend* backend, const BlockSpec& spec, DType act, int64_t batch,
                          int64_t seq_len, const Incremental& incremental);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BLOCK_BLOCK_H_
