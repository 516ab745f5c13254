// `compressed-tensors`, `compressed-tensors-sym`: format "pack-quantized" of compressed-tensors, as
// vLLM loads it. weight_packed i32 [N, K·b/32], a value q + 2^(b−1) with q signed, 32/b values a
// word, least significant first; weight_scale f16 [N, G]; weight_zero_point i32 [N·b/32, G], packed
// alike along N (not in the symmetric form); weight_shape i64 [2].
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/export/uniform_grid.h"

namespace uniquanf {
namespace {

class CompressedTensors : public TensorFormat {
 public:
  explicit CompressedTensors(bool symmetric) : symmetric_(symmetric) {}

  absl::Status Plan(const Manifest& manifest, ConfigJson* config) override {
    group_size_ = CommonGroupSize(manifest);
    bits_ = MostBits(manifest) <= 4 ? 4 : 8;
    const int64_t per_word = 32 / bits_;
    for (const ManifestModule& module : manifest.modules) {
      if (!module.quantized) continue;
      if (module.num_inputs % per_word != 0 ||
          (!symmetric_ && module.num_outputs % per_word != 0)) {
        return NotPossible(module.name, absl::StrCat("compressed-tensors packs ", per_word,
                                                     " values a word; ", module.num_outputs, " x ",
                                                     module.num_inputs, " are no multiples"));
      }
    }
    ConfigJson weights;
    weights["num_bits"] = bits_;
    weights["type"] = "int";
    weights["symmetric"] = symmetric_;
    weights["strategy"] = group_size_ == 0 ? "channel" : "group";
    weights["group_size"] = group_size_ == 0 ? ConfigJson() : ConfigJson(group_size_);
    weights["dynamic"] = false;
    ConfigJson group;
    group["targets"] = {"Linear"};
    group["weights"] = weights;
    group["input_activations"] = nullptr;
    group["output_activations"] = nullptr;
    ConfigJson quantization;
    quantization["quant_method"] = "compressed-tensors";
    quantization["format"] = "pack-quantized";
    quantization["quantization_status"] = "compressed";
    quantization["config_groups"]["group_0"] = group;
    quantization["ignore"] = FullPrecisionModules(manifest);
    (*config)["quantization_config"] = quantization;
    return absl::OkStatus();
  }

  std::vector<SafetensorsWriter::Declaration> Declare(const ManifestModule& module) const override {
    const int64_t N = module.num_outputs, K = module.num_inputs, groups = K / GroupSize(module);
    std::vector<SafetensorsWriter::Declaration> tensors = {
        {module.name + ".weight_shape", SafetensorsDType::kI64, {2}},
        {module.name + ".weight_packed", SafetensorsDType::kI32, {N, K * bits_ / 32}},
        {module.name + ".weight_scale", SafetensorsDType::kF16, {N, groups}}};
    if (!symmetric_) {
      tensors.push_back(
          {module.name + ".weight_zero_point", SafetensorsDType::kI32, {N * bits_ / 32, groups}});
    }
    return tensors;
  }

  std::vector<std::string> Convert(const ManifestModule& module, const PackedLinear& packed,
                                   Deviation* deviation) const override {
    const int64_t N = packed.num_outputs, K = packed.num_inputs, g = GroupSize(module);
    const int64_t groups = K / g;
    UniformTarget target;
    target.bits = bits_;
    target.group_size = g;
    target.offset = symmetric_ ? GridOffset::kCentered : GridOffset::kZeroPoint;
    const UniformLayer layer = ToUniform(packed, target, deviation);
    const std::vector<int64_t> shape = {N, K};
    std::vector<int32_t> weights(N * K * bits_ / 32);
    for (int64_t row = 0; row < N; ++row) {
      PackBits(&layer.codes[row * K], 1, K, bits_, &weights[row * K * bits_ / 32], 1);
    }
    std::vector<std::string> bytes = {BytesOf(shape), BytesOf(weights), BytesOf(layer.scale)};
    if (symmetric_) return bytes;
    std::vector<int32_t> zeros(N * bits_ / 32 * groups);
    std::vector<uint8_t> column(N);
    for (int64_t group = 0; group < groups; ++group) {
      for (int64_t row = 0; row < N; ++row) {
        column[row] = static_cast<uint8_t>(layer.offset[row * groups + group]);
      }
      PackBits(column.data(), 1, N, bits_, &zeros[group], groups);
    }
    bytes.push_back(BytesOf(zeros));
    return bytes;
  }

 private:
  int64_t GroupSize(const ManifestModule& module) const {
    return group_size_ == 0 ? module.num_inputs : group_size_;
  }
  const bool symmetric_;
  int bits_ = 0;
  int64_t group_size_ = 0;  // 0: whole rows
};

}  // namespace

std::unique_ptr<TensorFormat> NewCompressedTensors() {
  return std::make_unique<CompressedTensors>(false);
}
std::unique_ptr<TensorFormat> NewCompressedTensorsSymmetric() {
  return std::make_unique<CompressedTensors>(true);
}

}  // namespace uniquanf
