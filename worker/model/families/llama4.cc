// Llama 4 (text): one expert a token beside a shared one, whose weight multiplies the expert's
// input; every fourth layer without rotary embedding. Source: Hugging Face modeling_llama4.
#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "worker/model/expert_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

// Layers with experts: those of moe_layers or every interleave_moe_layer_step-th.
absl::StatusOr<std::vector<bool>> ReadMoeLayers(const Fields& fields, int num_layers) {
  UQ_ASSIGN_OR_RETURN(const int64_t step,
                      fields.Integer("interleave_moe_layer_step", 1, 1, kMaxLayers));
  std::vector<bool> sparse(num_layers, false);
  const nlohmann::json* list = fields.Find("moe_layers");
  if (list == nullptr) {
    for (int64_t layer = step - 1; layer < num_layers; layer += step) sparse[layer] = true;
    return sparse;
  }
  const absl::Status wrong = ConfigError("field moe_layers must be an array of layers' numbers");
  if (!list->is_array()) return wrong;
  for (const nlohmann::json& layer : *list) {
    if (!layer.is_number_integer() || layer < 0 || layer >= num_layers) return wrong;
    sparse[layer.get<int>()] = true;
  }
  return sparse;
}

absl::Status UseExperts(const Fields& fields, CommonFields* common) {
  ExpertNumbers numbers;
  numbers.experts = "num_local_experts";
  numbers.default_experts = 16;
  numbers.default_chosen = 1;
  numbers.size = "intermediate_size";
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, common));
  ExpertsTraits& experts = common->block.experts;
  experts.router.sigmoid = true;
  experts.router_module = "feed_forward.router";
  experts.experts = "feed_forward.experts.";
  experts.stacked_gate_up = "feed_forward.experts.gate_up_proj";
  experts.stacked_down = "feed_forward.experts.down_proj";
  experts.stacked_transposed = true;
  experts.scale_input = true;
  UseSharedExperts("feed_forward.shared_expert", 1, &experts);
  return absl::OkStatus();
}

// Attention in chunks, and scores that grow with the position, differ from what is done here for
// longer sequences only.
absl::Status LimitLength(const Fields& fields, ModelConfig* model) {
  UQ_ASSIGN_OR_RETURN(const int64_t chunk,
                      fields.Integer("attention_chunk_size", 8192, 1, kMaxPositions));
  UQ_ASSIGN_OR_RETURN(const bool tuned, fields.Boolean("attn_temperature_tuning", true));
  UQ_ASSIGN_OR_RETURN(const int64_t floor, fields.Integer("floor_scale", 8192, 2, kMaxPositions));
  model->max_position_embeddings = std::min(model->max_position_embeddings, chunk);
  if (tuned) {
    model->max_position_embeddings = std::min(model->max_position_embeddings, floor - 1);
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> ParseLlama4(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 202048;
  defaults.kv_heads = 8;
  defaults.head_dim = 128;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.theta = 5e5;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  const int num_layers = common.model.num_layers;
  UQ_RETURN_IF_ERROR(LimitLength(fields, &common.model));
  UQ_RETURN_IF_ERROR(UseExperts(fields, &common));
  BlockTraits& block = common.block;
  UQ_ASSIGN_OR_RETURN(block.mlp.size,
                      fields.Integer("intermediate_size_mlp", 16384, 1, kMaxIntermediate));
  block.mlp.gate = "feed_forward.gate_proj";
  block.mlp.up = "feed_forward.up_proj";
  block.mlp.down = "feed_forward.down_proj";
  AttentionTraits& attention = block.attention;
  UQ_ASSIGN_OR_RETURN(attention.qkv_bias, fields.Boolean("attention_bias", false));
  attention.o_bias = attention.qkv_bias;
  attention.rope_interleaved = attention.norm_after_rope = true;
  attention.head_norm_kind.weight = false;
  UQ_ASSIGN_OR_RETURN(const bool head_norm, fields.Boolean("use_qk_norm", true));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, attention.head_dim));
  common.model.ropes = {rope};
  UQ_ASSIGN_OR_RETURN(const std::vector<bool> sparse, ReadMoeLayers(fields, num_layers));
  UQ_ASSIGN_OR_RETURN(const int64_t interval,
                      fields.Integer("no_rope_layer_interval", 4, 1, kMaxLayers));
  UQ_ASSIGN_OR_RETURN(const std::vector<int> rotates,
                      ReadByLayer(fields, "no_rope_layers", num_layers));
  return BuildExpertLayers(
      std::move(common), [&](int layer) { return !sparse[layer]; },
      [&](int layer, BlockTraits* b) {
        const bool rotated = rotates.empty() ? (layer + 1) % interval != 0 : rotates[layer] != 0;
        if (!rotated) {
          b->attention.rope_table = -1;
        } else if (head_norm) {
          b->attention.head_norm = AttentionTraits::HeadNorm::kShared;
        }
      });
}

constexpr Family kFamilies[] = {
    {"llama4_text", "Llama4ForCausalLM", ParseLlama4},
};

}  // namespace

absl::Span<const Family> llama4();
absl::Span<const Family> llama4() { return kFamilies; }

}  // namespace uniquanf::families
