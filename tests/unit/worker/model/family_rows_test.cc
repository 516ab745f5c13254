// Families of which there is no checkpoint by Hugging Face in tests/golden: a small random one of
// each opens with the names and shapes that its config implies, runs, and has the gradients that
// finite differences have.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/object_store/object_store.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/worker/model/model_fixture.h"
#include "worker/model/checkpoint.h"
#include "worker/model/checkpoint_layout.h"
#include "worker/model/language_model.h"

namespace uniquanf {
namespace {

struct Row {
  const char *architecture, *model_type;
  const char* fields;  // beside sizes that all have
  // Something that the row must have: a tensor of layer 1.
  const char* tensor;
};

constexpr char kSizes[] = R"({"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64,
    "max_position_embeddings": 128, "tie_word_embeddings": false})";

const Row kRows[] = {
    {"SeedOssForCausalLM", "seed_oss", R"("head_dim": 8)", "self_attn.q_proj.bias"},
    {"MiMoForCausalLM", "mimo", R"("attention_bias": true, "head_dim": 8)",
     "self_attn.v_proj.bias"},
    {"InternLM3ForCausalLM", "internlm3", R"("qkv_bias": true, "rope_scaling": {"rope_type":
     "dynamic", "factor": 2.0})",
     "self_attn.o_proj.bias"},
    {"MiniCPMForCausalLM", "minicpm", R"("scale_emb": 12, "scale_depth": 1.4,
     "dim_model_base": 16)",
     "mlp.up_proj.weight"},
    {"Olmo2ForCausalLM", "olmo2", R"("rms_norm_eps": 1e-6)", "post_feedforward_layernorm.weight"},
    {"Exaone4ForCausalLM", "exaone4", R"("sliding_window": 4, "sliding_window_pattern": "LG")",
     "self_attn.k_norm.weight"},
    {"GraniteMoeHybridForCausalLM", "granitemoehybrid", R"("layer_types": ["attention",
     "attention"], "num_local_experts": 0, "shared_intermediate_size": 24,
     "attention_multiplier": 0.3, "residual_multiplier": 0.5)",
     "shared_mlp.input_linear.weight"},
    {"PhiMoEForCausalLM", "phimoe", R"("num_local_experts": 4, "attention_bias": true,
     "lm_head_bias": true, "router_jitter_noise": 1000)",
     "block_sparse_moe.experts.3.w2.weight"},
    {"FalconForCausalLM", "falcon", R"("multi_query": true, "bias": false)",
     "self_attention.query_key_value.weight"},
    {"InternLM2ForCausalLM", "internlm2", R"("bias": false)", "attention.wqkv.weight"},
    {"BaichuanForCausalLM", "baichuan", R"("vocab_size": 64100)", "self_attn.W_pack.weight"},
    {"ExaoneForCausalLM", "exaone", R"("num_layers": 2, "layer_norm_epsilon": 1e-5)",
     "attn.attention.out_proj.weight"},
    {"QWenLMHeadModel", "qwen", R"("kv_channels": 8, "seq_length": 64, "rotary_emb_base": 10000)",
     "mlp.w2.weight"},
    {"ChatGLMModel", "chatglm", R"("num_layers": 2, "ffn_hidden_size": 24, "kv_channels": 8,
     "padded_vocab_size": 64, "seq_length": 64, "multi_query_attention": true,
     "multi_query_group_num": 2, "add_qkv_bias": true)",
     "mlp.dense_h_to_4h.weight"},
    {"Qwen3VLMoeTextModel", "qwen3_vl_moe_text", R"("num_experts": 4, "num_experts_per_tok": 2,
     "moe_intermediate_size": 16, "norm_topk_prob": true)",
     "mlp.experts.gate_up_proj"},
    {"DeepseekForCausalLM", "deepseek", R"("n_routed_experts": 4, "num_experts_per_tok": 2,
     "moe_intermediate_size": 16, "n_shared_experts": 2, "first_k_dense_replace": 1)",
     "mlp.shared_experts.gate_proj.weight"},
    {"MiniCPM3ForCausalLM", "minicpm3", R"("num_key_value_heads": 4, "q_lora_rank": 16,
     "kv_lora_rank": 12, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "scale_depth": 1.4)",
     "self_attn.kv_b_proj.weight"},
    {"DeepseekV2ForCausalLM", "deepseek_v2", R"("num_key_value_heads": 4, "q_lora_rank": 16,
     "kv_lora_rank": 12, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6,
     "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
     "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2,
     "rope_scaling": {"type": "yarn", "factor": 40, "mscale": 0.7, "mscale_all_dim": 0.7,
     "original_max_position_embeddings": 16})",
     "self_attn.q_b_proj.weight"},
    {"MiniMaxM2ForCausalLM", "minimax_m2", R"("head_dim": 8, "rotary_dim": 4,
     "num_local_experts": 4, "num_experts_per_tok": 2)",
     "block_sparse_moe.e_score_correction_bias"},
    {"MiMoV2FlashForCausalLM", "mimo_v2_flash", R"("head_dim": 12, "v_head_dim": 8,
     "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_head_dim": 12,
     "swa_v_head_dim": 8, "partial_rotary_factor": 0.34, "sliding_window": 4,
     "hybrid_layer_pattern": [0, 1], "moe_layer_freq": [0, 1], "n_routed_experts": 4,
     "num_experts_per_tok": 2, "moe_intermediate_size": 16, "attention_value_scale": 0.7)",
     "self_attn.attention_sink_bias"},
    {"BailingMoeV2ForCausalLM", "bailing_moe_v2", R"("head_dim": 8, "partial_rotary_factor": 0.5,
     "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
     "num_shared_experts": 1, "first_k_dense_replace": 1, "use_qk_norm": true)",
     "mlp.gate.expert_bias"},
    {"Ernie4_5_MoeForCausalLM", "ernie4_5_moe", R"("moe_num_experts": 4, "moe_k": 2,
     "moe_intermediate_size": 16, "moe_num_shared_experts": 2)",
     "mlp.moe_statics.e_score_correction_bias"},
    {"HunYuanMoEV1ForCausalLM", "hunyuan_v1_moe", R"("num_experts": 4, "moe_topk": [2, 2])",
     "mlp.gate.wg.weight"},
    {"Gemma4ForCausalLM", "gemma4_text", R"("head_dim": 8, "global_head_dim": 16,
     "num_global_key_value_heads": 1, "attention_k_eq_v": true, "enable_moe_block": true,
     "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16, "sliding_window": 4,
     "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": {"full_attention":
     {"partial_rotary_factor": 0.25, "rope_theta": 1e6, "rope_type": "proportional"},
     "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}})",
     "router.per_expert_scale"},
    {"Qwen3_5ForCausalLM", "qwen3_5_text",
     R"("rms_norm_eps": 0.05, "head_dim": 8, "partial_rotary_factor": 0.5,
     "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 6,
     "linear_value_head_dim": 4, "layer_types": ["full_attention", "linear_attention"])",
     "linear_attn.in_proj_z.weight"},
    {"Qwen3_5MoeForCausalLM", "qwen3_5_moe_text",
     R"("rms_norm_eps": 0.05, "head_dim": 8, "partial_rotary_factor": 0.5,
     "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 6,
     "linear_value_head_dim": 4, "layer_types": ["full_attention", "linear_attention"],
     "num_experts": 4, "num_experts_per_tok": 4, "moe_intermediate_size": 16,
     "shared_expert_intermediate_size": 8)",
     "mlp.experts.gate_up_proj"},
    {"NemotronHForCausalLM", "nemotron_h", R"("num_hidden_layers": 4,
     "hybrid_override_pattern": "*M-E", "head_dim": 8, "mamba_num_heads": 4, "mamba_head_dim": 8,
     "n_groups": 2, "ssm_state_size": 6, "n_routed_experts": 4, "num_experts_per_tok": 2,
     "moe_intermediate_size": 16, "moe_shared_expert_intermediate_size": 24)",
     "mixer.A_log"},
    {"GraniteMoeHybridForCausalLM", "granitemoehybrid", R"("layer_types": ["attention", "mamba"],
     "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 24,
     "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 6)",
     "mamba.norm.weight"},
    {"FalconH1ForCausalLM", "falcon_h1", R"("head_dim": 8, "mamba_d_ssm": 64, "mamba_n_heads": 8,
     "mamba_d_head": 8, "mamba_n_groups": 2, "mamba_d_state": 6, "mamba_rms_norm": true,
     "ssm_multipliers": [0.5, 0.6, 0.7, 0.8, 0.9], "mlp_multipliers": [0.7, 1.3],
     "key_multiplier": 0.5, "attention_in_multiplier": 0.9, "ssm_out_multiplier": 1.2)",
     "mamba.conv1d.bias"},
    {"DeciLMForCausalLM", "nemotron-nas", R"("block_configs": [
     {"attention": {"no_op": true}, "ffn": {"ffn_mult": 1.0}},
     {"attention": {"n_heads_in_group": 2}, "ffn": {"no_op": true}}])",
     "self_attn.o_proj.weight"},
};

std::string ConfigOf(const Row& row) {
  nlohmann::json json = nlohmann::json::parse(kSizes);
  json["architectures"] = {row.architecture};
  json["model_type"] = row.model_type;
  json.update(nlohmann::json::parse(absl::StrCat("{", row.fields, "}")));
  return json.dump();
}

class FamilyRowTest : public testing::TestWithParam<Row> {
 protected:
  std::vector<float> Random(int64_t count, double deviation) {
    std::normal_distribution<float> distribution(0, static_cast<float>(deviation));
    std::vector<float> values(count);
    for (float& value : values) value = distribution(random_);
    return values;
  }

  // Every tensor that the config implies, with values of a size at which nothing saturates.
  void WriteCheckpoint(const std::string& dir, const std::string& json) {
    ModelConfig config = *ParseModelConfig(json);
    FixtureTensors tensors;
    for (const ExpectedTensor& expected : ExpectedTensors(config)) {
      FixtureTensor& tensor = tensors[expected.name];
      tensor.shape = expected.shape;
      int64_t count = 1;
      for (int64_t dim : expected.shape) count *= dim;
      tensor.values = Random(count, expected.shape.size() > 1 ? 0.3 : 0.1);
      const bool scales = absl::StrContains(expected.name, "norm") ||
                          absl::StrContains(expected.name, "ln_") ||
                          absl::StrContains(expected.name, "scal");
      if (!scales || absl::EndsWith(expected.name, ".bias")) continue;
      for (float& value : tensor.values) value += 1;
    }
    WriteFile(dir + "/config.json", json);
    WriteFile(dir + "/model.safetensors", FixtureFile(tensors));
  }

  static double Dot(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
    return sum;
  }

  std::mt19937 random_{20261127};
};

TEST_P(FamilyRowTest, OpensRunsAndHasTheGradientsOfDifferences) {
  constexpr int64_t kTokens = 7;
  TempDir dir;
  WriteCheckpoint(dir.path(), ConfigOf(GetParam()));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Checkpoint> checkpoint,
                       Checkpoint::Open(*OpenObjectStore(dir.path()), /*allow_quantized=*/false));
  const ModelConfig& config = checkpoint->config();
  ASSERT_GE(config.blocks[1].FindTensor(GetParam().tensor), 0) << GetParam().tensor;
  std::unique_ptr<Backend> backend = NewCpuBackend({.num_threads = 1});
  ASSERT_OK_AND_ASSIGN(const RopeTables rope, MakeRopeTables(backend.get(), config.ropes, kTokens));
  const Shape shape = {kTokens, config.hidden_size};
  const int64_t size = kTokens * config.hidden_size;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    SCOPED_TRACE(layer);
    const BlockSpec& spec = config.blocks[layer];
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<BlockRunner> runner,
                         BlockRunner::Create(backend.get(), spec, DType::kFloat32, 1, kTokens,
                                             &rope, /*with_backward=*/true));
    ASSERT_OK_AND_ASSIGN(HostBlock block, checkpoint->LoadBlock(layer));
    const std::vector<float> x = Random(size, 1), dy = Random(size, 1);
    Tensor y = *Tensor::Allocate(backend.get(), DType::kFloat32, shape);
    const auto output = [&](const HostBlock& values, const std::vector<float>& input) {
      const BlockWeights weights = *UploadBlock(backend.get(), spec, DType::kFloat32, values);
      const Tensor in = *Tensor::FromFloats(backend.get(), DType::kFloat32, shape, input.data());
      runner->Forward(weights, in, &y);
      return *y.ToFloats();
    };
    const BlockWeights weights = *UploadBlock(backend.get(), spec, DType::kFloat32, block);
    const Tensor in = *Tensor::FromFloats(backend.get(), DType::kFloat32, shape, x.data());
    runner->Forward(weights, in, &y);
    const Tensor upstream = *Tensor::FromFloats(backend.get(), DType::kFloat32, shape, dy.data());
    Tensor dx = *Tensor::Allocate(backend.get(), DType::kFloat32, shape);
    BlockGradients gradients;
    for (int l = 0; l < spec.num_linears(); ++l) {
      gradients.push_back(*Tensor::Allocate(backend.get(), DType::kFloat32, spec.linear(l).shape));
    }
    const std::vector<float> outputs = *y.ToFloats();
    for (float value : outputs) ASSERT_TRUE(std::isfinite(value));
    runner->Backward(weights, upstream, false, &gradients, &dx, nullptr);
    // One random direction for the input and for each linear layer. Routers jump, and norms of
    // little bend: a step is small, and so is what fp32 leaves of its difference.
    const auto check = [&](const std::vector<float>& gradient, const auto& moved,
                           const std::string& of) {
      const std::vector<float> direction = Random(static_cast<int64_t>(gradient.size()), 1);
      constexpr double kStep = 2e-3;
      const double up = Dot(dy, moved(direction, kStep)), down = Dot(dy, moved(direction, -kStep));
      const double expected = (up - down) / (2 * kStep), actual = Dot(gradient, direction);
      const double scale = std::sqrt(Dot(gradient, gradient)) + 0.1;
      EXPECT_NEAR(actual, expected, 0.03 * scale) << of;
    };
    check(
        *dx.ToFloats(),
        [&](const std::vector<float>& direction, double step) {
          std::vector<float> there = x;
          for (int64_t i = 0; i < size; ++i) there[i] += static_cast<float>(step) * direction[i];
          return output(block, there);
        },
        "input");
    for (int l = 0; l < spec.num_linears(); ++l) {
      check(
          *gradients[l].ToFloats(),
          [&](const std::vector<float>& direction, double step) {
            HostBlock there = block;
            std::vector<float>& values = there[spec.linears[l]];
            for (size_t i = 0; i < values.size(); ++i) {
              values[i] += static_cast<float>(step) * direction[i];
            }
            return output(there, x);
          },
          spec.linear(l).module);
    }
  }
  const std::vector<int32_t> ids = {1, 5, 9, 2, 63, 0, 7, 3};
  PerplexityOptions options;
  options.window = 8;
  ASSERT_OK_AND_ASSIGN(const Perplexity result,
                       EvaluatePerplexity(backend.get(), *checkpoint, ids, options));
  EXPECT_TRUE(std::isfinite(result.mean_nll));
}

INSTANTIATE_TEST_SUITE_P(Rows, FamilyRowTest, testing::ValuesIn(kRows), [](const auto& info) {
  std::string name = info.param.model_type;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return absl::StrCat(name, "_", info.index);
});

}  // namespace
}  // namespace uniquanf
