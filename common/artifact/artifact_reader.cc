#include "common/artifact/artifact_reader.h"

#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/artifact/artifact_config.h"
#include "common/base/digest.h"
#include "common/base/json_util.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr char kReason[] = "INVALID_ARTIFACT";
constexpr char kConfigKey[] = "config.json";
constexpr char kIndexKey[] = "model.safetensors.index.json";
constexpr uint64_t kMaxConfigBytes = 16 << 20;
constexpr uint64_t kMaxIndexBytes = 256 << 20;

absl::Status Invalid(const ObjectStore& store, absl::string_view message) {
  return InvalidInput(kReason, absl::StrCat(store.uri(), ": ", message));
}

const ManifestFile* FindFile(const Manifest& manifest, absl::string_view path) {
  for (const ManifestFile& file : manifest.files) {
    if (file.path == path) return &file;
  }
  return nullptr;
}

// A digested JSON file, parsed.
absl::StatusOr<std::string> ReadDigested(ObjectStore* store, const Manifest& manifest,
                                         absl::string_view path, uint64_t max_bytes) {
  const ManifestFile* file = FindFile(manifest, path);
  if (file == nullptr) return Invalid(*store, absl::StrCat("the manifest lists no ", path));
  UQ_ASSIGN_OR_RETURN(std::string text, store->Read(path, max_bytes));
  if (text.size() != file->size_bytes || Sha256Hex(text) != file->sha256) {
    return MakeError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                     absl::StrCat(store->uri(), "/", path,
                                  " differs from the manifest's digest; fetch the artifact again"));
  }
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ArtifactReader>> ArtifactReader::Open(
    std::shared_ptr<ObjectStore> store) {
  auto reader = std::make_unique<ArtifactReader>();
  reader->store_ = std::move(store);
  UQ_ASSIGN_OR_RETURN(reader->manifest_, ReadManifest(reader->store_.get()));
  UQ_RETURN_IF_ERROR(reader->ReadConfig());
  UQ_RETURN_IF_ERROR(reader->ReadShards());
  return reader;
}

absl::Status ArtifactReader::ReadConfig() {
  UQ_ASSIGN_OR_RETURN(config_json_,
                      ReadDigested(store_.get(), manifest_, kConfigKey, kMaxConfigBytes));
  UQ_ASSIGN_OR_RETURN(const nlohmann::json config, ParseJson(config_json_, kConfigKey, kReason));
  const nlohmann::json method =
      config.is_object() ? config.value("quantization_config", nlohmann::json()) : nlohmann::json();
  if (!method.is_object() || !method.contains("quant_method") ||
      method["quant_method"] != kQuantMethod) {
    return Invalid(*store_, absl::StrCat("config.json's quantization_config.quant_method is not \"",
                                         kQuantMethod, "\""));
  }
  return absl::OkStatus();
}

absl::Status ArtifactReader::ReadShards() {
  UQ_ASSIGN_OR_RETURN(const std::string text,
                      ReadDigested(store_.get(), manifest_, kIndexKey, kMaxIndexBytes));
  UQ_ASSIGN_OR_RETURN(const nlohmann::json index, ParseJson(text, kIndexKey, kReason));
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return Invalid(*store_, absl::StrCat(kIndexKey, " has no weight_map"));
  }
  for (const ManifestFile& file : manifest_.files) {
    if (!absl::EndsWith(file.path, ".safetensors")) continue;
    UQ_ASSIGN_OR_RETURN(const ObjectInfo info, store_->Stat(file.path));
    if (info.size_bytes != file.size_bytes) {
      return Invalid(*store_, absl::StrCat(file.path, " has ", info.size_bytes,
                                           " bytes, the manifest says ", file.size_bytes));
    }
    UQ_ASSIGN_OR_RETURN(const auto shard, SafetensorsFile::Open(store_, file.path));
    for (const auto& [name, tensor] : shard->tensors()) {
      if (!tensors_.emplace(name, shard).second) {
        return Invalid(*store_, absl::StrCat("tensor \"", name, "\" lies in two shards"));
      }
    }
  }
  const nlohmann::json& weight_map = index["weight_map"];
  for (const auto& [name, shard] : tensors_) {
    const auto entry = weight_map.find(name);
    if (entry == weight_map.end() || *entry != shard->key()) {
      return Invalid(*store_, absl::StrCat(kIndexKey, " does not say that tensor \"", name,
                                           "\" lies in ", shard->key()));
    }
  }
  if (weight_map.size() != tensors_.size()) {
    return Invalid(*store_, absl::StrCat(kIndexKey, " names ", weight_map.size(),
                                         " tensors, the shards hold ", tensors_.size()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> ArtifactReader::FindShard(
    absl::string_view tensor) const {
  const auto it = tensors_.find(std::string(tensor));
  if (it != tensors_.end()) return it->second;
  return InvalidInput("TENSOR_NOT_FOUND",
                      absl::StrCat(store_->uri(), " has no tensor \"", tensor, "\""));
}

absl::StatusOr<PackedLinear> ArtifactReader::ReadPacked(absl::string_view module_name) const {
  const ManifestModule* module = manifest_.FindModule(module_name);
  if (module == nullptr) {
    return InvalidInput("TENSOR_NOT_FOUND",
                        absl::StrCat(store_->uri(), " has no module ", module_name));
  }
  if (!module->quantized) {
    return FailedPrecondition("MODULE_NOT_QUANTIZED",
                              absl::StrCat(module_name, " is in full precision in ", store_->uri(),
                                           " (", module->reason, ")"));
  }
  UQ_ASSIGN_OR_RETURN(const auto shard, FindShard(absl::StrCat(module_name, ".qweight")));
  return ReadPackedLinear(*shard, module_name, module->bits, module->num_outputs,
                          module->num_inputs, module->group_size);
}

}  // namespace uniquanf
