#include "worker/task/layer_shard.h"

#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "common/artifact/finite.h"
#include "common/base/status.h"
#include "common/safetensors/float_conversion.h"
#include "common/safetensors/safetensors.h"
#include "worker/model/checkpoint_layout.h"
#include "worker/task/content_store.h"

namespace uniquanf {
namespace {

constexpr uint64_t kHeaderRoom = 64 << 10;

// One tensor of a shard: from the source as it is, or one of a packed layer's.
struct ShardTensor {
  SafetensorsWriter::Declaration declaration;
  SourceTensor raw;                  // when module is empty
  const TensorSpec* part = nullptr;  // the part of raw that is meant; null: all of it
  std::string module;                // else the packed layer it belongs to
  const PackedLinear* packed = nullptr;
  const std::string* changed = nullptr;  // these bytes instead of the source's
};

absl::Status AddRaw(const Checkpoint& checkpoint, const std::string& name,
                    std::vector<ShardTensor>* tensors) {
  ShardTensor tensor;
  UQ_ASSIGN_OR_RETURN(tensor.raw, checkpoint.FindRaw(name));
  tensor.declaration = {name, tensor.raw.info.dtype, tensor.raw.info.shape};
  tensors->push_back(std::move(tensor));
  return absl::OkStatus();
}

absl::StatusOr<std::string> BytesOf(const ShardTensor& tensor) {
  const SourceTensor& raw = tensor.raw;
  if (tensor.part == nullptr) {
    std::string bytes(raw.info.size_bytes, 0);
    UQ_RETURN_IF_ERROR(raw.ReadBytes(0, raw.info.num_elements(), bytes.data()));
    return bytes;
  }
  const auto element = static_cast<int64_t>(raw.info.size_bytes) / raw.info.num_elements();
  const auto [begin, end] = tensor.part->StoredRange();
  std::string stored((end - begin) * element, 0);
  UQ_RETURN_IF_ERROR(raw.ReadBytes(begin, end, stored.data()));
  std::string part(tensor.part->num_elements() * element, 0);
  const int64_t width = tensor.part->row_width();
  tensor.part->ForEachRow([&, first = begin](int64_t to, int64_t at, int64_t step) {
    for (int64_t i = 0; i < width; ++i) {
      std::memcpy(part.data() + (to + i) * element,
                  stored.data() + (at + i * step - first) * element, element);
    }
  });
  return part;
}

// Not what follows from the config, masks with −∞ among it.
absl::Status CheckFinite(const ShardTensor& tensor, absl::string_view bytes) {
  if (!MustBeFinite(tensor.declaration.name)) return absl::OkStatus();
  const std::optional<int64_t> at = FindNotFinite(tensor.declaration.dtype, bytes);
  if (!at.has_value()) return absl::OkStatus();
  return InvalidInput("WEIGHT_NOT_FINITE",
                      absl::StrCat("tensor ", tensor.raw.info.name, " in ", tensor.raw.file->key(),
                                   " holds NaN or an infinity, element ", *at,
                                   tensor.part != nullptr ? " of its part" : "",
                                   "; was the checkpoint fetched whole?"));
}

std::vector<SafetensorsWriter::Declaration> Declarations(const std::vector<ShardTensor>& tensors) {
  std::vector<SafetensorsWriter::Declaration> declarations;
  for (const ShardTensor& tensor : tensors) declarations.push_back(tensor.declaration);
  SafetensorsWriter::SortForAlignment(&declarations);
  return declarations;
}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> NewWriter(
    const std::vector<SafetensorsWriter::Declaration>& declarations, ObjectWriter* out) {
  return SafetensorsWriter::Create(out, declarations, {{"format", "pt"}});
}

absl::StatusOr<ShardSize> SizeOf(const std::vector<ShardTensor>& tensors) {
  ShardSize size;
  StringWriter header;
  UQ_RETURN_IF_ERROR(NewWriter(Declarations(tensors), &header).status());
  for (const ShardTensor& tensor : tensors) {
    UQ_ASSIGN_OR_RETURN(const uint64_t bytes,
                        TensorBytes(tensor.declaration.dtype, tensor.declaration.shape));
    size.tensor_bytes += bytes;
    size.tensors.push_back(tensor.declaration.name);
  }
  size.file_bytes = header.bytes().size() + size.tensor_bytes;
  return size;
}

absl::Status WriteShard(const std::vector<ShardTensor>& tensors, ObjectWriter* out) {
  const std::vector<SafetensorsWriter::Declaration> declarations = Declarations(tensors);
  std::map<std::string, const ShardTensor*> by_name;
  for (const ShardTensor& tensor : tensors) by_name[tensor.declaration.name] = &tensor;
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsWriter> writer,
                      NewWriter(declarations, out));
  for (const SafetensorsWriter::Declaration& declaration : declarations) {
    const std::string& name = declaration.name;
    const ShardTensor& tensor = *by_name.at(name);
    std::string bytes;
    if (tensor.packed != nullptr) {
      bytes = PackedTensorBytes(tensor.module, *tensor.packed, name);
    } else if (tensor.changed != nullptr) {
      bytes = *tensor.changed;
    } else {
      UQ_ASSIGN_OR_RETURN(bytes, BytesOf(tensor));
      UQ_RETURN_IF_ERROR(CheckFinite(tensor, bytes));
    }
    UQ_RETURN_IF_ERROR(writer->Append(name, bytes.data(), bytes.size()));
  }
  return writer->Finish();
}

// `packed` and `changed` are referred to.
absl::StatusOr<std::vector<ShardTensor>> LayerTensors(
    const Checkpoint& checkpoint, int layer, const std::map<std::string, PackedLinear>& packed,
    const std::map<std::string, std::string>& changed) {
  std::vector<ShardTensor> tensors;
  const ModelConfig& config = checkpoint.config();
  const std::string prefix = config.LayerPrefix(layer);
  std::set<std::string> quantized;
  for (const auto& [module, linear] : packed) {
    quantized.insert(module);
    for (SafetensorsWriter::Declaration& declaration : PackedTensors(module, linear)) {
      ShardTensor tensor;
      tensor.declaration = std::move(declaration);
      tensor.module = module;
      tensor.packed = &linear;
      tensors.push_back(std::move(tensor));
    }
  }
  const std::set<std::string> replaced = ReplacedTensors(config, layer, quantized);
  for (const std::string& name : checkpoint.TensorNames()) {
    if (!absl::StartsWith(name, prefix) || replaced.count(name) > 0) continue;
    UQ_RETURN_IF_ERROR(AddRaw(checkpoint, name, &tensors));
    const auto it = changed.find(name.substr(prefix.size()));
    if (it != changed.end()) tensors.back().changed = &it->second;
  }
  for (const TensorSpec& part : config.blocks[layer].tensors) {
    const std::string stored = prefix + part.stored.name;
    if (part.role == TensorRole::kVector || replaced.count(stored) == 0 ||
        quantized.count(prefix + part.module) > 0) {
      continue;
    }
    UQ_RETURN_IF_ERROR(AddRaw(checkpoint, stored, &tensors));
    tensors.back().part = &part;
    tensors.back().declaration.name = OwnTensorName(prefix, part);
    tensors.back().declaration.shape = part.shape;
  }
  return tensors;
}

absl::StatusOr<std::vector<ShardTensor>> OuterTensors(const Checkpoint& checkpoint) {
  std::vector<ShardTensor> tensors;
  for (const std::string& name : checkpoint.TensorNames()) {
    if (checkpoint.config().LayerOf(name) >= 0) continue;
    UQ_RETURN_IF_ERROR(AddRaw(checkpoint, name, &tensors));
  }
  return tensors;
}

}  // namespace

std::string AsStored(const std::vector<float>& values, SafetensorsDType dtype) {
  if (dtype == SafetensorsDType::kF32) {
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  }
  std::vector<uint16_t> rounded(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    rounded[i] =
        dtype == SafetensorsDType::kBF16 ? FloatToBfloat16(values[i]) : FloatToFloat16(values[i]);
  }
  return std::string(reinterpret_cast<const char*>(rounded.data()),
                     rounded.size() * sizeof(uint16_t));
}

float RoundedTo(SafetensorsDType dtype, float value) {
  if (dtype == SafetensorsDType::kBF16) return Bfloat16ToFloat(FloatToBfloat16(value));
  if (dtype == SafetensorsDType::kF16) return Float16ToFloat(FloatToFloat16(value));
  return value;
}

std::vector<float> RoundedTo(const std::vector<float>& values, SafetensorsDType dtype) {
  std::vector<float> rounded = values;
  for (float& value : rounded) value = RoundedTo(dtype, value);
  return rounded;
}

absl::StatusOr<std::string> BuildLayerShard(const Checkpoint& checkpoint, int layer,
                                            const std::map<std::string, PackedLinear>& packed,
                                            const std::map<std::string, std::string>& changed) {
  UQ_ASSIGN_OR_RETURN(const std::vector<ShardTensor> tensors,
                      LayerTensors(checkpoint, layer, packed, changed));
  uint64_t size_bytes = kHeaderRoom;
  for (const ShardTensor& tensor : tensors) {
    UQ_ASSIGN_OR_RETURN(const uint64_t bytes,
                        TensorBytes(tensor.declaration.dtype, tensor.declaration.shape));
    size_bytes += bytes;
  }
  StringWriter out(size_bytes);
  UQ_RETURN_IF_ERROR(WriteShard(tensors, &out));
  return std::move(out.bytes());
}

absl::Status WriteOuterShard(const Checkpoint& checkpoint, ObjectWriter* out,
                             std::vector<std::string>* names) {
  UQ_ASSIGN_OR_RETURN(const std::vector<ShardTensor> tensors, OuterTensors(checkpoint));
  if (names != nullptr) {
    for (const ShardTensor& tensor : tensors) names->push_back(tensor.declaration.name);
  }
  return WriteShard(tensors, out);
}

absl::StatusOr<ShardSize> LayerShardSize(const Checkpoint& checkpoint, int layer,
                                         const std::map<std::string, PackedLinear>& packed) {
  const std::map<std::string, std::string> none;
  UQ_ASSIGN_OR_RETURN(const std::vector<ShardTensor> tensors,
                      LayerTensors(checkpoint, layer, packed, none));
  return SizeOf(tensors);
}

absl::StatusOr<ShardSize> OuterShardSize(const Checkpoint& checkpoint) {
  UQ_ASSIGN_OR_RETURN(const std::vector<ShardTensor> tensors, OuterTensors(checkpoint));
  return SizeOf(tensors);
}

}  // namespace uniquanf
