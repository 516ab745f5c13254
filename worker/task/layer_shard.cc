#include "worker/task/layer_shard.h"

#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "common/base/status.h"
#include "common/safetensors/safetensors.h"
#include "worker/task/content_store.h"

namespace uniquanf {
namespace {

constexpr uint64_t kHeaderRoom = 64 << 10;

// One tensor of a shard: from the source as it is, or one of a packed layer's.
struct ShardTensor {
  SafetensorsWriter::Declaration declaration;
  Checkpoint::RawTensor raw;  // when module is empty
  std::string module;         // else the packed layer it belongs to
  const PackedLinear* packed = nullptr;
};

absl::Status AddRaw(const Checkpoint& checkpoint, const std::string& name,
                    std::vector<ShardTensor>* tensors) {
  ShardTensor tensor;
  UQ_ASSIGN_OR_RETURN(tensor.raw, checkpoint.FindRaw(name));
  tensor.declaration = {name, tensor.raw.info.dtype, tensor.raw.info.shape};
  tensors->push_back(std::move(tensor));
  return absl::OkStatus();
}

absl::Status WriteShard(const std::vector<ShardTensor>& tensors, ObjectWriter* out) {
  std::vector<SafetensorsWriter::Declaration> declarations;
  for (const ShardTensor& tensor : tensors) declarations.push_back(tensor.declaration);
  SafetensorsWriter::SortForAlignment(&declarations);
  std::map<std::string, const ShardTensor*> by_name;
  for (const ShardTensor& tensor : tensors) by_name[tensor.declaration.name] = &tensor;
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsWriter> writer,
                      SafetensorsWriter::Create(out, declarations, {{"format", "pt"}}));
  for (const SafetensorsWriter::Declaration& declaration : declarations) {
    const std::string& name = declaration.name;
    const ShardTensor& tensor = *by_name.at(name);
    std::string bytes;
    if (tensor.packed != nullptr) {
      bytes = PackedTensorBytes(tensor.module, *tensor.packed, name);
    } else {
      bytes.resize(tensor.raw.info.size_bytes);
      UQ_RETURN_IF_ERROR(tensor.raw.file->ReadBytes(tensor.raw.info, bytes.data()));
    }
    UQ_RETURN_IF_ERROR(writer->Append(name, bytes.data(), bytes.size()));
  }
  return writer->Finish();
}

}  // namespace

absl::StatusOr<std::string> BuildLayerShard(const Checkpoint& checkpoint, int layer,
                                            const std::map<std::string, PackedLinear>& packed) {
  std::vector<ShardTensor> tensors;
  std::set<std::string> replaced;
  for (const auto& [module, linear] : packed) {
    replaced.insert(absl::StrCat(module, ".weight"));
    for (SafetensorsWriter::Declaration& declaration : PackedTensors(module, linear)) {
      ShardTensor tensor;
      tensor.declaration = std::move(declaration);
      tensor.module = module;
      tensor.packed = &linear;
      tensors.push_back(std::move(tensor));
    }
  }
  for (const std::string& name : checkpoint.TensorNames()) {
    if (!absl::StartsWith(name, LayerPrefix(layer)) || replaced.count(name) > 0) continue;
    UQ_RETURN_IF_ERROR(AddRaw(checkpoint, name, &tensors));
  }
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
  std::vector<ShardTensor> tensors;
  for (const std::string& name : checkpoint.TensorNames()) {
    if (absl::StartsWith(name, "model.layers.")) continue;
    UQ_RETURN_IF_ERROR(AddRaw(checkpoint, name, &tensors));
    if (names != nullptr) names->push_back(name);
  }
  return WriteShard(tensors, out);
}

}  // namespace uniquanf
