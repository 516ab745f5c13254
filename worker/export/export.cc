#include "worker/export/export.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/artifact/artifact_config.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "common/safetensors/float_conversion.h"
#include "worker/export/export_file.h"
#include "worker/export/gguf_file.h"
#include "worker/export/split_tensors.h"
#include "worker/model/checkpoint.h"

namespace uniquanf {
namespace {

// Exact for values that were read from this type.
std::string BytesAs(SafetensorsDType dtype, const std::vector<float>& values) {
  if (dtype == SafetensorsDType::kF32) return BytesOf(values);
  std::vector<uint16_t> rounded(values.size());
  std::transform(values.begin(), values.end(), rounded.begin(),
                 dtype == SafetensorsDType::kBF16 ? FloatToBfloat16 : FloatToFloat16);
  return BytesOf(rounded);
}

// The artifact's shards, one after the other, in a format of safetensors files.
class TensorExporter {
 public:
  TensorExporter(const ArtifactReader& reader, TensorFormat* format, ObjectStore* output,
                 const ExportOptions& options)
      : reader_(reader), format_(*format), output_(output), options_(options) {}

  // Decides what becomes of every tensor; the format may change the config.
  absl::Status Plan(const ModelConfig& model, ConfigJson* config) {
    split_ = FindSplitTensors(reader_.manifest(), model);
    std::set<std::string> parts;
    Manifest whole = reader_.manifest();
    whole.modules.clear();
    for (const SplitTensor& tensor : split_) {
      for (const SplitTensor::Part& part : tensor.parts) parts.insert(part.module);
    }
    for (const ManifestModule& module : reader_.manifest().modules) {
      if (parts.count(module.name) == 0) whole.modules.push_back(module);
    }
    for (const SplitTensor& tensor : split_) {
      UQ_RETURN_IF_ERROR(PlanSplit(tensor, &whole.modules));
    }
    UQ_RETURN_IF_ERROR(format_.Plan(whole, config));
    modules_ = std::move(whole.modules);
    for (const ManifestModule& module : modules_) {
      if (!module.quantized) continue;
      ++num_modules_;
      const auto joined = joined_.find(module.name);
      const std::string first =
          joined == joined_.end() ? module.name : joined->second->parts[0].module;
      Replace(first, module.bits);
      AddTo(first + ".qweight", format_.Declare(module));
      for (const auto& tensor : format_.Declare(module)) module_of_[tensor.name] = &module;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ExportSummary> Run() {
    std::map<std::string, std::shared_ptr<const SafetensorsFile>> shards;
    for (const auto& [name, shard] : reader_.tensors()) shards[shard->key()] = shard;
    for (const auto& [key, shard] : shards) UQ_RETURN_IF_ERROR(WriteShard(*shard));
    UQ_RETURN_IF_ERROR(
        output_->Write("model.safetensors.index.json", BuildIndexJson(weight_map_, total_bytes_)));
    summary_.num_modules = num_modules_;
    return summary_;
  }

 private:
  using Declarations = std::vector<SafetensorsWriter::Declaration>;

  // The artifact's tensors of a module are not copied.
  void Replace(const std::string& module, int bits) {
    ManifestModule packed;
    packed.bits = bits;
    for (const std::string& suffix : PackedSuffixes(packed)) replaced_.insert(module + suffix);
  }
  // New tensors go where this one of the artifact is.
  void AddTo(const std::string& tensor, Declarations declarations) {
    const auto shard = reader_.tensors().find(tensor);
    if (shard == reader_.tensors().end()) return;
    Declarations& added = added_[shard->second->key()];
    std::move(declarations.begin(), declarations.end(), std::back_inserter(added));
  }

  absl::Status PlanSplit(const SplitTensor& tensor, std::vector<ManifestModule>* modules) {
    for (const SplitTensor::Part& part : tensor.parts) {
      if (part.packed != nullptr) {
        Replace(part.module, part.packed->bits);
      } else {
        replaced_.insert(part.spec->stored.IsPlain() ? tensor.name : part.module + ".weight");
      }
    }
    const SplitTensor::Part& first = tensor.parts[0];
    const std::string at = first.packed != nullptr        ? first.module + ".qweight"
                           : first.spec->stored.IsPlain() ? tensor.name
                                                          : first.module + ".weight";
    if (!tensor.is_quantized()) {
      UQ_ASSIGN_OR_RETURN(const auto shard, reader_.FindShard(at));
      UQ_ASSIGN_OR_RETURN(const TensorInfo info, shard->Find(at));
      AddTo(at, {{tensor.name, info.dtype, tensor.shape}});
      whole_[tensor.name] = &tensor;
      ManifestModule module;
      module.name = std::string(absl::StripSuffix(tensor.name, ".weight"));
      module.reason = "in full precision";
      modules->push_back(std::move(module));
    } else if (format_.WeightType().has_value()) {
      AddTo(at, {{tensor.name, *format_.WeightType(), tensor.shape}});
      whole_[tensor.name] = &tensor;
      ++num_modules_;
    } else {
      UQ_ASSIGN_OR_RETURN(ManifestModule module, JoinedModule(tensor));
      joined_[module.name] = &tensor;
      modules->push_back(std::move(module));
    }
    return absl::OkStatus();
  }

  absl::Status WriteShard(const SafetensorsFile& shard) {
    Declarations declarations;
    for (const auto& [name, info] : shard.tensors()) {
      if (replaced_.count(name) == 0) declarations.push_back({name, info.dtype, info.shape});
    }
    for (auto& tensor : added_[shard.key()]) declarations.push_back(std::move(tensor));
    SafetensorsWriter::SortForAlignment(&declarations);
    UQ_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectWriter> out,
                        output_->NewWriter(shard.key(), {}));
    UQ_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsWriter> writer,
                        SafetensorsWriter::Create(out.get(), declarations, {{"format", "pt"}}));
    for (const auto& declaration : declarations) {
      UQ_ASSIGN_OR_RETURN(const std::string bytes, BytesOfTensor(shard, declaration));
      UQ_RETURN_IF_ERROR(writer->Append(declaration.name, bytes.data(), bytes.size()));
      weight_map_[declaration.name] = shard.key();
      total_bytes_ += bytes.size();
    }
    UQ_RETURN_IF_ERROR(writer->Finish());
    return out->Commit();
  }

  absl::StatusOr<std::string> BytesOfTensor(const SafetensorsFile& shard,
                                            const SafetensorsWriter::Declaration& tensor) {
    if (const auto split = whole_.find(tensor.name); split != whole_.end()) {
      return BytesOfWhole(*split->second);
    }
    const auto module = module_of_.find(tensor.name);
    if (module == module_of_.end()) return ReadRawTensor(shard, tensor.name);
    if (ready_.count(tensor.name) == 0) UQ_RETURN_IF_ERROR(ConvertModule(*module->second));
    const auto ready = ready_.find(tensor.name);
    std::string bytes = std::move(ready->second);
    ready_.erase(ready);
    return bytes;
  }

  absl::StatusOr<std::string> BytesOfWhole(const SplitTensor& tensor) {
    if (options_.stop.StopRequested()) return absl::CancelledError("the export was cancelled");
    SafetensorsDType dtype = SafetensorsDType::kF32;
    UQ_ASSIGN_OR_RETURN(const std::vector<float> values, ReadJoinedValues(reader_, tensor, &dtype));
    if (!tensor.is_quantized()) return BytesAs(dtype, values);
    Deviation deviation;
    std::string bytes = format_.RoundWeights(values, &deviation);
    UQ_RETURN_IF_ERROR(AddDeviation(tensor.name, deviation, options_, &summary_));
    if (options_.progress) options_.progress(++num_done_, num_modules_);
    return bytes;
  }

  absl::Status ConvertModule(const ManifestModule& module) {
    if (options_.stop.StopRequested()) return absl::CancelledError("the export was cancelled");
    const auto joined = joined_.find(module.name);
    UQ_ASSIGN_OR_RETURN(const PackedLinear packed, joined == joined_.end()
                                                       ? reader_.ReadPacked(module.name)
                                                       : ReadJoinedRows(reader_, *joined->second));
    Deviation deviation;
    std::vector<std::string> bytes = format_.Convert(module, packed, &deviation);
    const auto tensors = format_.Declare(module);
    for (size_t i = 0; i < tensors.size(); ++i) ready_[tensors[i].name] = std::move(bytes[i]);
    UQ_RETURN_IF_ERROR(AddDeviation(module.name, deviation, options_, &summary_));
    if (options_.progress) options_.progress(++num_done_, num_modules_);
    return absl::OkStatus();
  }

  const ArtifactReader& reader_;
  TensorFormat& format_;
  ObjectStore* output_;
  const ExportOptions& options_;
  std::vector<SplitTensor> split_;
  std::vector<ManifestModule> modules_;                     // as the source has them
  std::map<std::string, const ManifestModule*> module_of_;  // by the new tensors' names
  std::map<std::string, const SplitTensor*> joined_;        // by module: packed rows of several
  std::map<std::string, const SplitTensor*> whole_;         // by tensor: written value by value
  std::set<std::string> replaced_;                          // the artifact's tensors
  std::map<std::string, Declarations> added_;               // by shard
  std::map<std::string, std::string> ready_, weight_map_;
  ExportSummary summary_;
  uint64_t total_bytes_ = 0;
  int num_done_ = 0, num_modules_ = 0;
};

absl::StatusOr<ConfigJson> PlainConfig(const std::string& config_json) {
  // Depth and duplicate keys are checked first; then in the source's order.
  UQ_RETURN_IF_ERROR(ParseJson(config_json, "config.json", "INVALID_MODEL_CONFIG").status());
  ConfigJson config = ConfigJson::parse(config_json, nullptr, false);
  if (!config.is_object()) {
    return InvalidInput("INVALID_MODEL_CONFIG", "config.json is not an object");
  }
  config.erase("anybcq");
  config.erase("quantization_config");
  return config;
}

absl::StatusOr<ExportSummary> WriteFormat(const ArtifactReader& reader, const ExportFormatRow& row,
                                          ObjectStore* output, const ExportOptions& options) {
  UQ_ASSIGN_OR_RETURN(ConfigJson config, PlainConfig(reader.config_json()));
  if (row.gguf_type != nullptr) {
    return WriteGguf(reader, config, *row.gguf_type, output, options);
  }
  const std::unique_ptr<TensorFormat> format = row.make();
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                      Checkpoint::Open(reader.store(), /*allow_quantized=*/true));
  TensorExporter exporter(reader, format.get(), output, options);
  UQ_RETURN_IF_ERROR(exporter.Plan(checkpoint->config(), &config));
  UQ_ASSIGN_OR_RETURN(ExportSummary summary, exporter.Run());
  UQ_RETURN_IF_ERROR(CopyTokenizerFiles(reader.manifest(), reader.store().get(), output));
  // Last: without it nothing loads what an interrupted export left.
  UQ_RETURN_IF_ERROR(output->Write("config.json", config.dump(2) + "\n"));
  return summary;
}

void RemoveAll(ObjectStore* output) {
  ListOptions all;
  for (;;) {
    const absl::StatusOr<ListResult> listed = output->List(all);
    if (!listed.ok()) return;
    for (const ObjectInfo& object : listed->objects) {
      if (!output->Delete(object.key).ok()) return;
    }
    if (!listed->truncated) return;
    all.start_after = listed->objects.back().key;
  }
}

absl::Status CheckEmpty(ObjectStore* output, const std::string& uri) {
  ListOptions options;
  options.max_results = 1;
  UQ_ASSIGN_OR_RETURN(const ListResult listed, output->List(options));
  if (listed.objects.empty()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kAlreadyExists, "OUTPUT_EXISTS",
                   absl::StrCat("the output ", uri, " already holds ", listed.objects[0].key,
                                "; nothing there was changed: choose another place or remove it"));
}

}  // namespace

std::vector<std::string> PackedSuffixes(const ManifestModule& module) {
  return {".qweight", absl::StrCat(".alpha_", module.bits), absl::StrCat(".beta_", module.bits),
          ".q_bias"};
}

absl::StatusOr<std::string> ReadRawTensor(const SafetensorsFile& shard, const std::string& name) {
  UQ_ASSIGN_OR_RETURN(const TensorInfo info, shard.Find(name));
  std::string bytes(info.size_bytes, '\0');
  UQ_RETURN_IF_ERROR(shard.ReadBytes(info, bytes.data()));
  return bytes;
}

absl::Status AddDeviation(const std::string& module, const Deviation& deviation,
                          const ExportOptions& options, ExportSummary* summary) {
  if (deviation.max_error > summary->deviation.max_error) summary->worst_module = module;
  summary->deviation.Merge(deviation);
  if (deviation.within_rounding || options.allow_approximate) return absl::OkStatus();
  return FailedPrecondition(
      "EXPORT_NOT_EXACT",
      absl::StrCat(options.format, " cannot hold the weights of ", module,
                   ": the nearest it has are up to ", deviation.max_error, " away, ",
                   deviation.mean_error(),
                   " on average. --allow-approximate writes them; "
                   "\"lut-gemm\", \"anybcq\" and \"dequantized\" hold any artifact"));
}

std::string ExportSummary::Describe() const {
  if (deviation.max_error == 0) return "exact";
  return absl::StrCat(deviation.within_rounding ? "exact up to rounding to 16 bits" : "approximate",
                      ": largest error ", deviation.max_error, " (", worst_module, "), mean ",
                      deviation.mean_error());
}

absl::StatusOr<ExportSummary> ExportArtifact(std::shared_ptr<ObjectStore> artifact,
                                             const std::string& output_uri,
                                             const ExportOptions& options) {
  const ExportFormatRow* row = nullptr;
  for (const ExportFormatRow& candidate : ExportFormats()) {
    if (options.format == candidate.name) row = &candidate;
  }
  if (row == nullptr) {
    return InvalidInput("UNKNOWN_FORMAT",
                        absl::StrCat("there is no export format \"", options.format, "\""));
  }
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<ArtifactReader> reader, ArtifactReader::Open(artifact));
  UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> output, OpenObjectStore(output_uri));
  UQ_RETURN_IF_ERROR(CheckEmpty(output.get(), output_uri));
  UQ_RETURN_IF_ERROR(CheckArtifactFiles(artifact.get()));
  absl::StatusOr<ExportSummary> summary = WriteFormat(*reader, *row, output.get(), options);
  // The place was empty; a failed export leaves it so, as far as it can.
  if (!summary.ok()) RemoveAll(output.get());
  return summary;
}

absl::Status CopyTokenizerFiles(const Manifest& manifest, ObjectStore* from, ObjectStore* to) {
  for (const ManifestFile& file : manifest.files) {
    const bool written = file.path == "config.json" ||
                         file.path == "model.safetensors.index.json" ||
                         (file.path.size() > 12 &&
                          file.path.compare(file.path.size() - 12, 12, ".safetensors") == 0);
    if (written) continue;
    UQ_ASSIGN_OR_RETURN(const std::string bytes, from->Read(file.path, uint64_t{1} << 30));
    UQ_RETURN_IF_ERROR(to->Write(file.path, bytes));
  }
  return absl::OkStatus();
}

}  // namespace uniquanf
