#include "tests/support/model_fixture.h"

#include <filesystem>
#include <fstream>
#include <random>

#include "common/base/check.h"
#include "common/object_store/object_store.h"

namespace uniquanf {
namespace {

std::shared_ptr<ObjectStore> StoreAt(const std::string& dir) {
  auto store = OpenObjectStore(dir);
  UQ_CHECK(store.ok());
  return *store;
}

std::string Encode(const FixtureTensor& tensor) {
  if (tensor.dtype == SafetensorsDType::kF32) {
    return std::string(reinterpret_cast<const char*>(tensor.values.data()),
                       tensor.values.size() * sizeof(float));
  }
  std::vector<uint16_t> raw;
  for (float value : tensor.values) {
    raw.push_back(tensor.dtype == SafetensorsDType::kF16 ? FloatToFloat16(value)
                                                         : FloatToBfloat16(value));
  }
  return std::string(reinterpret_cast<const char*>(raw.data()), raw.size() * sizeof(uint16_t));
}

}  // namespace

FixtureModel FixtureModel::Make(const std::string& family, uint64_t seed) {
  constexpr int64_t kHidden = 64, kMlp = 96, kHeads = 4, kKvHeads = 2, kHeadDim = 16, kVocab = 128;
  FixtureModel model;
  const std::map<std::string, std::string> architectures = {{"llama", "LlamaForCausalLM"},
                                                            {"mistral", "MistralForCausalLM"},
                                                            {"qwen2", "Qwen2ForCausalLM"},
                                                            {"qwen3", "Qwen3ForCausalLM"}};
  model.config = {{"architectures", {architectures.at(family)}},
                  {"model_type", family},
                  {"hidden_size", kHidden},
                  {"intermediate_size", kMlp},
                  {"num_attention_heads", kHeads},
                  {"num_key_value_heads", kKvHeads},
                  {"head_dim", kHeadDim},
                  {"num_hidden_layers", 2},
                  {"vocab_size", kVocab},
                  {"max_position_embeddings", 256},
                  {"rms_norm_eps", 1e-5},
                  {"rope_theta", 10000.0},
                  {"hidden_act", "silu"},
                  {"tie_word_embeddings", true}};
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape, float center,
                       float spread) {
    FixtureTensor tensor;
    tensor.shape = std::move(shape);
    int64_t count = 1;
    for (int64_t dim : tensor.shape) count *= dim;
    for (int64_t i = 0; i < count; ++i) tensor.values.push_back(center + spread * normal(random));
    model.tensors[name] = std::move(tensor);
  };
  add("model.embed_tokens.weight", {kVocab, kHidden}, 0, 0.5f);
  add("model.norm.weight", {kHidden}, 1, 0.1f);
  for (int layer = 0; layer < 2; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    add(prefix + "input_layernorm.weight", {kHidden}, 1, 0.1f);
    add(prefix + "post_attention_layernorm.weight", {kHidden}, 1, 0.1f);
    add(prefix + "self_attn.q_proj.weight", {kHeads * kHeadDim, kHidden}, 0, 0.15f);
    add(prefix + "self_attn.k_proj.weight", {kKvHeads * kHeadDim, kHidden}, 0, 0.15f);
    add(prefix + "self_attn.v_proj.weight", {kKvHeads * kHeadDim, kHidden}, 0, 0.15f);
    add(prefix + "self_attn.o_proj.weight", {kHidden, kHeads * kHeadDim}, 0, 0.15f);
    add(prefix + "mlp.gate_proj.weight", {kMlp, kHidden}, 0, 0.15f);
    add(prefix + "mlp.up_proj.weight", {kMlp, kHidden}, 0, 0.15f);
    add(prefix + "mlp.down_proj.weight", {kHidden, kMlp}, 0, 0.15f);
    if (family == "qwen2") {
      add(prefix + "self_attn.q_proj.bias", {kHeads * kHeadDim}, 0, 0.1f);
      add(prefix + "self_attn.k_proj.bias", {kKvHeads * kHeadDim}, 0, 0.1f);
      add(prefix + "self_attn.v_proj.bias", {kKvHeads * kHeadDim}, 0, 0.1f);
    }
    if (family == "qwen3") {
      add(prefix + "self_attn.q_norm.weight", {kHeadDim}, 1, 0.1f);
      add(prefix + "self_attn.k_norm.weight", {kHeadDim}, 1, 0.1f);
    }
  }
  return model;
}

void FixtureModel::Write(const std::string& dir) const {
  std::filesystem::create_directories(dir);
  std::ofstream(dir + "/config.json") << config.dump(2);
  std::vector<SafetensorsWriter::Declaration> declarations;
  for (const auto& [name, tensor] : tensors) {
    declarations.push_back({name, tensor.dtype, tensor.shape});
  }
  auto out = StoreAt(dir)->NewWriter("model.safetensors", {});
  UQ_CHECK(out.ok());
  auto writer = SafetensorsWriter::Create(out->get(), declarations, {{"format", "pt"}});
  UQ_CHECK(writer.ok());
  for (const auto& [name, tensor] : tensors) {
    const std::string bytes = Encode(tensor);
    UQ_CHECK((*writer)->Append(name, bytes.data(), bytes.size()).ok());
  }
  UQ_CHECK((*writer)->Finish().ok());
  UQ_CHECK((*out)->Commit().ok());
}

void WriteTokenFile(const std::string& path, const std::map<std::string, FixtureTokens>& entries) {
  const std::filesystem::path file(path);
  std::vector<SafetensorsWriter::Declaration> declarations;
  for (const auto& [name, tokens] : entries) {
    declarations.push_back({name, SafetensorsDType::kI32, tokens.shape});
  }
  auto out = StoreAt(file.parent_path().string())->NewWriter(file.filename().string(), {});
  UQ_CHECK(out.ok());
  auto writer = SafetensorsWriter::Create(out->get(), declarations, {});
  UQ_CHECK(writer.ok());
  for (const auto& [name, tokens] : entries) {
    UQ_CHECK((*writer)->Append(name, tokens.ids.data(), tokens.ids.size() * sizeof(int32_t)).ok());
  }
  UQ_CHECK((*writer)->Finish().ok());
  UQ_CHECK((*out)->Commit().ok());
}

FixtureTokens RandomTokens(std::vector<int64_t> shape, int vocab_size, uint64_t seed) {
  FixtureTokens tokens;
  tokens.shape = std::move(shape);
  int64_t count = 1;
  for (int64_t dim : tokens.shape) count *= dim;
  std::mt19937_64 random(seed);
  for (int64_t i = 0; i < count; ++i) {
    tokens.ids.push_back(static_cast<int32_t>(random() % vocab_size));
  }
  return tokens;
}

}  // namespace uniquanf
