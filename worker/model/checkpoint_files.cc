#include "worker/model/checkpoint_files.h"

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/json_util.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
// A million tensors of a hundred characters.
constexpr uint64_t kMaxIndexBytes = 128 << 20;

absl::Status ModelNotFound(absl::string_view message) {
  return InvalidInput("MODEL_NOT_FOUND", message);
}

// A shard lies beside its index: names that lead elsewhere are not followed.
bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name.size() <= 255 && name[0] != '.' &&
         name.find_first_of("/\\") == absl::string_view::npos &&
         absl::EndsWith(name, ".safetensors");
}

absl::StatusOr<TensorMap> OpenSingle(const std::shared_ptr<ObjectStore>& store) {
  UQ_ASSIGN_OR_RETURN(std::shared_ptr<const SafetensorsFile> file,
                      SafetensorsFile::Open(store, kSingleFile));
  TensorMap tensors;
  for (const auto& [name, info] : file->tensors()) tensors[name] = {file, info};
  return tensors;
}

absl::StatusOr<TensorMap> OpenSharded(const std::shared_ptr<ObjectStore>& store) {
  UQ_ASSIGN_OR_RETURN(std::string text, ReadModelText(store.get(), kIndexFile, kMaxIndexBytes));
  UQ_ASSIGN_OR_RETURN(const nlohmann::json index,
                      ParseJson(text, kIndexFile, "INVALID_MODEL_INDEX"));
  auto weight_map = index.is_object() ? index.find("weight_map") : index.end();
  if (weight_map == index.end() || !weight_map->is_object()) {
    return InvalidInput("INVALID_MODEL_INDEX",
                        absl::StrCat(kIndexFile, ": it has no object \"weight_map\""));
  }
  std::map<std::string, std::shared_ptr<const SafetensorsFile>> files;
  TensorMap tensors;
  for (const auto& [name, value] : weight_map->items()) {
    if (!value.is_string() || !IsPlainFileName(value.get<std::string>())) {
      return InvalidInput("INVALID_MODEL_INDEX",
                          absl::StrCat(kIndexFile, ": the file of tensor ", name.substr(0, 200),
                                       " must be a plain name that ends in .safetensors"));
    }
    const std::string key = value.get<std::string>();
    std::shared_ptr<const SafetensorsFile>& file = files[key];
    if (file == nullptr) {
      absl::StatusOr<std::shared_ptr<const SafetensorsFile>> opened =
          SafetensorsFile::Open(store, key);
      if (absl::IsNotFound(opened.status())) {
        return ModelNotFound(
            absl::StrCat("shard ", key, " named by ", kIndexFile, " is missing in ", store->uri()));
      }
      if (!opened.ok()) return opened.status();
      file = *std::move(opened);
    }
    auto it = file->tensors().find(name);
    if (it == file->tensors().end()) {
      return InvalidInput("TENSOR_NOT_FOUND",
                          absl::StrCat("tensor ", name.substr(0, 200), " is not in ", key,
                                       ", where ", kIndexFile, " says it is"));
    }
    tensors[name] = {file, it->second};
  }
  return tensors;
}

}  // namespace

absl::StatusOr<std::string> ReadModelText(ObjectStore* store, absl::string_view key,
                                          uint64_t max_bytes) {
  absl::StatusOr<std::string> text = store->Read(key, max_bytes);
  if (absl::IsNotFound(text.status())) {
    return ModelNotFound(absl::StrCat("there is no ", key, " in ", store->uri(),
                                      "; give the directory of a Hugging Face checkpoint"));
  }
  return text;
}

absl::StatusOr<TensorMap> OpenCheckpointFiles(const std::shared_ptr<ObjectStore>& store) {
  absl::StatusOr<ObjectInfo> single = store->Stat(kSingleFile);
  if (single.ok()) return OpenSingle(store);
  if (!absl::IsNotFound(single.status())) return single.status();
  absl::StatusOr<ObjectInfo> index = store->Stat(kIndexFile);
  if (index.ok()) return OpenSharded(store);
  if (!absl::IsNotFound(index.status())) return index.status();
  std::string hint;
  if (store->Stat("pytorch_model.bin").ok() || store->Stat("pytorch_model.bin.index.json").ok()) {
    hint = "; convert pytorch_model.bin to safetensors first";
  }
  return ModelNotFound(absl::StrCat("there is neither ", kSingleFile, " nor ", kIndexFile, " in ",
                                    store->uri(), hint));
}

}  // namespace uniquanf
