// Mixers without attention of block_traits.h as tensors and nodes.
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/block/block_builder.h"

namespace uniquanf {

using Kind = RecurrentTraits::Kind;

// Rows [offset, offset + count) of the convolution's `total` channels.
RecurrentBuilder::Conv RecurrentBuilder::AddConv(const std::string& module, int64_t offset,
                                                 int64_t count, int64_t total) {
  TensorSpec weight;
  weight.shape = {count, t_.taps};
  weight.stored.name = absl::StrCat(module, ".weight");
  weight.stored.shape = {total, 1, t_.taps};
  if (count < total) {
    weight.stored.row_offset = offset;
    weight.stored.row_run = count;
    weight.stored.row_period = total;
  }
  TensorSpec bias = weight;
  Conv conv = {b_.AddTensor(std::move(weight)), -1};
  if (t_.conv_bias) {
    bias.shape = {count};
    bias.stored.name = absl::StrCat(module, ".bias");
    bias.stored.shape = {total};
    conv.bias = b_.AddTensor(std::move(bias));
  }
  return conv;
}

void RecurrentBuilder::AddTensors() {
  const std::string& m = t_.module;
  const int64_t h = b_.hidden_size(), keys = keys_width(), values = values_width();
  const int64_t heads = t_.num_heads;
  if (t_.kind == Kind::kConvolution) {
    in_ = b_.AddLinear(m + ".in_proj", 3 * h, h, t_.bias, {}, false);
    conv_[0] = AddConv(m + ".conv", 0, h, h);
    out_ = b_.AddLinear(m + ".out_proj", h, h, t_.bias, {}, false);
    return;
  }
  const int64_t channels = 2 * keys + values;
  // q, k, v, as they lie in the convolution: v comes first in a state space.
  const int64_t first = t_.kind == Kind::kStateSpace ? values : 0;
  if (t_.kind == Kind::kStateSpace) {
    in_ = b_.AddLinear(m + ".in_proj", 2 * values + 2 * keys + heads, h, t_.bias, {}, false);
    conv_[0] = AddConv(m + ".conv1d", values + keys, keys, channels);
    skip_ = b_.AddVector(m + ".D", {heads});
  } else {
    if (t_.joined) {
      in_ = b_.AddLinear(m + ".in_proj_qkvz", 2 * keys + 2 * values, h, t_.bias, {}, false);
      ba_ = b_.AddMatrix(m + ".in_proj_ba", 2 * heads, h);
    } else {
      in_ = b_.AddLinear(m + ".in_proj_qkv", channels, h, t_.bias, {}, false);
      z_ = b_.AddLinear(m + ".in_proj_z", values, h, t_.bias, {}, false);
      ba_ = b_.AddMatrix(m + ".in_proj_b", heads, h);
      a_ = b_.AddMatrix(m + ".in_proj_a", heads, h);
    }
    conv_[0] = AddConv(m + ".conv1d", 0, keys, channels);
  }
  conv_[1] = AddConv(m + ".conv1d", first == 0 ? keys : values, keys, channels);
  conv_[2] = AddConv(m + ".conv1d", first == 0 ? 2 * keys : 0, values, channels);
  a_log_ = b_.AddVector(m + ".A_log", {heads});
  dt_bias_ = b_.AddVector(m + ".dt_bias", {heads});
  if (t_.gated_norm) {
    const bool by_head = t_.kind == Kind::kDelta;
    norm_ = b_.AddNorm(m + ".norm", t_.norm, {by_head ? t_.value_dim : values});
    if (!by_head) norm_.shape.width = values / t_.norm_groups;
  }
  out_ = b_.AddLinear(m + ".out_proj", h, values, t_.bias, {}, false);
}

int RecurrentBuilder::Convolve(int in, const Conv& conv) {
  const int out = b_.AddSlot(b_.width(in));
  b_.Append(ConvNode{in, out, conv.weight, conv.bias});
  return out;
}

int RecurrentBuilder::ConvolveAndActivate(int in, const Conv& conv) {
  const int convolved = Convolve(in, conv), out = b_.AddSlot(b_.width(in));
  b_.Append(ActivationNode{ops::Activation::kSilu, convolved, -1, out});
  return out;
}

int RecurrentBuilder::Multiply(ops::Activation kind, int gate, int in) {
  const int out = b_.AddSlot(b_.width(in));
  b_.Append(ActivationNode{kind, gate, in, out});
  return out;
}

// out_proj(c · conv(b · x)), [b; c; x] from one projection.
int RecurrentBuilder::AddConvolutionNodes(int in) {
  const int64_t h = b_.hidden_size();
  const int all = b_.Apply(in_, in);
  const int x = b_.Slice(all, 1, 3 * h, 2 * h, h), c = b_.Slice(all, 1, 3 * h, h, h);
  const int b = b_.Slice(all, 1, 3 * h, 0, h);
  const int mixed = Convolve(Multiply(ops::Activation::kIdentity, b, x), conv_[0]);
  return b_.Apply(out_, Multiply(ops::Activation::kIdentity, c, mixed));
}

RecurrentBuilder::Parts RecurrentBuilder::Project(int in) {
  const int64_t keys = keys_width(), values = values_width();
  const int heads = t_.num_heads, groups = t_.num_key_heads;
  Parts p;
  if (t_.kind == Kind::kStateSpace) {
    const int all = b_.Apply(in_, b_.Scale(in, t_.in_factor));
    const int64_t width = 2 * values + 2 * keys + heads;
    const auto part = [&](int64_t offset, int64_t count, float factor) {
      return b_.Scale(b_.Slice(all, 1, width, offset, count), factor);
    };
    p.z = part(0, values, t_.factors[0]);
    p.v = part(values, values, t_.factors[1]);
    p.k = part(2 * values, keys, t_.factors[2]);
    p.q = part(2 * values + keys, keys, t_.factors[3]);
    p.a = part(2 * values + 2 * keys, heads, t_.factors[4]);
    return p;
  }
  const int all = b_.Apply(in_, in), gates = b_.Apply(ba_, in);
  if (!t_.joined) {
    p.q = b_.Slice(all, 1, 2 * keys + values, 0, keys);
    p.k = b_.Slice(all, 1, 2 * keys + values, keys, keys);
    p.v = b_.Slice(all, 1, 2 * keys + values, 2 * keys, values);
    p.z = b_.Apply(z_, in);
    p.b = gates;
    p.a = b_.Apply(a_, in);
    return p;
  }
  // By key head: [q; k; v …; z …] and [b …; a …].
  const int64_t k = t_.key_dim, shared = heads / groups, v = shared * t_.value_dim;
  const int64_t size = 2 * k + 2 * v;
  p.q = b_.Slice(all, groups, size, 0, k);
  p.k = b_.Slice(all, groups, size, k, k);
  p.v = b_.Slice(all, groups, size, 2 * k, v);
  p.z = b_.Slice(all, groups, size, 2 * k + v, v);
  p.b = b_.Slice(gates, groups, 2 * shared, 0, shared);
  p.a = b_.Slice(gates, groups, 2 * shared, shared, shared);
  return p;
}

// x / √(Σ x² + ε) of each head, times `factor`.
int RecurrentBuilder::Normalize(int in, float factor) {
  constexpr double kEpsilon = 1e-6;
  BlockBuilder::Norm norm;
  norm.in_use = true;
  norm.shape = {false, t_.key_dim, static_cast<float>(kEpsilon / t_.key_dim)};
  const double root = std::sqrt(static_cast<double>(t_.key_dim));
  return b_.Scale(b_.Apply(norm, in), static_cast<float>(factor / root));
}

int RecurrentBuilder::AddNodes(int in) {
  if (t_.kind == Kind::kConvolution) return AddConvolutionNodes(in);
  Parts p = Project(in);
  p.q = ConvolveAndActivate(p.q, conv_[0]);
  p.k = ConvolveAndActivate(p.k, conv_[1]);
  p.v = ConvolveAndActivate(p.v, conv_[2]);
  const bool delta = t_.kind == Kind::kDelta;
  if (delta) {
    p.q = Normalize(p.q, static_cast<float>(1 / std::sqrt(static_cast<double>(t_.key_dim))));
    p.k = Normalize(p.k, 1);
  }
  ops::RecurrenceShape shape;
  shape.num_heads = t_.num_heads;
  shape.num_key_heads = t_.num_key_heads;
  shape.key_dim = t_.key_dim;
  shape.value_dim = t_.value_dim;
  shape.delta = delta;
  shape.low = t_.low;
  shape.high = t_.high;
  int out = b_.AddSlot(values_width());
  b_.Append(RecurrenceNode{p.q, p.k, p.v, p.a, p.b, out, shape, a_log_, dt_bias_, skip_});
  if (t_.norm_before_gate) {
    out = Multiply(ops::Activation::kSilu, p.z, b_.Apply(norm_, out));
  } else {
    out = b_.Apply(norm_, Multiply(ops::Activation::kSilu, p.z, out));
  }
  return b_.Scale(b_.Apply(out_, out), t_.out_factor);
}

}  // namespace uniquanf
