// A unified artifact read as a checkpoint: what is loaded is what is stored.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "common/artifact/artifact_config.h"
#include "common/artifact/layout.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/worker/model/model_fixture.h"
#include "tests/unit/worker/ops/reference.h"
#include "worker/model/checkpoint.h"

namespace uniquanf {
namespace {

using testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

class ArtifactCheckpointTest : public testing::Test {
 protected:
  // Every linear layer of layer 1 at 3 bits; layer 0 stays in full precision.
  void SetUp() override {
    tensors_ = MakeFixtureTensors(options_);
    const ModelConfig config = *ParseModelConfig(FixtureConfig(options_));
    std::mt19937_64 engine(7);
    for (int layer = 0; layer < options_.num_layers; ++layer) {
      for (int l = 0; l < config.blocks[layer].num_linears(); ++l) {
        const std::string name = config.ModuleName(layer, l);
        const std::vector<int64_t> shape = tensors_[name + ".weight"].shape;
        ManifestModule module;
        module.name = name;
        module.num_outputs = shape[0];
        module.num_inputs = shape[1];
        module.quantized = layer == 1;
        if (module.quantized) {
          module.bits = 3;
          module.group_size = 8;
          AddPacked(name, shape[0], shape[1], &engine);
        } else {
          module.reason = "left in full precision by an override";
        }
        manifest_.modules.push_back(module);
      }
    }
    ManifestModule head;
    head.name = "lm_head";
    head.num_outputs = 40;
    head.num_inputs = 16;
    head.reason = "tied to the embedding";
    manifest_.modules.push_back(head);
    manifest_.software_version = "test";
    manifest_.environment = "test";
    manifest_.spec.model_uri = "model";
    manifest_.spec.calibration_uri = "tokens";
    manifest_.spec.output_uri = "out";
    manifest_.spec.bits = 3;
    manifest_.spec.group_size = 8;
    manifest_.model.architecture = options_.architecture;
    manifest_.model.num_layers = options_.num_layers;
    for (std::string* digest :
         {&manifest_.model.config_sha256, &manifest_.model.tensors_sha256,
          &manifest_.model.weights_sha256, &manifest_.model.calibration_sha256,
          &manifest_.model.plan_sha256}) {
      *digest = Sha256Hex("");
    }
  }

  void AddPacked(const std::string& name, int64_t n, int64_t k, std::mt19937_64* engine) {
    UnifiedLinear unified;
    unified.bits = 3;
    unified.num_outputs = n;
    unified.num_inputs = k;
    unified.group_size = 8;
    for (int64_t i = 0; i < n * k; ++i) unified.codes.push_back((*engine)() % 8);
    unified.alpha = reference::RandomFloats(n * k / 8 * 3, (*engine)());
    unified.shift = reference::RandomFloats(n * k / 8, (*engine)());
    packed_[name] = Pack(unified);
    tensors_.erase(name + ".weight");
    for (const auto& declaration : PackedTensors(name, packed_[name])) {
      FixtureTensor tensor;
      tensor.dtype = declaration.dtype;
      tensor.shape = declaration.shape;
      tensor.bytes = PackedTensorBytes(name, packed_[name], declaration.name);
      tensors_[declaration.name] = tensor;
    }
  }

  void Write() {
    ASSERT_OK_AND_ASSIGN(
        const ArtifactConfig config,
        BuildArtifactConfig(FixtureConfig(options_), manifest_.spec, manifest_.modules));
    manifest_.anybcq_omitted = config.anybcq_omitted;
    std::map<std::string, std::string> tensor_to_file;
    for (const auto& [name, tensor] : tensors_) tensor_to_file[name] = "model.safetensors";
    const std::map<std::string, std::string> files = {
        {"config.json", config.json},
        {"model.safetensors", FixtureFile(tensors_)},
        {"model.safetensors.index.json", BuildIndexJson(tensor_to_file, 1)}};
    manifest_.files.clear();
    for (const auto& [path, bytes] : files) {
      WriteFile(dir_.File(path), bytes);
      manifest_.files.push_back({path, bytes.size(), Sha256Hex(bytes)});
    }
    WriteFile(dir_.File("manifest.json"), manifest_.ToJson());
  }

  absl::StatusOr<std::unique_ptr<Checkpoint>> Open(bool allow_quantized) {
    return Checkpoint::Open(*OpenObjectStore(dir_.path()), allow_quantized);
  }

  TempDir dir_;
  FixtureOptions options_;
  FixtureTensors tensors_;
  Manifest manifest_;
  std::map<std::string, PackedLinear> packed_;
};

TEST_F(ArtifactCheckpointTest, LoadsDequantizedWeights) {
  Write();
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open(true));
  EXPECT_TRUE(checkpoint->quantized());
  EXPECT_EQ(checkpoint->config().num_layers, 2);
  EXPECT_THAT(checkpoint->config_json(), HasSubstr("quantization_config"));
  ASSERT_OK_AND_ASSIGN(const HostBlock plain, checkpoint->LoadBlock(0));
  const BlockSpec& spec = checkpoint->config().blocks[1];
  EXPECT_EQ(plain[spec.linears[0]], tensors_["model.layers.0.self_attn.q_proj.weight"].values);
  ASSERT_OK_AND_ASSIGN(const HostBlock block, checkpoint->LoadBlock(1));
  for (int l = 0; l < spec.num_linears(); ++l) {
    const PackedLinear& packed = packed_[checkpoint->config().ModuleName(1, l)];
    std::vector<float> expected(packed.num_outputs * packed.num_inputs);
    Dequantize(packed, expected.data());
    EXPECT_EQ(block[spec.linears[l]], expected) << spec.linear(l).module;
  }
}

TEST_F(ArtifactCheckpointTest, IsAnAlreadyQuantizedModelWhereThatIsNotAllowed) {
  Write();
  EXPECT_THAT(Open(false), FailsWith(kInvalid, std::string("MODEL_ALREADY_QUANTIZED")));
}

TEST_F(ArtifactCheckpointTest, ManifestMustListTheModelsModules) {
  manifest_.modules[0].num_outputs = 8;  // in full precision: its tensor says otherwise
  manifest_.modules[7].num_outputs = 8;  // quantized
  Write();
  EXPECT_THAT(Open(true), FailsWith(kInvalid, std::string("TENSOR_SHAPE"), HasSubstr("layers.1")));
}

TEST_F(ArtifactCheckpointTest, ModulesMissingFromTheManifestAreNamed) {
  manifest_.modules.erase(manifest_.modules.begin() + 9);
  Write();
  EXPECT_THAT(Open(true), FailsWith(kInvalid, std::string("INVALID_MANIFEST"),
                                    HasSubstr("model.layers.1.self_attn.v_proj")));
}

}  // namespace
}  // namespace uniquanf
