#include "worker/model/checkpoint_files.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/file_kind.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "worker/model/model_folder.h"

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

using Shard = std::shared_ptr<const SafetensorsFile>;

absl::StatusOr<CheckpointFiles> OpenSingle(const std::shared_ptr<ObjectStore>& store) {
  UQ_ASSIGN_OR_RETURN(const Shard file, SafetensorsFile::Open(store, kSingleFile));
  CheckpointFiles files;
  for (const auto& [name, info] : file->tensors()) files.tensors[name] = {file, info};
  return files;
}

// Tensor → shard.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(ObjectStore* store) {
  UQ_ASSIGN_OR_RETURN(const std::string text, ReadModelText(store, kIndexFile, kMaxIndexBytes));
  UQ_ASSIGN_OR_RETURN(const nlohmann::json index,
                      ParseJson(text, kIndexFile, "INVALID_MODEL_INDEX"));
  auto weight_map = index.is_object() ? index.find("weight_map") : index.end();
  if (weight_map == index.end() || !weight_map->is_object()) {
    return InvalidInput("INVALID_MODEL_INDEX",
                        absl::StrCat(kIndexFile, ": it has no object \"weight_map\""));
  }
  std::map<std::string, std::string> shards;
  for (const auto& [name, value] : weight_map->items()) {
    if (!value.is_string() || !IsPlainFileName(value.get<std::string>())) {
      return InvalidInput("INVALID_MODEL_INDEX",
                          absl::StrCat(kIndexFile, ": the file of tensor ", name.substr(0, 200),
                                       " must be a plain name that ends in .safetensors"));
    }
    shards[name] = value.get<std::string>();
  }
  return shards;
}

absl::StatusOr<CheckpointFiles> OpenSharded(const std::shared_ptr<ObjectStore>& store,
                                            const std::map<std::string, std::string>& index) {
  std::map<std::string, Shard> shards;
  CheckpointFiles files;
  for (const auto& [name, key] : index) {
    Shard& shard = shards[key];
    if (shard == nullptr) {
      absl::StatusOr<Shard> opened = SafetensorsFile::Open(store, key);
      if (absl::IsNotFound(opened.status())) {
        return ModelNotFound(
            absl::StrCat("shard ", key, " named by ", kIndexFile, " is missing in ", store->uri()));
      }
      if (!opened.ok()) return opened.status();
      shard = *std::move(opened);
    }
    auto it = shard->tensors().find(name);
    if (it == shard->tensors().end()) {
      files.absent[name] = key;
    } else {
      files.tensors[name] = {shard, it->second};
    }
  }
  for (const auto& [key, shard] : shards) {
    for (const auto& [name, info] : shard->tensors()) {
      if (index.count(name) == 0) files.unlisted[name] = key;
    }
  }
  return files;
}

absl::StatusOr<CheckpointFiles> OpenFiles(const std::shared_ptr<ObjectStore>& store) {
  const absl::StatusOr<ObjectInfo> single = store->Stat(kSingleFile);
  if (!single.ok() && !absl::IsNotFound(single.status())) return single.status();
  const absl::StatusOr<ObjectInfo> indexed = store->Stat(kIndexFile);
  if (!indexed.ok() && !absl::IsNotFound(indexed.status())) return indexed.status();
  if (indexed.ok()) {
    UQ_ASSIGN_OR_RETURN(const auto index, ReadIndex(store.get()));
    const auto other = std::find_if(index.begin(), index.end(),
                                    [](const auto& entry) { return entry.second != kSingleFile; });
    const bool names_single = std::any_of(
        index.begin(), index.end(), [](const auto& entry) { return entry.second == kSingleFile; });
    if (single.ok() && !names_single && other != index.end()) {
      return InvalidInput(
          "TWO_MODELS",
          absl::StrCat(store->uri(), " holds both ", kSingleFile, " and ", kIndexFile,
                       ", which names ", other->second,
                       " and others: two sets of weights. Remove the one that is not meant"));
    }
    return OpenSharded(store, index);
  }
  if (single.ok()) return OpenSingle(store);
  return ModelNotFound(absl::StrCat("there is neither ", kSingleFile, " nor ", kIndexFile, " in ",
                                    store->uri(), ExplainFolder(store.get(), kSingleFile)));
}

}  // namespace

absl::StatusOr<std::string> ReadModelText(ObjectStore* store, absl::string_view key,
                                          uint64_t max_bytes) {
  absl::StatusOr<std::string> text = store->Read(key, max_bytes);
  if (absl::IsNotFound(text.status())) {
    const std::string why = ExplainFolder(store, key);
    return ModelNotFound(
        absl::StrCat("there is no ", key, " in ", store->uri(),
                     why.empty() ? "; give the directory of a Hugging Face checkpoint" : why));
  }
  if (!text.ok()) return text;
  const std::string what = DescribeFileKind(absl::string_view(*text).substr(0, kFileKindBytes));
  if (!what.empty()) {
    return InvalidInput("NOT_THE_FILE", absl::StrCat(store->uri(), "/", key, " is ", what));
  }
  return text;
}

absl::StatusOr<CheckpointFiles> OpenCheckpointFiles(const std::shared_ptr<ObjectStore>& store) {
  UQ_ASSIGN_OR_RETURN(CheckpointFiles files, OpenFiles(store));
  for (auto it = files.tensors.begin(); it != files.tensors.end();) {
    it = it->second.info.num_elements() == 0 ? files.tensors.erase(it) : std::next(it);
  }
  return files;
}

absl::Status CheckFiniteValues(const TensorInfo& info, int64_t first, const float* values,
                               int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if (std::isfinite(values[i])) continue;
    // The index in the tensor's own dimensions.
    std::vector<int64_t> index(info.shape.size());
    int64_t rest = first + i;
    for (size_t d = info.shape.size(); d-- > 0;) {
      index[d] = rest % info.shape[d];
      rest /= info.shape[d];
    }
    return InvalidInput(
        "WEIGHT_NOT_FINITE",
        absl::StrCat("tensor ", info.name, " holds ", std::isnan(values[i]) ? "NaN" : "an infinity",
                     " at [", absl::StrJoin(index, ", "), "]"));
  }
  return absl::OkStatus();
}

}  // namespace uniquanf
