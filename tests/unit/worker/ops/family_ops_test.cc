// The ops that families beyond Llama need, against formulas in double precision and finite
// differences of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "tests/unit/worker/ops/ops_fixture.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

using reference::Empty;
using reference::ExpectClose;
using reference::Values;
using reference::Vector;

class FamilyOpsTest : public reference::OpsTest {};

double Activate(ops::Activation kind, double x) {
  switch (kind) {
    case ops::Activation::kSilu:
      return x / (1 + std::exp(-x));
    case ops::Activation::kGeluTanh:
      return 0.5 * x *
             (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case ops::Activation::kGelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case ops::Activation::kRelu:
      return std::max(x, 0.0);
    case ops::Activation::kReluSquared:
      return std::max(x, 0.0) * std::max(x, 0.0);
    case ops::Activation::kIdentity:
      return x;
    case ops::Activation::kClampedSwiGlu:
      return std::min(x, 7.0) / (1 + std::exp(-1.702 * std::min(x, 7.0)));
  }
  return 0;
}

TEST_P(FamilyOpsTest, ActivationsMatchTheirFormulasAndSlopes) {
  using ops::Activation;
  for (Activation kind :
       {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu, Activation::kRelu,
        Activation::kReluSquared, Activation::kIdentity, Activation::kClampedSwiGlu}) {
    for (bool gated : {true, false}) {
      if (!gated && kind == Activation::kClampedSwiGlu) continue;
      SCOPED_TRACE(testing::Message() << static_cast<int>(kind) << (gated ? " gated" : ""));
      const Tensor gate = Random({3, 40}, 1, 4.0), up = Random({3, 40}, 2, 4.0);
      const Tensor dy = Random({3, 40}, 3);
      Tensor y = Like(gate), dgate = Like(gate), dup = Like(gate);
      const Tensor* ups = gated ? &up : nullptr;
      auto second = [&](const Vector& u, size_t i) {
        if (!gated) return 1.0;
        return kind == Activation::kClampedSwiGlu ? std::clamp(u[i], -7.0, 7.0) + 1 : u[i];
      };
      const Vector g = Values(gate), u = Values(up);
      auto forward = [&](const Vector& gates, const Vector& values) {
        Vector out(gates.size());
        for (size_t i = 0; i < out.size(); ++i)
          out[i] = Activate(kind, gates[i]) * second(values, i);
        return out;
      };
      ops::ActivationForward(backend_.get(), kind, gate, ups, &y);
      ExpectClose(Values(y), forward(g, u), act_, 2, "y", 16);
      ops::ActivationBackward(backend_.get(), kind, dy, gate, ups, &dgate, gated ? &dup : nullptr);
      ExpectClose(Values(dgate),
                  Gradient(g, Values(dy), [&](const Vector& x) { return forward(x, u); }), act_, 2,
                  "dgate", 64);
      if (!gated) continue;
      ExpectClose(Values(dup),
                  Gradient(u, Values(dy), [&](const Vector& x) { return forward(g, x); }), act_, 2,
                  "dup", 64);
    }
  }
}

Vector Norm(const ops::NormShape& shape, const Vector& x, const Vector& weight,
            const Vector& bias) {
  Vector y(x.size());
  const auto width = static_cast<size_t>(shape.width);
  for (size_t r = 0; r < x.size() / width; ++r) {
    double mean = 0, squares = 0;
    for (size_t i = 0; shape.center && i < width; ++i) mean += x[r * width + i] / shape.width;
    for (size_t i = 0; i < width; ++i) squares += std::pow(x[r * width + i] - mean, 2);
    const double inverse = 1 / std::sqrt(squares / shape.width + shape.eps);
    for (size_t i = 0; i < width; ++i) {
      const size_t at = r * width + i;
      y[at] = (x[at] - mean) * inverse;
      if (!weight.empty()) y[at] *= weight[at % weight.size()];
      if (!bias.empty()) y[at] += bias[at % bias.size()];
    }
  }
  return y;
}

TEST_P(FamilyOpsTest, NormsOfEveryKindMatch) {
  for (bool center : {false, true}) {
    for (int64_t weights : {0, 16, 32}) {  // none, one row, a row for each of two heads
      SCOPED_TRACE(testing::Message() << "center " << center << " weights " << weights);
      const ops::NormShape shape = {center, 16, 1e-3f};
      const Tensor x = Random({5, 32}, 1), dy = Random({5, 32}, 2);
      Tensor weight, bias, y = Like(x), dx = Like(x);
      if (weights > 0) weight = Floats({weights}, 3);
      if (weights == 16) bias = Floats({weights}, 4);
      const Tensor* w = weights > 0 ? &weight : nullptr;
      const Tensor* b = weights == 16 ? &bias : nullptr;
      Tensor stats = Empty(backend_.get(), DType::kFloat32, {10, 2});
      const Vector weight_values = w == nullptr ? Vector() : Values(weight);
      const Vector bias_values = b == nullptr ? Vector() : Values(bias);
      auto forward = [&](const Vector& v) { return Norm(shape, v, weight_values, bias_values); };
      ops::NormForward(backend_.get(), shape, x, w, b, &y, &stats);
      ExpectClose(Values(y), forward(Values(x)), act_, 1, "y", 16);
      ops::NormBackward(backend_.get(), shape, dy, x, w, stats, /*accumulate=*/false, &dx);
      const Vector expected = Gradient(Values(x), Values(dy), forward);
      ExpectClose(Values(dx), expected, act_, 2, "dx", 64);
      ops::NormBackward(backend_.get(), shape, dy, x, w, stats, /*accumulate=*/true, &dx);
      Vector twice = expected;
      for (double& value : twice) value *= 2;
      ExpectClose(Values(dx), twice, act_, 3, "dx twice", 64);
    }
  }
}

// Interleaved pairs are the half-split ones after a permutation, and the rest of a head stays.
TEST_P(FamilyOpsTest, PartialRopeIsTheWholeOneOnItsPart) {
  constexpr int64_t kTokens = 6, kLength = 3, kHeads = 2, kHead = 12, kWidth = 8, kOffset = 4;
  const Tensor cos = Floats({kLength, kWidth / 2}, 1), sin = Floats({kLength, kWidth / 2}, 2);
  for (bool interleaved : {false, true}) {
    for (bool inverse : {false, true}) {
      Tensor x = Random({kTokens, kHeads * kHead}, 3);
      Vector expected = Values(x);
      Vector part;
      auto place = [&](int64_t row, int64_t i) {
        const int64_t half = kWidth / 2;
        const int64_t at = interleaved ? (i < half ? 2 * i : 2 * (i - half) + 1) : i;
        return row * kHead + kOffset + at;
      };
      for (int64_t row = 0; row < kTokens * kHeads; ++row) {
        for (int64_t i = 0; i < kWidth; ++i) part.push_back(expected[place(row, i)]);
      }
      part = reference::Rope(part, Values(cos), Values(sin), kLength, kWidth / 2, kHeads, inverse);
      for (int64_t row = 0; row < kTokens * kHeads; ++row) {
        for (int64_t i = 0; i < kWidth; ++i) expected[place(row, i)] = part[row * kWidth + i];
      }
      ops::RopePart(backend_.get(), cos, sin, {kHeads, kHead, kOffset, interleaved}, inverse, &x);
      ExpectClose(Values(x), expected, act_, 1, "x", 4);
    }
  }
}

// Caps, sinks, slopes and values of another size, one row of scores after the other.
Vector Attend(const ops::AttentionShape& shape, const Vector& sinks, const Vector& slopes,
              const Vector& q, const Vector& k, const Vector& v) {
  const int64_t d = shape.head_dim, dv = shape.values(), hq = shape.num_heads;
  const int64_t hkv = shape.num_kv_heads, length = shape.seq_len;
  Vector out(shape.batch * length * hq * dv, 0.0);
  for (int64_t b = 0; b < shape.batch; ++b) {
    for (int64_t h = 0; h < hq; ++h) {
      for (int64_t i = 0; i < length; ++i) {
        const int64_t first = shape.window > 0 ? std::max<int64_t>(0, i - shape.window + 1) : 0;
        double total = sinks.empty() ? 0 : std::exp(sinks[h]);
        std::vector<double> weights;
        for (int64_t j = first; j <= i; ++j) {
          double score = 0;
          for (int64_t c = 0; c < d; ++c) {
            score += q[((b * length + i) * hq + h) * d + c] *
                     k[((b * length + j) * hkv + h / (hq / hkv)) * d + c];
          }
          score *= shape.scale;
          if (shape.softcap > 0) score = shape.softcap * std::tanh(score / shape.softcap);
          if (!slopes.empty()) score += slopes[h] * static_cast<double>(j - i);
          weights.push_back(std::exp(score));
          total += weights.back();
        }
        for (int64_t j = first; j <= i; ++j) {
          for (int64_t c = 0; c < dv; ++c) {
            out[((b * length + i) * hq + h) * dv + c] +=
                weights[j - first] / total * v[((b * length + j) * hkv + h / (hq / hkv)) * dv + c];
          }
        }
      }
    }
  }
  return out;
}

TEST_P(FamilyOpsTest, AttentionWithCapsSinksSlopesAndOtherValueSizesMatches) {
  struct Variant {
    const char* name;
    float softcap;
    bool sinks, slopes;
    int value_dim;
  };
  for (const Variant& variant :
       {Variant{"cap", 1.5f, false, false, 0}, Variant{"sinks", 0, true, false, 0},
        Variant{"cap and sinks", 2.0f, true, false, 0}, Variant{"slopes", 0, false, true, 0},
        Variant{"values", 0, false, false, 4}, Variant{"all", 1.0f, true, true, 12}}) {
    SCOPED_TRACE(variant.name);
    ops::AttentionShape shape;
    shape.batch = 2;
    shape.seq_len = 9;
    shape.num_heads = 4;
    shape.num_kv_heads = 2;
    shape.head_dim = 8;
    shape.window = 5;
    shape.scale = 0.7f;
    shape.softcap = variant.softcap;
    shape.value_dim = variant.value_dim;
    const int64_t t = shape.batch * shape.seq_len;
    const Tensor sinks = Floats({4}, 10), slopes = Floats({4}, 11, 0.5);
    if (variant.sinks) shape.sinks = &sinks;
    if (variant.slopes) shape.slopes = &slopes;
    const Tensor q = Random({t, 32}, 1), k = Random({t, 16}, 2);
    const Tensor v = Random({t, 2 * shape.values()}, 3), dout = Random({t, 4 * shape.values()}, 4);
    Tensor out = Like(dout), dq = Like(q), dk = Like(k), dv = Like(v);
    Tensor lse = Empty(backend_.get(), DType::kFloat32, {2, 4, 9});
    const auto bytes = ops::AttentionBackwardScratchBytes(*backend_, shape);
    Tensor scratch =
        Empty(backend_.get(), DType::kUint8, {std::max<int64_t>(1, static_cast<int64_t>(bytes))});
    const Vector s = variant.sinks ? Values(sinks) : Vector();
    const Vector a = variant.slopes ? Values(slopes) : Vector();
    const Vector qv = Values(q), kv = Values(k), vv = Values(v), d = Values(dout);
    ops::AttentionForward(backend_.get(), shape, q, k, v, &out, &lse);
    ExpectClose(Values(out), Attend(shape, s, a, qv, kv, vv), act_, 2, "out", 16);
    ops::AttentionBackward(backend_.get(), shape, dout, q, k, v, out, lse, &scratch, &dq, &dk, &dv);
    ExpectClose(Values(dq),
                Gradient(qv, d, [&](const Vector& x) { return Attend(shape, s, a, x, kv, vv); }),
                act_, 4, "dq", 64);
    ExpectClose(Values(dk),
                Gradient(kv, d, [&](const Vector& x) { return Attend(shape, s, a, qv, x, vv); }),
                act_, 4, "dk", 64);
    ExpectClose(Values(dv),
                Gradient(vv, d, [&](const Vector& x) { return Attend(shape, s, a, qv, kv, x); }),
                act_, 4, "dv", 64);
  }
}

TEST_P(FamilyOpsTest, GatesScalesCapsAndClipsMatch) {
  const Tensor x = Random({4, 24}, 1, 2.0), dy = Random({4, 24}, 2), b = Random({4, 24}, 3);
  const Vector xv = Values(x), bv = Values(b), d = Values(dy);
  for (int64_t gates : {4, 96}) {
    const Tensor gate = Random({gates}, 4, 2.0);
    const Vector gv = Values(gate);
    auto forward = [&](const Vector& values, const Vector& g) {
      Vector y(values.size());
      for (size_t i = 0; i < y.size(); ++i) {
        y[i] = values[i] / (1 + std::exp(-g[i * g.size() / y.size()]));
      }
      return y;
    };
    Tensor y = Like(x), dx = Like(x), dgate = Like(gate);
    ops::SigmoidGateForward(backend_.get(), x, gate, &y);
    ExpectClose(Values(y), forward(xv, gv), act_, 1, "gated", 8);
    ops::SigmoidGateBackward(backend_.get(), dy, x, gate, &dx, &dgate);
    ExpectClose(Values(dx), Gradient(xv, d, [&](const Vector& v) { return forward(v, gv); }), act_,
                1, "dx", 32);
    ExpectClose(Values(dgate), Gradient(gv, d, [&](const Vector& g) { return forward(xv, g); }),
                act_, 1, "dgate", 64);
  }
  auto map = [&](const std::function<double(size_t)>& f) {
    Vector y(xv.size());
    for (size_t i = 0; i < y.size(); ++i) y[i] = f(i);
    return y;
  };
  Tensor y = Like(x);
  ops::AddScaled(backend_.get(), x, b, 0.25f, &y);
  ExpectClose(Values(y), map([&](size_t i) { return xv[i] + 0.25 * bv[i]; }), act_, 1, "sum", 4);
  ops::Scale(backend_.get(), x, 3.0f, &y);
  ExpectClose(Values(y), map([&](size_t i) { return 3 * xv[i]; }), act_, 1, "scaled", 4);
  ops::SoftCap(backend_.get(), x, 1.5f, &y);
  ExpectClose(Values(y), map([&](size_t i) { return 1.5 * std::tanh(xv[i] / 1.5); }), act_, 1,
              "capped", 8);
  ops::Clip(backend_.get(), x, 0.75f, &y);
  ExpectClose(Values(y), map([&](size_t i) { return std::clamp(xv[i], -0.75, 0.75); }), act_, 1,
              "clipped");
  ops::ClipBackward(backend_.get(), dy, x, 0.75f, &y);
  ExpectClose(Values(y), map([&](size_t i) { return std::fabs(xv[i]) <= 0.75 ? d[i] : 0.0; }), act_,
              1, "clip's slope");
}

TEST_P(FamilyOpsTest, XieluMatchesItsFormulaAndSlope) {
  const Tensor positive = Floats({1}, 1), negative = Floats({1}, 2);
  const float beta_value = 0.5f, epsilon_value = -1e-6f;
  const Tensor beta = reference::Upload(backend_.get(), DType::kFloat32, {1}, {beta_value});
  const Tensor epsilon = reference::Upload(backend_.get(), DType::kFloat32, {1}, {epsilon_value});
  const ops::XieluParameters parameters = {&positive, &negative, &beta, &epsilon};
  const double above = std::log1p(std::exp(Values(positive)[0]));
  const double below = beta_value + std::log1p(std::exp(Values(negative)[0]));
  auto forward = [&](const Vector& x) {
    Vector y(x.size());
    for (size_t i = 0; i < y.size(); ++i) {
      y[i] = beta_value * x[i] +
             (x[i] > 0 ? above * x[i] * x[i]
                       : below * (std::expm1(std::min<double>(x[i], epsilon_value)) - x[i]));
    }
    return y;
  };
  const Tensor x = Random({5, 40}, 3, 2.0), dy = Random({5, 40}, 4);
  Tensor y = Like(x), dx = Like(x);
  ops::XieluForward(backend_.get(), parameters, x, &y);
  ExpectClose(Values(y), forward(Values(x)), act_, 2, "y", 32);
  ops::XieluBackward(backend_.get(), parameters, dy, x, &dx);
  ExpectClose(Values(dx), Gradient(Values(x), Values(dy), forward), act_, 2, "dx", 64);
}

TEST_P(FamilyOpsTest, ScaleByMultipliesByATensor) {
  const Tensor x = Random({3, 20}, 1), factor = Floats({1}, 2);
  Tensor y = Like(x);
  ops::ScaleBy(backend_.get(), x, factor, &y);
  Vector expected = Values(x);
  for (double& value : expected) value *= Values(factor)[0];
  ExpectClose(Values(y), expected, act_, 1, "y", 4);
}

// Element i of head h, wherever it lies; what a head does not have is shared or summed.
TEST_P(FamilyOpsTest, PartsOfHeadsAreCopiedSharedAndSummed) {
  constexpr int64_t kRows = 3, kWidth = 5;
  for (const auto& [from_count, to_count] : {std::pair<int, int>{4, 4}, {1, 4}, {4, 1}, {1, 1}}) {
    for (ops::CopyMode mode :
         {ops::CopyMode::kPart, ops::CopyMode::kClearRest, ops::CopyMode::kAdd}) {
      SCOPED_TRACE(testing::Message()
                   << from_count << " to " << to_count << ", mode " << static_cast<int>(mode));
      const ops::HeadsShape from_heads = {from_count, 9, 3}, to_heads = {to_count, 7, 1};
      const Tensor from = Random({kRows, from_count * 9}, 1);
      Tensor to = Random({kRows, to_count * 7}, 2);
      Vector expected = Values(to);
      const Vector source = Values(from);
      if (mode == ops::CopyMode::kClearRest) std::fill(expected.begin(), expected.end(), 0.0);
      for (int64_t t = 0; t < kRows; ++t) {
        for (int h = 0; h < to_count; ++h) {
          for (int64_t i = 0; i < kWidth; ++i) {
            double sum = 0;
            for (int f = 0; f < from_count; ++f) {
              if (to_count > 1 && from_count > 1 && f != h) continue;
              sum += source[(t * from_count + f) * 9 + 3 + i];
            }
            double& target = expected[(t * to_count + h) * 7 + 1 + i];
            target = mode == ops::CopyMode::kAdd ? target + sum : sum;
          }
        }
      }
      ops::CopyHeads(backend_.get(), kWidth, from_heads, from, mode, to_heads, &to);
      ExpectClose(Values(to), expected, act_, 2, "to", 4);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, FamilyOpsTest, testing::ValuesIn(reference::DeviceCases()),
                         [](const auto& info) { return reference::DeviceCaseName(info.param); });

}  // namespace
}  // namespace uniquanf
