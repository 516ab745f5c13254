#include "worker/task/layer_state.h"

#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "common/safetensors/float_conversion.h"
#include "worker/model/checkpoint.h"
#include "worker/task/content_store.h"

namespace uniquanf {
namespace {

using quant::QuantizerState;

struct Part {
  const char* suffix;
  SafetensorsDType dtype;
  Tensor QuantizerState::*tensor;
};
constexpr Part kParts[] = {
    {".alpha", SafetensorsDType::kF32, &QuantizerState::alpha},
    {".log_delta", SafetensorsDType::kF32, &QuantizerState::log_delta},
    {".log_scale_group", SafetensorsDType::kF32, &QuantizerState::log_scale_group},
    {".log_scale_weight", SafetensorsDType::kF16, &QuantizerState::log_scale_weight},
    {".shift", SafetensorsDType::kF32, &QuantizerState::shift},
    {".zero_point", SafetensorsDType::kF32, &QuantizerState::zero_point},
};

struct NamedTensor {
  const Tensor* tensor;
  SafetensorsDType dtype;
};

std::string BytesOf(const std::vector<float>& values, SafetensorsDType dtype) {
  if (dtype == SafetensorsDType::kF32) {
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  }
  std::vector<uint16_t> halves(values.size());
  for (size_t i = 0; i < values.size(); ++i) halves[i] = FloatToFloat16(values[i]);
  return std::string(reinterpret_cast<const char*>(halves.data()),
                     halves.size() * sizeof(uint16_t));
}

}  // namespace

absl::StatusOr<std::string> SaveLayerState(int layer, const QuantizerStates& states) {
  std::map<std::string, NamedTensor> tensors;
  std::vector<SafetensorsWriter::Declaration> declarations;
  for (Linear linear : kAllLinears) {
    const std::optional<QuantizerState>& state = states[static_cast<int>(linear)];
    if (!state.has_value()) continue;
    for (const Part& part : kParts) {
      const Tensor& tensor = (*state).*part.tensor;
      const std::string name = absl::StrCat(ModuleName(layer, linear), part.suffix);
      declarations.push_back({name, part.dtype, tensor.shape()});
      tensors[name] = {&tensor, part.dtype};
    }
  }
  SafetensorsWriter::SortForAlignment(&declarations);
  StringWriter out;
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsWriter> writer,
                      SafetensorsWriter::Create(&out, declarations, {}));
  for (const SafetensorsWriter::Declaration& declaration : declarations) {
    const NamedTensor& named = tensors.at(declaration.name);
    UQ_ASSIGN_OR_RETURN(const std::vector<float> values, named.tensor->ToFloats());
    const std::string bytes = BytesOf(values, named.dtype);
    UQ_RETURN_IF_ERROR(writer->Append(declaration.name, bytes.data(), bytes.size()));
  }
  UQ_RETURN_IF_ERROR(writer->Finish());
  return std::move(out.bytes());
}

absl::Status LoadQuantizerState(const SafetensorsFile& file, const std::string& module,
                                QuantizerState* state) {
  for (const Part& part : kParts) {
    UQ_ASSIGN_OR_RETURN(const TensorInfo info, file.Find(absl::StrCat(module, part.suffix)));
    Tensor& tensor = state->*part.tensor;
    if (info.shape != tensor.shape()) {
      return InvalidInput("TENSOR_SHAPE",
                          absl::StrCat(info.name, " of object ", file.key(), " has shape [",
                                       absl::StrJoin(info.shape, ", "), "], not [",
                                       absl::StrJoin(tensor.shape(), ", "), "]"));
    }
    std::vector<float> values(tensor.num_elements());
    UQ_RETURN_IF_ERROR(file.ReadFloat(info, values.data()));
    UQ_RETURN_IF_ERROR(tensor.CopyFromFloats(values.data()));
  }
  return absl::OkStatus();
}

}  // namespace uniquanf
