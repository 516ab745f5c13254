#include "worker/task/layer_state.h"

#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "worker/task/content_store.h"

namespace uniquanf {
namespace {

using quant::QuantizerState;

struct Part {
  const char* suffix;
  Tensor QuantizerState::*tensor;
};
constexpr Part kParts[] = {
    {".alpha", &QuantizerState::alpha},
    {".codes", &QuantizerState::codes},
    {".log_delta", &QuantizerState::log_delta},
    {".log_scale_group", &QuantizerState::log_scale_group},
    {".log_scale_weight", &QuantizerState::log_scale_weight},
    {".m_alpha", &QuantizerState::m_alpha},
    {".m_log_delta", &QuantizerState::m_log_delta},
    {".m_log_scale_group", &QuantizerState::m_log_scale_group},
    {".m_log_scale_weight", &QuantizerState::m_log_scale_weight},
    {".shift", &QuantizerState::shift},
    {".v_alpha", &QuantizerState::v_alpha},
    {".v_log_delta", &QuantizerState::v_log_delta},
    {".v_log_scale_group", &QuantizerState::v_log_scale_group},
    {".v_log_scale_weight", &QuantizerState::v_log_scale_weight},
    {".zero_point", &QuantizerState::zero_point},
};

SafetensorsDType DTypeOf(const Tensor& tensor) {
  if (tensor.dtype() == DType::kBfloat16) return SafetensorsDType::kBF16;
  return tensor.dtype() == DType::kUint8 ? SafetensorsDType::kU8 : SafetensorsDType::kF32;
}

}  // namespace

absl::StatusOr<std::string> SaveLayerState(const std::vector<std::string>& modules,
                                           const QuantizerStates& states) {
  std::map<std::string, const Tensor*> tensors;
  std::vector<SafetensorsWriter::Declaration> declarations;
  for (size_t l = 0; l < states.size(); ++l) {
    const std::optional<QuantizerState>& state = states[l];
    if (!state.has_value()) continue;
    for (const Part& part : kParts) {
      const Tensor& tensor = (*state).*part.tensor;
      if (tensor.empty()) continue;
      const std::string name = absl::StrCat(modules[l], part.suffix);
      declarations.push_back({name, DTypeOf(tensor), tensor.shape()});
      tensors[name] = &tensor;
    }
  }
  SafetensorsWriter::SortForAlignment(&declarations);
  StringWriter out;
  size_t size_bytes = size_t{1} << 20;  // for the header
  for (const auto& [name, tensor] : tensors) size_bytes += tensor->size_bytes();
  out.bytes().reserve(size_bytes);  // gigabytes for a large layer, not to be copied as it grows
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsWriter> writer,
                      SafetensorsWriter::Create(&out, declarations, {}));
  std::string bytes;
  for (const SafetensorsWriter::Declaration& declaration : declarations) {
    const Tensor& tensor = *tensors.at(declaration.name);
    bytes.resize(tensor.size_bytes());
    UQ_RETURN_IF_ERROR(
        tensor.backend()->CopyToHost(bytes.data(), tensor.data(), tensor.size_bytes()));
    UQ_RETURN_IF_ERROR(writer->Append(declaration.name, bytes.data(), bytes.size()));
  }
  UQ_RETURN_IF_ERROR(writer->Finish());
  return std::move(out.bytes());
}

absl::Status LoadQuantizerState(const SafetensorsFile& file, const std::string& module,
                                QuantizerState* state) {
  std::string bytes;
  for (const Part& part : kParts) {
    Tensor& tensor = state->*part.tensor;
    if (tensor.empty()) continue;
    UQ_ASSIGN_OR_RETURN(const TensorInfo info, file.Find(absl::StrCat(module, part.suffix)));
    if (info.shape != tensor.shape()) {
      return InvalidInput("TENSOR_SHAPE",
                          absl::StrCat(info.name, " of object ", file.key(), " has shape [",
                                       absl::StrJoin(info.shape, ", "), "], not [",
                                       absl::StrJoin(tensor.shape(), ", "), "]"));
    }
    if (info.dtype != DTypeOf(tensor)) {
      return InvalidInput("TENSOR_DTYPE",
                          absl::StrCat(info.name, " of object ", file.key(), " has dtype ",
                                       SafetensorsDTypeName(info.dtype), ", not ",
                                       SafetensorsDTypeName(DTypeOf(tensor))));
    }
    bytes.resize(tensor.size_bytes());
    UQ_RETURN_IF_ERROR(file.ReadBytes(info, bytes.data()));
    UQ_RETURN_IF_ERROR(
        tensor.backend()->CopyFromHost(tensor.data(), bytes.data(), tensor.size_bytes()));
  }
  return absl::OkStatus();
}

}  // namespace uniquanf
