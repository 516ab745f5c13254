// Convolutions and linear recurrences against formulas in double precision and their differences.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/unit/worker/ops/ops_fixture.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

using reference::Empty;
using reference::ExpectClose;
using reference::Values;
using reference::Vector;

class RecurrenceOpsTest : public reference::OpsTest {};

TEST_P(RecurrenceOpsTest, CausalConvolutionsStayInsideTheirSequence) {
  constexpr int64_t kLength = 5, kRows = 10, kChannels = 6, kTaps = 3;
  const Tensor x = Random({kRows, kChannels}, 1), dy = Random({kRows, kChannels}, 2);
  const Tensor weight = Floats({kChannels, kTaps}, 3), bias = Floats({kChannels}, 4);
  const Vector w = Values(weight), offset = Values(bias);
  for (bool with_bias : {false, true}) {
    auto forward = [&](const Vector& in) {
      Vector out(in.size());
      for (int64_t t = 0; t < kRows; ++t) {
        for (int64_t c = 0; c < kChannels; ++c) {
          double sum = with_bias ? offset[c] : 0;
          for (int64_t back = 0; back < kTaps && back <= t % kLength; ++back) {
            sum += w[c * kTaps + kTaps - 1 - back] * in[(t - back) * kChannels + c];
          }
          out[t * kChannels + c] = sum;
        }
      }
      return out;
    };
    Tensor y = Like(x), dx = Like(x);
    ops::CausalConvForward(backend_.get(), kLength, x, weight, with_bias ? &bias : nullptr, &y);
    ExpectClose(Values(y), forward(Values(x)), act_, 1, "y", 8);
    ops::CausalConvBackward(backend_.get(), kLength, dy, weight, /*accumulate=*/false, &dx);
    Vector expected = Gradient(Values(x), Values(dy), forward);
    ExpectClose(Values(dx), expected, act_, 1, "dx", 32);
    ops::CausalConvBackward(backend_.get(), kLength, dy, weight, /*accumulate=*/true, &dx);
    for (double& value : expected) value *= 2;
    ExpectClose(Values(dx), expected, act_, 2, "dx twice", 32);
  }
}

struct Inputs {
  Vector q, k, v, a, b;
};

// One token after the other, as the contract says.
Vector Recur(const ops::RecurrenceShape& shape, const Vector& a_log, const Vector& bias,
             const Vector& skip, const Inputs& in) {
  const int64_t keys = shape.key_dim, values = shape.value_dim, heads = shape.num_heads;
  const int64_t group = heads / shape.num_key_heads;
  Vector out(in.v.size());
  for (int64_t sequence = 0; sequence < shape.batch; ++sequence) {
    for (int64_t h = 0; h < heads; ++h) {
      Vector state(keys * values, 0.0);
      for (int64_t t = 0; t < shape.seq_len; ++t) {
        const int64_t token = sequence * shape.seq_len + t, gate = token * heads + h;
        const double* k = &in.k[(token * shape.num_key_heads + h / group) * keys];
        const double* q = &in.q[(token * shape.num_key_heads + h / group) * keys];
        const double raw = std::log1p(std::exp(in.a[gate] + bias[h]));
        const double step = shape.delta ? raw : std::clamp<double>(raw, shape.low, shape.high);
        const double alpha = std::exp(-std::exp(a_log[h]) * step);
        const double beta = shape.delta ? 1 / (1 + std::exp(-in.b[gate])) : step;
        for (double& value : state) value *= alpha;
        for (int64_t j = 0; j < values; ++j) {
          const double v = in.v[gate * values + j];
          double read = 0, sum = skip.empty() ? 0 : skip[h] * v;
          for (int64_t i = 0; i < keys; ++i) read += k[i] * state[i * values + j];
          const double u = beta * (v - (shape.delta ? read : 0));
          for (int64_t i = 0; i < keys; ++i) {
            state[i * values + j] += k[i] * u;
            sum += q[i] * state[i * values + j];
          }
          out[gate * values + j] = sum;
        }
      }
    }
  }
  return out;
}

// Lengths within a segment of the backward pass, and over several.
TEST_P(RecurrenceOpsTest, RecurrencesMatchTheirFormulaAndGradients) {
  for (bool delta : {true, false}) {
    for (int64_t length : {3, 70}) {
      SCOPED_TRACE(testing::Message() << (delta ? "delta " : "state space ") << length);
      ops::RecurrenceShape shape;
      shape.batch = 2;
      shape.seq_len = length;
      shape.num_heads = 4;
      shape.num_key_heads = 2;
      shape.key_dim = 3;
      shape.value_dim = 5;
      shape.delta = delta;
      if (!delta) shape.high = 1.2f;
      const Tensor a_log = Floats({4}, 1, 0.3), bias = Floats({4}, 2, 0.3);
      const Tensor skip = Floats({4}, 3);
      shape.a_log = &a_log;
      shape.bias = &bias;
      if (!delta) shape.skip = &skip;
      const int64_t tokens = shape.batch * length;
      const Tensor q = Random({tokens, 6}, 4, 0.5), k = Random({tokens, 6}, 5, 0.5);
      const Tensor v = Random({tokens, 20}, 6), dout = Random({tokens, 20}, 7);
      const Tensor a = Random({tokens, 4}, 8), b = Random({tokens, 4}, 9);
      const Tensor* gate = delta ? &b : nullptr;
      const Inputs in = {Values(q), Values(k), Values(v), Values(a), Values(b)};
      const Vector rates = Values(a_log), offsets = Values(bias);
      const Vector skips = delta ? Vector() : Values(skip);
      Tensor out = Like(v), dq = Like(q), dk = Like(k), dv = Like(v), da = Like(a), db = Like(b);
      ops::RecurrenceForward(backend_.get(), shape, q, k, v, a, gate, &out);
      ExpectClose(Values(out), Recur(shape, rates, offsets, skips, in), act_, 2, "out", 64);
      const auto bytes = ops::RecurrenceBackwardScratchBytes(*backend_, shape);
      Tensor scratch =
          Empty(backend_.get(), DType::kUint8, {std::max<int64_t>(1, static_cast<int64_t>(bytes))});
      ops::RecurrenceBackward(backend_.get(), shape, dout, q, k, v, a, gate, &scratch, &dq, &dk,
                              &dv, &da, delta ? &db : nullptr);
      const auto check = [&](const Tensor& actual, Vector Inputs::*of, const char* name) {
        const Vector expected = Gradient(in.*of, Values(dout), [&](const Vector& x) {
          Inputs moved = in;
          moved.*of = x;
          return Recur(shape, rates, offsets, skips, moved);
        });
        ExpectClose(Values(actual), expected, act_, 4, name, 256);
      };
      check(dq, &Inputs::q, "dq");
      check(dk, &Inputs::k, "dk");
      check(dv, &Inputs::v, "dv");
      check(da, &Inputs::a, "da");
      if (delta) check(db, &Inputs::b, "db");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, RecurrenceOpsTest, testing::ValuesIn(reference::DeviceCases()),
                         [](const auto& info) { return reference::DeviceCaseName(info.param); });

}  // namespace
}  // namespace uniquanf
