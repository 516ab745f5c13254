// `any-precision`: as Any-Precision LLM and GuidedQuant read it, whole rows only. qweight i32 [n,
// N, K/32], plane 0 the most significant bit of the level's index, its columns permuted as their
// kernels want them; lut{n} f16 [N, 2^n], the levels.
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/safetensors/float_conversion.h"
#include "worker/export/export_format.h"

namespace uniquanf {
namespace {

// In a chunk of 1024 columns (a tail of R: T = R/32, else T = 32) bit 31 − 8r − j of word t is
// column base + r·8T + 8t + j.
void PermutedWords(const std::vector<uint8_t>& signs, int32_t* words) {
  const auto K = static_cast<int64_t>(signs.size());
  for (int64_t base = 0; base < K; base += 1024) {
    const int64_t T = std::min<int64_t>(1024, K - base) / 32;
    for (int64_t t = 0; t < T; ++t) {
      uint32_t word = 0;
      for (int64_t r = 0; r < 4; ++r) {
        for (int64_t j = 0; j < 8; ++j) {
          word |= static_cast<uint32_t>(signs[base + r * 8 * T + 8 * t + j]) << (31 - 8 * r - j);
        }
      }
      words[base / 32 + t] = static_cast<int32_t>(word);
    }
  }
}

class AnyPrecision : public TensorFormat {
 public:
  absl::Status Plan(const Manifest& manifest, ConfigJson* config) override {
    ConfigJson names = ConfigJson::array();
    int bits = 0;
    for (const ManifestModule& module : manifest.modules) {
      if (!module.quantized) {
        if (module.name == "lm_head") continue;
        return NotPossible(module.name, "any-precision quantizes every linear layer of a block");
      }
      if (module.group_size != module.num_inputs) {
        return NotPossible(
            module.name,
            absl::StrCat("any-precision knows whole rows, not groups of ", module.group_size));
      }
      if (module.num_inputs % 32 != 0) {
        return NotPossible(module.name,
                           absl::StrCat(module.num_inputs, " inputs are no multiple of 32"));
      }
      if (bits != 0 && module.bits != bits) {
        return NotPossible(module.name, absl::StrCat("any-precision has one number of bits; here ",
                                                     module.bits, " and ", bits));
      }
      bits = module.bits;
      constexpr absl::string_view kFirst = "model.layers.0.";
      if (absl::StartsWith(module.name, kFirst)) names.push_back(module.name.substr(kFirst.size()));
    }
    ConfigJson anyprec;
    anyprec["seed_precision"] = bits;
    anyprec["parent_precision"] = bits;
    anyprec["group_count"] = 1;
    anyprec["arch_config"] = {
        {"model_name", "model"}, {"layers_name", "layers"}, {"module_names", names}};
    (*config)["anyprec"] = anyprec;
    return absl::OkStatus();
  }

  std::vector<SafetensorsWriter::Declaration> Declare(const ManifestModule& module) const override {
    return {{module.name + ".qweight",
             SafetensorsDType::kI32,
             {module.bits, module.num_outputs, module.num_inputs / 32}},
            {absl::StrCat(module.name, ".lut", module.bits),
             SafetensorsDType::kF16,
             {module.num_outputs, int64_t{1} << module.bits}}};
  }

  std::vector<std::string> Convert(const ManifestModule& module, const PackedLinear& packed,
                                   Deviation* deviation) const override {
    const int n = packed.bits;
    const int64_t N = packed.num_outputs, K = packed.num_inputs, levels = int64_t{1} << n;
    std::vector<int32_t> qweight(n * N * K / 32);
    std::vector<uint16_t> lut(N * levels);
    std::vector<uint8_t> signs(K);
    std::vector<float> values(levels);
    for (int64_t row = 0; row < N; ++row) {
      for (int i = 0; i < n; ++i) {
        for (int64_t k = 0; k < K; ++k) {
          const auto word = static_cast<uint32_t>(packed.qweight[(k / 32 * n + i) * N + row]);
          signs[k] = (word >> (k % 32)) & 1u;
        }
        PermutedWords(signs, &qweight[(i * N + row) * K / 32]);
      }
      for (int64_t index = 0; index < levels; ++index) {
        // The order of FORMAT.md, "Arithmetic".
        float level = 0;
        for (int i = 0; i < n; ++i) {
          const float alpha = Float16ToFloat(packed.alpha[i * N + row]);
          const float term = (index >> (n - 1 - i)) & 1 ? alpha : -alpha;
          level = i == 0 ? term : level + term;
        }
        values[index] = level + Float16ToFloat(packed.beta[row]);
        lut[row * levels + index] = FloatToFloat16(values[index]);
      }
      AddRow(packed, row, values, &lut[row * levels], deviation);
    }
    return {BytesOf(qweight), BytesOf(lut)};
  }

 private:
  static void AddRow(const PackedLinear& packed, int64_t row, const std::vector<float>& exact,
                     const uint16_t* lut, Deviation* deviation) {
    const int n = packed.bits;
    for (int64_t k = 0; k < packed.num_inputs; ++k) {
      int index = 0;
      for (int i = 0; i < n; ++i) {
        const auto word =
            static_cast<uint32_t>(packed.qweight[(k / 32 * n + i) * packed.num_outputs + row]);
        index = 2 * index + static_cast<int>((word >> (k % 32)) & 1u);
      }
      const double error = std::abs(static_cast<double>(Float16ToFloat(lut[index])) - exact[index]);
      deviation->max_error = std::max(deviation->max_error, error);
      deviation->sum_error += error;
    }
    deviation->num_weights += packed.num_inputs;
  }
};

}  // namespace

std::unique_ptr<TensorFormat> NewAnyPrecision() { return std::make_unique<AnyPrecision>(); }

}  // namespace uniquanf
