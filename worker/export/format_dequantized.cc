// `dequantized`, `dequantized-fp16`: an ordinary Hugging Face checkpoint, every weight rounded.
#include <cmath>

#include "common/base/parallel.h"
#include "common/safetensors/float_conversion.h"
#include "worker/export/export_format.h"

namespace uniquanf {
namespace {

// Weights that one thread rounds at a time.
constexpr int64_t kPiece = 1 << 16;

class Dequantized : public TensorFormat {
 public:
  explicit Dequantized(SafetensorsDType dtype) : dtype_(dtype) {}

  absl::Status Plan(const Manifest& manifest, ConfigJson* config) override {
    const char* const name = dtype_ == SafetensorsDType::kBF16 ? "bfloat16" : "float16";
    // Files have either name, both, or one inside the text model's part.
    ConfigJson* parts[] = {config,
                           config->contains("text_config") && (*config)["text_config"].is_object()
                               ? &(*config)["text_config"]
                               : nullptr};
    bool is_there = false;
    for (ConfigJson* part : parts) {
      for (const char* field : {"torch_dtype", "dtype"}) {
        if (part == nullptr || !part->contains(field)) continue;
        (*part)[field] = name;
        is_there = true;
      }
    }
    if (!is_there) (*config)["dtype"] = name;
    return absl::OkStatus();
  }

  std::vector<SafetensorsWriter::Declaration> Declare(const ManifestModule& module) const override {
    return {{module.name + ".weight", dtype_, {module.num_outputs, module.num_inputs}}};
  }

  std::vector<std::string> Convert(const ManifestModule& module, const PackedLinear& packed,
                                   Deviation* deviation) const override {
    std::vector<float> values(packed.num_outputs * packed.num_inputs);
    Dequantize(packed, values.data());
    return {RoundWeights(values, deviation)};
  }

  std::optional<SafetensorsDType> WeightType() const override { return dtype_; }

  std::string RoundWeights(const std::vector<float>& values, Deviation* deviation) const override {
    const auto size = static_cast<int64_t>(values.size());
    std::vector<uint16_t> rounded(size);
    std::vector<Deviation> pieces((size + kPiece - 1) / kPiece);
    ParallelRanges(size, kPiece, [&](int64_t begin, int64_t end) {
      Deviation* const piece = &pieces[begin / kPiece];
      for (int64_t i = begin; i < end; ++i) {
        rounded[i] = dtype_ == SafetensorsDType::kBF16 ? FloatToBfloat16(values[i])
                                                       : FloatToFloat16(values[i]);
        const float back = dtype_ == SafetensorsDType::kBF16 ? Bfloat16ToFloat(rounded[i])
                                                             : Float16ToFloat(rounded[i]);
        const double error = std::abs(static_cast<double>(back) - values[i]);
        piece->max_error = std::max(piece->max_error, error);
        piece->sum_error += error;
      }
      piece->num_weights += end - begin;
    });
    for (const Deviation& piece : pieces) deviation->Merge(piece);
    return BytesOf(rounded);
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
