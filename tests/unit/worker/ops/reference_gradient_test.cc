// The references' gradients against central differences of the references' forward passes. Together
// with the ops' agreement with the references, a numeric gradient check of every op.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/worker/ops/reference.h"

namespace uniquanf {
namespace {

using namespace reference;  // NOLINT: the whole file tests it

Vector Random(int64_t count, uint64_t seed) {
  const std::vector<float> floats = RandomFloats(count, seed);
  return Vector(floats.begin(), floats.end());
}

// d⟨upstream, f(x)⟩/dx for every element of x.
void CheckGradient(const std::function<Vector(const Vector&)>& f, Vector x, const Vector& upstream,
                   const Vector& gradient, const char* what) {
  constexpr double kStep = 1e-5;
  ASSERT_EQ(x.size(), gradient.size()) << what;
  for (size_t i = 0; i < x.size(); ++i) {
    const double saved = x[i];
    x[i] = saved + kStep;
    const double above = Dot(upstream, f(x));
    x[i] = saved - kStep;
    const double below = Dot(upstream, f(x));
    x[i] = saved;
    ASSERT_NEAR(gradient[i], (above - below) / (2 * kStep), 1e-7 * (1 + std::abs(gradient[i])))
        << what << " element " << i;
  }
}

TEST(ReferenceGradientTest, Linear) {
  const int64_t t = 5, n = 4, k = 6;
  const Vector x = Random(t * k, 1), w = Random(n * k, 2), dy = Random(t * n, 3);
  CheckGradient([&](const Vector& v) { return Linear(v, w, {}, t, n, k); }, x, dy,
                LinearInputGradient(dy, w, t, n, k), "dx");
  CheckGradient([&](const Vector& v) { return Linear(x, v, {}, t, n, k); }, w, dy,
                LinearWeightGradient(dy, x, t, n, k), "dw");
}

TEST(ReferenceGradientTest, RmsNorm) {
  const Vector x = Random(3 * 8, 1), weight = Random(8, 2), dy = Random(3 * 8, 3);
  CheckGradient([&](const Vector& v) { return RmsNorm(v, weight, 1e-2); }, x, dy,
                RmsNormGradient(dy, x, weight, 1e-2), "dx");
}

TEST(ReferenceGradientTest, Rope) {
  const Vector angles = Random(5 * 4, 1);
  Vector cos, sin;
  for (double angle : angles) {
    cos.push_back(std::cos(angle));
    sin.push_back(std::sin(angle));
  }
  const Vector x = Random(5 * 16, 2), dy = Random(5 * 16, 3);
  CheckGradient([&](const Vector& v) { return Rope(v, cos, sin, 5, 4, 2, false); }, x, dy,
                Rope(dy, cos, sin, 5, 4, 2, true), "dx");
}

TEST(ReferenceGradientTest, Attention) {
  for (int64_t window : {0, 3}) {
    ops::AttentionShape shape;
    shape.batch = 2;
    shape.seq_len = 7;
    shape.num_heads = 4;
    shape.num_kv_heads = 2;
    shape.head_dim = 3;
    shape.window = window;
    shape.scale = 0.6f;
    const Vector q = Random(2 * 7 * 12, 1), k = Random(2 * 7 * 6, 2), v = Random(2 * 7 * 6, 3);
    const Vector dout = Random(2 * 7 * 12, 4);
    const AttentionGradients g = AttentionBackward(shape, dout, q, k, v);
    CheckGradient([&](const Vector& x) { return AttentionForward(shape, x, k, v).out; }, q, dout,
                  g.dq, "dq");
    CheckGradient([&](const Vector& x) { return AttentionForward(shape, q, x, v).out; }, k, dout,
                  g.dk, "dk");
    CheckGradient([&](const Vector& x) { return AttentionForward(shape, q, k, x).out; }, v, dout,
                  g.dv, "dv");
  }
}

TEST(ReferenceGradientTest, SwiGlu) {
  const Vector gate = Random(20, 1), up = Random(20, 2), dy = Random(20, 3);
  Vector dgate, dup;
  SwiGluGradient(dy, gate, up, &dgate, &dup);
  CheckGradient([&](const Vector& v) { return SwiGlu(v, up); }, gate, dy, dgate, "dgate");
  CheckGradient([&](const Vector& v) { return SwiGlu(gate, v); }, up, dy, dup, "dup");
}

}  // namespace
}  // namespace uniquanf
