// `awq`: as AutoAWQ's GEMM version lays 4-bit weights out. qweight i32 [K, N/8] and qzeros i32 [G,
// N/8]: nibble i of a word (least significant first) is output 8·word + kOrder[i]; scales f16 [G,
// N].
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/export/uniform_grid.h"

namespace uniquanf {
namespace {

constexpr int kBits = 4;
constexpr int kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};

class Awq : public TensorFormat {
 public:
  absl::Status Plan(const Manifest& manifest, ConfigJson* config) override {
    group_size_ = CommonGroupSize(manifest);
    for (const ManifestModule& module : manifest.modules) {
      if (!module.quantized) continue;
      if (module.bits > kBits) {
        return NotPossible(module.name, absl::StrCat("awq has 4 bits, not ", module.bits));
      }
      if (module.num_outputs % 8 != 0) {
        return NotPossible(module.name, absl::StrCat("awq packs 8 outputs a word; ",
                                                     module.num_outputs, " is no multiple"));
      }
    }
    ConfigJson quantization;
    quantization["quant_method"] = "awq";
    quantization["bits"] = kBits;
    quantization["group_size"] = group_size_ == 0 ? -1 : group_size_;
    quantization["zero_point"] = true;
    quantization["version"] = "gemm";
    quantization["modules_to_not_convert"] = FullPrecisionModules(manifest);
    (*config)["quantization_config"] = quantization;
    return absl::OkStatus();
  }

  std::vector<SafetensorsWriter::Declaration> Declare(const ManifestModule& module) const override {
    const int64_t N = module.num_outputs, K = module.num_inputs, groups = K / GroupSize(module);
    return {{module.name + ".qweight", SafetensorsDType::kI32, {K, N / 8}},
            {module.name + ".qzeros", SafetensorsDType::kI32, {groups, N / 8}},
            {module.name + ".scales", SafetensorsDType::kF16, {groups, N}}};
  }

  std::vector<std::string> Convert(const ManifestModule& module, const PackedLinear& packed,
                                   Deviation* deviation) const override {
    const int64_t N = packed.num_outputs, K = packed.num_inputs, g = GroupSize(module);
    const int64_t groups = K / g;
    UniformTarget target;
    target.bits = kBits;
    target.group_size = g;
    const UniformLayer layer = ToUniform(packed, target, deviation);
    std::vector<int32_t> qweight(K * N / 8), qzeros(groups * N / 8);
    std::vector<uint16_t> scales(groups * N);
    for (int64_t word = 0; word < N / 8; ++word) {
      for (int64_t k = 0; k < K; ++k) {
        uint32_t bits = 0;
        for (int i = 0; i < 8; ++i) {
          bits |= static_cast<uint32_t>(layer.codes[(word * 8 + kOrder[i]) * K + k]) << (4 * i);
        }
        qweight[k * N / 8 + word] = static_cast<int32_t>(bits);
      }
      for (int64_t group = 0; group < groups; ++group) {
        uint32_t bits = 0;
        for (int i = 0; i < 8; ++i) {
          bits |= static_cast<uint32_t>(layer.offset[(word * 8 + kOrder[i]) * groups + group])
                  << (4 * i);
        }
        qzeros[group * N / 8 + word] = static_cast<int32_t>(bits);
      }
    }
    for (int64_t row = 0; row < N; ++row) {
      for (int64_t group = 0; group < groups; ++group) {
        scales[group * N + row] = layer.scale[row * groups + group];
      }
    }
    return {BytesOf(qweight), BytesOf(qzeros), BytesOf(scales)};
  }

 private:
  int64_t GroupSize(const ManifestModule& module) const {
    return group_size_ == 0 ? module.num_inputs : group_size_;
  }
  int64_t group_size_ = 0;  // 0: whole rows
};

}  // namespace

std::unique_ptr<TensorFormat> NewAwq() { return std::make_unique<Awq>(); }

}  // namespace uniquanf
