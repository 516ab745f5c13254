#include "worker/model/model_folder.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr int kMaxPages = 4;

std::vector<std::string> NamesThatEndIn(const FolderEntries& entries, absl::string_view ending) {
  std::vector<std::string> names;
  for (const ObjectInfo& file : entries.files) {
    if (absl::EndsWith(file.key, ending)) names.push_back(file.key);
  }
  return names;
}

bool Has(ObjectStore* store, const std::string& key) { return store->Stat(key).ok(); }

// Folders below `prefix` that hold a config.json.
std::vector<std::string> ModelsBelow(ObjectStore* store, const std::string& prefix) {
  std::vector<std::string> models;
  const absl::StatusOr<FolderEntries> entries = ListFolder(store, prefix);
  if (!entries.ok()) return models;
  for (const std::string& folder : entries->folders) {
    if (models.size() >= 5) break;
    const std::string path = absl::StrCat(prefix, folder);
    if (Has(store, path + "/config.json")) models.push_back(path);
  }
  return models;
}

// Of a folder without the files that a checkpoint begins with.
std::string ExplainForeign(ObjectStore* store, const FolderEntries& entries) {
  if (Has(store, "adapter_config.json")) {
    return "; it is an adapter (adapter_config.json): merge it into its base model, and give that";
  }
  std::vector<std::string> models;
  const bool is_cache = std::find(entries.folders.begin(), entries.folders.end(), "snapshots") !=
                        entries.folders.end();
  models = ModelsBelow(store, is_cache ? "snapshots/" : "");
  if (!models.empty()) {
    return absl::StrCat(is_cache ? "; it is an entry of the Hugging Face cache: give "
                                 : "; there are models below it: give ",
                        store->uri(), "/",
                        absl::StrJoin(models, absl::StrCat(" or ", store->uri(), "/")));
  }
  if (is_cache) return "; it is an entry of the Hugging Face cache without a finished snapshot";
  if (!NamesThatEndIn(entries, ".gguf").empty()) {
    return "; there is a GGUF file, which is for another runtime: give the model that it was made "
           "from";
  }
  if (Has(store, "params.json")) {
    return "; there is a params.json: it is a model in its maker's own form. Give its Hugging Face "
           "form";
  }
  if (Has(store, "model_index.json")) {
    return "; it is a pipeline (model_index.json), not a language model";
  }
  return "";
}

}  // namespace

absl::StatusOr<FolderEntries> ListFolder(ObjectStore* store, const std::string& prefix) {
  FolderEntries entries;
  ListOptions options;
  options.prefix = prefix;
  for (int page = 0;; ++page) {
    UQ_ASSIGN_OR_RETURN(const ListResult listed, store->List(options));
    for (const ObjectInfo& object : listed.objects) {
      const size_t slash = object.key.find('/', prefix.size());
      if (slash == std::string::npos) {
        entries.files.push_back(object);
      } else {
        const std::string folder = object.key.substr(prefix.size(), slash - prefix.size());
        if (entries.folders.empty() || entries.folders.back() != folder) {
          entries.folders.push_back(folder);
        }
      }
    }
    if (!listed.truncated || listed.objects.empty()) return entries;
    // Past the rest of a folder: nothing that a key may hold sorts behind '~'.
    const std::string& last = listed.objects.back().key;
    const size_t slash = last.find('/', prefix.size());
    options.start_after = slash == std::string::npos ? last : last.substr(0, slash + 1) + "~~~~";
    if (page + 1 == kMaxPages) {
      entries.complete = false;
      return entries;
    }
  }
}

std::string ExplainFolder(ObjectStore* store, absl::string_view missing) {
  const std::string uri = store->uri();
  for (const char* ending : {".safetensors", ".json", ".gguf", ".bin", ".pt", ".pth"}) {
    if (absl::EndsWith(uri, ending)) {
      return absl::StrCat("; ", uri, " looks like a file: give the directory that it lies in");
    }
  }
  const absl::StatusOr<FolderEntries> entries = ListFolder(store, "");
  if (!entries.ok()) return "";
  if (entries->files.empty() && entries->folders.empty()) return "; there is nothing at all";
  if (missing == "config.json") return ExplainForeign(store, *entries);
  const std::vector<std::string> shards = NamesThatEndIn(*entries, ".safetensors");
  if (Has(store, "adapter_model.safetensors")) return ExplainForeign(store, *entries);
  if (!shards.empty()) {
    const size_t shown = std::min<size_t>(shards.size(), 3);
    return absl::StrCat(
        "; there ", shards.size() == 1 ? "is " : "are ",
        absl::StrJoin(shards.begin(), shards.begin() + shown, ", "),
        shown < shards.size() ? absl::StrCat(" and ", shards.size() - shown, " more") : "",
        shards.size() == 1 ? ": rename it to model.safetensors if it holds the whole model"
                           : ": fetch model.safetensors.index.json, which says what lies in them");
  }
  for (const char* ending : {".bin", ".pt", ".pth", ".h5", ".msgpack", ".ckpt"}) {
    const std::vector<std::string> names = NamesThatEndIn(*entries, ending);
    if (!names.empty()) return absl::StrCat("; convert ", names[0], " to safetensors first");
  }
  return ExplainForeign(store, *entries);
}

}  // namespace uniquanf
