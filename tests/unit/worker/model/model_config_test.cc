#include "worker/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/check.h"
#include "common/base/json_util.h"
#include "tests/support/mutator.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using testing::HasSubstr;

// A config of the family with `extra` members ("\"a\": 1, ") put first.
std::string Config(absl::string_view family, absl::string_view extra = "") {
  std::string model_type(family);
  for (char& c : model_type) c = static_cast<char>(tolower(c));
  return absl::StrCat(R"({"architectures": [")", family, R"(ForCausalLM"], )", extra,
                      R"("model_type": ")", model_type,
                      R"(", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
                      "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 100})");
}

const AttentionNode& Attention(const BlockSpec& block) {
  for (const Node& node : block.nodes) {
    if (const auto* attention = std::get_if<AttentionNode>(&node)) return *attention;
  }
  UQ_CHECK(false);
}

bool HasBias(const BlockSpec& block, const std::string& module) {
  return block.FindTensor(module + ".bias") >= 0;
}

std::vector<int64_t> Windows(const ModelConfig& config) {
  std::vector<int64_t> windows;
  for (const BlockSpec& block : config.blocks) windows.push_back(Attention(block).shape.window);
  return windows;
}

TEST(ModelConfigTest, ReadsLlama) {
  ASSERT_OK_AND_ASSIGN(
      const ModelConfig config,
      ParseModelConfig(Config("Llama", R"("rope_theta": 500000.0, "rms_norm_eps": 1e-5,
                                        "tie_word_embeddings": true, )")));
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_EQ(config.num_layers, 4);
  EXPECT_EQ(config.vocab_size, 100);
  EXPECT_TRUE(config.ends.tied);
  ASSERT_EQ(config.ropes.size(), 1u);
  EXPECT_EQ(config.ropes[0].theta, 500000.0);
  EXPECT_EQ(config.ropes[0].type, "default");
  EXPECT_EQ(config.ropes[0].width, 8);
  ASSERT_EQ(config.blocks.size(), 4u);
  const BlockSpec& block = config.blocks[0];
  EXPECT_EQ(Attention(block).shape.head_dim, 8);  // hidden_size / num_attention_heads
  EXPECT_EQ(config.ends.final_norm_kind.eps, 1e-5f);
  EXPECT_EQ(Attention(block).shape.window, 0);
  EXPECT_EQ(block.tensors.size(), 9u);  // two norms, seven linear layers, no biases
  EXPECT_EQ(block.LinearShape(block.FindLinear("self_attn.k_proj")),
            (std::pair<int64_t, int64_t>(16, 64)));
}

TEST(ModelConfigTest, ReadsBiasesOfEachFamily) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig llama,
                       ParseModelConfig(Config("Llama", R"("attention_bias": true,
                                                          "mlp_bias": true, )")));
  for (int l = 0; l < llama.blocks[0].num_linears(); ++l) {
    EXPECT_TRUE(HasBias(llama.blocks[0], llama.blocks[0].linear(l).module));
  }
  ASSERT_OK_AND_ASSIGN(const ModelConfig qwen2, ParseModelConfig(Config("Qwen2")));
  EXPECT_TRUE(HasBias(qwen2.blocks[0], "self_attn.q_proj"));
  EXPECT_TRUE(HasBias(qwen2.blocks[0], "self_attn.v_proj"));
  EXPECT_FALSE(HasBias(qwen2.blocks[0], "self_attn.o_proj"));
  EXPECT_FALSE(HasBias(qwen2.blocks[0], "mlp.up_proj"));
  ASSERT_OK_AND_ASSIGN(const ModelConfig qwen3, ParseModelConfig(Config("Qwen3")));
  EXPECT_GE(qwen3.blocks[0].FindTensor("self_attn.q_norm.weight"), 0);
  EXPECT_FALSE(HasBias(qwen3.blocks[0], "self_attn.q_proj"));
  // The family's default, not hidden / heads.
  EXPECT_EQ(Attention(qwen3.blocks[0]).shape.head_dim, 128);
}

TEST(ModelConfigTest, ReadsMistralWindows) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig named,
                       ParseModelConfig(Config("Mistral", R"("sliding_window": 77, )")));
  EXPECT_EQ(Windows(named), (std::vector<int64_t>{77, 77, 77, 77}));
  ASSERT_OK_AND_ASSIGN(const ModelConfig none,
                       ParseModelConfig(Config("Mistral", R"("sliding_window": null, )")));
  EXPECT_EQ(Windows(none), (std::vector<int64_t>{0, 0, 0, 0}));
  ASSERT_OK_AND_ASSIGN(const ModelConfig missing, ParseModelConfig(Config("Mistral")));
  EXPECT_EQ(Windows(missing), (std::vector<int64_t>{4096, 4096, 4096, 4096}));
}

TEST(ModelConfigTest, ReadsQwenWindows) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig off,
                       ParseModelConfig(Config("Qwen2", R"("sliding_window": 77, )")));
  EXPECT_EQ(Windows(off), (std::vector<int64_t>{0, 0, 0, 0}));
  ASSERT_OK_AND_ASSIGN(
      const ModelConfig upper,
      ParseModelConfig(Config("Qwen2", R"("sliding_window": 77, "use_sliding_window": true,
                                         "max_window_layers": 3, )")));
  EXPECT_EQ(Windows(upper), (std::vector<int64_t>{0, 0, 0, 77}));
  ASSERT_OK_AND_ASSIGN(
      const ModelConfig typed,
      ParseModelConfig(Config("Qwen3", R"("sliding_window": 77, "use_sliding_window": true,
                                         "layer_types": ["full_attention", "sliding_attention",
                                         "full_attention", "sliding_attention"], )")));
  EXPECT_EQ(Windows(typed), (std::vector<int64_t>{0, 77, 0, 77}));
}

TEST(ModelConfigTest, ReadsBothFormsOfRope) {
  const char* fields = R"("factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 8192)";
  ASSERT_OK_AND_ASSIGN(
      const ModelConfig old_form,
      ParseModelConfig(Config("Llama", absl::StrCat(R"("rope_theta": 500000.0, "rope_scaling": {
                                                      "rope_type": "llama3", )",
                                                    fields, "}, "))));
  ASSERT_OK_AND_ASSIGN(
      const ModelConfig new_form,
      ParseModelConfig(Config("Llama", absl::StrCat(R"("rope_parameters": {"rope_theta": 500000.0,
                                                      "rope_type": "llama3", )",
                                                    fields, "}, "))));
  for (const ModelConfig* config : {&old_form, &new_form}) {
    EXPECT_EQ(config->ropes[0].type, "llama3");
    EXPECT_EQ(config->ropes[0].theta, 500000.0);
    EXPECT_EQ(config->ropes[0].factor, 8.0);
    EXPECT_EQ(config->ropes[0].original_max_position_embeddings, 8192.0);
  }
  ASSERT_OK_AND_ASSIGN(const ModelConfig linear,
                       ParseModelConfig(Config("Llama", R"("rope_scaling": {"type": "linear",
                                                          "factor": 2.0}, )")));
  EXPECT_EQ(linear.ropes[0].type, "linear");
  EXPECT_OK(ParseModelConfig(Config("Llama", R"("rope_scaling": null, )")));
}

TEST(ModelConfigTest, ReadsPublishedGemma3WithItsDefaults) {
  // As google/gemma-3 configs are: no vocabulary, eps, activation, positions or pattern.
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, ParseModelConfig(R"({
      "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 64,
      "intermediate_size": 128, "num_hidden_layers": 7, "num_attention_heads": 8, "head_dim": 16,
      "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 512})"));
  EXPECT_EQ(config.vocab_size, 262208);
  EXPECT_TRUE(config.ends.tied);
  EXPECT_EQ(config.ends.embedding_scale, 8.0f);
  EXPECT_EQ(config.ends.final_norm_kind.added, 1.0f);
  EXPECT_EQ(Windows(config), (std::vector<int64_t>{512, 512, 512, 512, 512, 0, 512}));
  ASSERT_EQ(config.ropes.size(), 2u);
  EXPECT_EQ(config.ropes[0].theta, 1e6);  // full layers
  EXPECT_EQ(config.ropes[0].type, "linear");
  EXPECT_EQ(config.ropes[1].theta, 1e4);
  EXPECT_EQ(config.ropes[1].type, "default");
  for (int layer = 0; layer < 7; ++layer) {
    for (const Node& node : config.blocks[layer].nodes) {
      const auto* rope = std::get_if<RopeNode>(&node);
      if (rope != nullptr) {
        EXPECT_EQ(rope->table, layer == 5 ? 0 : 1) << layer;
      }
    }
  }
  const int norm = config.blocks[0].FindTensor("pre_feedforward_layernorm.weight");
  ASSERT_GE(norm, 0);
  EXPECT_EQ(config.blocks[0].tensors[norm].stored.added, 1.0f);
}

TEST(ModelConfigTest, ReadsGemma2CapsAndTheirAbsence) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig plain, ParseModelConfig(Config("Gemma2")));
  EXPECT_EQ(Attention(plain.blocks[0]).shape.softcap, 50.0f);
  EXPECT_EQ(plain.ends.logit_softcap, 30.0f);
  EXPECT_EQ(Windows(plain), (std::vector<int64_t>{4096, 0, 4096, 0}));
  ASSERT_OK_AND_ASSIGN(const ModelConfig none,
                       ParseModelConfig(Config("Gemma2", R"("attn_logit_softcapping": null,
                                        "final_logit_softcapping": null, )")));
  EXPECT_EQ(Attention(none.blocks[0]).shape.softcap, 0.0f);
  EXPECT_EQ(none.ends.logit_softcap, 0.0f);
}

TEST(ModelConfigTest, NestedModelsTakeTheNamesThatTheCheckpointHas) {
  const char* json = R"({"architectures": ["Mistral3ForConditionalGeneration"],
      "model_type": "mistral3", "tie_word_embeddings": true, "vision_config": {"depth": 3},
      "text_config": {"model_type": "mistral", "hidden_size": 64, "intermediate_size": 128,
      "num_hidden_layers": 2, "num_attention_heads": 8, "vocab_size": 100}})";
  const struct {
    const char *embedding, *layers, *head;
  } kCases[] = {{"model.embed_tokens", "model.layers.", "lm_head"},
                {"model.language_model.embed_tokens", "model.language_model.layers.", "lm_head"},
                {"language_model.model.embed_tokens", "language_model.model.layers.",
                 "language_model.lm_head"}};
  for (const auto& c : kCases) {
    ASSERT_OK_AND_ASSIGN(ModelConfig config, ParseModelConfig(json));
    EXPECT_EQ(config.model_type, "mistral");
    EXPECT_EQ(config.architecture, "Mistral3ForConditionalGeneration");
    EXPECT_TRUE(config.ends.tied);  // said outside
    config.ChooseNames(
        [&](const std::string& name) { return name == absl::StrCat(c.embedding, ".weight"); });
    EXPECT_EQ(config.ends.embedding, c.embedding);
    EXPECT_EQ(config.layers, c.layers);
    EXPECT_EQ(config.ends.head, c.head);
    EXPECT_EQ(config.LayerOf(absl::StrCat(c.layers, "1.mlp.up_proj.weight")), 1);
    EXPECT_EQ(config.LayerOf(absl::StrCat(c.layers, "2.mlp.up_proj.weight")), -1);
    EXPECT_EQ(config.LayerOf("vision_tower.layers.0.weight"), -1);
  }
}

TEST(ModelConfigTest, RefusesWhatItCannotRun) {
  struct Case {
    std::string json;
    const char* reason;
    const char* message;
  };
  const Case cases[] = {
      {Config("Unheard"), "UNSUPPORTED_ARCHITECTURE", "UnheardForCausalLM"},
      {Config("Gemma", R"("use_bidirectional_attention": true, )"), "INVALID_MODEL_CONFIG",
       "use_bidirectional_attention"},
      {Config("Gemma2", R"("hidden_activation": "sine", )"), "INVALID_MODEL_CONFIG", "sine"},
      {Config("Mixtral", R"("num_local_experts": 100000, )"), "INVALID_MODEL_CONFIG",
       "num_local_experts"},
      {Config("Mixtral", R"("num_local_experts": 4, "num_experts_per_tok": 5, )"),
       "INVALID_MODEL_CONFIG", "num_experts_per_tok"},
      {Config("Llama", R"("quantization_config": {"quant_method": "gptq"}, )"),
       "MODEL_ALREADY_QUANTIZED", "quantization_config"},
      {Config("Llama", R"("quantization_config": {"quant_method": "awq"}, )"),
       "MODEL_ALREADY_QUANTIZED", "quant_method \"awq\""},
      {Config("Llama", R"("quantization_config": {"bits": 4}, )"), "MODEL_ALREADY_QUANTIZED",
       "no quant_method"},
      {Config("Llama", R"("anyprec": {}, )"), "MODEL_ALREADY_QUANTIZED", "Any-Precision"},
      {Config("Llama", R"("quantization_config": {"quant_method": "modelopt",
                         "quant_algo": "NVFP4"}, )"),
       "MODEL_ALREADY_QUANTIZED", "NVFP4"},
      {Config("Llama", R"("quantization_config": {"quant_method": "compressed-tensors",
                         "format": "nvfp4-pack-quantized", "config_groups": {}}, )"),
       "MODEL_ALREADY_QUANTIZED", "nvfp4-pack-quantized"},
      {Config("Llama", R"("quantization_config": {"quant_method": "compressed-tensors",
                         "config_groups": {"group_0": {"weights": {"num_bits": 3}}}}, )"),
       "MODEL_ALREADY_QUANTIZED", "3 bits"},
      {Config("Llama", R"("quantization_config": {"quant_method": "compressed-tensors",
                         "sparsity_config": {"format": "sparse-24-bitmask"},
                         "config_groups": {}}, )"),
       "MODEL_ALREADY_QUANTIZED", "sparse-24-bitmask"},
      {Config("Llama", R"("quantization_config": {"quant_method": "compressed-tensors",
                         "transform_config": {"config_groups": {"u": {}}},
                         "config_groups": {}}, )"),
       "MODEL_ALREADY_QUANTIZED", "transforms"},
      {Config("Llama", R"("quantization_config": {"quant_method": "compressed-tensors"}, )"),
       "INVALID_MODEL_CONFIG", "config_groups is missing"},
      {Config("Llama", R"("quantization_config": {"quant_method": "compressed-tensors",
                         "config_groups": {"g": {"weights": {"num_bits": 4,
                                                 "strategy": "group"}}}}, )"),
       "INVALID_MODEL_CONFIG", "group_size is missing"},
      {Config("Llama", R"("quantization_config": {"quant_method": "fp8",
                         "weight_block_size": [128, 0]}, )"),
       "INVALID_MODEL_CONFIG", "weight_block_size"},
      {Config("Llama", R"("quantization_config": {"quant_method": "fp8", "fmt": "e3m4"}, )"),
       "INVALID_MODEL_CONFIG", "e3m4"},
      {Config("Llama", R"("quantization_config": {"quant_method": "fp8",
                         "modules_to_not_convert": "lm_head"}, )"),
       "INVALID_MODEL_CONFIG", "modules_to_not_convert"},
      {Config("Llama", R"("quantization_config": [1], )"), "INVALID_MODEL_CONFIG",
       "quantization_config"},
      {Config("Llama", R"("quantization_config": {"quant_method": "fp8"},
                         "compression_config": {"quant_method": "mxfp4"}, )"),
       "INVALID_MODEL_CONFIG", "differ"},
      {Config("Llama", R"("hidden_act": "gelu", )"), "INVALID_MODEL_CONFIG", "hidden_act"},
      {Config("Llama", R"("rope_scaling": {"type": "spiral", "factor": 4.0}, )"),
       "INVALID_MODEL_CONFIG", "spiral"},
      {Config("Llama", R"("rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1],
                         "long_factor": [1, 2, 3]}, )"),
       "INVALID_MODEL_CONFIG", "long_factor"},
      {Config("Olmo", R"("clip_qkv": -1, )"), "INVALID_MODEL_CONFIG", "clip_qkv"},
      {Config("Falcon", R"("alibi": true, )"), "INVALID_MODEL_CONFIG", "alibi"},
      {Config("Phi", R"("qk_layernorm": true, )"), "INVALID_MODEL_CONFIG", "qk_layernorm"},
      {Config("Phi3", R"("attention_bias": true, )"), "INVALID_MODEL_CONFIG", "attention_bias"},
      {Config("OPT", R"("ffn_dim": 8, "do_layer_norm_before": false, )"), "INVALID_MODEL_CONFIG",
       "do_layer_norm_before"},
      {Config("OPT", R"("ffn_dim": 8, "word_embed_proj_dim": 32, )"), "INVALID_MODEL_CONFIG",
       "word_embed_proj_dim"},
      {Config("Apertus", R"("hidden_act": "silu", )"), "INVALID_MODEL_CONFIG", "xielu"},
      {Config("SmolLM3", R"("no_rope_layers": [1, 0], )"), "INVALID_MODEL_CONFIG",
       "no_rope_layers"},
      {R"({"architectures": ["GraniteMoeHybridForCausalLM"], "model_type": "granitemoehybrid",
          "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
          "num_attention_heads": 8, "layer_types": ["attention", "conv"]})",
       "INVALID_MODEL_CONFIG", "conv"},
      {R"({"architectures": ["JambaForCausalLM"], "model_type": "jamba"})",
       "UNSUPPORTED_ARCHITECTURE", "recurrent"},
      {R"({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"})",
       "INVALID_MODEL_CONFIG", "text_config"},
      {R"({"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
          "text_config": {"model_type": "unheard"}})",
       "UNSUPPORTED_ARCHITECTURE", "unheard"},
      {R"({"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
          "text_config": {"hidden_size": -1}})",
       "INVALID_MODEL_CONFIG", "text_config."},
      {Config("Llama", R"("rope_scaling": {"type": "linear"}, )"), "INVALID_MODEL_CONFIG",
       "rope_scaling.factor"},
      {Config("Llama", R"("rope_parameters": {"full_attention": {"rope_theta": 1e4}}, )"),
       "INVALID_MODEL_CONFIG", "full_attention"},
      {Config("Llama", R"("partial_rotary_factor": 0.5, )"), "INVALID_MODEL_CONFIG",
       "partial_rotary_factor"},
      {Config("Llama", R"("rope_theta": -1, )"), "INVALID_MODEL_CONFIG", "rope_theta"},
      {Config("Llama", R"("rms_norm_eps": "small", )"), "INVALID_MODEL_CONFIG", "rms_norm_eps"},
      {Config("Llama", R"("head_dim": 7, )"), "INVALID_MODEL_CONFIG", "head_dim"},
      {Config("Llama", R"("attention_bias": 1, )"), "INVALID_MODEL_CONFIG", "attention_bias"},
      {Config("Mistral", R"("sliding_window": 0, )"), "INVALID_MODEL_CONFIG", "sliding_window"},
      {Config("Qwen2", R"("use_sliding_window": true, "layer_types": ["full_attention"], )"),
       "INVALID_MODEL_CONFIG", "layer_types"},
      {"", "INVALID_MODEL_CONFIG", "config.json"},
      {"[1]", "INVALID_MODEL_CONFIG", "object"},
      {"{}", "INVALID_MODEL_CONFIG", "architectures"},
      {R"({"architectures": ["LlamaForCausalLM"], "model_type": "qwen2"})", "INVALID_MODEL_CONFIG",
       "does not belong"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(ParseModelConfig(c.json), FailsWith(absl::StatusCode::kInvalidArgument,
                                                    std::string(c.reason), HasSubstr(c.message)))
        << c.json;
  }
}

TEST(ModelConfigTest, EveryNumberIsRangeChecked) {
  for (const char* field : {"hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads", "num_key_value_heads", "vocab_size"}) {
    const std::string good = Config("Llama");
    const size_t begin = good.find(absl::StrCat("\"", field, "\": ")) + strlen(field) + 4;
    const size_t end = good.find_first_of(",}", begin);
    for (const char* bad : {"0", "-1", "1.5", "\"8\"", "9223372036854775807",
                            "18446744073709551615", "1e30", "true", "[]"}) {
      const std::string json = good.substr(0, begin) + bad + good.substr(end);
      EXPECT_THAT(ParseModelConfig(json),
                  FailsWith(absl::StatusCode::kInvalidArgument, std::string("INVALID_MODEL_CONFIG"),
                            HasSubstr(field)))
          << json;
    }
  }
  EXPECT_THAT(ParseModelConfig(absl::StrReplaceAll(
                  Config("Llama"), {{"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"}})),
              FailsWith(absl::StatusCode::kInvalidArgument, std::string("INVALID_MODEL_CONFIG"),
                        HasSubstr("does not divide")));
}

TEST(ModelConfigTest, DamagedConfigsNeverCrash) {
  constexpr uint64_t kSeed = 20251122;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  const std::string config = Config("Qwen3", R"("use_sliding_window": true, "rope_parameters": {
      "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 8192}, )");
  ASSERT_OK(ParseModelConfig(config));
  for (uint64_t round = 0; round < 3000; ++round) {
    const auto parsed = ParseModelConfig(Mutate(config, JsonDictionary(), kSeed, round));
    if (!parsed.ok()) {
      EXPECT_NE(ErrorReason(parsed.status()), "") << parsed.status();
    }
  }
}

TEST(RopeTest, Llama3ScalingKeepsHighAndDividesLowFrequencies) {
  RopeConfig rope;
  rope.width = 128;
  rope.theta = 500000.0;
  const std::vector<double> plain = RopeInverseFrequencies(rope, 16);
  rope.type = "llama3";
  rope.factor = 8.0;
  const std::vector<double> scaled = RopeInverseFrequencies(rope, 16);
  EXPECT_EQ(scaled[0], plain[0]);
  EXPECT_DOUBLE_EQ(scaled[63], plain[63] / 8.0);
  for (int i = 0; i < 64; ++i) {
    EXPECT_LE(scaled[i], plain[i]);
    EXPECT_GE(scaled[i], plain[i] / 8.0 * (1 - 1e-12));
  }
  // Hugging Face's Llama 3.1 value in the band where the scaling fades in, by its formula.
  const double wavelength = 2 * 3.14159265358979323846 / plain[30];
  const double smooth = (8192 / wavelength - 1.0) / 3.0;
  ASSERT_GT(smooth, 0.0);
  ASSERT_LT(smooth, 1.0);
  EXPECT_NEAR(scaled[30], (1 - smooth) * plain[30] / 8.0 + smooth * plain[30], 1e-15);
}

TEST(RopeTest, YarnKeepsFastAndDividesSlowFrequencies) {
  RopeConfig rope;
  rope.width = 128;
  const std::vector<double> plain = RopeInverseFrequencies(rope, 16);
  rope.type = "yarn";
  rope.factor = 40;
  rope.original_max_position_embeddings = 4096;
  const std::vector<double> scaled = RopeInverseFrequencies(rope, 16);
  EXPECT_EQ(scaled[0], plain[0]);
  EXPECT_DOUBLE_EQ(scaled[63], plain[63] / 40);
  // The bounds for these numbers: ⌊128 ln(4096 / 64π) / (2 ln 10⁴)⌋ = 20 and ⌈…4096 / 2π…⌉ = 46.
  EXPECT_EQ(scaled[20], plain[20]);
  EXPECT_LT(scaled[21], plain[21]);
  EXPECT_GT(scaled[45], plain[45] / 40 * 1.001);
  EXPECT_DOUBLE_EQ(scaled[46], plain[46] / 40);
}

TEST(RopeTest, ListsAndBasesDependOnTheLength) {
  RopeConfig rope;
  rope.width = 4;
  const std::vector<double> plain = RopeInverseFrequencies(rope, 8);
  rope.type = "longrope";
  rope.original_max_position_embeddings = 16;
  rope.short_factor = {1, 2};
  rope.long_factor = {3, 4};
  EXPECT_EQ(RopeInverseFrequencies(rope, 16), (std::vector<double>{plain[0], plain[1] / 2}));
  EXPECT_EQ(RopeInverseFrequencies(rope, 17), (std::vector<double>{plain[0] / 3, plain[1] / 4}));
  rope.type = "dynamic";
  rope.factor = 2;
  EXPECT_EQ(RopeInverseFrequencies(rope, 16), plain);
  // Base · (2 · 2 − 1)^(4 / 2) at twice the length.
  EXPECT_NEAR(RopeInverseFrequencies(rope, 32)[1], std::pow(10000.0 * 9, -0.5), 1e-12);
  rope.type = "proportional";
  rope.factor = 1;
  rope.rotated = 1;
  EXPECT_EQ(RopeInverseFrequencies(rope, 16), (std::vector<double>{plain[0], 0}));
}

TEST(RopeTest, TablesHoldCosinesAndSines) {
  std::unique_ptr<Backend> backend = NewCpuBackend({.num_threads = 1});
  RopeConfig rope;
  rope.width = 8;
  ASSERT_OK_AND_ASSIGN(const RopeTables tables, MakeRopeTables(backend.get(), {rope}, 5));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> cos, tables[0].cos.ToFloats());
  ASSERT_OK_AND_ASSIGN(const std::vector<float> sin, tables[0].sin.ToFloats());
  for (int position = 0; position < 5; ++position) {
    for (int i = 0; i < 4; ++i) {
      const double angle = position * std::pow(10000.0, -i / 4.0);
      EXPECT_NEAR(cos[position * 4 + i], std::cos(angle), 1e-7);
      EXPECT_NEAR(sin[position * 4 + i], std::sin(angle), 1e-7);
    }
  }
}

}  // namespace
}  // namespace uniquanf
