#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/unit/worker/ops/reference.h"

namespace uniquanf {
namespace {

using namespace reference;  // NOLINT: the whole file compares against it

struct AttentionCase {
  int64_t batch, seq_len;
  int num_heads, num_kv_heads, head_dim;
  int64_t window;
};

// Odd lengths, every head size, group sizes 1 to 4 and 8, windows shorter and longer than the
// sequence, and a length that spans several segments of the backward pass.
const AttentionCase kCases[] = {
    {1, 1, 1, 1, 64, 0},   {3, 1, 4, 2, 32, 0},     {1, 7, 2, 1, 64, 0},    {3, 7, 3, 3, 80, 3},
    {1, 33, 6, 2, 32, 0},  {3, 33, 4, 1, 96, 0},    {1, 33, 2, 2, 128, 16}, {1, 129, 8, 1, 64, 0},
    {1, 129, 2, 1, 80, 1}, {3, 129, 4, 4, 128, 64}, {1, 129, 2, 1, 256, 0}, {1, 129, 6, 2, 32, 500},
    {1, 600, 3, 1, 32, 0}, {2, 600, 2, 1, 32, 130}, {1, 65, 48, 1, 32, 0},
};

class AttentionTest : public testing::TestWithParam<DeviceCase> {
 protected:
  std::unique_ptr<Backend> backend_ = MakeBackend(GetParam().kind);
  DType act_ = GetParam().act;
};

ops::AttentionShape ShapeOf(const AttentionCase& c) {
  ops::AttentionShape shape;
  shape.batch = c.batch;
  shape.seq_len = c.seq_len;
  shape.num_heads = c.num_heads;
  shape.num_kv_heads = c.num_kv_heads;
  shape.head_dim = c.head_dim;
  shape.window = c.window;
  shape.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.head_dim)));
  return shape;
}

TEST_P(AttentionTest, MatchesReference) {
  for (const AttentionCase& c : kCases) {
    SCOPED_TRACE(testing::Message()
                 << "batch " << c.batch << " L " << c.seq_len << " heads " << c.num_heads << "/"
                 << c.num_kv_heads << " D " << c.head_dim << " window " << c.window);
    const ops::AttentionShape shape = ShapeOf(c);
    const int64_t t = c.batch * c.seq_len;
    const int64_t q_width = c.num_heads * c.head_dim, kv_width = c.num_kv_heads * c.head_dim;
    const Tensor q = Upload(backend_.get(), act_, {t, q_width}, RandomFloats(t * q_width, 1));
    const Tensor k = Upload(backend_.get(), act_, {t, kv_width}, RandomFloats(t * kv_width, 2));
    const Tensor v = Upload(backend_.get(), act_, {t, kv_width}, RandomFloats(t * kv_width, 3));
    const Tensor dout = Upload(backend_.get(), act_, {t, q_width}, RandomFloats(t * q_width, 4));
    Tensor out = Empty(backend_.get(), act_, {t, q_width});
    Tensor lse = Empty(backend_.get(), DType::kFloat32, {c.batch, c.num_heads, c.seq_len});
    ops::AttentionForward(backend_.get(), shape, q, k, v, &out, &lse);
    const Attention expected = AttentionForward(shape, Values(q), Values(k), Values(v));
    // A score's rounding error, √D steps of its size, is a relative error of its probability.
    const double accumulation = 8 + 2 * std::sqrt(static_cast<double>(c.head_dim));
    ExpectClose(Values(out), expected.out, act_, 4, "out", accumulation);
    // Scores are products of act values accumulated in fp32.
    ExpectClose(Values(lse), expected.lse, DType::kFloat32, 64, "lse");

    Tensor scratch =
        Empty(backend_.get(), DType::kUint8,
              {static_cast<int64_t>(ops::AttentionBackwardScratchBytes(*backend_, shape))});
    Tensor dq = Empty(backend_.get(), act_, {t, q_width});
    Tensor dk = Empty(backend_.get(), act_, {t, kv_width});
    Tensor dv = Empty(backend_.get(), act_, {t, kv_width});
    ops::AttentionBackward(backend_.get(), shape, dout, q, k, v, out, lse, &scratch, &dq, &dk, &dv);
    const AttentionGradients gradients =
        AttentionBackward(shape, Values(dout), Values(q), Values(k), Values(v));
    ExpectClose(Values(dq), gradients.dq, act_, 8, "dq", 2 * accumulation, 0.3);
    ExpectClose(Values(dk), gradients.dk, act_, 8, "dk", 2 * accumulation, 0.3);
    ExpectClose(Values(dv), gradients.dv, act_, 8, "dv", 2 * accumulation);
  }
}

TEST_P(AttentionTest, LargeScoresDoNotOverflow) {
  const ops::AttentionShape shape = ShapeOf({1, 33, 2, 1, 64, 0});
  const Tensor q = Upload(backend_.get(), act_, {33, 128}, RandomFloats(33 * 128, 1, 60.0));
  const Tensor k = Upload(backend_.get(), act_, {33, 64}, RandomFloats(33 * 64, 2, 60.0));
  const Tensor v = Upload(backend_.get(), act_, {33, 64}, RandomFloats(33 * 64, 3));
  Tensor out = Empty(backend_.get(), act_, {33, 128});
  Tensor lse = Empty(backend_.get(), DType::kFloat32, {1, 2, 33});
  ops::AttentionForward(backend_.get(), shape, q, k, v, &out, &lse);
  for (double value : Values(out)) ASSERT_TRUE(std::isfinite(value));
  for (double value : Values(lse)) ASSERT_TRUE(std::isfinite(value));
}

INSTANTIATE_TEST_SUITE_P(Devices, AttentionTest, testing::ValuesIn(DeviceCases()),
                         [](const auto& info) { return DeviceCaseName(info.param); });

}  // namespace
}  // namespace uniquanf
