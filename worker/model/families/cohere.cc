// Cohere's Command-R, Aya, Command-R7B, Command-A: attention and MLP side by side behind one layer
// norm without bias, interleaved rotary pairs, scaled logits. Sources: Hugging Face
// modeling_cohere, modeling_cohere2.
#include <utility>

#include "common/base/status.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

absl::StatusOr<CommonFields> Read(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 256000;
  defaults.max_positions = 8192;
  defaults.names.eps = "layer_norm_eps";
  defaults.norm_eps = 1e-5;
  defaults.theta = 5e5;
  defaults.tied = true;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  UseLayerNorm(/*bias=*/false, &common);
  BlockTraits& block = common.block;
  block.parallel = true;
  block.mlp_input_norm = "";
  block.attention.rope_interleaved = true;
  UQ_ASSIGN_OR_RETURN(block.attention.qkv_bias, fields.Boolean("attention_bias", false));
  block.attention.o_bias = block.attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(common.model.ends.logit_scale, ReadFactor(fields, "logit_scale", 0.0625));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, block.attention.head_dim));
  common.model.ropes = {rope};
  return common;
}

absl::StatusOr<ModelConfig> ParseCohere(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields));
  UQ_ASSIGN_OR_RETURN(const bool head_norm, fields.Boolean("use_qk_norm", false));
  if (head_norm) common.block.attention.head_norm = AttentionTraits::HeadNorm::kPerHead;
  return BuildLayers(std::move(common));
}

// Only layers with a window have a rotary embedding.
absl::StatusOr<ModelConfig> ParseCohere2(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields));
  UQ_ASSIGN_OR_RETURN(
      const int64_t pattern,
      fields.Integer(fields.FirstOf({"sliding_window_pattern", "_sliding_window_pattern"}), 4, 1,
                     kMaxLayers));
  UQ_ASSIGN_OR_RETURN(const std::vector<int64_t> windows,
                      ReadWindows(fields, common.model.num_layers, 4096,
                                  [&](int layer) { return (layer + 1) % pattern != 0; }));
  return BuildLayers(std::move(common), [&](int layer, BlockTraits* block) {
    block->attention.window = windows[layer];
    if (windows[layer] == 0) block->attention.rope_table = -1;
  });
}

constexpr Family kFamilies[] = {
    {"cohere", "CohereForCausalLM", ParseCohere},
    {"cohere2", "Cohere2ForCausalLM", ParseCohere2},
};

}  // namespace

absl::Span<const Family> cohere();
absl::Span<const Family> cohere() { return kFamilies; }

}  // namespace uniquanf::families
