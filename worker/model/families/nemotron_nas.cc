// Nemotron-NAS (DeciLM): Llama's blocks, each with its own sizes; attention or MLP may be left out.
// Source: the published code.
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

// Whether the part is there; refuses what replaces it by something else.
absl::StatusOr<bool> IsThere(const Fields& part) {
  UQ_RETURN_IF_ERROR(ExpectFlag(part, "replace_with_linear", false));
  for (const char* name : {"window_length", "num_sink_tokens", "sparsify"}) {
    if (part.Find(name) != nullptr) {
      return ConfigError(absl::StrCat("field ", part.path(), name, " is not supported"));
    }
  }
  UQ_ASSIGN_OR_RETURN(const bool left_out, part.Boolean("no_op", false));
  return !left_out;
}

absl::Status ReadBlock(const Fields& fields, BlockTraits* block) {
  AttentionTraits& attention = block->attention;
  UQ_ASSIGN_OR_RETURN(const std::optional<Fields> mixer, fields.Object("attention"));
  UQ_ASSIGN_OR_RETURN(const std::optional<Fields> feed, fields.Object("ffn"));
  if (!mixer.has_value() || !feed.has_value()) {
    return ConfigError(absl::StrCat("fields ", fields.path(), "attention and ffn are needed"));
  }
  UQ_ASSIGN_OR_RETURN(const bool attends, IsThere(*mixer));
  UQ_ASSIGN_OR_RETURN(const bool feeds, IsThere(*feed));
  if (!attends && !feeds) {
    return ConfigError(absl::StrCat(fields.path(), " leaves out attention and MLP"));
  }
  if (attends) {
    UQ_ASSIGN_OR_RETURN(const int64_t group,
                        mixer->Integer("n_heads_in_group", std::nullopt, 1, attention.num_heads));
    if (attention.num_heads % group != 0) {
      return ConfigError("n_heads_in_group does not divide num_attention_heads");
    }
    attention.num_kv_heads = static_cast<int>(attention.num_heads / group);
  } else {
    attention.num_heads = 0;
    block->attention_input_norm = "";
  }
  if (feeds) {
    constexpr int64_t kMultiple = 256;
    UQ_ASSIGN_OR_RETURN(const double factor, feed->Number("ffn_mult", std::nullopt, 1e-3, 100.0));
    const auto size =
        static_cast<int64_t>(2 * factor * static_cast<double>(block->hidden_size) / 3);
    block->mlp.size = (size + kMultiple - 1) / kMultiple * kMultiple;
  } else {
    block->mlp.size = 0;
    block->mlp_input_norm = "";
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> ParseNemotronNas(const Fields& fields) {
  FamilyDefaults defaults;
  defaults.vocab_size = 128256;
  defaults.max_positions = 131072;
  defaults.norm_eps = 1e-5;
  defaults.four_times = true;  // sizes are the blocks'
  defaults.names.kv_heads = "";
  UQ_RETURN_IF_ERROR(ExpectSilu(fields));
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  UQ_ASSIGN_OR_RETURN(common.block.attention.qkv_bias, fields.Boolean("attention_bias", false));
  common.block.attention.o_bias = common.block.attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(common.block.mlp.bias, fields.Boolean("mlp_bias", false));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope,
                      ReadRope(fields, defaults, common.block.attention.head_dim));
  common.model.ropes = {rope};
  const nlohmann::json* list = fields.Find("block_configs");
  if (list == nullptr || !list->is_array() ||
      list->size() != static_cast<size_t>(common.model.num_layers)) {
    return ConfigError(absl::StrCat("field block_configs must be an array of num_hidden_layers = ",
                                    common.model.num_layers, " objects"));
  }
  for (size_t layer = 0; layer < list->size(); ++layer) {
    if (!(*list)[layer].is_object()) return ConfigError("field block_configs must hold objects");
    BlockTraits block = common.block;
    UQ_RETURN_IF_ERROR(
        ReadBlock(Fields((*list)[layer], absl::StrCat("block_configs[", layer, "].")), &block));
    common.model.blocks.push_back(BuildBlock(block));
  }
  return std::move(common.model);
}

constexpr Family kFamilies[] = {
    {"nemotron-nas", "DeciLMForCausalLM", ParseNemotronNas},
};

}  // namespace

absl::Span<const Family> nemotron_nas();
absl::Span<const Family> nemotron_nas() { return kFamilies; }

}  // namespace uniquanf::families
