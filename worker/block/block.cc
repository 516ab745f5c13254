#include "worker/block/block.h"

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

int64_t Index(Linear linear) { return static_cast<int64_t>(linear); }

// The runner's buffers. A tensor listed with backward = true is made only for runners that have a
// backward pass; kind tells the element type.
struct Buffers {
  Tensor norm1, norm2;        // [T, H] outputs of the two norms
  Tensor inv_rms1, inv_rms2;  // [T]
  Tensor q, k, v;  // [T, Hq·D], [T, Hkv·D]: projections; rotated in place without qk_norm
  Tensor q_normed, k_normed;    // with qk_norm: normalized, then rotated in place
  Tensor q_inv_rms, k_inv_rms;  // [T·Hq], [T·Hkv]
  Tensor attention, lse;        // [T, Hq·D], [batch, Hq, L]
  Tensor projected;             // [T, H] output of o_proj and then of down_proj
  Tensor hidden;                // [T, H] h: the residual stream between attention and MLP
  Tensor gate, up, activated;   // [T, I]
  // Backward only.
  Tensor dgate, dup;      // [T, I]
  Tensor dnorm, dhidden;  // [T, H]
  Tensor dattention;      // [T, Hq·D]
  Tensor dq, dk, dv;      // gradients of the rotated q and k, and of v
  Tensor scratch;         // AttentionBackward's
};

struct Wanted {
  Tensor* tensor;
  DType dtype;
  Shape shape;
};

ops::AttentionShape AttentionShapeOf(const BlockConfig& config, int64_t batch, int64_t seq_len) {
  ops::AttentionShape shape;
  shape.batch = batch;
  shape.seq_len = seq_len;
  shape.num_heads = config.num_heads;
  shape.num_kv_heads = config.num_kv_heads;
  shape.head_dim = config.head_dim;
  shape.window = config.window;
  shape.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));
  return shape;
}

// What a runner allocates: the single source for Create and for BlockRunnerBytes.
std::vector<Wanted> WantedBuffers(const Backend& backend, const BlockConfig& config, DType act,
                                  int64_t batch, int64_t seq_len, bool with_backward,
                                  Buffers* buffers) {
  const int64_t t = batch * seq_len;
  const int64_t h = config.hidden_size, i = config.intermediate_size;
  const int64_t q_width = config.LinearShape(Linear::kQ).first;
  const int64_t kv_width = config.LinearShape(Linear::kK).first;
  Buffers& b = *buffers;
  std::vector<Wanted> wanted = {
      {&b.norm1, act, {t, h}},
      {&b.inv_rms1, DType::kFloat32, {t}},
      {&b.inv_rms2, DType::kFloat32, {t}},
      {&b.q, act, {t, q_width}},
      {&b.k, act, {t, kv_width}},
      {&b.v, act, {t, kv_width}},
      {&b.attention, act, {t, q_width}},
      {&b.lse, DType::kFloat32, {batch, config.num_heads, seq_len}},
      {&b.projected, act, {t, h}},
      {&b.hidden, act, {t, h}},
      {&b.gate, act, {t, i}},
      {&b.up, act, {t, i}},
      {&b.activated, act, {t, i}},
  };
  if (config.qk_norm) {
    wanted.push_back({&b.q_normed, act, {t, q_width}});
    wanted.push_back({&b.k_normed, act, {t, kv_width}});
    wanted.push_back({&b.q_inv_rms, DType::kFloat32, {t * config.num_heads}});
    wanted.push_back({&b.k_inv_rms, DType::kFloat32, {t * config.num_kv_heads}});
  }
  if (with_backward) {
    const size_t scratch_bytes =
        ops::AttentionBackwardScratchBytes(backend, AttentionShapeOf(config, batch, seq_len));
    wanted.push_back({&b.norm2, act, {t, h}});
    wanted.push_back({&b.dgate, act, {t, i}});
    wanted.push_back({&b.dup, act, {t, i}});
    wanted.push_back({&b.dnorm, act, {t, h}});
    wanted.push_back({&b.dhidden, act, {t, h}});
    wanted.push_back({&b.dattention, act, {t, q_width}});
    wanted.push_back({&b.dq, act, {t, q_width}});
    wanted.push_back({&b.dk, act, {t, kv_width}});
    wanted.push_back({&b.dv, act, {t, kv_width}});
    wanted.push_back({&b.scratch, DType::kUint8, {static_cast<int64_t>(scratch_bytes)}});
  }
  return wanted;
}

class BlockRunnerImpl : public BlockRunner {
 public:
  BlockRunnerImpl(Backend* backend, const BlockConfig& config, int64_t batch, int64_t seq_len,
                  const RopeTables* rope, bool with_backward)
      : backend_(backend),
        config_(config),
        attention_(AttentionShapeOf(config, batch, seq_len)),
        rope_(rope),
        with_backward_(with_backward) {}

  absl::Status Allocate(DType act) {
    for (Wanted& wanted : WantedBuffers(*backend_, config_, act, attention_.batch,
                                        attention_.seq_len, with_backward_, &buffers_)) {
      UQ_ASSIGN_OR_RETURN(*wanted.tensor,
                          Tensor::Allocate(backend_, wanted.dtype, std::move(wanted.shape)));
    }
    return absl::OkStatus();
  }

  void Forward(const BlockWeights& weights, const Tensor& x, Tensor* y) override {
    Buffers& b = buffers_;
    x_ = &x;
    ops::RmsNormForward(backend_, x, weights.input_norm, config_.rms_norm_eps, &b.norm1,
                        &b.inv_rms1);
    Project(weights, Linear::kQ, b.norm1, &b.q);
    Project(weights, Linear::kK, b.norm1, &b.k);
    Project(weights, Linear::kV, b.norm1, &b.v);
    if (config_.qk_norm) {
      ops::RmsNormForward(backend_, b.q, weights.q_norm, config_.rms_norm_eps, &b.q_normed,
                          &b.q_inv_rms);
      ops::RmsNormForward(backend_, b.k, weights.k_norm, config_.rms_norm_eps, &b.k_normed,
                          &b.k_inv_rms);
    }
    ops::Rope(backend_, rope_->cos, rope_->sin, config_.num_heads, false, &query());
    ops::Rope(backend_, rope_->cos, rope_->sin, config_.num_kv_heads, false, &key());
    ops::AttentionForward(backend_, attention_, query(), key(), b.v, &b.attention, &b.lse);
    Project(weights, Linear::kO, b.attention, &b.projected);
    ops::AddRmsNormForward(backend_, x, b.projected, weights.post_norm, config_.rms_norm_eps,
                           &b.hidden, &norm2(), &b.inv_rms2);
    Project(weights, Linear::kGate, norm2(), &b.gate);
    Project(weights, Linear::kUp, norm2(), &b.up);
    ops::SwiGluForward(backend_, b.gate, b.up, &b.activated);
    Project(weights, Linear::kDown, b.activated, &b.projected);
    ops::Add(backend_, b.hidden, b.projected, y);
  }

  // A weight may change as soon as on_gradient was called for it: every use of it comes before.
  void Backward(const BlockWeights& weights, const Tensor& dy, bool accumulate,
                BlockGradients* gradients, Tensor* dx,
                const std::function<void(Linear)>& on_gradient) override {
    UQ_CHECK(with_backward_ && x_ != nullptr);
    Buffers& b = buffers_;
    auto input_gradient = [&](Linear linear, const Tensor& dout, bool add, Tensor* din) {
      ops::LinearBackwardInput(backend_, dout, weights.linear[Index(linear)], add, din);
    };
    auto weight_gradient = [&](Linear linear, const Tensor& dout, const Tensor& input) {
      Tensor* gradient = &(*gradients)[Index(linear)];
      if (gradient->empty()) return;
      ops::LinearBackwardWeight(backend_, dout, input, accumulate, gradient);
      if (on_gradient != nullptr) on_gradient(linear);
    };

    // MLP. The gradient of the activation replaces it once down_proj's gradient has used it; that
    // gradient must then come first, and its weight is not to change before it is used: two calls.
    if (Tensor* gradient = &(*gradients)[Index(Linear::kDown)]; !gradient->empty()) {
      ops::LinearBackwardWeight(backend_, dy, b.activated, accumulate, gradient);
    }
    Tensor& dactivated = b.activated;
    input_gradient(Linear::kDown, dy, false, &dactivated);
    if (!(*gradients)[Index(Linear::kDown)].empty() && on_gradient != nullptr) {
      on_gradient(Linear::kDown);
    }
    ops::SwiGluBackward(backend_, dactivated, b.gate, b.up, &b.dgate, &b.dup);
    input_gradient(Linear::kGate, b.dgate, false, &b.dnorm);
    weight_gradient(Linear::kGate, b.dgate, b.norm2);
    input_gradient(Linear::kUp, b.dup, true, &b.dnorm);
    weight_gradient(Linear::kUp, b.dup, b.norm2);
    CopyInto(dy, &b.dhidden);
    ops::RmsNormBackward(backend_, b.dnorm, b.hidden, weights.post_norm, b.inv_rms2, true,
                         &b.dhidden);

    // Attention.
    input_gradient(Linear::kO, b.dhidden, false, &b.dattention);
    weight_gradient(Linear::kO, b.dhidden, b.attention);
    ops::AttentionBackward(backend_, attention_, b.dattention, query(), key(), b.v, b.attention,
                           b.lse, &b.scratch, &b.dq, &b.dk, &b.dv);
    ops::Rope(backend_, rope_->cos, rope_->sin, config_.num_heads, true, &b.dq);
    ops::Rope(backend_, rope_->cos, rope_->sin, config_.num_kv_heads, true, &b.dk);
    Tensor* dq = &b.dq;
    Tensor* dk = &b.dk;
    if (config_.qk_norm) {
      // The rotated queries and keys are not needed any more.
      ops::RmsNormBackward(backend_, b.dq, b.q, weights.q_norm, b.q_inv_rms, false, &b.q_normed);
      ops::RmsNormBackward(backend_, b.dk, b.k, weights.k_norm, b.k_inv_rms, false, &b.k_normed);
      dq = &b.q_normed;
      dk = &b.k_normed;
    }
    if (dx != nullptr) {
      input_gradient(Linear::kQ, *dq, false, &b.dnorm);
      input_gradient(Linear::kK, *dk, true, &b.dnorm);
      input_gradient(Linear::kV, b.dv, true, &b.dnorm);
    }
    weight_gradient(Linear::kQ, *dq, b.norm1);
    weight_gradient(Linear::kK, *dk, b.norm1);
    weight_gradient(Linear::kV, b.dv, b.norm1);
    if (dx != nullptr) {
      CopyInto(b.dhidden, dx);
      ops::RmsNormBackward(backend_, b.dnorm, *x_, weights.input_norm, b.inv_rms1, true, dx);
    }
    x_ = nullptr;
  }

 private:
  Tensor& query() { return config_.qk_norm ? buffers_.q_normed : buffers_.q; }
  Tensor& key() { return config_.qk_norm ? buffers_.k_normed : buffers_.k; }
  // Without a backward pass nobody needs the first norm's output when the second is made.
  Tensor& norm2() { return with_backward_ ? buffers_.norm2 : buffers_.norm1; }

  void Project(const BlockWeights& weights, Linear linear, const Tensor& input, Tensor* output) {
    const Tensor& bias = weights.bias[Index(linear)];
    ops::LinearForward(backend_, input, weights.linear[Index(linear)],
                       bias.empty() ? nullptr : &bias, output);
  }

  void CopyInto(const Tensor& source, Tensor* target) {
    // A failing device is reported by the next Synchronize, as for ops.
    backend_->CopyOnDevice(target->data(), source.data(), source.size_bytes()).IgnoreError();
  }

  Backend* backend_;
  BlockConfig config_;
  ops::AttentionShape attention_;
  const RopeTables* rope_;
  bool with_backward_;
  const Tensor* x_ = nullptr;  // the input of the last Forward, until Backward
  Buffers buffers_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BlockRunner>> BlockRunner::Create(
    Backend* backend, const BlockConfig& config, DType act, int64_t batch, int64_t seq_len,
    const RopeTables* rope, bool with_backward) {
  UQ_CHECK(batch > 0 && seq_len > 0);
  UQ_CHECK(rope->cos.dim(0) == seq_len && rope->cos.dim(1) * 2 == config.head_dim);
  auto runner =
      std::make_unique<BlockRunnerImpl>(backend, config, batch, seq_len, rope, with_backward);
  UQ_RETURN_IF_ERROR(runner->Allocate(act));
  return runner;
}

uint64_t BlockRunnerBytes(const Backend& backend, const BlockConfig& config, DType act,
                          int64_t batch, int64_t seq_len, bool with_backward) {
  Buffers unused;
  uint64_t total = 0;
  for (const Wanted& wanted :
       WantedBuffers(backend, config, act, batch, seq_len, with_backward, &unused)) {
    uint64_t elements = 1;
    for (int64_t dim : wanted.shape) elements *= static_cast<uint64_t>(dim);
    total += elements * DTypeBytes(wanted.dtype);
  }
  return total;
}

}  // namespace uniquanf
