// A job on an original whose weights are quantized gives what it gives on the same weights,
// converted first.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/artifact/artifact_reader.h"
#include "common/base/digest.h"
#include "tests/unit/worker/task/task_fixture.h"
#include "worker/export/export.h"
#include "worker/model/checkpoint.h"

namespace uniquanf {
namespace {

using testing::HasSubstr;
using DType = SafetensorsDType;
using Json = nlohmann::json;

struct StoredTensor {
  DType dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};
using StoredTensors = std::map<std::string, StoredTensor>;

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

StoredTensor Bf16(const std::vector<int64_t>& shape, const std::vector<float>& values) {
  std::vector<uint16_t> rounded;
  for (const float value : values) rounded.push_back(FloatToBfloat16(value));
  return {DType::kBF16, shape, Bytes(rounded)};
}

void WriteModel(const std::string& dir, const Json& config, const StoredTensors& tensors) {
  std::filesystem::create_directories(dir);
  const auto store = *OpenObjectStore(dir);
  ASSERT_OK(store->Write("config.json", config.dump()));
  std::vector<SafetensorsWriter::Declaration> declarations;
  for (const auto& [name, tensor] : tensors) {
    declarations.push_back({name, tensor.dtype, tensor.shape});
  }
  const auto out = *store->NewWriter("model.safetensors", {});
  const auto writer = *SafetensorsWriter::Create(out.get(), declarations, {});
  for (const auto& [name, tensor] : tensors) {
    ASSERT_OK(writer->Append(name, tensor.bytes.data(), tensor.bytes.size()));
  }
  ASSERT_OK(writer->Finish());
  ASSERT_OK(out->Commit());
}

// A way to store a matrix: the tensors that hold it, and the values that they stand for, in bf16.
using Quantize =
    std::function<std::vector<float>(const std::string& name, const std::vector<int64_t>& shape,
                                     const std::vector<float>& values, StoredTensors*)>;

std::vector<float> ToFp8(const std::string& name, const std::vector<int64_t>& shape,
                         const std::vector<float>& values, StoredTensors* out, int64_t block) {
  const int64_t n = shape[0], k = shape[1];
  const int64_t columns = (k + block - 1) / block;
  std::vector<float> scales((n + block - 1) / block * columns, 1e-9f);
  const auto scale_of = [&](int64_t i) -> float& {
    return scales[i / k / block * columns + i % k / block];
  };
  for (int64_t i = 0; i < n * k; ++i) {
    scale_of(i) = std::max(scale_of(i), std::abs(values[i]) / 448);
  }
  std::vector<std::pair<float, uint8_t>> table;
  for (int code = 0; code < 256; ++code) {
    const float value = Float8E4m3ToFloat(static_cast<uint8_t>(code));
    if (std::isfinite(value)) table.emplace_back(value, code);
  }
  std::sort(table.begin(), table.end());
  std::vector<uint8_t> codes(n * k);
  std::vector<float> stands_for(n * k);
  for (int64_t i = 0; i < n * k; ++i) {
    const auto at = std::lower_bound(table.begin(), table.end() - 1,
                                     std::pair<float, uint8_t>(values[i] / scale_of(i), 0));
    codes[i] = at->second;
    stands_for[i] = at->first * scale_of(i);
  }
  (*out)[name] = {DType::kF8E4M3, shape, Bytes(codes)};
  const bool one = scales.size() == 1;
  (*out)[name + "_scale_inv"] = {
      DType::kF32,
      one ? std::vector<int64_t>{}
          : std::vector<int64_t>{static_cast<int64_t>(scales.size()) / columns, columns},
      Bytes(scales)};
  return stands_for;
}

std::vector<float> ToInt4(const std::string& name, const std::vector<int64_t>& shape,
                          const std::vector<float>& values, StoredTensors* out, int64_t group,
                          bool symmetric) {
  const int64_t n = shape[0], k = shape[1], groups = k / group;
  std::vector<float> scales(n * groups);
  std::vector<int> zeros(n * groups, 0);
  std::vector<uint32_t> words(n * k / 8), packed_zeros((n + 7) / 8 * groups);
  std::vector<float> stands_for(n * k);
  for (int64_t g = 0; g < n * groups; ++g) {
    const auto [low, high] =
        std::minmax_element(values.begin() + g * group, values.begin() + (g + 1) * group);
    const float range = symmetric ? 2 * std::max(-*low, *high) : *high - *low;
    scales[g] = Bfloat16ToFloat(FloatToBfloat16(range / 15));
    if (!symmetric) zeros[g] = static_cast<int>(std::lround(-8 - *low / scales[g]));
    zeros[g] = std::clamp(zeros[g], -8, 7);
    packed_zeros[g / groups / 8 * groups + g % groups] |= static_cast<uint32_t>(zeros[g] + 8)
                                                          << g / groups % 8 * 4;
    for (int64_t i = g * group; i < (g + 1) * group; ++i) {
      const auto code = std::clamp<int64_t>(std::lround(values[i] / scales[g]) + zeros[g], -8, 7);
      words[i / 8] |= static_cast<uint32_t>(code + 8) << i % 8 * 4;
      stands_for[i] = static_cast<float>(code - zeros[g]) * scales[g];
    }
  }
  const std::string module = name.substr(0, name.size() - 7);
  (*out)[module + ".weight_packed"] = {DType::kI32, {n, k / 8}, Bytes(words)};
  (*out)[module + ".weight_shape"] = {DType::kI64, {2}, Bytes<int64_t>({n, k})};
  (*out)[module + ".weight_scale"] = Bf16({n, groups}, scales);
  if (!symmetric) {
    (*out)[module + ".weight_zero_point"] = {
        DType::kI32, {(n + 7) / 8, groups}, Bytes(packed_zeros)};
  }
  return stands_for;
}

class QuantizedOriginalTest : public TaskTest {
 protected:
  // Writes "quantized" and "twin", the first with `section` in its config.
  void WriteTwins(Json config, const std::map<std::string, FixtureTensor>& model,
                  const Json& section, const Quantize& quantize) {
    StoredTensors quantized, twin;
    for (const auto& [name, tensor] : model) {
      const bool is_matrix = absl::StrContains(name, ".layers.") && tensor.shape.size() == 2;
      std::vector<float> values = tensor.values;
      if (is_matrix) values = quantize(name, tensor.shape, tensor.values, &quantized);
      twin[name] = Bf16(tensor.shape, values);
      if (!is_matrix) quantized[name] = twin[name];
    }
    WriteModel(dir_.path() + "/twin", config, twin);
    config["quantization_config"] = section;
    WriteModel(dir_.path() + "/quantized", config, quantized);
  }

  // Runs both and compares everything but what says where it comes from.
  void ExpectSameResults() {
    std::map<std::string, std::unique_ptr<ArtifactReader>> artifacts;
    std::map<std::string, JobReport> reports;
    for (const char* name : {"twin", "quantized"}) {
      spec_.model_uri = absl::StrCat(dir_.path(), "/", name);
      spec_.output_uri = absl::StrCat(dir_.path(), "/out-", name);
      cache_->Clear();
      ASSERT_OK_AND_ASSIGN(const FinalizeOutcome outcome, RunJob());
      reports[name] = outcome.report;
      ASSERT_OK_AND_ASSIGN(artifacts[name],
                           ArtifactReader::Open(*OpenObjectStore(spec_.output_uri)));
      ASSERT_OK_AND_ASSIGN(const VerifyReport verified,
                           VerifyArtifact(*OpenObjectStore(spec_.output_uri), {}));
      EXPECT_THAT(verified.problems, testing::IsEmpty());
    }
    std::map<std::string, std::string> digests;
    for (const ManifestFile& file : artifacts["twin"]->manifest().files) {
      digests[file.path] = file.sha256;
    }
    for (const ManifestFile& file : artifacts["quantized"]->manifest().files) {
      EXPECT_EQ(file.sha256, digests[file.path]) << file.path;
      digests.erase(file.path);
    }
    EXPECT_TRUE(digests.empty());
    EXPECT_EQ(artifacts["quantized"]->manifest().model.weights_sha256,
              artifacts["twin"]->manifest().model.weights_sha256);
    EXPECT_LT(reports["quantized"].model_size_bytes, reports["twin"].model_size_bytes);
    EXPECT_TRUE(artifacts["twin"]->manifest().origin.dequantized.empty());
    origin_ = artifacts["quantized"]->manifest().origin;
    ASSERT_EQ(origin_.dequantized.size(), 1u);
    EXPECT_EQ(origin_.dequantized[0].dtype, "BF16");
    ExpectCleanExport();
  }

  // The plain checkpoint of the quantized one's artifact: no trace of how its source was stored.
  void ExpectCleanExport() {
    const std::string out = dir_.path() + "/exported";
    std::filesystem::remove_all(out);
    ASSERT_OK(ExportArtifact(*OpenObjectStore(spec_.output_uri), out, ExportOptions()));
    const auto store = *OpenObjectStore(out);
    const Json config = Json::parse(*store->Read("config.json", 1 << 20));
    EXPECT_FALSE(config.contains("quantization_config"));
    ASSERT_OK_AND_ASSIGN(const auto exported, Checkpoint::Open(store, false));
    ASSERT_OK_AND_ASSIGN(const auto twin,
                         Checkpoint::Open(*OpenObjectStore(dir_.path() + "/twin"), false));
    EXPECT_EQ(exported->TensorNames(), twin->TensorNames());
  }

  ManifestOrigin origin_;
};

TEST_F(QuantizedOriginalTest, Fp8InBlocksOfTheTinyExample) {
  const auto store = *OpenObjectStore(absl::StrCat(UNIQUANF_SOURCE_DIR, "/examples/tiny"));
  const Json config = Json::parse(*store->Read("config.json", 1 << 20));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(store, "model.safetensors"));
  std::map<std::string, FixtureTensor> model;
  for (const auto& [name, info] : file->tensors()) {
    model[name].shape = info.shape;
    model[name].values.resize(info.num_elements());
    ASSERT_OK(file->ReadFloat(info, model[name].values.data()));
  }
  spec_.num_samples = 2;
  spec_.epochs = 1;
  const Json section = {{"quant_method", "fp8"},
                        {"fmt", "e4m3"},
                        {"activation_scheme", "dynamic"},
                        {"weight_block_size", {128, 128}}};
  WriteTwins(config, model, section,
             [](const auto& name, const auto& shape, const auto& values, StoredTensors* out) {
               return ToFp8(name, shape, values, out, 128);
             });
  ExpectSameResults();
  EXPECT_EQ(origin_.dequantized[0].form, "F8_E4M3, a scale for 128 x 128");
  EXPECT_EQ(origin_.dequantized[0].num_tensors, 4 * 7);
}

TEST_F(QuantizedOriginalTest, Fp8WithOneScaleATensor) {
  const Json section = {{"quant_method", "fp8"},
                        {"activation_scheme", "static"},
                        {"modules_to_not_convert", {"lm_head"}},
                        {"weight_block_size", nullptr}};
  WriteTwins(model_.config, model_.tensors, section,
             [](const auto& name, const auto& shape, const auto& values, StoredTensors* out) {
               const std::string module = name.substr(0, name.size() - 7);
               (*out)[module + ".activation_scale"] = Bf16({}, {0.5f});
               return ToFp8(name, shape, values, out, 1 << 20);
             });
  // A layer in full precision, which goes through as it is.
  ModuleOverride override;
  override.pattern = "model.layers.1.mlp.down_proj";
  override.full_precision = true;
  spec_.overrides.push_back(override);
  ExpectSameResults();
}

TEST_F(QuantizedOriginalTest, PackedIntegers) {
  for (const bool symmetric : {true, false}) {
    const Json weights = {{"num_bits", 4},        {"type", "int"},          {"strategy", "group"},
                          {"group_size", 32},     {"symmetric", symmetric}, {"dynamic", false},
                          {"observer", "minmax"}, {"actorder", nullptr}};
    const Json section = {
        {"quant_method", "compressed-tensors"},
        {"format", "pack-quantized"},
        {"quantization_status", "compressed"},
        {"ignore", {"lm_head", "re:.*router"}},
        {"config_groups",
         {{"group_0",
           {{"targets", {"Linear"}}, {"weights", weights}, {"input_activations", nullptr}}}}}};
    WriteTwins(model_.config, model_.tensors, section,
               [&](const auto& name, const auto& shape, const auto& values, StoredTensors* out) {
                 return ToInt4(name, shape, values, out, 32, symmetric);
               });
    ExpectSameResults();
    EXPECT_THAT(origin_.dequantized[0].form, HasSubstr("a scale for 32 columns of a row"));
    for (const char* name : {"out-twin", "out-quantized"}) {
      std::filesystem::remove_all(dir_.path() + "/" + name);
    }
  }
}

}  // namespace
}  // namespace uniquanf
