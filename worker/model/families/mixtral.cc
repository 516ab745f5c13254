// Mixtral: Mistral's attention and a sparse mixture of gated experts in every layer; the router's
// softmax over all experts is normalized over the chosen ones. Source: Hugging Face
// modeling_mixtral.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

absl::StatusOr<ModelConfig> ParseMixtral(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 32000;
  defaults.kv_heads = 8;
  defaults.max_positions = 131072;
  defaults.theta = 1e6;
  defaults.norm_eps = 1e-5;
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  BlockTraits& block = common.block;
  ExpertsTraits& experts = block.experts;
  experts.size = std::exchange(block.mlp.size, 0);
  UQ_ASSIGN_OR_RETURN(experts.router.num_experts,
                      ReadNumExperts(fields, "num_local_experts", 8, common.model.num_layers));
  UQ_ASSIGN_OR_RETURN(experts.router.top_k,
                      fields.Integer("num_experts_per_tok", 2, 1, experts.router.num_experts));
  experts.router.normalize = true;
  experts.router_module = "block_sparse_moe.gate";
  experts.experts = "block_sparse_moe.experts.";
  experts.gate = ".w1";
  experts.up = ".w3";
  experts.down = ".w2";
  if (fields.Find("sliding_window") != nullptr) {
    UQ_ASSIGN_OR_RETURN(block.attention.window,
                        fields.Integer("sliding_window", std::nullopt, 1, kMaxPositions));
  }
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, block.attention.head_dim));
  common.model.ropes = {rope};
  common.model.blocks.assign(common.model.num_layers, BuildBlock(block));
  return std::move(common.model);
}

constexpr Family kFamilies[] = {
    {"mixtral", "MixtralForCausalLM", ParseMixtral},
};

}  // namespace

absl::Span<const Family> mixtral();
absl::Span<const Family> mixtral() { return kFamilies; }

}  // namespace uniquanf::families
