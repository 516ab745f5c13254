#include "tests/unit/worker/ops/block_reference.h"

#include <cmath>

namespace uniquanf::reference {

Vector BlockForward(const BlockTraits& traits, const BlockValues& weights, const Vector& x,
                    const Vector& cos, const Vector& sin, int64_t batch, int64_t seq_len) {
  const int64_t t = batch * seq_len;
  const BlockSpec spec = BuildBlock(traits);
  const AttentionTraits& attention = traits.attention;
  auto tensor = [&](const std::string& module, const char* part) {
    const int index = spec.FindTensor(module + part);
    return index < 0 ? Vector() : weights[index];
  };
  auto project = [&](const std::string& module, const Vector& input) {
    const auto [n, k] = spec.LinearShape(spec.FindLinear(module));
    return reference::Linear(input, tensor(module, ".weight"), tensor(module, ".bias"), t, n, k);
  };
  auto norm = [&](const std::string& module, const Vector& input) {
    return RmsNorm(input, tensor(module, ".weight"), traits.norm.eps);
  };
  const Vector norm1 = norm(traits.attention_input_norm, x);
  Vector q = project(attention.q, norm1), k = project(attention.k, norm1);
  const Vector v = project(attention.v, norm1);
  if (attention.head_norm != AttentionTraits::HeadNorm::kNone) {
    q = norm(attention.q_norm, q);
    k = norm(attention.k_norm, k);
  }
  q = Rope(q, cos, sin, seq_len, attention.head_dim / 2, attention.num_heads, false);
  k = Rope(k, cos, sin, seq_len, attention.head_dim / 2, attention.num_kv_heads, false);
  ops::AttentionShape shape;
  shape.batch = batch;
  shape.seq_len = seq_len;
  shape.num_heads = attention.num_heads;
  shape.num_kv_heads = attention.num_kv_heads;
  shape.head_dim = attention.head_dim;
  shape.window = attention.window;
  shape.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(attention.head_dim)));
  Vector hidden = project(attention.o, AttentionForward(shape, q, k, v).out);
  for (size_t i = 0; i < hidden.size(); ++i) hidden[i] += x[i];
  const Vector norm2 = norm(traits.mlp_input_norm, hidden);
  Vector y = project(traits.mlp.down,
                     SwiGlu(project(traits.mlp.gate, norm2), project(traits.mlp.up, norm2)));
  for (size_t i = 0; i < y.size(); ++i) y[i] += hidden[i];
  return y;
}

}  // namespace uniquanf::reference
