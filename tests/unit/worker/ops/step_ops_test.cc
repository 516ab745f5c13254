// Ops of one new token a sequence against those of whole sequences, on every device.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/worker/ops/ops_fixture.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

using reference::ExpectClose;
using reference::Values;
using reference::Vector;

class StepOpsTest : public reference::OpsTest {
 protected:
  // Column t of a [B, L, W] tensor.
  Tensor Token(const Tensor& all, int64_t batch, int64_t length, int64_t t) {
    const int64_t width = all.num_elements() / batch / length;
    Tensor token = reference::Empty(backend_.get(), all.dtype(), {batch, width});
    const size_t bytes = token.size_bytes() / batch;
    for (int64_t s = 0; s < batch; ++s) {
      EXPECT_TRUE(
          backend_
              ->CopyOnDevice(static_cast<char*>(token.data()) + s * bytes,
                             static_cast<const char*>(all.data()) + (s * length + t) * bytes, bytes)
              .ok());
    }
    return token;
  }
  void SetPosition(int32_t position) {
    if (position_.empty()) {
      position_ = reference::Empty(backend_.get(), DType::kInt32, {1});
    }
    EXPECT_TRUE(backend_->CopyFromHost(position_.data(), &position, sizeof(position)).ok());
  }
  Tensor position_;
};

TEST_P(StepOpsTest, AttentionSeesTheTokensBefore) {
  constexpr int64_t kBatch = 3, kLength = 37;
  ops::AttentionShape plain;
  plain.batch = kBatch;
  plain.seq_len = kLength;
  plain.num_heads = 4;
  plain.num_kv_heads = 2;
  plain.head_dim = 24;
  plain.scale = 0.3f;
  const Tensor heads = Floats({4}, 9);
  std::vector<std::pair<std::string, ops::AttentionShape>> cases = {{"plain", plain}};
  const auto add = [&](const char* name, const auto& change) {
    change(&cases.emplace_back(name, plain).second);
  };
  add("window", [](auto* s) { s->window = 5; });
  add("window longer than all", [](auto* s) { s->window = 100; });
  add("wide values", [](auto* s) { s->value_dim = 40; });
  add("cap", [](auto* s) { s->softcap = 0.7f; });
  add("sinks", [&](auto* s) { s->sinks = &heads; });
  add("slopes", [&](auto* s) { s->slopes = &heads; });
  for (const auto& [name, shape] : cases) {
    SCOPED_TRACE(name);
    const int64_t tokens = kBatch * kLength;
    const Tensor q = Random({tokens, 4 * shape.head_dim}, 1);
    const Tensor k = Random({tokens, 2 * shape.head_dim}, 2);
    const Tensor v = Random({tokens, int64_t{2} * shape.values()}, 3);
    Tensor whole = reference::Empty(backend_.get(), act_, {tokens, int64_t{4} * shape.values()});
    Tensor lse = reference::Empty(backend_.get(), DType::kFloat32, {kBatch, 4, kLength});
    ops::AttentionForward(backend_.get(), shape, q, k, v, &whole, &lse);
    const int64_t capacity = shape.window > 0 ? std::min(shape.window, kLength) : kLength;
    // What no token wrote must not matter.
    Tensor keys = Random({kBatch, capacity, 2 * shape.head_dim}, 4, 1e3);
    Tensor values = Random({kBatch, capacity, int64_t{2} * shape.values()}, 5, 1e3);
    for (int64_t t = 0; t < kLength; ++t) {
      SetPosition(static_cast<int32_t>(t));
      Tensor out = reference::Empty(backend_.get(), act_, {kBatch, int64_t{4} * shape.values()});
      ops::AttentionStep(backend_.get(), shape, Token(q, kBatch, kLength, t),
                         Token(k, kBatch, kLength, t), Token(v, kBatch, kLength, t), position_,
                         &keys, &values, &out);
      ExpectClose(Values(out), Values(Token(whole, kBatch, kLength, t)), act_, 1, "out", 8);
    }
  }
}

TEST_P(StepOpsTest, ConvolutionsSeeTheTokensBefore) {
  constexpr int64_t kBatch = 2, kLength = 7, kChannels = 6;
  for (int64_t taps : {1, 2, 4}) {
    const Tensor x = Random({kBatch * kLength, kChannels}, 1);
    const Tensor weight = Floats({kChannels, taps}, 2), bias = Floats({kChannels}, 3);
    Tensor whole = Like(x), state = Random({kBatch, taps - 1, kChannels}, 4);
    ASSERT_TRUE(backend_->FillZero(state.data(), state.size_bytes()).ok());
    ops::CausalConvForward(backend_.get(), kLength, x, weight, &bias, &whole);
    for (int64_t t = 0; t < kLength; ++t) {
      Tensor y = reference::Empty(backend_.get(), act_, {kBatch, kChannels});
      ops::CausalConvStep(backend_.get(), Token(x, kBatch, kLength, t), weight, &bias, &state, &y);
      ExpectClose(Values(y), Values(Token(whole, kBatch, kLength, t)), act_, 1, "y", 8);
    }
  }
}

TEST_P(StepOpsTest, RecurrencesGoOnFromTheirState) {
  constexpr int64_t kBatch = 2, kLength = 9;
  for (bool delta : {false, true}) {
    ops::RecurrenceShape shape;
    shape.batch = kBatch;
    shape.seq_len = kLength;
    shape.num_heads = 4;
    shape.num_key_heads = 2;
    shape.key_dim = 5;
    shape.value_dim = 7;
    shape.delta = delta;
    const Tensor a_log = Floats({4}, 1), bias = Floats({4}, 2);
    shape.a_log = &a_log;
    shape.bias = &bias;
    const int64_t tokens = kBatch * kLength;
    const Tensor q = Random({tokens, 10}, 3), k = Random({tokens, 10}, 4, 0.4);
    const Tensor v = Random({tokens, 28}, 5), a = Random({tokens, 4}, 6),
                 b = Random({tokens, 4}, 7);
    Tensor whole = Like(v);
    ops::RecurrenceForward(backend_.get(), shape, q, k, v, a, delta ? &b : nullptr, &whole);
    Tensor states = reference::Empty(backend_.get(), DType::kFloat32, {kBatch, 4, 35});
    ASSERT_TRUE(backend_->FillZero(states.data(), states.size_bytes()).ok());
    shape.states = &states;
    shape.seq_len = 1;
    for (int64_t t = 0; t < kLength; ++t) {
      const auto token = [&](const Tensor& all) { return Token(all, kBatch, kLength, t); };
      const Tensor of_b = token(b);
      Tensor out = reference::Empty(backend_.get(), act_, {kBatch, 28});
      ops::RecurrenceForward(backend_.get(), shape, token(q), token(k), token(v), token(a),
                             delta ? &of_b : nullptr, &out);
      ExpectClose(Values(out), Values(token(whole)), act_, 1, "out", 16);
    }
  }
}

TEST_P(StepOpsTest, NarrowMatricesMultiplyLikeTheirValues) {
  if (backend_->kind() != DeviceKind::kCpu) GTEST_SKIP() << "activations are bf16 there";
  constexpr int64_t kRows = 70, kOutputs = 1100, kInputs = 33;
  const Tensor random = Random({kOutputs, kInputs}, 1);
  const Tensor narrow =
      *Tensor::FromFloats(backend_.get(), DType::kBfloat16, {kOutputs, kInputs}, random.f32());
  const std::vector<float> values = *narrow.ToFloats();
  const Tensor wide =
      *Tensor::FromFloats(backend_.get(), DType::kFloat32, {kOutputs, kInputs}, values.data());
  const Tensor x = Random({kRows, kInputs}, 2), bias = Floats({kOutputs}, 3);
  Tensor y = reference::Empty(backend_.get(), act_, {kRows, kOutputs}), expected = Like(y);
  ops::LinearForward(backend_.get(), x, narrow, &bias, &y);
  ops::LinearForward(backend_.get(), x, wide, &bias, &expected);
  EXPECT_EQ(*y.ToFloats(), *expected.ToFloats());
  const std::vector<int32_t> rows = {3, 0, 1099};
  Tensor ids = reference::Empty(backend_.get(), DType::kInt32, {3});
  ASSERT_TRUE(backend_->CopyFromHost(ids.data(), rows.data(), ids.size_bytes()).ok());
  Tensor looked_up = reference::Empty(backend_.get(), act_, {3, kInputs});
  Tensor also = Like(looked_up);
  ops::Embedding(backend_.get(), ids, narrow, &looked_up);
  ops::Embedding(backend_.get(), ids, wide, &also);
  EXPECT_EQ(*looked_up.ToFloats(), *also.ToFloats());
}

INSTANTIATE_TEST_SUITE_P(Devices, StepOpsTest, testing::ValuesIn(reference::DeviceCases()),
                         [](const auto& info) { return reference::DeviceCaseName(info.param); });

}  // namespace
}  // namespace uniquanf
