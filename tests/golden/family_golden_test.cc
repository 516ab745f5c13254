// Model families against tiny checkpoints written and run by Hugging Face transformers (float32):
// every layer's output from its input, the gradients of a random upstream gradient, and the whole
// model's negative log likelihood; and that each can be quantized, read back and exported.
// A family is supported when its folder is in kFolders; see README.md for what the files hold.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/artifact/artifact_reader.h"
#include "common/safetensors/safetensors.h"
#include "tests/golden/family_folders.h"
#include "tests/golden/golden_file.h"
#include "tests/unit/worker/task/task_fixture.h"
#include "worker/export/export.h"
#include "worker/model/language_model.h"

namespace uniquanf::golden {
namespace {

constexpr double kNllBound = 1e-5, kOutputBound = 1e-4, kGradientBound = 1e-3;

// An expert's matrices have names of their own in the file and are stacked in memory: the place of
// a linear layer's rows in the memory's tensor, or false.
struct StackedPlace {
  std::string tensor;  // "mlp.experts.gate_up_proj" or "...down_proj"
  int expert = 0;
  int half = 0;  // 0: the first rows (gate), 1: the second (up)
};
bool FindStacked(const std::string& module, StackedPlace* place) {
  const std::vector<std::string> parts = absl::StrSplit(module, '.');
  const size_t n = parts.size();
  if (n < 3 || parts[n - 3] != "experts" || !absl::SimpleAtoi(parts[n - 2], &place->expert)) {
    return false;
  }
  const std::string& last = parts[n - 1];
  const bool down = last == "down_proj" || last == "w2";
  place->half = last == "up_proj" || last == "w3" ? 1 : 0;
  place->tensor = down ? "mlp.experts.down_proj" : "mlp.experts.gate_up_proj";
  return true;
}

// Granite's stacks of experts have other names in memory.
std::string NameInMemory(const std::string& stored) {
  if (stored == "block_sparse_moe.input_linear.weight") {
    return "block_sparse_moe.experts.gate_up_proj";
  }
  if (stored == "block_sparse_moe.output_linear.weight") {
    return "block_sparse_moe.experts.down_proj";
  }
  return stored;
}

class FamilyGoldenTest : public testing::TestWithParam<FamilyCase> {
 protected:
  void SetUp() override {
    backend_ = MakeBackend(GetParam().device);
    ASSERT_NE(backend_, nullptr);
    auto store = OpenObjectStore(FolderPath(GetParam().folder));
    ASSERT_TRUE(store.ok()) << store.status();
    auto checkpoint = Checkpoint::Open(*store, /*allow_quantized=*/false);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    checkpoint_ = *std::move(checkpoint);
    auto file = SafetensorsFile::Open(*store, "golden.safetensors");
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *file;
  }

  bool Has(const std::string& name) const { return file_->tensors().count(name) > 0; }
  std::vector<float> Read(const std::string& name) const {
    auto info = file_->Find(name);
    EXPECT_TRUE(info.ok()) << info.status();
    if (!info.ok()) return {};
    std::vector<float> values(info->num_elements());
    EXPECT_TRUE(file_->ReadFloat(*info, values.data()).ok()) << name;
    return values;
  }
  std::vector<int32_t> InputIds() const {
    auto info = file_->Find("input_ids");
    EXPECT_TRUE(info.ok()) << info.status();
    std::vector<int64_t> ids(info->num_elements());
    EXPECT_TRUE(file_->ReadInt64(*info, ids.data()).ok());
    num_sequences_ = info->shape[0];
    seq_len_ = info->shape[1];
    return {ids.begin(), ids.end()};
  }

  // Largest difference relative to the largest expected value.
  static double Difference(const std::vector<float>& actual, const std::vector<float>& expected) {
    EXPECT_EQ(actual.size(), expected.size());
    if (actual.size() != expected.size()) return INFINITY;
    double scale = 1e-30, largest = 0;
    for (size_t i = 0; i < actual.size(); ++i) {
      scale = std::max(scale, std::fabs(static_cast<double>(expected[i])));
      const double error = std::fabs(static_cast<double>(actual[i]) - expected[i]);
      largest = std::isfinite(error) ? std::max(largest, error) : INFINITY;
    }
    return largest / scale;
  }

  // Compares every linear layer's gradient with the golden's, whatever form that has in memory.
  double CompareGradients(int layer, const BlockGradients& gradients) {
    const BlockSpec& spec = checkpoint_->config().blocks[layer];
    const std::string prefix = absl::StrCat("layer", layer, ".grad.");
    std::map<std::string, std::vector<float>> actual;  // by the golden's name
    for (int l = 0; l < spec.num_linears(); ++l) {
      const TensorSpec& linear = spec.linear(l);
      const std::vector<float> gradient = *gradients[l].ToFloats();
      StackedPlace place;
      const std::string name = NameInMemory(linear.stored.name);
      if (Has(prefix + name)) {
        std::vector<float>& stored = actual[name];
        stored.resize(file_->Find(prefix + name)->num_elements());
        linear.Scatter(gradient.data(), stored.data());
      } else if (FindStacked(linear.module, &place) && Has(prefix + place.tensor)) {
        const TensorInfo info = *file_->Find(prefix + place.tensor);
        std::vector<float>& stacked = actual[place.tensor];
        stacked.resize(info.num_elements());
        const int64_t size = linear.num_elements();
        const int64_t per_expert = info.num_elements() / info.shape[0];
        std::copy(gradient.begin(), gradient.end(),
                  stacked.begin() + place.expert * per_expert + place.half * size);
      } else {
        ADD_FAILURE() << "the golden has no gradient of " << linear.module;
      }
    }
    double worst = 0;
    for (const auto& [name, values] : actual) {
      const double difference = Difference(values, Read(prefix + name));
      EXPECT_LE(difference, kGradientBound) << prefix << name;
      worst = std::max(worst, difference);
    }
    return worst;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::shared_ptr<const SafetensorsFile> file_;
  mutable int64_t num_sequences_ = 0, seq_len_ = 0;
};

TEST_P(FamilyGoldenTest, LayersAndGradientsMatch) {
  const ModelConfig& config = checkpoint_->config();
  const std::vector<int32_t> ids = InputIds();
  auto rope = MakeRopeTables(backend_.get(), config.ropes, seq_len_);
  ASSERT_TRUE(rope.ok()) << rope.status();
  auto embedded =
      EmbedTokens(backend_.get(), *checkpoint_, DType::kFloat32, ids, num_sequences_, seq_len_);
  ASSERT_TRUE(embedded.ok()) << embedded.status();
  ASSERT_TRUE(Has("layer0.input"));
  EXPECT_LE(Difference(*embedded->ToFloats(), Read("layer0.input")), kOutputBound);
  const Shape shape = {num_sequences_ * seq_len_, config.hidden_size};
  double worst_output = 0, worst_gradient = 0, worst_input = 0;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    SCOPED_TRACE(testing::Message() << "layer " << layer);
    const std::string prefix = absl::StrCat("layer", layer, ".");
    const std::vector<float> input = Read(
        Has(prefix + "input") ? prefix + "input" : absl::StrCat("layer", layer - 1, ".output"));
    const BlockSpec& spec = config.blocks[layer];
    auto runner = BlockRunner::Create(backend_.get(), spec, DType::kFloat32, num_sequences_,
                                      seq_len_, &*rope, /*with_backward=*/true);
    if (absl::IsUnimplemented(runner.status())) GTEST_SKIP() << runner.status();
    ASSERT_TRUE(runner.ok()) << runner.status();
    auto block = checkpoint_->LoadBlock(layer);
    ASSERT_TRUE(block.ok()) << block.status();
    auto weights = UploadBlock(backend_.get(), spec, DType::kFloat32, *block);
    ASSERT_TRUE(weights.ok()) << weights.status();
    const Tensor x = *Tensor::FromFloats(backend_.get(), DType::kFloat32, shape, input.data());
    const Tensor dy = *Tensor::FromFloats(backend_.get(), DType::kFloat32, shape,
                                          Read(prefix + "upstream").data());
    Tensor y = *Tensor::Allocate(backend_.get(), DType::kFloat32, shape);
    Tensor dx = *Tensor::Allocate(backend_.get(), DType::kFloat32, shape);
    BlockGradients gradients;
    for (int l = 0; l < spec.num_linears(); ++l) {
      gradients.push_back(*Tensor::Allocate(backend_.get(), DType::kFloat32, spec.linear(l).shape));
    }
    (*runner)->Forward(*weights, x, &y);
    (*runner)->Backward(*weights, dy, /*accumulate=*/false, &gradients, &dx, nullptr);
    const double output = Difference(*y.ToFloats(), Read(prefix + "output"));
    EXPECT_LE(output, kOutputBound);
    const double grad_input = Difference(*dx.ToFloats(), Read(prefix + "grad_input"));
    EXPECT_LE(grad_input, kGradientBound);
    worst_output = std::max(worst_output, output);
    worst_input = std::max(worst_input, grad_input);
    worst_gradient = std::max(worst_gradient, CompareGradients(layer, gradients));
  }
  std::cout << GetParam().device << " " << GetParam().folder << ": outputs within " << worst_output
            << ", gradients within " << worst_gradient << ", of the input within " << worst_input
            << "\n";
}

TEST_P(FamilyGoldenTest, NegativeLogLikelihoodMatches) {
  const std::vector<int32_t> ids = InputIds();
  PerplexityOptions options;
  options.window = seq_len_;
  options.max_windows = 0;
  auto result = EvaluatePerplexity(backend_.get(), *checkpoint_, ids, options);
  if (absl::IsUnimplemented(result.status())) GTEST_SKIP() << result.status();
  ASSERT_TRUE(result.ok()) << result.status();
  const double expected = Read("nll").at(0);
  EXPECT_NEAR(result->mean_nll, expected, kNllBound);
  std::cout << GetParam().device << " " << GetParam().folder << ": nll " << result->mean_nll
            << ", off by " << result->mean_nll - expected << "\n";
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyGoldenTest, testing::ValuesIn(FamilyCases()),
                         [](const auto& info) {
                           return absl::StrCat(info.param.folder, "_", info.param.device);
                         });

// A whole job on each of the checkpoints.
class FamilyJobTest : public TaskTest, public testing::WithParamInterface<const char*> {
 protected:
  FamilyJobTest() {
    spec_.model_uri = FolderPath(GetParam());
    spec_.bits = 4;
    WriteTokenFile(spec_.calibration_uri, {{"input_ids", RandomTokens({4, 32}, 64, 1)}});
    spec_.evaluation_uri = dir_.path() + "/eval.safetensors";
    WriteTokenFile(spec_.evaluation_uri, {{"valid", RandomTokens({100}, 64, 2)}});
  }
  std::unique_ptr<Checkpoint> Open(const std::string& uri) {
    auto checkpoint = Checkpoint::Open(*OpenObjectStore(uri), /*allow_quantized=*/true);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
  }
  double PerplexityOf(const Checkpoint& checkpoint) {
    PerplexityOptions options;
    options.window = 24;
    options.max_windows = 0;
    std::vector<int32_t> ids;
    // Many: rounding to bf16 routes single tokens to other experts.
    for (int i = 0; i < 1920; ++i) ids.push_back((i * 37 + i / 7 + i / 96) % 64);
    auto result = EvaluatePerplexity(backend_.get(), checkpoint, ids, options);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? result->perplexity : 0;
  }
};

TEST_P(FamilyJobTest, QuantizesVerifiesAndExports) {
  const auto outcome = RunJob();
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  for (const LayerReport& layer : outcome->report.layers) {
    EXPECT_EQ(layer.bits, 4);
    EXPECT_LT(layer.final_loss, 1.5 * layer.initial_loss) << "layer " << layer.layer;
  }
  // Random weights predict nothing, so their perplexity is about the vocabulary's size either way.
  EXPECT_NEAR(*outcome->report.perplexity_after / *outcome->report.perplexity_before, 1, 0.5);
  const auto report = VerifyArtifact(*OpenObjectStore(spec_.output_uri), nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->problems.empty()) << report->problems.front();
  const auto artifact = Open(spec_.output_uri);
  ASSERT_NE(artifact, nullptr);
  const std::string exported = dir_.path() + "/exported";
  const absl::Status status =
      ExportArtifact(*OpenObjectStore(spec_.output_uri), exported, ExportOptions()).status();
  ASSERT_TRUE(status.ok()) << status;
  const auto plain = Open(exported);
  ASSERT_NE(plain, nullptr);
  EXPECT_FALSE(plain->quantized());
  // The export has every tensor of the source, in bf16: the same model but for that rounding.
  EXPECT_EQ(plain->TensorNames(), Open(spec_.model_uri)->TensorNames());
  EXPECT_NEAR(PerplexityOf(*plain) / PerplexityOf(*artifact), 1, 0.02);
}

// A layer left in full precision beside quantized ones, which may be parts of one stored tensor.
TEST_P(FamilyJobTest, KeepsOverriddenLayersExactly) {
  const auto source = Open(spec_.model_uri);
  ASSERT_NE(source, nullptr);
  const ModelConfig& config = source->config();
  ModuleOverride keep;
  keep.pattern = config.ModuleName(1, 1);
  keep.full_precision = true;
  spec_.overrides = {keep};
  spec_.epochs = 0;
  const auto outcome = RunJob();
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  const auto artifact = Open(spec_.output_uri);
  ASSERT_NE(artifact, nullptr);
  const int kept = config.blocks[1].linears[1];
  EXPECT_EQ((*artifact->LoadBlock(1))[kept], (*source->LoadBlock(1))[kept]);
}

// gpt-oss as it is published, with its experts in mxfp4, gives the results of the values that they
// stand for, in stacks of bf16.
class MicroscaledExpertsTest : public TaskTest {
 protected:
  struct Stored {
    SafetensorsDType dtype;
    std::vector<int64_t> shape;
    std::string bytes;
  };
  template <typename T>
  static std::string Bytes(const std::vector<T>& values) {
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  // `stack` bf16 [E, K, N] in groups of 32 of each column; returns what they stand for.
  static std::string Microscale(const std::string& name, const Stored& stack,
                                std::map<std::string, Stored>* out) {
    constexpr float kValues[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    const int64_t experts = stack.shape[0], k = stack.shape[1], n = stack.shape[2];
    std::vector<uint16_t> halves(experts * k * n), result(halves.size());
    std::memcpy(halves.data(), stack.bytes.data(), stack.bytes.size());
    std::vector<uint8_t> blocks(halves.size() / 2), scales(halves.size() / 32);
    for (int64_t group = 0; group < experts * n * k / 32; ++group) {
      const int64_t e = group / (n * k / 32), r = group / (k / 32) % n, c = group % (k / 32) * 32;
      const auto at = [&](int64_t i) { return (e * k + c + i) * n + r; };
      float largest = 0x1p-100f;
      for (int64_t i = 0; i < 32; ++i) {
        largest = std::max(largest, std::abs(Bfloat16ToFloat(halves[at(i)])));
      }
      const int exponent = std::ilogb(largest) - 2;
      scales[group] = static_cast<uint8_t>(exponent + 127);
      for (int64_t i = 0; i < 32; ++i) {
        const float value = std::ldexp(Bfloat16ToFloat(halves[at(i)]), -exponent);
        int code = 0;
        for (int c2 = 1; c2 < 8; ++c2) {
          if (std::abs(kValues[c2] - std::abs(value)) < std::abs(kValues[code] - std::abs(value))) {
            code = c2;
          }
        }
        const float kept = value < 0 ? -kValues[code] : kValues[code];
        blocks[group * 16 + i / 2] |= (code + (value < 0 ? 8 : 0)) << (i % 2 * 4);
        result[at(i)] = FloatToBfloat16(std::ldexp(kept, exponent));
      }
    }
    (*out)[name + "_blocks"] = {SafetensorsDType::kU8, {experts, n, k / 32, 16}, Bytes(blocks)};
    (*out)[name + "_scales"] = {SafetensorsDType::kU8, {experts, n, k / 32}, Bytes(scales)};
    return Bytes(result);
  }
  static void Write(const std::string& dir, const std::string& config,
                    const std::map<std::string, Stored>& tensors) {
    const auto store = *OpenObjectStore(dir);
    ASSERT_TRUE(store->Write("config.json", config).ok());
    std::vector<SafetensorsWriter::Declaration> declarations;
    for (const auto& [name, tensor] : tensors) {
      declarations.push_back({name, tensor.dtype, tensor.shape});
    }
    const auto out = *store->NewWriter("model.safetensors", {});
    const auto writer = *SafetensorsWriter::Create(out.get(), declarations, {});
    for (const auto& [name, tensor] : tensors) {
      ASSERT_TRUE(writer->Append(name, tensor.bytes.data(), tensor.bytes.size()).ok());
    }
    ASSERT_TRUE(writer->Finish().ok() && out->Commit().ok());
  }
};

TEST_F(MicroscaledExpertsTest, GiveTheResultsOfWhatTheyStandFor) {
  const auto source = *OpenObjectStore(FolderPath("gpt_oss"));
  const auto file = *SafetensorsFile::Open(source, "model.safetensors");
  std::string config = *source->Read("config.json", 1 << 20);
  std::map<std::string, Stored> twin, published;
  for (const auto& [name, info] : file->tensors()) {
    Stored& tensor = twin[name] = {info.dtype, info.shape, std::string(info.size_bytes, 0)};
    ASSERT_TRUE(file->ReadBytes(info, tensor.bytes.data()).ok());
    const bool stack =
        absl::EndsWith(name, "experts.gate_up_proj") || absl::EndsWith(name, "experts.down_proj");
    if (stack) {
      tensor.bytes = Microscale(name, tensor, &published);
    } else {
      published[name] = tensor;
    }
  }
  Write(dir_.path() + "/twin", config, twin);
  config.insert(config.find('{') + 1,
                R"("quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert":
                   ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"]}, )");
  Write(dir_.path() + "/published", config, published);
  spec_.bits = 4;
  WriteTokenFile(spec_.calibration_uri, {{"input_ids", RandomTokens({4, 32}, 64, 1)}});
  ModuleOverride keep;  // a part of a stack that is copied
  keep.pattern = "model.layers.1.mlp.experts.2.down_proj";
  keep.full_precision = true;
  spec_.overrides = {keep};
  std::map<std::string, std::string> digests;
  for (const char* name : {"twin", "published"}) {
    spec_.model_uri = absl::StrCat(dir_.path(), "/", name);
    spec_.output_uri = absl::StrCat(dir_.path(), "/out-", name);
    cache_->Clear();
    const auto outcome = RunJob();
    ASSERT_TRUE(outcome.ok()) << outcome.status();
    const auto artifact = ArtifactReader::Open(*OpenObjectStore(spec_.output_uri));
    ASSERT_TRUE(artifact.ok()) << artifact.status();
    const Manifest& manifest = (*artifact)->manifest();
    EXPECT_EQ(manifest.origin.dequantized.size(), spec_.model_uri.back() == 'n' ? 0u : 1u);
    for (const ManifestFile& written : manifest.files) {
      if (digests.count(written.path) == 0) digests[written.path] = written.sha256;
      EXPECT_EQ(digests[written.path], written.sha256) << written.path;
    }
  }
  const std::string exported = dir_.path() + "/exported";
  ASSERT_TRUE(ExportArtifact(*OpenObjectStore(spec_.output_uri), exported, ExportOptions()).ok());
  const auto plain = Checkpoint::Open(*OpenObjectStore(exported), false);
  ASSERT_TRUE(plain.ok()) << plain.status();
  const auto original = Checkpoint::Open(*OpenObjectStore(dir_.path() + "/twin"), false);
  EXPECT_EQ((*plain)->TensorNames(), (*original)->TensorNames());
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyJobTest, testing::ValuesIn(kFolders),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace uniquanf::golden
