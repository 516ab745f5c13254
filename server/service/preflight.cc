#include "server/service/preflight.h"

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "common/base/status.h"
#include "common/base/violations.h"
#include "common/safetensors/safetensors.h"

namespace uniquanf::server {
namespace {

constexpr uint64_t kMaxConfigBytes = 16 << 20;
constexpr uint64_t kMaxIndexBytes = 64 << 20;
constexpr char kManifest[] = "manifest.json";
constexpr size_t kMaxWorkers = 4096;
constexpr absl::Duration kRemembered = absl::Minutes(10);

bool IsLocal(absl::string_view uri) {
  return absl::StartsWith(uri, "file://") || !absl::StrContains(uri, "://");
}

// As workers take a file of ids from one of text.
bool IsTokenFile(absl::string_view uri) {
  absl::string_view name = uri;
  if (!absl::ConsumeSuffix(&name, ".gz")) absl::ConsumeSuffix(&name, ".zst");
  return !absl::EndsWith(name, ".txt") && !absl::EndsWith(name, ".json") &&
         !absl::EndsWith(name, ".jsonl");
}

class Looker {
 public:
  Looker(const QuantizationSpec& spec, const std::set<std::string>& architectures,
         StoreOptions store, bool shares_files)
      : spec_(spec),
        architectures_(architectures),
        store_(std::move(store)),
        shares_files_(shares_files),
        deadline_(absl::Now() + Preflight::kTimeLimit) {
    store_.stop = [deadline = deadline_] { return absl::Now() > deadline; };
  }

  PreflightResult Look() {
    LookAtModel();
    LookAtCalibration();
    LookAtEvaluation();
    LookAtOutput();
    result_.status = violations_.status();
    return std::move(result_);
  }

 private:
  void Wrong(absl::string_view reason, absl::string_view field, absl::string_view description) {
    violations_.Add(reason, absl::StrCat("job.spec.", field), description);
  }
  void Skip(absl::string_view what, absl::string_view why) {
    result_.not_checked.push_back(absl::StrCat(what, ": ", why));
  }
  bool OutOfTime(absl::string_view what) {
    if (absl::Now() <= deadline_) return false;
    Skip(what, "there was no time left for it");
    return true;
  }

  // What an error of the store means for something that has to be there.
  void Missing(const absl::Status& status, absl::string_view what, absl::string_view field,
               const std::string& uri, absl::string_view reason, absl::string_view missing) {
    const bool gone = absl::IsNotFound(status);
    if (gone && (!IsLocal(uri) || shares_files_)) {
      Wrong(reason, field, missing);
    } else if (gone) {
      Skip(what, absl::StrCat(uri, " is not on the server's machine"));
    } else if (absl::IsCancelled(status) || absl::IsUnavailable(status)) {
      Skip(what, absl::StrCat(uri, " did not answer in time"));
    } else if (absl::IsInvalidArgument(status)) {
      Wrong(ErrorReason(status).empty() ? "INVALID_SPEC" : ErrorReason(status), field,
            status.message());
    } else {
      Skip(what, absl::StrCat("the server cannot read ", uri, ": ", status.message()));
    }
  }

  void LookAtModel() {
    const std::string& uri = spec_.model_uri;
    const auto opened = OpenObjectStore(uri, store_);
    if (!opened.ok()) return Missing(opened.status(), "the model", "model_uri", uri, "", "");
    model_ = *opened;
    const auto config = model_->Read("config.json", kMaxConfigBytes);
    if (!config.ok()) {
      return Missing(config.status(), "the model", "model_uri", uri, "MODEL_NOT_FOUND",
                     absl::StrCat("there is no config.json in ", uri,
                                  "; give the directory of a Hugging Face checkpoint"));
    }
    const auto json = nlohmann::json::parse(*config, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) {
      return Wrong("INVALID_MODEL_CONFIG", "model_uri",
                   absl::StrCat("config.json in ", uri, " is no JSON object"));
    }
    CheckArchitecture(json);
    if (OutOfTime("the model's tensors")) return;
    ReadTensors(uri);
  }

  void CheckArchitecture(const nlohmann::json& config) {
    const auto it = config.find("architectures");
    if (it == config.end() || !it->is_array() || it->empty() || !(*it)[0].is_string()) return;
    result_.model.architecture = (*it)[0].get<std::string>();
    if (architectures_.empty()) {
      Skip("the architecture", "no worker is connected that says which ones it knows");
    } else if (!architectures_.contains(result_.model.architecture)) {
      Wrong("UNSUPPORTED_ARCHITECTURE", "model_uri",
            absl::StrCat(result_.model.architecture,
                         " is not supported by the workers that are connected; supported are ",
                         absl::StrJoin(architectures_, ", ")));
    }
  }

  // Headers alone. A checkpoint that is stored in another form is left to prepare.
  void ReadTensors(const std::string& uri) {
    std::set<std::string> files;
    const auto index = model_->Read("model.safetensors.index.json", kMaxIndexBytes);
    if (index.ok()) {
      const auto json = nlohmann::json::parse(*index, nullptr, /*allow_exceptions=*/false);
      if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
        return Wrong("INVALID_CHECKPOINT", "model_uri",
                     absl::StrCat("model.safetensors.index.json in ", uri, " has no weight_map"));
      }
      for (const auto& [name, file] : json["weight_map"].items()) {
        if (file.is_string()) files.insert(file.get<std::string>());
      }
    } else if (absl::IsNotFound(index.status())) {
      files.insert("model.safetensors");
    } else {
      return Skip("the model's tensors", index.status().message());
    }
    for (const std::string& file : files) {
      if (OutOfTime("the model's tensors")) return;
      const auto opened = SafetensorsFile::Open(model_, file);
      if (absl::IsNotFound(opened.status()) && files.size() > 1) {
        return Wrong("CHECKPOINT_INCOMPLETE", "model_uri",
                     absl::StrCat(uri, " has no ", file,
                                  ", which its index names: is the download complete?"));
      }
      if (!opened.ok()) return Skip("the model's tensors", opened.status().message());
      for (const auto& [name, info] : (*opened)->tensors()) tensors_[name] = info;
    }
    CountWeights();
    CheckModules();
  }

  // The number after "layers.", "h." or "blocks."; nullopt: it lies in no layer.
  static std::optional<int64_t> LayerOf(absl::string_view name) {
    for (const absl::string_view word : {".layers.", ".h.", ".blocks."}) {
      const size_t at = name.find(word);
      if (at == absl::string_view::npos) continue;
      const absl::string_view rest = name.substr(at + word.size());
      int64_t layer = 0;
      if (absl::SimpleAtoi(rest.substr(0, rest.find('.')), &layer)) return layer;
    }
    return std::nullopt;
  }

  void CountWeights() {
    std::set<int64_t> layers;
    int64_t in_layers = 0;
    for (const auto& [name, info] : tensors_) {
      result_.model.size_bytes += static_cast<int64_t>(info.size_bytes);
      const auto layer = LayerOf(name);
      if (layer.has_value()) layers.insert(*layer);
      if (layer.has_value() && info.shape.size() == 2) {
        in_layers += info.num_elements();
      } else {
        result_.model.other_weights += info.num_elements();
      }
    }
    result_.model.num_layers = static_cast<int64_t>(layers.size());
    if (!layers.empty()) result_.model.layer_weights = in_layers / result_.model.num_layers;
  }

  // Where a module's weight is not one plain matrix (fused experts, quantized originals) its names
  // and sizes are the engine's to say.
  void CheckModules() {
    for (const auto& [name, info] : tensors_) {
      if (absl::StrContains(name, "expert") ||
          (absl::EndsWith(name, "_proj.weight") && !IsFullPrecision(info.dtype)) ||
          absl::EndsWith(name, ".qweight")) {
        return Skip("overrides and group sizes", "the model's weights lie in a form of their own");
      }
    }
    std::vector<bool> matched(spec_.overrides.size());
    std::string example;
    for (const auto& [name, info] : tensors_) {
      const std::string module(absl::StripSuffix(absl::StripSuffix(name, ".weight"), ".bias"));
      for (size_t i = 0; i < spec_.overrides.size(); ++i) {
        QuantizationSpec only;
        only.overrides = {spec_.overrides[i]};
        only.overrides[0].full_precision = true;
        if (!matched[i]) matched[i] = SettingsForModule(only, module).full_precision;
      }
      if (!LayerOf(name).has_value() || !absl::EndsWith(name, "_proj.weight") ||
          info.shape.size() != 2) {
        continue;
      }
      if (example.empty()) example = module;
      const ModuleSettings settings = SettingsForModule(spec_, module);
      if (!settings.full_precision && settings.group_size > 0 &&
          info.shape[1] % settings.group_size != 0) {
        Wrong("GROUP_SIZE_NOT_DIVIDING", "group_size",
              absl::StrCat("group size ", settings.group_size, " does not divide the ",
                           info.shape[1], " inputs of ", module,
                           "; choose a divisor, 0 for per row, or override it"));
      }
    }
    for (size_t i = 0; i < spec_.overrides.size(); ++i) {
      if (matched[i]) continue;
      Wrong("OVERRIDE_MATCHES_NOTHING", absl::StrCat("overrides[", i, "].pattern"),
            absl::StrCat("override pattern \"", spec_.overrides[i].pattern,
                         "\" matches no linear layer of the model",
                         example.empty() ? "" : "; names look like ", example));
    }
  }

  // The file's header; null where it was told already why not.
  std::shared_ptr<const SafetensorsFile> OpenTokens(const std::string& uri, absl::string_view what,
                                                    absl::string_view field) {
    const auto location = OpenObjectLocation(uri, store_);
    if (!location.ok()) {
      Missing(location.status(), what, field, uri, "", "");
      return nullptr;
    }
    const auto stat = location->store->Stat(location->key);
    if (!stat.ok()) {
      Missing(stat.status(), what, field, uri, "TOKENS_NOT_FOUND",
              absl::StrCat("there is no file ", uri));
      return nullptr;
    }
    if (!IsTokenFile(uri)) {
      Skip(what, "text is tokenized by a worker");
      return nullptr;
    }
    const auto file = SafetensorsFile::Open(location->store, location->key);
    if (!file.ok()) {
      Missing(file.status(), what, field, uri, "TOKENS_NOT_FOUND",
              absl::StrCat("there is no file ", uri));
      return nullptr;
    }
    return *file;
  }

  std::string Entries(const SafetensorsFile& file) const {
    std::vector<std::string> names;
    for (const auto& [name, info] : file.tensors()) names.push_back(name);
    return absl::StrJoin(names, ", ");
  }

  void LookAtCalibration() {
    const std::string& uri = spec_.calibration_uri;
    if (uri.empty() || OutOfTime("the calibration")) return;
    const auto file = OpenTokens(uri, "the calibration", "calibration_uri");
    if (file == nullptr) return;
    const auto found = file->tensors().find("input_ids");
    if (found == file->tensors().end() || found->second.shape.size() != 2) {
      return Skip("the calibration's shape",
                  absl::StrCat("it has no two-dimensional input_ids; it has: ", Entries(*file)));
    }
    const QuantizationSpec defaults;
    const int64_t rows = found->second.shape[0], width = found->second.shape[1];
    if (rows < spec_.num_samples && spec_.num_samples != defaults.num_samples) {
      Wrong("TOO_FEW_SEQUENCES", "num_samples",
            absl::StrCat("token file ", uri, " has ", rows, " calibration sequences, but ",
                         spec_.num_samples, " are asked for; set --num-samples ", rows,
                         " (or 0 for all) or give a larger file"));
    }
    if (width < spec_.sequence_length && spec_.sequence_length != defaults.sequence_length) {
      Wrong("SEQUENCES_TOO_SHORT", "sequence_length",
            absl::StrCat("token file ", uri, " has sequences of ", width, " tokens, but ",
                         spec_.sequence_length, " are asked for; set --sequence-length ", width,
                         " (or 0 for all) or give longer sequences"));
    }
    if (rows > 0 && spec_.batch_size > rows) {
      Wrong("TOO_FEW_SEQUENCES", "batch_size",
            absl::StrCat("batch size ", spec_.batch_size, " is larger than the ", rows,
                         " calibration sequences of ", uri));
    }
  }

  void LookAtEvaluation() {
    const std::string& uri = spec_.evaluation_uri;
    if (uri.empty() || OutOfTime("the evaluation")) return;
    const auto file = OpenTokens(uri, "the evaluation", "evaluation_uri");
    if (file == nullptr) return;
    const auto found = file->tensors().find(spec_.evaluation_entry);
    if (found == file->tensors().end()) {
      return Skip(
          "the evaluation's length",
          absl::StrCat("it has no entry ", spec_.evaluation_entry, "; it has: ", Entries(*file)));
    }
    if (found->second.num_elements() < spec_.evaluation_window) {
      Wrong("TOO_FEW_TOKENS", "evaluation_window",
            absl::StrCat("token file ", uri, " has ", found->second.num_elements(),
                         " tokens; one evaluation window needs ", spec_.evaluation_window));
    }
  }

  void LookAtOutput() {
    const std::string& uri = spec_.output_uri;
    if (uri.empty() || OutOfTime("the output")) return;
    const auto opened = OpenObjectStore(uri, store_);
    if (!opened.ok()) return Missing(opened.status(), "the output", "output_uri", uri, "", "");
    ListOptions options;
    options.max_results = 1;
    const auto listed = (*opened)->List(options);
    if (absl::IsNotFound(listed.status()) || (listed.ok() && listed->objects.empty())) return;
    if (!listed.ok()) {
      return Missing(listed.status(), "the output", "output_uri", uri, "OUTPUT_EXISTS", "");
    }
    const bool published = (*opened)->Stat(kManifest).ok();
    Wrong("OUTPUT_EXISTS", "output_uri",
          absl::StrCat("the output ", uri, " already holds ",
                       published ? "an artifact" : listed->objects[0].key,
                       ": choose another place or remove it"));
  }

  const QuantizationSpec& spec_;
  const std::set<std::string>& architectures_;
  StoreOptions store_;
  const bool shares_files_;
  const absl::Time deadline_;
  std::shared_ptr<ObjectStore> model_;
  std::map<std::string, TensorInfo> tensors_;
  Violations violations_;
  PreflightResult result_;
};

}  // namespace

void KnownArchitectures::Note(const std::string& worker,
                              const std::vector<std::string>& architectures, absl::Duration now) {
  absl::MutexLock lock(&mutex_);
  said_[worker] = {architectures, now};
  if (said_.size() <= kMaxWorkers) return;
  std::erase_if(said_, [now](const auto& entry) { return now - entry.second.at > kRemembered; });
  if (said_.size() > kMaxWorkers) said_.erase(said_.begin());
}

std::set<std::string> KnownArchitectures::All(absl::Duration now) const {
  absl::MutexLock lock(&mutex_);
  std::set<std::string> all;
  for (const auto& [worker, said] : said_) {
    if (now - said.at > kRemembered) continue;
    all.insert(said.architectures.begin(), said.architectures.end());
  }
  return all;
}

void Preflight::Check(QuantizationSpec spec, std::set<std::string> architectures, Callback done) {
  thread_.Add([this, spec = std::move(spec), architectures = std::move(architectures),
               done = std::move(done)] { done(Look(spec, architectures)); });
}

PreflightResult Preflight::Look(const QuantizationSpec& spec,
                                const std::set<std::string>& architectures) const {
  return Looker(spec, architectures, store_, shares_files_).Look();
}

}  // namespace uniquanf::server
