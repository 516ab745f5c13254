// Gemma 1, 2 and 3 (text): norms that scale by 1 + w, an embedding times √H, a gelu gate, tied
// ends. Gemma 2 adds norms of the outputs, soft caps and alternating windows; Gemma 3 q/k norms and
// a rotary base for each kind of layer. Sources: Hugging Face modeling_gemma, modeling_gemma2,
// modeling_gemma3.
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "worker/model/families/family.h"
#include "worker/model/family_fields.h"

namespace uniquanf::families {
namespace {

constexpr int64_t kDefaultWindow = 4096;
constexpr int kFullTable = 0, kSlidingTable = 1;  // rotary tables of Gemma 3

FamilyDefaults Defaults(int64_t vocab_size, int64_t kv_heads, int64_t max_positions, double theta) {
  FamilyDefaults defaults;
  defaults.vocab_size = vocab_size;
  defaults.kv_heads = kv_heads;
  defaults.head_dim = 256;
  defaults.max_positions = max_positions;
  defaults.theta = theta;
  defaults.tied = true;
  return defaults;
}

// What the three have in common.
absl::StatusOr<CommonFields> ReadGemma(const Fields& fields, const FamilyDefaults& defaults) {
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadCommonFields(fields, defaults));
  UQ_ASSIGN_OR_RETURN(const bool bidirectional,
                      fields.Boolean("use_bidirectional_attention", false));
  if (bidirectional) return ConfigError("use_bidirectional_attention is not supported");
  ModelEnds& ends = common.model.ends;
  ends.embedding_scale =
      static_cast<float>(std::sqrt(static_cast<double>(common.model.hidden_size)));
  ends.embedding_scale_rounded = true;
  BlockTraits& block = common.block;
  block.norm.added = ends.final_norm_kind.added = block.attention.head_norm_kind.added = 1;
  UQ_ASSIGN_OR_RETURN(block.attention.qkv_bias, fields.Boolean("attention_bias", false));
  block.attention.o_bias = block.attention.qkv_bias;
  UQ_ASSIGN_OR_RETURN(block.mlp.activation,
                      ReadActivation(fields, "hidden_activation", "gelu_pytorch_tanh"));
  return common;
}

absl::StatusOr<ModelConfig> ParseGemma(const Fields& fields) {
  const FamilyDefaults defaults = Defaults(256000, 16, 8192, 10000.0);
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadGemma(fields, defaults));
  // Files without hidden_activation say "gelu" in hidden_act and mean its tanh form: that is how
  // the models were trained and first run.
  if (fields.Find("hidden_activation") == nullptr && fields.Find("hidden_act") != nullptr) {
    UQ_ASSIGN_OR_RETURN(const ops::Activation kind,
                        ReadActivation(fields, "hidden_act", "gelu_pytorch_tanh"));
    common.block.mlp.activation =
        kind == ops::Activation::kGelu ? ops::Activation::kGeluTanh : kind;
  }
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope,
                      ReadRope(fields, defaults, common.block.attention.head_dim));
  common.model.ropes = {rope};
  common.model.blocks.assign(common.model.num_layers, BuildBlock(common.block));
  return std::move(common.model);
}

// Gemma 2 and 3: norms of inputs and outputs, caps, and a window in some layers.
absl::Status ReadSandwich(const Fields& fields, double attention_cap, double logit_cap,
                          CommonFields* common) {
  BlockTraits& block = common->block;
  block.attention_output_norm = "post_attention_layernorm";
  block.mlp_input_norm = "pre_feedforward_layernorm";
  block.mlp_output_norm = "post_feedforward_layernorm";
  UQ_ASSIGN_OR_RETURN(const double scalar,
                      fields.Number("query_pre_attn_scalar", 256.0, 1e-6, 1e9));
  block.attention.scale = static_cast<float>(1.0 / std::sqrt(scalar));
  UQ_ASSIGN_OR_RETURN(const double cap, ReadNullableNumber(fields, "attn_logit_softcapping",
                                                           attention_cap, 1e-6, 1e9));
  block.attention.softcap = static_cast<float>(cap);
  UQ_ASSIGN_OR_RETURN(const double final_cap,
                      ReadNullableNumber(fields, "final_logit_softcapping", logit_cap, 1e-6, 1e9));
  common->model.ends.logit_softcap = static_cast<float>(final_cap);
  return absl::OkStatus();
}

// By layer_types or, without it, every `pattern`-th layer is full.
absl::StatusOr<std::vector<bool>> SlidingLayers(const Fields& fields, int num_layers,
                                                int64_t pattern) {
  UQ_ASSIGN_OR_RETURN(std::vector<bool> sliding, ReadLayerTypes(fields, num_layers));
  if (!sliding.empty()) return sliding;
  for (int layer = 0; layer < num_layers; ++layer) sliding.push_back((layer + 1) % pattern != 0);
  return sliding;
}

absl::StatusOr<ModelConfig> ParseGemma2(const Fields& fields) {
  const FamilyDefaults defaults = Defaults(256000, 4, 8192, 10000.0);
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadGemma(fields, defaults));
  UQ_RETURN_IF_ERROR(ReadSandwich(fields, 50.0, 30.0, &common));
  UQ_ASSIGN_OR_RETURN(const int64_t window,
                      fields.Integer("sliding_window", kDefaultWindow, 1, kMaxPositions));
  UQ_ASSIGN_OR_RETURN(const RopeConfig rope,
                      ReadRope(fields, defaults, common.block.attention.head_dim));
  common.model.ropes = {rope};
  UQ_ASSIGN_OR_RETURN(const std::vector<bool> sliding,
                      SlidingLayers(fields, common.model.num_layers, 2));
  for (bool slides : sliding) {
    common.block.attention.window = slides ? window : 0;
    common.model.blocks.push_back(BuildBlock(common.block));
  }
  return std::move(common.model);
}

// Scaling is for full layers only; the others have a base of their own.
absl::StatusOr<RopeConfig> ReadSlidingRope(const Fields& fields, int head_dim) {
  FamilyDefaults local;
  local.theta = 10000.0;
  UQ_ASSIGN_OR_RETURN(const std::optional<Fields> parameters, fields.Object("rope_parameters"));
  if (parameters.has_value() && parameters->Find("sliding_attention") != nullptr) {
    return ReadRope(fields, local, head_dim, "sliding_attention");
  }
  RopeConfig rope;
  rope.width = head_dim;
  UQ_ASSIGN_OR_RETURN(rope.theta, fields.Number("rope_local_base_freq", local.theta, 1e-3, 1e18));
  return rope;
}

absl::StatusOr<ModelConfig> ParseGemma3(const Fields& fields) {
  const FamilyDefaults defaults = Defaults(262208, 4, 131072, 1e6);
  UQ_ASSIGN_OR_RETURN(CommonFields common, ReadGemma(fields, defaults));
  UQ_RETURN_IF_ERROR(ReadSandwich(fields, 0, 0, &common));
  AttentionTraits& attention = common.block.attention;
  attention.head_norm = AttentionTraits::HeadNorm::kShared;
  UQ_ASSIGN_OR_RETURN(const int64_t window,
                      fields.Integer("sliding_window", kDefaultWindow, 1, kMaxPositions));
  UQ_ASSIGN_OR_RETURN(const RopeConfig full,
                      ReadRope(fields, defaults, attention.head_dim, "full_attention"));
  UQ_ASSIGN_OR_RETURN(const RopeConfig local, ReadSlidingRope(fields, attention.head_dim));
  common.model.ropes = {full, local};
  UQ_ASSIGN_OR_RETURN(
      const int64_t pattern,
      fields.Integer(fields.FirstOf({"sliding_window_pattern", "_sliding_window_pattern"}), 6, 1,
                     kMaxLayers));
  UQ_ASSIGN_OR_RETURN(const std::vector<bool> sliding,
                      SlidingLayers(fields, common.model.num_layers, pattern));
  for (bool slides : sliding) {
    attention.window = slides ? window : 0;
    attention.rope_table = slides ? kSlidingTable : kFullTable;
    common.model.blocks.push_back(BuildBlock(common.block));
  }
  return std::move(common.model);
}

constexpr Family kFamilies[] = {
    {"gemma", "GemmaForCausalLM", ParseGemma},
    {"gemma2", "Gemma2ForCausalLM", ParseGemma2},
    {"gemma3_text", "Gemma3ForCausalLM", ParseGemma3},
};

}  // namespace

absl::Span<const Family> gemma();
absl::Span<const Family> gemma() { return kFamilies; }

}  // namespace uniquanf::families
