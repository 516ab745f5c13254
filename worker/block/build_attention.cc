// Attention of block_traits.h as tensors and nodes.
#include <cmath>

#include "worker/block/block_builder.h"

namespace uniquanf {

// Part 0, 1, 2: q, k, v.
BlockBuilder::Part AttentionBuilder::QkvPart(int part) const {
  const int64_t d = t_.head_dim, q = t_.num_heads * d, kv = t_.num_kv_heads * d;
  const int64_t group = q / t_.num_kv_heads;
  switch (t_.fused) {
    case AttentionTraits::Fused::kNone:
      break;
    case AttentionTraits::Fused::kInOrder: {
      const int64_t offset = part == 0 ? 0 : q + (part - 1) * kv;
      return {t_.fused_module, q + 2 * kv, offset, part == 0 ? q : kv, q + 2 * kv};
    }
    case AttentionTraits::Fused::kPerGroup: {
      const int64_t offset = part == 0 ? 0 : group + (part - 1) * d;
      return {t_.fused_module, q + 2 * kv, offset, part == 0 ? group : d, group + 2 * d};
    }
    case AttentionTraits::Fused::kPerHead:
      return {t_.fused_module, 3 * q, part * d, d, 3 * d};
  }
  return {};
}

BlockBuilder::Norm AttentionBuilder::AddHeadNorm(const std::string& module, int64_t heads) {
  switch (t_.head_norm) {
    case AttentionTraits::HeadNorm::kNone:
      break;
    case AttentionTraits::HeadNorm::kShared:
      return b_.AddNorm(module, t_.head_norm_kind, {t_.head_dim});
    case AttentionTraits::HeadNorm::kPerHead:
      return b_.AddNorm(module, t_.head_norm_kind, {heads, t_.head_dim});
    case AttentionTraits::HeadNorm::kProjection:
      return b_.AddNorm(module, t_.head_norm_kind, {heads * t_.head_dim});
  }
  return {};
}

void AttentionBuilder::AddTensors() {
  q_norm_ = AddHeadNorm(t_.q_norm, t_.num_heads);
  k_norm_ = AddHeadNorm(t_.k_norm, t_.num_kv_heads);
  if (t_.value_norm) {
    NormTraits kind = t_.head_norm_kind;
    kind.weight = kind.bias = false;
    v_norm_ = b_.AddNorm("v_norm", kind, {value_dim()});
  }
  if (!t_.sinks.empty()) sinks_ = b_.AddVector(t_.sinks, {t_.num_heads});
  if (!t_.alibi.empty()) slopes_ = b_.AddConstant(t_.alibi);
  if (t_.latent.kv_rank > 0) {
    AddLatentTensors();
    return;
  }
  const int64_t h = b_.hidden_size(), d = t_.head_dim, dv = value_dim();
  const int64_t q_width = t_.num_heads * d * (t_.output_gate ? 2 : 1);
  q_ = b_.AddLinear(t_.q, q_width, h, t_.qkv_bias, QkvPart(0), t_.transposed);
  k_ = b_.AddLinear(t_.k, t_.num_kv_heads * d, h, t_.qkv_bias, QkvPart(1), t_.transposed);
  if (!t_.v.empty()) {
    v_ = b_.AddLinear(t_.v, t_.num_kv_heads * dv, h, t_.qkv_bias, QkvPart(2), t_.transposed);
  }
  o_ = b_.AddLinear(t_.o, h, t_.num_heads * dv, t_.o_bias, {}, t_.transposed);
}

int AttentionBuilder::Rope(int in, int num_heads) {
  return b_.Rope(in, t_.rope_table, {num_heads, t_.head_dim, 0, t_.rope_interleaved});
}

int AttentionBuilder::AddNodes(int in) {
  if (t_.latent.kv_rank > 0) return AddLatentNodes(in);
  in = b_.Scale(in, t_.in_factor);
  // Last to first: gradients of the input are then added in the order q, k, v.
  int values = v_.weight < 0 ? -1 : b_.Apply(v_, in);
  int keys = b_.Scale(b_.Apply(k_, in), t_.key_factor);
  if (values < 0) values = keys;
  values = b_.Scale(b_.Clip(b_.Apply(v_norm_, values), t_.clip), t_.value_scale);
  int queries = b_.Apply(q_, in);
  int gate = -1;
  if (t_.output_gate) {
    gate = b_.Slice(queries, t_.num_heads, 2 * t_.head_dim, t_.head_dim, t_.head_dim);
    queries = b_.Slice(queries, t_.num_heads, 2 * t_.head_dim, 0, t_.head_dim);
  }
  if (!t_.norm_after_rope) {
    queries = b_.Apply(q_norm_, queries);
    keys = b_.Apply(k_norm_, keys);
  }
  queries = b_.Clip(queries, t_.clip);
  keys = b_.Clip(keys, t_.clip);
  queries = Rope(queries, t_.num_heads);
  keys = Rope(keys, t_.num_kv_heads);
  if (t_.norm_after_rope) {
    queries = b_.Apply(q_norm_, queries);
    keys = b_.Apply(k_norm_, keys);
  }
  int out = Attend(queries, keys, values, value_dim());
  if (gate >= 0) out = b_.Gate(out, gate);
  return b_.Scale(b_.Apply(o_, out), t_.out_factor);
}

int AttentionBuilder::Attend(int queries, int keys, int values, int64_t value_dim) {
  ops::AttentionShape shape;
  shape.num_heads = t_.num_heads;
  shape.num_kv_heads = t_.num_kv_heads;
  shape.head_dim = t_.head_dim;
  if (value_dim != t_.head_dim) shape.value_dim = static_cast<int>(value_dim);
  shape.window = t_.window;
  shape.softcap = t_.softcap;
  shape.scale = t_.scale != 0
                    ? t_.scale
                    : static_cast<float>(1.0 / std::sqrt(static_cast<double>(t_.head_dim)));
  const int out = b_.AddSlot(t_.num_heads * value_dim);
  b_.Append(AttentionNode{queries, keys, values, out, shape, sinks_, slopes_});
  return out;
}

// A key is [content; position], the position's part shared by all heads.
void AttentionBuilder::AddLatentTensors() {
  const LatentTraits& l = t_.latent;
  const int64_t h = b_.hidden_size(), heads = t_.num_heads;
  NormTraits kind = norm_;
  kind.eps = l.norm_eps;
  const int64_t content = t_.head_dim - l.rope_dim;
  if (l.q_rank > 0) {
    latent_q_norm_ = b_.AddNorm(l.q_a_norm, kind, {l.q_rank});
    latent_q_ = b_.AddLinear(l.q_a, l.q_rank, h, t_.qkv_bias, {}, false);
    q_ = b_.AddLinear(l.q_b, heads * t_.head_dim, l.q_rank, false, {}, false);
  } else {
    q_ = b_.AddLinear(t_.q, heads * t_.head_dim, h, false, {}, false);
  }
  latent_kv_norm_ = b_.AddNorm(l.kv_a_norm, kind, {l.kv_rank});
  latent_kv_ = b_.AddLinear(l.kv_a, l.kv_rank + l.rope_dim, h, t_.qkv_bias, {}, false);
  expand_ = b_.AddLinear(l.kv_b, heads * (content + t_.value_dim), l.kv_rank, false, {}, false);
  o_ = b_.AddLinear(t_.o, h, heads * t_.value_dim, t_.o_bias, {}, false);
}

int AttentionBuilder::AddLatentNodes(int in) {
  const LatentTraits& l = t_.latent;
  const int heads = t_.num_heads;
  const int64_t content = t_.head_dim - l.rope_dim, expanded = content + t_.value_dim;
  const int latent = b_.Apply(latent_kv_, in);
  const int64_t latent_width = l.kv_rank + l.rope_dim;
  const int compressed = b_.Apply(latent_kv_norm_, b_.Slice(latent, 1, latent_width, 0, l.kv_rank));
  const int position = b_.Rope(b_.Slice(latent, 1, latent_width, l.kv_rank, l.rope_dim),
                               t_.rope_table, {1, l.rope_dim, 0, t_.rope_interleaved});
  const int both = b_.Apply(expand_, compressed);
  const int keys =
      b_.Join(b_.Slice(both, heads, expanded, 0, content), position, heads, /*b_shared=*/true);
  const int values = b_.Slice(both, heads, expanded, content, t_.value_dim);
  int queries = in;
  if (l.q_rank > 0) queries = b_.Apply(latent_q_norm_, b_.Apply(latent_q_, queries));
  queries = b_.Rope(b_.Apply(q_, queries), t_.rope_table,
                    {heads, t_.head_dim, static_cast<int>(content), t_.rope_interleaved});
  return b_.Apply(o_, Attend(queries, keys, values, t_.value_dim));
}

}  // namespace uniquanf
