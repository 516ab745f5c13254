#include "worker/block/block_traits.h"

#include "worker/block/block_builder.h"

namespace uniquanf {

BlockSpec BuildBlock(const BlockTraits& traits) {
  BlockBuilder b(traits.hidden_size);
  AttentionBuilder attention_builder(traits, &b);
  RecurrentBuilder recurrent_builder(traits, &b);
  FeedBuilder feed_builder(traits, &b);
  const BlockBuilder::Norm attention_input_norm =
      b.AddNorm(traits.attention_input_norm, traits.norm);
  const BlockBuilder::Norm attention_output_norm =
      b.AddNorm(traits.attention_output_norm, traits.norm);
  const BlockBuilder::Norm mlp_input_norm = b.AddNorm(traits.mlp_input_norm, traits.norm);
  const BlockBuilder::Norm mlp_output_norm = b.AddNorm(traits.mlp_output_norm, traits.norm);
  const bool attends = traits.attention.num_heads > 0;
  const bool feeds = traits.mlp.size > 0 || traits.experts.router.num_experts > 0;
  const bool recurs = traits.recurrent.kind != RecurrentTraits::Kind::kNone;
  if (attends) attention_builder.AddTensors();
  if (recurs) recurrent_builder.AddTensors();
  feed_builder.AddTensors();

  const int output_scale = traits.output_scale.empty() ? -1 : b.AddVector(traits.output_scale, {1});
  const int input = b.input();
  const float factor = traits.residual_factor;
  const int attention_input = b.Apply(attention_input_norm, input);
  int out = input;
  if (attends || recurs) {
    const int recurrent = recurs ? recurrent_builder.AddNodes(attention_input) : -1;
    int mixed = attends ? attention_builder.AddNodes(attention_input) : recurrent;
    if (attends && recurs) mixed = b.Add(recurrent, mixed);
    out = b.Add(input, b.Apply(attention_output_norm, mixed), factor);
  }
  if (feeds) {
    const int residual = traits.parallel ? input : out;
    const int mlp_input = traits.parallel && !mlp_input_norm.in_use
                              ? attention_input
                              : b.Apply(mlp_input_norm, residual);
    const int mlp = b.Apply(mlp_output_norm, feed_builder.AddNodes(mlp_input, residual));
    out = b.Add(out, mlp, factor);
  }
  if (output_scale >= 0) b.ScaleBy(out, output_scale);
  return b.Take();
}

}  // namespace uniquanf
