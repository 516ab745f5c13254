// Granite 3 and 4, dense, with experts and with state spaces: Llama's block with
// factors on the embedding, the scores, what is added, and the logits. Sources: Hugging Face
// modeling_granite, modeling_granitemoe, modeling_granitemoeshared, modeling_granitemoehybrid.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/model/expert_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"
#include "worker/model/state_space_fields.h"

namespace uniquanf::families {
namespace {

absl::StatusOr<CommonFields> Read(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 32000;
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  BlockTraits& block = common.block;
  UQ_ASSIGN_OR_RETURN(block.attention.qkv_bias, fields.Boolean("attention_bias", false));
  block.attention.o_bias = block.attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(block.mlp.bias, fields.Boolean("mlp_bias", false));
  UQ_ASSIGN_OR_RETURN(block.attention.scale, ReadFactor(fields, "attention_multiplier"));
  UQ_ASSIGN_OR_RETURN(block.residual_factor, ReadFactor(fields, "residual_multiplier"));
  UQ_ASSIGN_OR_RETURN(common.model.ends.embedding_scale,
                      ReadFactor(fields, "embedding_multiplier"));
  UQ_ASSIGN_OR_RETURN(const float divisor, ReadFactor(fields, "logits_scaling"));
  common.model.ends.logit_scale = 1 / divisor;
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(fields, defaults, block.attention.head_dim));
  common.model.ropes = {rope};
  return common;
}

absl::StatusOr<ModelConfig> ParseGranite(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields));
  return BuildLayers(std::move(common));
}

// The MLP's own names where it stands beside experts, or instead of them.
absl::Status ReadSharedMlp(const Fields& fields, MlpTraits* mlp) {
  UQ_ASSIGN_OR_RETURN(mlp->size,
                      fields.Integer("shared_intermediate_size", 0, 0, kMaxIntermediate));
  mlp->fused_module = "shared_mlp.input_linear";
  mlp->gate = "shared_mlp.gate_proj";
  mlp->up = "shared_mlp.up_proj";
  mlp->down = "shared_mlp.output_linear";
  return absl::OkStatus();
}

absl::Status ReadExperts(const Fields& fields, CommonFields* common) {
  ExpertNumbers numbers;
  numbers.experts = "num_local_experts";
  numbers.default_experts = 8;
  numbers.default_chosen = 2;
  numbers.size = "intermediate_size";
  UQ_RETURN_IF_ERROR(ReadExpertNumbers(fields, numbers, common));
  ExpertsTraits& experts = common->block.experts;
  experts.router.normalize = true;  // the softmax of the chosen logits
  experts.router_module = "block_sparse_moe.router.layer";
  experts.experts = "block_sparse_moe.experts.";
  experts.stacked_gate_up = "block_sparse_moe.input_linear.weight";
  experts.stacked_down = "block_sparse_moe.output_linear.weight";
  common->block.mlp.size = 0;
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> ParseGraniteMoe(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields));
  UQ_RETURN_IF_ERROR(ReadExperts(fields, &common));
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParseGraniteMoeShared(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields));
  UQ_RETURN_IF_ERROR(ReadExperts(fields, &common));
  UQ_RETURN_IF_ERROR(ReadSharedMlp(fields, &common.block.experts.shared));
  return BuildLayers(std::move(common));
}

absl::StatusOr<ModelConfig> ParseGraniteMoeHybrid(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, Read(fields));
  const absl::string_view name = fields.FirstOf({"layer_types", "layers_block_type"});
  const nlohmann::json* types = fields.Find(name);
  if (types == nullptr || !types->is_array() ||
      types->size() != static_cast<size_t>(common.model.num_layers)) {
    return ConfigError(absl::StrCat("field ", name, " must be an array of num_hidden_layers = ",
                                    common.model.num_layers, " strings"));
  }
  bool with_spaces = false;
  for (const nlohmann::json& type : *types) {
    with_spaces = with_spaces || type == "mamba";
    if (type == "attention" || type == "mamba") continue;
    return ConfigError(
        absl::StrCat(name, " has ", Fields::Text(type), "; supported are attention and mamba"));
  }
  if (with_spaces) {
    UQ_RETURN_IF_ERROR(ReadStateSpace(fields, MambaNames(), &common));
    common.block.recurrent.module = "mamba";
  }
  const auto keep_one = [types](int layer, BlockTraits* block) {
    if ((*types)[layer] == "mamba") {
      block->attention.num_heads = 0;
    } else {
      block->recurrent = {};
    }
  };
  UQ_ASSIGN_OR_RETURN(const std::string positions,
                      fields.String("position_embedding_type", "nope"));
  if (positions != "rope") common.block.attention.rope_table = -1;
  if (fields.Find("num_local_experts") != nullptr && *fields.Find("num_local_experts") == 0) {
    UQ_RETURN_IF_ERROR(ReadSharedMlp(fields, &common.block.mlp));
    if (common.block.mlp.size == 0) return ConfigError("shared_intermediate_size is missing");
    return BuildLayers(std::move(common), keep_one);
  }
  UQ_RETURN_IF_ERROR(ReadExperts(fields, &common));
  UQ_RETURN_IF_ERROR(ReadSharedMlp(fields, &common.block.experts.shared));
  return BuildLayers(std::move(common), keep_one);
}

constexpr Family kFamilies[] = {
    {"granite", "GraniteForCausalLM", ParseGranite},
    {"granitemoe", "GraniteMoeForCausalLM", ParseGraniteMoe},
    {"granitemoehybrid", "GraniteMoeHybridForCausalLM", ParseGraniteMoeHybrid},
    {"granitemoeshared", "GraniteMoeSharedForCausalLM", ParseGraniteMoeShared},
};

}  // namespace

absl::Span<const Family> granite();
absl::Span<const Family> granite() { return kFamilies; }

}  // namespace uniquanf::families
