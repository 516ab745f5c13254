#include "worker/task/prepare_checks.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>
#include <system_error>
#include <vector>

#include "absl/strings/strip.h"
#include "common/artifact/artifact_config.h"
#include "common/artifact/finite.h"
#include "common/artifact/layout.h"
#include "common/base/format_bytes.h"
#include "common/base/status.h"
#include "worker/task/copied_files.h"
#include "worker/task/output.h"
#include "worker/task/task_context.h"

namespace uniquanf {
namespace {

// Elements that are read and checked at a time.
constexpr int64_t kCheckedElements = 4 << 20;

bool Matches(const ModuleOverride& override, const std::string& name) {
  QuantizationSpec only;
  only.overrides = {override};
  only.overrides[0].full_precision = true;
  return SettingsForModule(only, name).full_precision;
}

// Of an override that matches no linear layer of a block: the module that it means, which is never
// quantized; "": none.
std::string UnquantizedModule(const ModuleOverride& override, const Checkpoint& checkpoint) {
  if (Matches(override, checkpoint.config().ends.head)) return checkpoint.config().ends.head;
  for (const std::string& tensor : checkpoint.TensorNames()) {
    const std::string module(absl::StripSuffix(absl::StripSuffix(tensor, ".weight"), ".bias"));
    if (Matches(override, module)) return module;
  }
  return "";
}

absl::Status CheckGroupSize(const QuantizationSpec& spec, const std::string& name,
                            int64_t num_inputs) {
  const ModuleSettings settings = SettingsForModule(spec, name);
  if (settings.full_precision || settings.group_size == 0 ||
      num_inputs % settings.group_size == 0) {
    return absl::OkStatus();
  }
  return InvalidInput(
      "GROUP_SIZE_NOT_DIVIDING",
      absl::StrCat("group size ", settings.group_size, " does not divide the ", num_inputs,
                   " inputs of ", name, "; choose a divisor, 0 for per row, or override it"));
}

std::optional<std::filesystem::path> LocalPath(absl::string_view uri) {
  if (absl::ConsumePrefix(&uri, "file://") || uri.find("://") == absl::string_view::npos) {
    return std::filesystem::path(std::string(uri));
  }
  return std::nullopt;
}

// The directory, or the nearest above it that exists.
std::filesystem::path Existing(std::filesystem::path path) {
  std::error_code error;
  while (!std::filesystem::exists(path, error) && path.has_relative_path()) {
    path = path.parent_path();
  }
  return path;
}

absl::Status Full(const std::filesystem::path& path, uint64_t needed_bytes, uint64_t free_bytes) {
  return MakeError(absl::StatusCode::kResourceExhausted, "STORAGE_FULL",
                   absl::StrCat(path.string(), " has ", FormatBytes(free_bytes),
                                " free, but the job will write about ", FormatBytes(needed_bytes),
                                " there; make room, or choose another place"));
}

// Removes the directories from `path` up that were not there before and are empty.
void RemoveNew(std::filesystem::path path, const std::filesystem::path& before) {
  std::error_code error;
  while (path != before && path.has_relative_path()) {
    if (!std::filesystem::is_directory(path, error) || !std::filesystem::remove(path, error))
      return;
    path = path.parent_path();
  }
}

}  // namespace

absl::Status CheckModules(const QuantizationSpec& spec, const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  std::vector<bool> matched(spec.overrides.size());
  for (int layer = 0; layer < config.num_layers; ++layer) {
    for (int l = 0; l < config.blocks[layer].num_linears(); ++l) {
      const std::string name = config.ModuleName(layer, l);
      for (size_t i = 0; i < spec.overrides.size(); ++i) {
        if (!matched[i]) matched[i] = Matches(spec.overrides[i], name);
      }
      UQ_RETURN_IF_ERROR(CheckGroupSize(spec, name, config.blocks[layer].LinearShape(l).second));
    }
  }
  for (size_t i = 0; i < spec.overrides.size(); ++i) {
    if (matched[i]) continue;
    const ModuleOverride& override = spec.overrides[i];
    const std::string other = UnquantizedModule(override, checkpoint);
    if (other.empty()) {
      return InvalidInput("OVERRIDE_MATCHES_NOTHING",
                          absl::StrCat("override pattern \"", override.pattern,
                                       "\" matches no linear layer of the model; names look like ",
                                       config.ModuleName(0, 0)));
    }
    if (override.full_precision) continue;  // so it is
    return InvalidInput("NOT_QUANTIZABLE",
                        absl::StrCat("override pattern \"", override.pattern, "\" means ", other,
                                     ", which stays in full precision: only the linear layers of "
                                     "the blocks are quantized. Leave the override out, or say \"",
                                     override.pattern, "=full\""));
  }
  return absl::OkStatus();
}

absl::Status CheckOuterTensors(const Checkpoint& checkpoint, const TaskEnvironment& env) {
  std::string chunk;
  for (const std::string& name : checkpoint.TensorNames()) {
    if (checkpoint.config().LayerOf(name) >= 0 || !MustBeFinite(name)) continue;
    UQ_ASSIGN_OR_RETURN(const SourceTensor tensor, checkpoint.FindRaw(name));
    if (!IsFullPrecision(tensor.info.dtype)) continue;
    const int64_t size = tensor.info.num_elements();
    const int64_t element_bytes = SafetensorsDTypeBits(tensor.info.dtype) / 8;
    for (int64_t first = 0; first < size; first += kCheckedElements) {
      if (IsCancelled(env)) return CancelledError();
      const int64_t last = std::min(first + kCheckedElements, size);
      chunk.resize((last - first) * element_bytes);
      UQ_RETURN_IF_ERROR(tensor.ReadBytes(first, last, chunk.data()));
      const std::optional<int64_t> at = FindNotFinite(tensor.info.dtype, chunk);
      if (!at.has_value()) continue;
      return InvalidInput("WEIGHT_NOT_FINITE",
                          absl::StrCat("tensor ", name, " in ", tensor.file->key(),
                                       " holds NaN or an infinity, element ", first + *at,
                                       "; was the checkpoint fetched whole?"));
    }
  }
  return absl::OkStatus();
}

uint64_t ArtifactBytes(const QuantizationSpec& spec, const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  uint64_t bytes = 0;
  for (const std::string& name : checkpoint.TensorNames()) {
    const absl::StatusOr<SourceTensor> tensor = checkpoint.FindRaw(name);
    if (tensor.ok()) bytes += tensor->info.size_bytes;
  }
  for (int layer = 0; layer < config.num_layers; ++layer) {
    for (int l = 0; l < config.blocks[layer].num_linears(); ++l) {
      const std::string name = config.ModuleName(layer, l);
      const ModuleSettings settings = SettingsForModule(spec, name);
      const TensorSpec& linear = config.blocks[layer].linear(l);
      const auto stored = checkpoint.FindRaw(config.LayerPrefix(layer) + linear.stored.name);
      if (settings.full_precision || !stored.ok()) continue;
      bytes -= std::min<uint64_t>(
          bytes, linear.num_elements() * SafetensorsDTypeBits(stored->info.dtype) / 8);
      PackedLinear packed;
      packed.bits = settings.bits;
      packed.num_outputs = linear.num_outputs();
      packed.num_inputs = linear.num_inputs();
      packed.group_size = settings.group_size == 0 ? packed.num_inputs : settings.group_size;
      for (const SafetensorsWriter::Declaration& part : PackedTensors(name, packed)) {
        bytes += TensorBytes(part.dtype, part.shape).value_or(0);
      }
    }
  }
  return bytes;
}

absl::Status CheckSpace(const std::string& output_uri, const std::string& work_uri,
                        uint64_t needed_bytes) {
  std::error_code error;
  std::optional<std::filesystem::path> output = LocalPath(output_uri), work = LocalPath(work_uri);
  if (output.has_value()) output = Existing(*output);
  if (work.has_value() && !work_uri.empty()) work = Existing(*work);
  const auto free_at = [&](const std::filesystem::path& path) {
    const std::filesystem::space_info space = std::filesystem::space(path, error);
    return error ? UINT64_MAX : static_cast<uint64_t>(space.available);
  };
  if (output.has_value() && free_at(*output) < needed_bytes) {
    return Full(*output, needed_bytes, free_at(*output));
  }
  if (work_uri.empty() || !work.has_value()) return absl::OkStatus();
  if (free_at(*work) < needed_bytes) return Full(*work, needed_bytes, free_at(*work));
  // Of one file system both have the same numbers; that two have by chance does not matter.
  if (output.has_value() && free_at(*output) == free_at(*work) &&
      free_at(*output) / 2 < needed_bytes) {
    return Full(*output, 2 * needed_bytes, free_at(*output));
  }
  return absl::OkStatus();
}

absl::Status TryOutput(const QuantizationSpec& spec, const Checkpoint& checkpoint,
                       const std::string& plan_sha256, const TaskEnvironment& env) {
  DataOptions options = DataOptionsOf(env, DataPurpose::kOutput);
  options.store.directory_mode = env.artifact_mode;
  UQ_RETURN_IF_ERROR(CheckOutputIsFree(spec.output_uri, plan_sha256, options));
  UQ_RETURN_IF_ERROR(BuildArtifactConfig(checkpoint.config_json(), spec, {}).status());
  UQ_ASSIGN_OR_RETURN(const CopyPlan copies, PlanCopies(checkpoint.store().get()));
  UQ_RETURN_IF_ERROR(CheckSpace(spec.output_uri, env.work_uri,
                                ArtifactBytes(spec, checkpoint) + copies.size_bytes()));
  UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> output,
                      OpenData(spec.output_uri, options));
  if (output->Stat(kOutputMarkerKey).ok()) return absl::OkStatus();  // claimed by this plan
  const std::optional<std::filesystem::path> path = LocalPath(output->uri());
  const std::filesystem::path before = path.has_value() ? Existing(*path) : "";
  UQ_RETURN_IF_ERROR(ClaimOutput(output.get(), plan_sha256));
  UQ_RETURN_IF_ERROR(output->Delete(kOutputMarkerKey));
  // By its path, which a tenant may have led elsewhere meanwhile: an empty directory stays then.
  if (path.has_value() && env.data == nullptr) RemoveNew(*path, before);
  return absl::OkStatus();
}

}  // namespace uniquanf
