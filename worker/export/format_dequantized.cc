// `dequantized`, `dequantized-fp16`: an ordinary Hugging Face checkpoint, every weight rounded.
#include <cmath>

#include "common/base/parallel.h"
#include "common/safetensors/float_conversion.h"
#include "worker/export/export_format.h"

namespace uniquanf {
namespace {

class Dequantized : public TensorFormat {
 public:
  explicit Dequantized(SafetensorsDType dtype) : dtype_(dtype) {}

  absl::Status Plan(const Manifest& manifest, ConfigJson* config) override {
    (*config)[config->contains("torch_dtype") ? "torch_dtype" : "dtype"] =
        dtype_ == SafetensorsDType::kBF16 ? "bfloat16" : "float16";
    return absl::OkStatus();
  }

  std::vector<SafetensorsWriter::Declaration> Declare(const ManifestModule& module) const override {
    return {{module.name + ".weight", dtype_, {module.num_outputs, module.num_inputs}}};
  }

  std::vector<std::string> Convert(const ManifestModule& module, const PackedLinear& packed,
                                   Deviation* deviation) const override {
    const int64_t K = packed.num_inputs;
    std::vector<uint16_t> rounded(packed.num_outputs * K);
    std::vector<Deviation> rows(packed.num_outputs);
    ParallelRanges(packed.num_outputs, 16, [&](int64_t first, int64_t end) {
      std::vector<float> values(K);
      for (int64_t row = first; row < end; ++row) {
        DequantizeRows(packed, row, row + 1, values.data());
        for (int64_t k = 0; k < K; ++k) {
          uint16_t* to = &rounded[row * K + k];
          *to = dtype_ == SafetensorsDType::kBF16 ? FloatToBfloat16(values[k])
                                                  : FloatToFloat16(values[k]);
          const float back =
              dtype_ == SafetensorsDType::kBF16 ? Bfloat16ToFloat(*to) : Float16ToFloat(*to);
          const double error = std::abs(static_cast<double>(back) - values[k]);
          rows[row].max_error = std::max(rows[row].max_error, error);
          rows[row].sum_error += error;
        }
        rows[row].num_weights = K;
      }
    });
    for (const Deviation& row : rows) deviation->Merge(row);
    return {BytesOf(rounded)};
  }

 private:
  const SafetensorsDType dtype_;
};

}  // namespace

std::unique_ptr<TensorFormat> NewDequantizedBf16() {
  return std::make_unique<Dequantized>(SafetensorsDType::kBF16);
}
std::unique_ptr<TensorFormat> NewDequantizedFp16() {
  return std::make_unique<Dequantized>(SafetensorsDType::kF16);
}

}  // namespace uniquanf
