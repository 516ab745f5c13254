#include "tests/unit/worker/ops/block_reference.h"

#include <cmath>

namespace uniquanf::reference {

Vector BlockForward(const BlockConfig& config, const BlockValues& weights, const Vector& x,
                    const Vector& cos, const Vector& sin, int64_t batch, int64_t seq_len) {
  const int64_t t = batch * seq_len;
  auto project = [&](uniquanf::Linear linear, const Vector& input) {
    const auto [n, k] = config.LinearShape(linear);
    const int i = static_cast<int>(linear);
    return reference::Linear(input, weights.linear[i], weights.bias[i], t, n, k);
  };
  const Vector norm1 = RmsNorm(x, weights.input_norm, config.rms_norm_eps);
  Vector q = project(uniquanf::Linear::kQ, norm1), k = project(uniquanf::Linear::kK, norm1);
  const Vector v = project(uniquanf::Linear::kV, norm1);
  if (config.qk_norm) {
    q = RmsNorm(q, weights.q_norm, config.rms_norm_eps);
    k = RmsNorm(k, weights.k_norm, config.rms_norm_eps);
  }
  q = Rope(q, cos, sin, seq_len, config.head_dim / 2, config.num_heads, false);
  k = Rope(k, cos, sin, seq_len, config.head_dim / 2, config.num_kv_heads, false);
  ops::AttentionShape shape;
  shape.batch = batch;
  shape.seq_len = seq_len;
  shape.num_heads = config.num_heads;
  shape.num_kv_heads = config.num_kv_heads;
  shape.head_dim = config.head_dim;
  shape.window = config.window;
  shape.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config.head_dim)));
  Vector hidden = project(uniquanf::Linear::kO, AttentionForward(shape, q, k, v).out);
  for (size_t i = 0; i < hidden.size(); ++i) hidden[i] += x[i];
  const Vector norm2 = RmsNorm(hidden, weights.post_norm, config.rms_norm_eps);
  Vector y = project(uniquanf::Linear::kDown, SwiGlu(project(uniquanf::Linear::kGate, norm2),
                                                     project(uniquanf::Linear::kUp, norm2)));
  for (size_t i = 0; i < y.size(); ++i) y[i] += hidden[i];
  return y;
}

}  // namespace uniquanf::reference
