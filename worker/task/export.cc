#include "worker/task/export.h"

#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "common/base/status.h"
#include "common/safetensors/safetensors.h"
#include "worker/model/checkpoint.h"
#include "worker/model/checkpoint_layout.h"
#include "worker/task/copied_files.h"
#include "worker/task/task_context.h"

namespace uniquanf {
namespace {

using Json = nlohmann::ordered_json;

// A tensor of the exported checkpoint: floats to round, or the source's bytes as they are.
struct ExportTensor {
  std::string name;
  std::vector<int64_t> shape;
  const std::vector<float>* floats = nullptr;
  const Checkpoint::RawTensor* raw = nullptr;
};

class Exporter {
 public:
  Exporter(const Checkpoint& checkpoint, ObjectStore* output)
      : checkpoint_(checkpoint), output_(output) {}

  absl::Status WriteShard(const std::string& file, const std::vector<ExportTensor>& tensors) {
    std::vector<SafetensorsWriter::Declaration> declarations;
    for (const ExportTensor& tensor : tensors) {
      declarations.push_back(
          {tensor.name, tensor.raw != nullptr ? tensor.raw->info.dtype : SafetensorsDType::kBF16,
           tensor.shape});
      weight_map_[tensor.name] = file;
    }
    UQ_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectWriter> out, output_->NewWriter(file, {}));
    UQ_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsWriter> writer,
                        SafetensorsWriter::Create(out.get(), declarations, {{"format", "pt"}}));
    for (const ExportTensor& tensor : tensors) UQ_RETURN_IF_ERROR(Append(tensor, writer.get()));
    UQ_RETURN_IF_ERROR(writer->Finish());
    return out->Commit();
  }

  absl::Status WriteLayer(int layer, const std::string& file) {
    UQ_ASSIGN_OR_RETURN(const HostBlock block, checkpoint_.LoadBlock(layer));
    const std::string prefix = checkpoint_.config().LayerPrefix(layer);
    const BlockSpec& spec = checkpoint_.config().blocks[layer];
    std::map<std::string, Checkpoint::RawTensor> raw;
    // Stored tensors that the artifact has not: all their parts put together again.
    std::map<std::string, std::vector<float>> joined;
    std::vector<ExportTensor> replaced;
    for (size_t t = 0; t < spec.tensors.size(); ++t) {
      const TensorSpec& tensor = spec.tensors[t];
      if (!tensor.stored.constant.empty()) continue;
      const std::string name = prefix + tensor.stored.name;
      const bool kept = tensor.stored.IsPlain() || tensor.role == TensorRole::kVector;
      absl::StatusOr<Checkpoint::RawTensor> found = checkpoint_.FindRaw(name);
      if (kept && found.ok()) {
        raw.emplace(name, *std::move(found));
        continue;
      }
      const auto [at, added] = joined.try_emplace(name);
      if (added) {
        int64_t size = 1;
        for (int64_t dim : tensor.stored.shape) size *= dim;
        at->second.resize(size);
        replaced.push_back({name, tensor.stored.shape, &at->second, nullptr});
      }
      tensor.Scatter(block[t].data(), at->second.data());
    }
    // What nothing reads is copied as it is.
    for (const std::string& name : checkpoint_.TensorNames()) {
      if (!IsCopiedTensor(checkpoint_.config(), name) || !absl::StartsWith(name, prefix)) continue;
      UQ_ASSIGN_OR_RETURN(Checkpoint::RawTensor tensor, checkpoint_.FindRaw(name));
      raw.emplace(name, std::move(tensor));
    }
    std::vector<ExportTensor> tensors;
    for (const auto& [name, tensor] : raw) {
      tensors.push_back({name, tensor.info.shape, nullptr, &tensor});
    }
    tensors.insert(tensors.end(), replaced.begin(), replaced.end());
    return WriteShard(file, tensors);
  }

  absl::Status WriteOuter(const std::string& file) {
    std::vector<Checkpoint::RawTensor> raw;
    for (const std::string& name : checkpoint_.TensorNames()) {
      if (checkpoint_.config().LayerOf(name) >= 0) continue;
      UQ_ASSIGN_OR_RETURN(Checkpoint::RawTensor tensor, checkpoint_.FindRaw(name));
      raw.push_back(std::move(tensor));
    }
    std::vector<ExportTensor> tensors;
    for (const Checkpoint::RawTensor& tensor : raw) {
      tensors.push_back({tensor.info.name, tensor.info.shape, nullptr, &tensor});
    }
    return WriteShard(file, tensors);
  }

  std::string IndexJson() const {
    Json json;
    json["metadata"]["total_size"] = total_size_;
    json["weight_map"] = weight_map_;
    return json.dump(2);
  }

 private:
  absl::Status Append(const ExportTensor& tensor, SafetensorsWriter* writer) {
    if (tensor.raw != nullptr) {
      std::vector<char> bytes(tensor.raw->info.size_bytes);
      UQ_RETURN_IF_ERROR(tensor.raw->file->ReadBytes(tensor.raw->info, bytes.data()));
      total_size_ += bytes.size();
      return writer->Append(tensor.name, bytes.data(), bytes.size());
    }
    std::vector<uint16_t> rounded(tensor.floats->size());
    for (size_t i = 0; i < rounded.size(); ++i) rounded[i] = FloatToBfloat16((*tensor.floats)[i]);
    total_size_ += rounded.size() * sizeof(uint16_t);
    return writer->Append(tensor.name, rounded.data(), rounded.size() * sizeof(uint16_t));
  }

  const Checkpoint& checkpoint_;
  ObjectStore* output_;
  std::map<std::string, std::string> weight_map_;
  uint64_t total_size_ = 0;
};

// The artifact's config without what makes it a quantized model.
absl::StatusOr<std::string> PlainConfig(const std::string& config_json) {
  Json json = Json::parse(config_json, nullptr, false);
  if (!json.is_object())
    return InvalidInput("INVALID_MODEL_CONFIG", "config.json is not an object");
  json.erase("anybcq");
  json.erase("quantization_config");
  json[json.contains("torch_dtype") ? "torch_dtype" : "dtype"] = "bfloat16";
  return json.dump(2) + "\n";
}

}  // namespace

absl::Status ExportDequantized(std::shared_ptr<ObjectStore> artifact, const std::string& output_uri,
                               const std::function<void(int, int)>& progress,
                               const std::function<bool()>& cancelled) {
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                      Checkpoint::Open(artifact, /*allow_quantized=*/true));
  UQ_ASSIGN_OR_RETURN(const std::string config, PlainConfig(checkpoint->config_json()));
  UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> output, OpenObjectStore(output_uri));
  ListOptions options;
  options.max_results = 1;
  UQ_ASSIGN_OR_RETURN(const ListResult listed, output->List(options));
  if (!listed.objects.empty()) {
    return MakeError(
        absl::StatusCode::kAlreadyExists, "OUTPUT_EXISTS",
        absl::StrCat("the output ", output_uri, " already holds ", listed.objects[0].key,
                     "; nothing there was changed: choose another place or remove it"));
  }
  Exporter exporter(*checkpoint, output.get());
  const int num_layers = checkpoint->config().num_layers;
  for (int layer = 0; layer < num_layers; ++layer) {
    if (cancelled && cancelled()) return CancelledError();
    if (progress) progress(layer, num_layers);
    UQ_RETURN_IF_ERROR(exporter.WriteLayer(layer, ShardFileName(layer + 1, num_layers + 1)));
  }
  UQ_RETURN_IF_ERROR(exporter.WriteOuter(ShardFileName(0, num_layers + 1)));
  UQ_RETURN_IF_ERROR(output->Write("config.json", config));
  UQ_RETURN_IF_ERROR(CopyModelFiles(artifact.get(), output.get(), nullptr));
  if (progress) progress(num_layers, num_layers);
  return output->Write("model.safetensors.index.json", exporter.IndexJson());
}

}  // namespace uniquanf
