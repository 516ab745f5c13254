// What an export format is to the code that walks through an artifact: how a quantized layer's
// tensors look there. A format is one row in formats.cc and a file that makes its TensorFormat (or,
// for gguf, its own walk).
//
// Thread safety: as the caller; a format is made for one export and keeps what Plan decided.
#ifndef UNIQUANF_WORKER_EXPORT_EXPORT_FORMAT_H_
#define UNIQUANF_WORKER_EXPORT_EXPORT_FORMAT_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/artifact/artifact_reader.h"

namespace uniquanf {

// How far a layer's weights in the new form are from the artifact's, both as their readers compute
// them in float32.
struct Deviation {
  double max_error = 0, sum_error = 0;  // of |w_new − w|
  int64_t num_weights = 0;
  // Every error is at most what rounding a group's scale and shift to the format's 16-bit type
  // makes of its largest weight.
  bool within_rounding = true;
  double mean_error() const { return num_weights > 0 ? sum_error / num_weights : 0; }
  void Merge(const Deviation& other);
};

struct ExportTensor {
  SafetensorsWriter::Declaration declaration;
  std::string bytes;
};

// Ordered JSON: config.json keeps the source's order.
using ConfigJson = nlohmann::ordered_json;

// A format of safetensors files beside a config.json.
class TensorFormat {
 public:
  virtual ~TensorFormat() = default;
  // Checks that the format can hold every quantized module (EXPORT_NOT_POSSIBLE), and changes the
  // config, which comes without quantization_config and anybcq.
  virtual absl::Status Plan(const Manifest& manifest, ConfigJson* config) = 0;
  // The tensors that replace a quantized module's.
  virtual std::vector<SafetensorsWriter::Declaration> Declare(
      const ManifestModule& module) const = 0;
  // Their bytes, in Declare's order.
  virtual std::vector<std::string> Convert(const ManifestModule& module, const PackedLinear& packed,
                                           Deviation* deviation) const = 0;
  // For a format that holds the weights themselves, whatever their arrangement: their type, and
  // their bytes. Else none, and levels are all that the format can hold.
  virtual std::optional<SafetensorsDType> WeightType() const { return std::nullopt; }
  virtual std::string RoundWeights(const std::vector<float>& values, Deviation* deviation) const {
    return "";
  }
};

struct GgufType;  // gguf_types.h

struct ExportFormatRow {
  const char* name;
  const char* help;
  std::unique_ptr<TensorFormat> (*make)();  // null: GGUF
  const GgufType* gguf_type;
};
const std::vector<ExportFormatRow>& ExportFormats();

std::unique_ptr<TensorFormat> NewDequantizedBf16();
std::unique_ptr<TensorFormat> NewDequantizedFp16();
std::unique_ptr<TensorFormat> NewGptqV1();
std::unique_ptr<TensorFormat> NewGptqV2();
std::unique_ptr<TensorFormat> NewAwq();
std::unique_ptr<TensorFormat> NewCompressedTensors();
std::unique_ptr<TensorFormat> NewCompressedTensorsSymmetric();
std::unique_ptr<TensorFormat> NewAnyPrecision();
std::unique_ptr<TensorFormat> NewLutGemm();
std::unique_ptr<TensorFormat> NewAnyBcq();

// EXPORT_NOT_POSSIBLE: "module NAME: RULE".
absl::Status NotPossible(absl::string_view module, absl::string_view rule);
// Names of the linear layers that stay in full precision.
std::vector<std::string> FullPrecisionModules(const Manifest& manifest);

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_EXPORT_EXPORT_FORMAT_H_
