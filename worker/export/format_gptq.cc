// `gptq`, `gptq-v1`: as AutoGPTQ and GPTQModel lay weights out. qweight i32 [K·b/32, N] and qzeros
// i32 [G, N·b/32] are little-endian streams of b bits along K and along N; scales f16 [G, N]; g_idx
// i32 [K]. Version 1 stores the zero point less one, so it cannot say 0.
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/export/uniform_grid.h"

namespace uniquanf {
namespace {

class Gptq : public TensorFormat {
 public:
  explicit Gptq(int version) : version_(version) {}

  absl::Status Plan(const Manifest& manifest, ConfigJson* config) override {
    group_size_ = CommonGroupSize(manifest);
    for (int bits : {2, 3, 4, 8}) {
      if (bits_ == 0 && bits >= MostBits(manifest)) bits_ = bits;
    }
    for (const ManifestModule& module : manifest.modules) {
      if (!module.quantized) continue;
      if (module.num_inputs % 32 != 0 || module.num_outputs % 32 != 0) {
        return NotPossible(
            module.name, absl::StrCat("gptq packs whole words of 32 weights; ", module.num_outputs,
                                      " x ", module.num_inputs, " are no multiples"));
      }
    }
    ConfigJson quantization;
    quantization["quant_method"] = "gptq";
    quantization["bits"] = bits_;
    quantization["group_size"] = group_size_ == 0 ? -1 : group_size_;
    quantization["desc_act"] = false;
    quantization["sym"] = false;
    quantization["lm_head"] = false;
    quantization["checkpoint_format"] = version_ == 1 ? "gptq" : "gptq_v2";
    quantization["modules_to_not_convert"] = FullPrecisionModules(manifest);
    (*config)["quantization_config"] = quantization;
    return absl::OkStatus();
  }

  std::vector<SafetensorsWriter::Declaration> Declare(const ManifestModule& module) const override {
    const int64_t N = module.num_outputs, K = module.num_inputs, groups = K / GroupSize(module);
    return {{module.name + ".qweight", SafetensorsDType::kI32, {K * bits_ / 32, N}},
            {module.name + ".qzeros", SafetensorsDType::kI32, {groups, N * bits_ / 32}},
            {module.name + ".g_idx", SafetensorsDType::kI32, {K}},
            {module.name + ".scales", SafetensorsDType::kF16, {groups, N}}};
  }

  std::vector<std::string> Convert(const ManifestModule& module, const PackedLinear& packed,
                                   Deviation* deviation) const override {
    const int64_t N = packed.num_outputs, K = packed.num_inputs, g = GroupSize(module);
    const int64_t groups = K / g;
    UniformTarget target;
    target.bits = bits_;
    target.group_size = g;
    target.lowest_zero = version_ == 1 ? 1 : 0;
    const UniformLayer layer = ToUniform(packed, target, deviation);
    std::vector<int32_t> qweight(K * bits_ / 32 * N), qzeros(groups * N * bits_ / 32), g_idx(K);
    std::vector<uint16_t> scales(groups * N);
    for (int64_t row = 0; row < N; ++row) {
      PackBits(&layer.codes[row * K], 1, K, bits_, &qweight[row], N);
    }
    std::vector<uint8_t> zeros(N);
    for (int64_t group = 0; group < groups; ++group) {
      for (int64_t row = 0; row < N; ++row) {
        const auto zero = static_cast<int>(layer.offset[row * groups + group]);
        zeros[row] = static_cast<uint8_t>(version_ == 1 ? zero - 1 : zero);
        scales[group * N + row] = layer.scale[row * groups + group];
      }
      PackBits(zeros.data(), 1, N, bits_, &qzeros[group * N * bits_ / 32], 1);
    }
    for (int64_t k = 0; k < K; ++k) g_idx[k] = static_cast<int32_t>(k / g);
    return {BytesOf(qweight), BytesOf(qzeros), BytesOf(g_idx), BytesOf(scales)};
  }

 private:
  int64_t GroupSize(const ManifestModule& module) const {
    return group_size_ == 0 ? module.num_inputs : group_size_;
  }

  const int version_;
  int bits_ = 0;
  int64_t group_size_ = 0;  // 0: whole rows
};

}  // namespace

std::unique_ptr<TensorFormat> NewGptqV1() { return std::make_unique<Gptq>(1); }
std::unique_ptr<TensorFormat> NewGptqV2() { return std::make_unique<Gptq>(2); }

}  // namespace uniquanf
