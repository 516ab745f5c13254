#include "tests/unit/worker/model/model_fixture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/worker/ops/reference.h"

namespace uniquanf {
namespace {

// Collects an object in memory.
class StringWriter : public ObjectWriter {
 public:
  absl::Status Append(absl::string_view data) override {
    out_.append(data.data(), data.size());
    return absl::OkStatus();
  }
  absl::Status Commit() override { return absl::OkStatus(); }
  std::string out_;
};

}  // namespace

std::string FixtureConfig(const FixtureOptions& options) {
  const std::string type = options.architecture.substr(0, options.architecture.find("For"));
  std::string model_type = type;
  std::transform(model_type.begin(), model_type.end(), model_type.begin(), ::tolower);
  return absl::StrCat(
      R"({"architectures": [")", options.architecture, R"("], "model_type": ")", model_type,
      R"(", "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2,)",
      R"("num_key_value_heads": 1, "head_dim": 8, "vocab_size": )", options.vocab_size,
      R"(, "rms_norm_eps": 1e-5,)", R"("num_hidden_layers": )", options.num_layers,
      R"(, "tie_word_embeddings": )", options.tied ? "true" : "false", "}");
}

FixtureTensors MakeFixtureTensors(const FixtureOptions& options) {
  FixtureTensors tensors;
  uint64_t seed = 1;
  auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (int64_t dim : shape) count *= dim;
    const double deviation = 1 / std::sqrt(static_cast<double>(shape.back()));
    std::vector<float> values = reference::RandomFloats(count, ++seed, deviation);
    tensors[name] = {SafetensorsDType::kF32, std::move(shape), std::move(values)};
  };
  add("model.embed_tokens.weight", {options.vocab_size, 16});
  add("model.norm.weight", {16});
  if (!options.tied) add("lm_head.weight", {options.vocab_size, 16});
  for (int layer = 0; layer < options.num_layers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    add(prefix + "input_layernorm.weight", {16});
    add(prefix + "post_attention_layernorm.weight", {16});
    add(prefix + "self_attn.q_proj.weight", {16, 16});
    add(prefix + "self_attn.k_proj.weight", {8, 16});
    add(prefix + "self_attn.v_proj.weight", {8, 16});
    add(prefix + "self_attn.o_proj.weight", {16, 16});
    add(prefix + "mlp.gate_proj.weight", {24, 16});
    add(prefix + "mlp.up_proj.weight", {24, 16});
    add(prefix + "mlp.down_proj.weight", {16, 24});
    if (options.qkv_bias) {
      add(prefix + "self_attn.q_proj.bias", {16});
      add(prefix + "self_attn.k_proj.bias", {8});
      add(prefix + "self_attn.v_proj.bias", {8});
    }
    if (options.qk_norm) {
      add(prefix + "self_attn.q_norm.weight", {8});
      add(prefix + "self_attn.k_norm.weight", {8});
    }
  }
  return tensors;
}

std::string FixtureFile(const FixtureTensors& tensors) {
  std::vector<SafetensorsWriter::Declaration> declarations;
  for (const auto& [name, tensor] : tensors) {
    declarations.push_back({name, tensor.dtype, tensor.shape});
  }
  StringWriter out;
  auto writer = SafetensorsWriter::Create(&out, declarations, {});
  EXPECT_TRUE(writer.ok()) << writer.status();
  for (const auto& [name, tensor] : tensors) {
    int64_t count = 1;
    for (int64_t dim : tensor.shape) count *= dim;
    std::string bytes(count * SafetensorsDTypeBits(tensor.dtype) / 8, '\0');
    if (!tensor.bytes.empty()) bytes = tensor.bytes;
    for (int64_t i = 0; i < count; ++i) {
      if (tensor.dtype == SafetensorsDType::kF32) {
        std::memcpy(&bytes[4 * i], &tensor.values[i], 4);
      } else if (tensor.dtype == SafetensorsDType::kBF16) {
        const uint16_t rounded = FloatToBfloat16(tensor.values[i]);
        std::memcpy(&bytes[2 * i], &rounded, 2);
      }
    }
    EXPECT_TRUE((*writer)->Append(name, bytes.data(), bytes.size()).ok());
  }
  EXPECT_TRUE((*writer)->Finish().ok());
  return out.out_;
}

void WriteFixture(const std::string& dir, const FixtureOptions& options,
                  const FixtureTensors& tensors) {
  WriteFile(dir + "/config.json", FixtureConfig(options));
  WriteFile(dir + "/model.safetensors", FixtureFile(tensors));
}

}  // namespace uniquanf
