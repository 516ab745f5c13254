// What worker/model, worker/task and worker/export read: config.json, the index of a sharded
// checkpoint, plans, layer results, a vocabulary for gguf.
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/model_fixture.h"
#include "worker/export/export_format.h"
#include "worker/export/gguf_file.h"
#include "worker/model/checkpoint_files.h"
#include "worker/model/dequantize.h"
#include "worker/model/model_config.h"
#include "worker/task/layer_result.h"
#include "worker/task/plan.h"
#include "worker/task/window_result.h"

namespace uniquanf {
namespace {

bool RunConfig(absl::string_view bytes) {
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(bytes);
  if (!config.ok()) {
    CheckRefusal(config.status());
    return false;
  }
  UQ_CHECK(config->num_layers > 0 && config->hidden_size > 0 && config->vocab_size > 0);
  UQ_CHECK(config->blocks.size() == static_cast<size_t>(config->num_layers));
  for (int layer = 0; layer < config->num_layers; ++layer) {
    UQ_CHECK(!config->ModuleNames(layer).empty());
    for (const TensorSpec& tensor : config->blocks[layer].tensors) {
      UQ_CHECK(tensor.num_elements() > 0);
      if (tensor.stored.name.empty()) continue;
      const auto [first, end] = tensor.StoredRange();
      UQ_CHECK(0 <= first && first < end);
    }
  }
  for (const RopeConfig& rope : config->ropes) {
    UQ_CHECK(rope.width > 0 && rope.width % 2 == 0);
    for (const int64_t length : {int64_t{1}, int64_t{1} << 20}) {  // some kinds depend on it
      for (const double frequency : RopeInverseFrequencies(rope, length)) {
        UQ_CHECK(std::isfinite(frequency));
      }
    }
  }
  return true;
}

// model.safetensors.index.json beside one shard.
bool RunIndex(absl::string_view bytes) {
  const char header[] = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const uint64_t size = sizeof(header) - 1;
  std::string shard(8, '\0');
  std::memcpy(shard.data(), &size, 8);
  absl::StrAppend(&shard, header, std::string(8, '\0'));
  const auto tensors = OpenCheckpointFiles(NewMemoryStore(
      {{"model.safetensors.index.json", std::string(bytes)}, {"model-1.safetensors", shard}}));
  if (!tensors.ok()) {
    CheckRefusal(tensors.status());
    return false;
  }
  return true;
}

template <typename Value>
bool Canonical(absl::string_view bytes) {
  const absl::StatusOr<Value> value = Value::FromJson(bytes);
  if (!value.ok()) {
    CheckRefusal(value.status());
    return false;
  }
  const std::string canonical = value->ToJson();
  const absl::StatusOr<Value> again = Value::FromJson(canonical);
  UQ_CHECK(again.ok() && again->ToJson() == canonical);
  return true;
}

bool RunPlanJson(absl::string_view bytes) {
  if (!Canonical<Plan>(bytes)) return false;
  const Plan plan = *Plan::FromJson(bytes);
  const int num_rounds = NumRounds(plan);
  UQ_CHECK(num_rounds >= 1);
  UQ_CHECK(RoundSteps(plan, 0).first == 0);
  UQ_CHECK(RoundSteps(plan, num_rounds - 1).second == NumSteps(plan));
  return true;
}

// The header of a file of quantized weights: its tensors, in every form that is dequantized.
bool RunQuantized(absl::string_view bytes) {
  const uint64_t size = bytes.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &size, 8);
  absl::StrAppend(&file, bytes, std::string(4096, '\1'));
  auto files = OpenCheckpointFiles(NewMemoryStore({{"model.safetensors", file}}));
  if (!files.ok()) {
    CheckRefusal(files.status());
    return false;
  }
  SourceQuantization quantization;
  quantization.method = "compressed-tensors";
  quantization.blocks = {{2, 4}};
  quantization.schemes = {{false, 4, true, 8}, {false, 8, true, 0}};
  const auto done = DequantizeTensors(quantization, &files->tensors);
  if (!done.ok()) {
    CheckRefusal(done.status());
    return false;
  }
  for (const auto& [name, tensor] : files->tensors) {
    if (tensor.decoder == nullptr) continue;
    const int64_t elements = tensor.info.num_elements();
    UQ_CHECK(elements > 0 && elements <= 4 * 4096 && IsFullPrecision(tensor.info.dtype));
    std::vector<float> values(elements);
    const absl::Status status = tensor.ReadFloats(0, elements, values.data());
    if (!status.ok()) CheckRefusal(status);
    std::string raw(tensor.info.size_bytes, '\0');
    UQ_CHECK(tensor.ReadBytes(0, elements, raw.data()).ok() == status.ok());
  }
  return true;
}

// tokenizer.json as gguf's metadata.
bool RunVocabulary(absl::string_view bytes) {
  const auto store = NewMemoryStore({{"tokenizer.json", std::string(bytes)}});
  const ConfigJson config = {{"vocab_size", 4}, {"eos_token_id", 1}};
  GgufMetadata metadata;
  const absl::Status status = AddVocabulary(store.get(), config, 4, &metadata);
  if (!status.ok()) CheckRefusal(status);
  return status.ok();
}

std::string ConfigSeed(const std::string& family) {
  return FixtureModel::Make(family, 1).config.dump();
}

std::string QuantizedConfigSeed() {
  nlohmann::json config = FixtureModel::Make("llama", 1).config;
  config["quantization_config"] = nlohmann::json::parse(
      R"({"quant_method":"compressed-tensors","format":"pack-quantized","ignore":["lm_head"],)"
      R"("config_groups":{"group_0":{"targets":["Linear"],"weights":{"num_bits":4,"type":"int",)"
      R"("strategy":"group","group_size":32,"symmetric":false,"block_structure":[1,2]}}}})");
  return config.dump();
}

Plan PlanSeed() {
  Plan plan;
  plan.spec.schedule = LayerSchedule::kPipelined;
  plan.device = "cpu";
  plan.arithmetic = "f32";
  plan.num_layers = 2;
  plan.config_sha256 = plan.tensors_sha256 = plan.calibration_sha256 = std::string(64, 'a');
  plan.num_samples = 8;
  plan.sequence_length = 16;
  plan.warnings = {"w"};
  return plan;
}

LayerResult LayerResultSeed() {
  LayerResult result;
  result.plan_sha256 = result.shard_sha256 = result.weights_sha256 = std::string(64, 'b');
  result.layer = 1;
  result.shard_size_bytes = 100;
  result.environment = "cpu";
  result.initial_loss = 0.5;
  result.final_loss = 0.25;
  result.loss_curve = {0.5f, 0.25f};
  result.modules = {{"model.layers.1.mlp.down_proj", 8, 16, true, 3, 16, 0.125, 0}};
  return result;
}

WindowResult WindowResultSeed() {
  WindowResult result;
  result.plan_sha256 = LayerResultSeed().plan_sha256;
  result.first_layer = 1;
  result.environment = "cpu";
  result.initial_divergence = 0.5;
  result.final_divergence = 0.25;
  result.best_step = 4;
  result.loss_curve = {0.5f, 0.25f};
  result.layers = {LayerResultSeed(), LayerResultSeed()};
  result.layers[1].layer = 2;
  result.layers[1].changed_vectors = {"model.layers.2.input_layernorm.weight"};
  return result;
}

}  // namespace

std::vector<FuzzTarget> EngineTargets() {
  return {
      {"ModelConfig",
       RunConfig,
       {ConfigSeed("llama"), ConfigSeed("mistral"), ConfigSeed("qwen2"), ConfigSeed("qwen3"),
        QuantizedConfigSeed()},
       {"\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}", "\"head_dim\"",
        "\"sliding_window\"", "\"rope_theta\"", "\"layer_types\"", "\"gemma2\"", "\"mixtral\"",
        "\"num_local_experts\"", "\"num_hidden_layers\"", "\"vocab_size\"",
        "\"quantization_config\"", "\"weight_block_size\":[128,128]", "\"mxfp4\"", "NaN"}},
      {"QuantizedWeights",
       RunQuantized,
       {R"({"a.weight":{"dtype":"F8_E4M3","shape":[3,8],"data_offsets":[0,24]},)"
        R"("a.weight_scale_inv":{"dtype":"F32","shape":[2,2],"data_offsets":[24,40]}})",
        R"({"a.weight_packed":{"dtype":"I32","shape":[1,1],"data_offsets":[8,12]},)"
        R"("a.weight_shape":{"dtype":"U8","shape":[2],"data_offsets":[24,26]},)"
        R"("a.weight_scale":{"dtype":"BF16","shape":[1,1],"data_offsets":[26,28]},)"
        R"("b":{"dtype":"F8_E5M2","shape":[2,4],"data_offsets":[28,36]}})",
        R"({"x_blocks":{"dtype":"U8","shape":[2,3,1,16],"data_offsets":[0,96]},)"
        R"("x_scales":{"dtype":"U8","shape":[2,3,1],"data_offsets":[96,102]}})"},
       {"\"a.weight_zero_point\"", "\"a.weight_g_idx\"", "\"a.weight_scale\"", "\"I8\"", "[]",
        "\"F8_E8M0\"", "_scales_inv", "[1,1]"},
       0.8},
      {"ModelIndex",
       RunIndex,
       {R"({"metadata":{"total_size":8},"weight_map":{"a":"model-1.safetensors"}})"},
       {"\"../x\"", "\"/etc/passwd\"", "\"weight_map\"", "\"b\":\"model-1.safetensors\","}},
      {"Plan",
       RunPlanJson,
       {PlanSeed().ToJson()},
       {"\"spec\"", "\"schedule\"", "\"pipeline_rounds\"", "\"num_samples\""}},
      {"LayerResult",
       Canonical<LayerResult>,
       {LayerResultSeed().ToJson()},
       {"\"modules\"", "\"loss_curve\"", "null", "\"quantized\""}},
      {"WindowResult",
       Canonical<WindowResult>,
       {WindowResultSeed().ToJson()},
       {"\"layers\":[]", "\"first_layer\"", "\"best_step\"", "null", "\"changed_vectors\"",
        "\"uniquanf_window_result\":2"}},
      {"GgufVocabulary",
       RunVocabulary,
       {R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},)"
        R"("pre_tokenizer":{"type":"ByteLevel"},"added_tokens":[{"id":3,"content":"<s>","special":true}]})"},
       {"\"merges\":[[\"a\",\"b\"]]", "\"Split\"", "\"Regex\"", "\"added_tokens\"", "\"id\""}},
  };
}

}  // namespace uniquanf
