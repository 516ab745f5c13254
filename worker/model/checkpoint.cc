#include "worker/model/checkpoint.h"

#include <algorithm>
#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/artifact/artifact_config.h"
#include "common/artifact/artifact_reader.h"
#include "common/base/json_util.h"
#include "common/base/parallel.h"
#include "common/base/status.h"
#include "worker/model/checkpoint_files.h"
#include "worker/model/checkpoint_layout.h"
#include "worker/model/dequantize.h"

namespace uniquanf {
namespace {

constexpr uint64_t kMaxConfigBytes = 4 << 20;
// A tensor is read in so many pieces at once, or fewer if they would be smaller (elements).
constexpr int64_t kMaxPieces = 4, kSmallestPiece = 1 << 20;
// Rows of the embedding: what is read for nothing rather than in two reads, and how much at once.
constexpr int64_t kLargestGapBytes = 256 << 10;
constexpr int64_t kLargestReadBytes = 4 << 20;
// Elements of two tensors that are compared at a time.
constexpr int64_t kCompared = 1 << 20;

class CheckpointImpl : public Checkpoint {
 public:
  // `artifact` is null for a checkpoint.
  CheckpointImpl(std::shared_ptr<ObjectStore> store, std::string config_json, ModelConfig config,
                 TensorMap tensors, std::unique_ptr<ArtifactReader> artifact)
      : store_(std::move(store)),
        config_json_(std::move(config_json)),
        config_(std::move(config)),
        tensors_(std::move(tensors)),
        artifact_(std::move(artifact)) {}

  void SetDequantized(std::vector<ManifestDequantized> dequantized) {
    dequantized_ = std::move(dequantized);
  }
  // A copy of the embedding that the checkpoint holds as its head: nothing reads it, and artifacts
  // do not hold it.
  void TakeTiedHead() {
    if (!config_.ends.tied) return;
    const auto head = tensors_.find(config_.ends.head + ".weight");
    if (head == tensors_.end()) return;
    tied_head_ = std::move(head->second);
    tensors_.erase(head);
  }

  const ModelConfig& config() const override { return config_; }
  const std::string& config_json() const override { return config_json_; }
  bool quantized() const override { return artifact_ != nullptr; }
  const std::shared_ptr<ObjectStore>& store() const override { return store_; }

  absl::StatusOr<HostBlock> LoadBlock(int layer) const override {
    UQ_RETURN_IF_ERROR(CheckLayer(layer));
    const BlockSpec& spec = config_.blocks[layer];
    HostBlock block(spec.tensors.size());
    UQ_RETURN_IF_ERROR(ForEachTensor(spec, [&](int64_t t) -> absl::Status {
      UQ_ASSIGN_OR_RETURN(block[t], LoadTensor(layer, spec.tensors[t]));
      return absl::OkStatus();
    }));
    return block;
  }

  absl::StatusOr<StoredBlock> LoadStoredBlock(int layer) const override {
    UQ_RETURN_IF_ERROR(CheckLayer(layer));
    const BlockSpec& spec = config_.blocks[layer];
    StoredBlock block = {HostBlock(spec.tensors.size()),
                         std::vector<PackedLinear>(spec.tensors.size())};
    UQ_RETURN_IF_ERROR(ForEachTensor(spec, [&](int64_t t) -> absl::Status {
      const std::string module = PackedModule(layer, spec.tensors[t]);
      if (module.empty()) {
        UQ_ASSIGN_OR_RETURN(block.values[t], LoadTensor(layer, spec.tensors[t]));
      } else {
        UQ_ASSIGN_OR_RETURN(block.packed[t], artifact_->ReadPacked(module));
      }
      return absl::OkStatus();
    }));
    return block;
  }

  absl::Status LoadEmbeddingRows(absl::Span<const int32_t> ids, float* out) const override {
    UQ_ASSIGN_OR_RETURN(const SourceTensor tensor, FindRaw(config_.ends.embedding + ".weight"));
    const auto row_bytes = static_cast<int64_t>(tensor.info.size_bytes) / tensor.info.shape[0];
    // Reads of rows close to each other, each in one piece.
    std::vector<absl::Span<const int32_t>> reads;
    for (size_t begin = 0, i = 1; i <= ids.size(); ++i) {
      if (i < ids.size() && (ids[i] - ids[i - 1]) * row_bytes <= kLargestGapBytes &&
          (ids[i] - ids[begin]) * row_bytes < kLargestReadBytes) {
        continue;
      }
      reads.push_back(ids.subspan(begin, i - begin));
      begin = i;
    }
    std::vector<absl::Status> statuses(reads.size());
    ParallelRanges(static_cast<int64_t>(reads.size()), 1, [&](int64_t i, int64_t) {
      const int64_t offset = reads[i].data() - ids.data();
      statuses[i] = ReadRows(tensor, reads[i], out + offset * tensor.info.shape[1]);
    });
    for (const absl::Status& status : statuses) UQ_RETURN_IF_ERROR(status);
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<float>> LoadLmHead() const override {
    return Load((config_.ends.tied ? config_.ends.embedding : config_.ends.head) + ".weight");
  }
  absl::StatusOr<std::vector<float>> LoadOuter(absl::string_view name) const override {
    return Load(name);
  }

  absl::StatusOr<SourceTensor> FindRaw(absl::string_view name) const override {
    auto it = tensors_.find(std::string(name));
    if (it == tensors_.end()) {
      return InvalidInput("TENSOR_NOT_FOUND", absl::StrCat("the checkpoint has no tensor ", name));
    }
    return it->second;
  }

  std::vector<std::string> TensorNames() const override {
    std::vector<std::string> names;
    names.reserve(tensors_.size());
    for (const auto& [name, tensor] : tensors_) names.push_back(name);
    return names;
  }
  const std::vector<ManifestDequantized>& dequantized() const override { return dequantized_; }

  absl::Status CheckTiedHead() const override {
    if (!tied_head_.has_value()) return absl::OkStatus();
    UQ_ASSIGN_OR_RETURN(const SourceTensor embedding, FindRaw(config_.ends.embedding + ".weight"));
    const std::string& head = tied_head_->info.name;
    bool equal =
        tied_head_->info.shape == embedding.info.shape && IsFullPrecision(tied_head_->info.dtype);
    const int64_t size = embedding.info.num_elements();
    std::vector<float> a(std::min(size, kCompared)), b(a.size());
    for (int64_t first = 0; equal && first < size; first += kCompared) {
      const int64_t last = std::min(first + kCompared, size);
      UQ_RETURN_IF_ERROR(embedding.ReadFloats(first, last, a.data()));
      UQ_RETURN_IF_ERROR(tied_head_->ReadFloats(first, last, b.data()));
      equal = std::equal(a.begin(), a.begin() + (last - first), b.begin());
    }
    if (equal) return absl::OkStatus();
    return InvalidInput(
        "TIED_HEAD_DIFFERS",
        absl::StrCat("config.json says that the head is the embedding (tie_word_embeddings), but ",
                     tied_head_->file->key(), " holds another ", head,
                     "; runtimes may use either. Set tie_word_embeddings to false to use ", head,
                     ", or remove that tensor to use ", embedding.info.name));
  }

 private:
  absl::Status CheckLayer(int layer) const {
    if (layer >= 0 && layer < config_.num_layers) return absl::OkStatus();
    return InvalidInput("LAYER_OUT_OF_RANGE", absl::StrCat("the model has no layer ", layer, " (",
                                                           config_.num_layers, " layers)"));
  }

  // Side by side: reading, converting and checking are work of the CPU.
  static absl::Status ForEachTensor(const BlockSpec& spec,
                                    const std::function<absl::Status(int64_t)>& load) {
    const auto num_tensors = static_cast<int64_t>(spec.tensors.size());
    std::vector<absl::Status> statuses(num_tensors);
    ParallelRanges(num_tensors, 1, [&](int64_t t, int64_t) { statuses[t] = load(t); });
    for (const absl::Status& status : statuses) UQ_RETURN_IF_ERROR(status);
    return absl::OkStatus();
  }

  // The full name of the module that stores the tensor packed; "": it is not packed.
  std::string PackedModule(int layer, const TensorSpec& spec) const {
    if (spec.role != TensorRole::kLinear || artifact_ == nullptr) return "";
    std::string module = config_.LayerPrefix(layer) + spec.module;
    const ManifestModule* entry = artifact_->manifest().FindModule(module);
    return entry != nullptr && entry->quantized ? module : "";
  }

  // A tensor of a block, out of whatever stores it.
  absl::StatusOr<std::vector<float>> LoadTensor(int layer, const TensorSpec& spec) const {
    if (!spec.stored.constant.empty()) return spec.stored.constant;
    const std::string prefix = config_.LayerPrefix(layer);
    if (const std::string module = PackedModule(layer, spec); !module.empty()) {
      UQ_ASSIGN_OR_RETURN(const PackedLinear packed, artifact_->ReadPacked(module));
      std::vector<float> values(packed.num_outputs * packed.num_inputs);
      Dequantize(packed, values.data());
      return values;
    }
    const std::string name = prefix + spec.stored.name;
    std::vector<float> values;
    if (spec.stored.IsPlain()) {
      UQ_ASSIGN_OR_RETURN(values, Load(name));
    } else if (artifact_ != nullptr && spec.role != TensorRole::kVector) {
      UQ_ASSIGN_OR_RETURN(values, Load(OwnTensorName(prefix, spec)));
    } else {
      const auto [begin, end] = spec.StoredRange();
      UQ_ASSIGN_OR_RETURN(const std::vector<float> stored, Load(name, begin, end));
      values.resize(spec.num_elements());
      spec.Gather(stored.data(), begin, values.data());
    }
    if (spec.stored.added != 0) {
      for (float& value : values) value += spec.stored.added;
    }
    return values;
  }

  absl::StatusOr<std::vector<float>> Load(absl::string_view name) const {
    UQ_ASSIGN_OR_RETURN(const SourceTensor tensor, FindRaw(name));
    return LoadElements(tensor, 0, tensor.info.num_elements());
  }
  // The elements [begin, end) of the tensor.
  absl::StatusOr<std::vector<float>> Load(absl::string_view name, int64_t begin,
                                          int64_t end) const {
    UQ_ASSIGN_OR_RETURN(const SourceTensor tensor, FindRaw(name));
    return LoadElements(tensor, begin, end);
  }

  static absl::StatusOr<std::vector<float>> LoadElements(const SourceTensor& tensor, int64_t first,
                                                         int64_t last) {
    const int64_t size = last - first;
    std::vector<float> values(size);
    if (tensor.decoder != nullptr) {  // it may have to read all of the tensor for any part of it
      UQ_RETURN_IF_ERROR(ReadElements(tensor, first, last, values.data()));
      return values;
    }
    const int64_t piece = std::max(kSmallestPiece, (size + kMaxPieces - 1) / kMaxPieces);
    std::array<absl::Status, kMaxPieces> statuses;
    ParallelRanges(size, piece, [&](int64_t begin, int64_t end) {
      statuses[begin / piece] =
          ReadElements(tensor, first + begin, first + end, values.data() + begin);
    });
    for (const absl::Status& status : statuses) UQ_RETURN_IF_ERROR(status);
    return values;
  }

  static absl::Status ReadElements(const SourceTensor& tensor, int64_t begin, int64_t end,
                                   float* out) {
    UQ_RETURN_IF_ERROR(tensor.ReadFloats(begin, end, out));
    return CheckFiniteValues(tensor.info, begin, out, end - begin);
  }

  // Some rows of a matrix, all that lie between them read with them.
  static absl::Status ReadRows(const SourceTensor& tensor, absl::Span<const int32_t> rows,
                               float* out) {
    const int64_t width = tensor.info.shape[1];
    const int64_t first = rows.front() * width, last = (rows.back() + 1) * width;
    std::vector<float> values(last - first);
    UQ_RETURN_IF_ERROR(tensor.ReadFloats(first, last, values.data()));
    for (size_t i = 0; i < rows.size(); ++i) {
      const float* row = values.data() + (rows[i] - rows.front()) * width;
      UQ_RETURN_IF_ERROR(CheckFiniteValues(tensor.info, rows[i] * width, row, width));
      std::copy_n(row, width, out + static_cast<int64_t>(i) * width);
    }
    return absl::OkStatus();
  }

  std::shared_ptr<ObjectStore> store_;
  std::string config_json_;
  ModelConfig config_;
  TensorMap tensors_;
  std::unique_ptr<ArtifactReader> artifact_;
  std::vector<ManifestDequantized> dequantized_;
  std::optional<SourceTensor> tied_head_;
};

// The config without our own quantization section, or nothing when it has none of ours.
std::optional<std::string> StripOwnQuantization(const std::string& config_json) {
  absl::StatusOr<nlohmann::json> root =
      ParseJson(config_json, "config.json", "INVALID_MODEL_CONFIG");
  if (!root.ok() || !root->is_object()) return std::nullopt;
  auto section = root->find("quantization_config");
  if (section == root->end() || !section->is_object()) return std::nullopt;
  auto method = section->find("quant_method");
  if (method == section->end() || *method != kQuantMethod) return std::nullopt;
  root->erase(section);
  return root->dump();
}

// Replaces the weights of quantized modules in `expected` by the tensors that store them; a
// manifest whose modules are not the model's linear layers is refused.
absl::Status ExpectPacked(const Manifest& manifest, const ModelConfig& config,
                          std::vector<ExpectedTensor>* full_precision,
                          std::vector<ExpectedTensor>* all) {
  std::set<std::string> all_replaced;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const BlockSpec& spec = config.blocks[layer];
    std::set<std::string> quantized;
    for (int l = 0; l < spec.num_linears(); ++l) {
      const std::string name = config.ModuleName(layer, l);
      const ManifestModule* module = manifest.FindModule(name);
      if (module == nullptr) {
        return InvalidInput("INVALID_MANIFEST",
                            absl::StrCat("the manifest does not list module ", name));
      }
      if (!module->quantized) continue;
      const auto [n, k] = spec.LinearShape(l);
      if (module->num_outputs != n || module->num_inputs != k) {
        return InvalidInput(
            "TENSOR_SHAPE",
            absl::StrCat("module ", name, " is [", module->num_outputs, ", ", module->num_inputs,
                         "] in the manifest; config.json ", "implies [", n, ", ", k, "]"));
      }
      PackedLinear shape;
      shape.bits = module->bits;
      shape.num_outputs = n;
      shape.num_inputs = k;
      shape.group_size = module->group_size;
      for (const SafetensorsWriter::Declaration& tensor : PackedTensors(name, shape)) {
        all->push_back({tensor.name, tensor.shape});
      }
      quantized.insert(name);
    }
    const std::string prefix = config.LayerPrefix(layer);
    std::set<std::string> replaced = ReplacedTensors(config, layer, quantized);
    for (const TensorSpec& tensor : spec.tensors) {
      if (tensor.role == TensorRole::kVector || replaced.count(prefix + tensor.stored.name) == 0 ||
          quantized.count(prefix + tensor.module) > 0) {
        continue;
      }
      all->push_back({OwnTensorName(prefix, tensor), tensor.shape});
      full_precision->push_back(all->back());
    }
    all_replaced.merge(replaced);
  }
  for (ExpectedTensor& tensor : ExpectedTensors(config)) {
    if (all_replaced.count(tensor.name) > 0) continue;
    all->push_back(tensor);
    full_precision->push_back(std::move(tensor));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenArtifact(std::shared_ptr<ObjectStore> store,
                                                         std::string config_json,
                                                         const std::string& stripped_config) {
  UQ_ASSIGN_OR_RETURN(ModelConfig config, ParseModelConfig(stripped_config));
  UQ_ASSIGN_OR_RETURN(std::unique_ptr<ArtifactReader> artifact, ArtifactReader::Open(store));
  CheckpointFiles files;
  for (const auto& [name, file] : artifact->tensors()) {
    UQ_ASSIGN_OR_RETURN(TensorInfo info, file->Find(name));
    files.tensors[name] = {file, std::move(info)};
  }
  config.ChooseNames([&](const std::string& name) { return files.tensors.count(name) > 0; });
  std::vector<ExpectedTensor> full_precision, all;
  UQ_RETURN_IF_ERROR(ExpectPacked(artifact->manifest(), config, &full_precision, &all));
  UQ_RETURN_IF_ERROR(CheckNothingElse(files, config, all));
  for (const ExpectedTensor& tensor : full_precision) {
    UQ_RETURN_IF_ERROR(CheckTensor(files, tensor));
  }
  return std::make_unique<CheckpointImpl>(std::move(store), std::move(config_json),
                                          std::move(config), std::move(files.tensors),
                                          std::move(artifact));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(std::shared_ptr<ObjectStore> store,
                                                             bool allow_quantized) {
  UQ_ASSIGN_OR_RETURN(std::string config_json,
                      ReadModelText(store.get(), "config.json", kMaxConfigBytes));
  if (allow_quantized) {
    if (std::optional<std::string> stripped = StripOwnQuantization(config_json)) {
      return OpenArtifact(std::move(store), std::move(config_json), *stripped);
    }
  }
  UQ_ASSIGN_OR_RETURN(ModelConfig config, ParseModelConfig(config_json));
  UQ_ASSIGN_OR_RETURN(CheckpointFiles files, OpenCheckpointFiles(store));
  UQ_ASSIGN_OR_RETURN(std::vector<ManifestDequantized> dequantized,
                      DequantizeTensors(config.source, &files.tensors));
  config.ChooseNames([&](const std::string& name) { return files.tensors.count(name) > 0; });
  const std::vector<ExpectedTensor> expected = ExpectedTensors(config);
  // First what should not be there: a quantized model lacks weights too, and this says why.
  UQ_RETURN_IF_ERROR(CheckNothingElse(files, config, expected));
  for (const ExpectedTensor& tensor : expected) UQ_RETURN_IF_ERROR(CheckTensor(files, tensor));
  auto checkpoint =
      std::make_unique<CheckpointImpl>(std::move(store), std::move(config_json), std::move(config),
                                       std::move(files.tensors), nullptr);
  checkpoint->SetDequantized(std::move(dequantized));
  checkpoint->TakeTiedHead();
  return checkpoint;
}

}  // namespace uniquanf
