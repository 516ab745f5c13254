// The artifact's config.json and index.
#include "common/artifact/artifact_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kSource[] =
    R"({"model_type":"llama","rms_norm_eps":1e-05,"rope_theta":10000.0,"nested":{"b":[1,null,"x"],"a":true}})";

std::vector<ManifestModule> Modules(int64_t N, int64_t K, int bits, int64_t group_size) {
  std::vector<ManifestModule> modules;
  for (const char* name : {"model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj",
                           "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"}) {
    ManifestModule module;
    module.name = name;
    module.quantized = true;
    module.bits = bits;
    module.num_outputs = N;
    module.num_inputs = K;
    module.group_size = group_size;
    modules.push_back(module);
  }
  ManifestModule head;
  head.name = "lm_head";
  head.reason = "not part of a block";
  modules.push_back(head);
  return modules;
}

json Build(const std::vector<ManifestModule>& modules, std::string* omitted = nullptr) {
  QuantizationSpec spec;
  spec.bits = 3;
  const absl::StatusOr<ArtifactConfig> config = BuildArtifactConfig(kSource, spec, modules);
  EXPECT_OK(config);
  if (omitted != nullptr) *omitted = config->anybcq_omitted;
  return json::parse(config->json);
}

TEST(ArtifactConfigTest, KeepsTheSourcesFields) {
  json config = Build(Modules(64, 128, 3, 128));
  EXPECT_EQ(config["quantization_config"]["quant_method"], "uniquanf");
  EXPECT_EQ(config["quantization_config"]["bits"], 3);
  EXPECT_EQ(config["quantization_config"]["modules_to_not_convert"], json({"lm_head"}));
  config.erase("quantization_config");
  config.erase("anybcq");
  EXPECT_EQ(config, json::parse(kSource));
}

TEST(ArtifactConfigTest, DescribesItselfToAnyBcq) {
  const json per_row = Build(Modules(64, 128, 3, 128));
  EXPECT_EQ(per_row["anybcq"],
            json::parse(R"({"seed_precision":3,"parent_precision":3,"group_size":-1,"arch_config":)"
                        R"({"model_name":"model","layers_name":"layers",)"
                        R"("module_names":["mlp.down_proj","self_attn.q_proj"]}})"));
  EXPECT_EQ(Build(Modules(64, 128, 3, 64))["anybcq"]["group_size"], 64);
}

TEST(ArtifactConfigTest, SaysWhyAnyBcqCanNotReadIt) {
  const auto expect_omitted = [](const std::vector<ManifestModule>& modules, const char* why) {
    std::string omitted;
    EXPECT_FALSE(Build(modules, &omitted).contains("anybcq"));
    EXPECT_THAT(omitted, HasSubstr(why));
  };
  std::vector<ManifestModule> modules = Modules(64, 128, 3, 64);
  modules[2].bits = 4;
  expect_omitted(modules, "differ in bits");
  modules = Modules(64, 128, 3, 64);
  modules[2].group_size = 128;
  expect_omitted(modules, "differ in group size");
  modules = Modules(64, 128, 3, 64);
  modules[1].quantized = false;
  expect_omitted(modules, "model.layers.1.self_attn.q_proj is in full precision");
  expect_omitted(Modules(64, 128, 3, 32), "no multiple of 64");
  expect_omitted(Modules(64, 96, 3, 96), "multiples of 64");
  expect_omitted(Modules(63, 128, 3, 128), "multiples of 64");
  expect_omitted({}, "no module is quantized");
}

TEST(ArtifactConfigTest, BadSourcesAreRefused) {
  for (const char* source : {"", "[]", "{", "{\"a\":1,\"a\":2}"}) {
    EXPECT_THAT(BuildArtifactConfig(source, QuantizationSpec(), {}),
                FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_MODEL_CONFIG"));
  }
}

TEST(ArtifactConfigTest, IndexNamesEveryTensor) {
  EXPECT_EQ(BuildIndexJson({{"b", "2.safetensors"}, {"a", "1.safetensors"}}, 12),
            "{\n \"metadata\": {\n  \"total_size\": 12\n },\n \"weight_map\": {\n"
            "  \"a\": \"1.safetensors\",\n  \"b\": \"2.safetensors\"\n }\n}\n");
}

}  // namespace
}  // namespace uniquanf
