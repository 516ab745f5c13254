#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/artifact/artifact_config.h"
#include "common/artifact/artifact_reader.h"
#include "common/artifact/finite.h"
#include "common/artifact/signature.h"
#include "common/base/digest.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr uint64_t kChunkBytes = 8 << 20;
// Tensors of a quantized module's own; anything else below its name but a bias is extra.
bool IsPackedSuffix(absl::string_view suffix) {
  if (suffix == "qweight" || suffix == "q_bias" || suffix == "weight") return true;
  // With a number of bits: parameters of activations are called alpha_p and alpha_n.
  if (!absl::ConsumePrefix(&suffix, "alpha_") && !absl::ConsumePrefix(&suffix, "beta_")) {
    return false;
  }
  return !suffix.empty() && std::all_of(suffix.begin(), suffix.end(), absl::ascii_isdigit);
}

// Whether the store failed, as opposed to the artifact.
bool IsStorageFailure(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsPermissionDenied(status) ||
         absl::IsCancelled(status) || absl::IsDeadlineExceeded(status);
}

// What is wrong with the file's bytes, or "". `on_bytes` is told of what was read, piece by piece.
absl::StatusOr<std::string> FileProblem(ObjectStore* store, const ManifestFile& file,
                                        const std::function<void(uint64_t)>& on_bytes) {
  const absl::StatusOr<ObjectInfo> info = store->Stat(file.path);
  if (!info.ok()) {
    if (IsStorageFailure(info.status())) return info.status();
    return std::string("missing");
  }
  if (info->size_bytes != file.size_bytes) {
    return absl::StrCat("has ", info->size_bytes, " bytes, the manifest says ", file.size_bytes);
  }
  Sha256 sha;
  std::string chunk;
  for (uint64_t at = 0; at < file.size_bytes; at += chunk.size()) {
    chunk.resize(std::min(kChunkBytes, file.size_bytes - at));
    UQ_RETURN_IF_ERROR(store->ReadAt(file.path, at, chunk.size(), chunk.data()));
    sha.Update(chunk);
    on_bytes(chunk.size());
  }
  const std::string actual = sha.FinishHex();
  if (actual == file.sha256) return std::string();
  return absl::StrCat("SHA-256 is ", actual, ", the manifest says ", file.sha256);
}

class Verifier {
 public:
  Verifier(std::shared_ptr<ObjectStore> store,
           const std::function<void(uint64_t, uint64_t)>& progress)
      : store_(std::move(store)), progress_(progress) {}

  absl::StatusOr<VerifyReport> Run() {
    absl::StatusOr<Manifest> manifest = ReadManifest(store_.get());
    if (!manifest.ok()) {
      if (ErrorReason(manifest.status()) != "INVALID_MANIFEST") return manifest.status();
      Problem(manifest.status().message());
      return std::move(report_);
    }
    manifest_ = *std::move(manifest);
    for (const ManifestFile& file : manifest_.files) total_bytes_ += file.size_bytes;
    for (const ManifestFile& file : manifest_.files) UQ_RETURN_IF_ERROR(CheckFile(file));
    UQ_RETURN_IF_ERROR(CheckNoExtraFiles());
    UQ_RETURN_IF_ERROR(CheckTensors());
    return std::move(report_);
  }

 private:
  void Problem(absl::string_view text) { report_.problems.emplace_back(text); }

  absl::Status CheckFile(const ManifestFile& file) {
    ++report_.num_files;
    UQ_ASSIGN_OR_RETURN(const std::string problem,
                        FileProblem(store_.get(), file, [&](uint64_t num_bytes) {
                          report_.num_bytes += num_bytes;
                          if (progress_) progress_(report_.num_bytes, total_bytes_);
                        }));
    if (!problem.empty()) Problem(absl::StrCat(file.path, ": ", problem));
    return absl::OkStatus();
  }

  absl::Status CheckNoExtraFiles() {
    std::set<std::string> known(manifest_.attachments.begin(), manifest_.attachments.end());
    for (const ManifestFile& file : manifest_.files) known.insert(file.path);
    known.insert(kManifestKey);
    known.insert(kOutputMarkerKey);
    ListOptions options;
    while (true) {
      UQ_ASSIGN_OR_RETURN(const ListResult page, store_->List(options));
      for (const ObjectInfo& object : page.objects) {
        if (known.count(object.key) == 0 && !IsSignatureKey(object.key)) {
          Problem(absl::StrCat(object.key, ": not named by the manifest"));
        }
      }
      if (!page.truncated || page.objects.empty()) return absl::OkStatus();
      options.start_after = page.objects.back().key;
    }
  }

  absl::Status CheckTensors() {
    absl::StatusOr<std::unique_ptr<ArtifactReader>> reader = ArtifactReader::Open(store_);
    if (!reader.ok()) {
      if (IsStorageFailure(reader.status())) return reader.status();
      Problem(reader.status().message());
      return absl::OkStatus();
    }
    std::map<std::string, int> quantized;  // name → bits
    for (const ManifestModule& module : manifest_.modules) {
      ++report_.num_modules;
      if (module.quantized) {
        quantized[module.name] = module.bits;
        UQ_RETURN_IF_ERROR(CheckModule(**reader, module));
      } else {
        CheckFullPrecision(**reader, module);
      }
    }
    CheckNoExtraTensors(**reader, quantized);
    for (const auto& [name, shard] : (*reader)->tensors()) {
      UQ_RETURN_IF_ERROR(CheckFinite(name, *shard));
    }
    return absl::OkStatus();
  }

  // Scales of quantized modules too, though reading them has checked them already.
  absl::Status CheckFinite(const std::string& name, const SafetensorsFile& shard) {
    const TensorInfo info = *shard.Find(name);
    if (!MustBeFinite(name) || SafetensorsDTypeBits(info.dtype) % 8 != 0) return absl::OkStatus();
    const int64_t size = info.num_elements();
    const int64_t step = static_cast<int64_t>(kChunkBytes) * 8 / SafetensorsDTypeBits(info.dtype);
    std::string chunk;
    for (int64_t first = 0; first < size; first += step) {
      const TensorInfo part = info.Part(first, std::min(step, size - first));
      chunk.resize(part.size_bytes);
      UQ_RETURN_IF_ERROR(shard.ReadBytes(part, chunk.data()));
      const std::optional<int64_t> at = FindNotFinite(info.dtype, chunk);
      if (!at.has_value()) continue;
      Problem(absl::StrCat(name, ": holds NaN or an infinity, element ", first + *at));
      break;
    }
    return absl::OkStatus();
  }

  absl::Status CheckModule(const ArtifactReader& reader, const ManifestModule& module) {
    const absl::StatusOr<PackedLinear> packed = reader.ReadPacked(module.name);
    if (!packed.ok()) {
      if (IsStorageFailure(packed.status())) return packed.status();
      Problem(absl::StrCat(module.name, ": ", packed.status().message()));
      return absl::OkStatus();
    }
    CheckPadding(module, *packed);
    return CheckZeroBias(reader, module, *packed);
  }

  void CheckPadding(const ManifestModule& module, const PackedLinear& packed) {
    if (packed.num_inputs % 32 == 0) return;
    const uint32_t padding = ~0u << (packed.num_inputs % 32);
    const size_t last_word = (packed.words_per_row() - 1) * packed.bits * packed.num_outputs;
    for (size_t i = last_word; i < packed.qweight.size(); ++i) {
      if ((static_cast<uint32_t>(packed.qweight[i]) & padding) != 0) {
        return Problem(absl::StrCat(module.name, ".qweight: bits beyond column ", packed.num_inputs,
                                    " are not 0"));
      }
    }
  }

  absl::Status CheckZeroBias(const ArtifactReader& reader, const ManifestModule& module,
                             const PackedLinear& packed) {
    const SafetensorsWriter::Declaration expected = PackedTensors(module.name, packed)[3];
    const auto shard = reader.FindShard(expected.name);
    if (!shard.ok()) {
      Problem(absl::StrCat(expected.name, ": missing"));
      return absl::OkStatus();
    }
    const TensorInfo info = *(*shard)->Find(expected.name);
    if (info.dtype != expected.dtype || info.shape != expected.shape) {
      Problem(absl::StrCat(expected.name, ": wrong dtype or shape"));
      return absl::OkStatus();
    }
    std::string bytes(info.size_bytes, '\0');
    UQ_RETURN_IF_ERROR((*shard)->ReadBytes(info, bytes.data()));
    if (bytes.find_first_not_of('\0') != std::string::npos) {
      Problem(absl::StrCat(expected.name, ": not all zeros"));
    }
    return absl::OkStatus();
  }

  void CheckFullPrecision(const ArtifactReader& reader, const ManifestModule& module) {
    const std::string name = absl::StrCat(module.name, ".weight");
    const auto shard = reader.FindShard(name);
    if (!shard.ok()) {
      // A tied LM head has no tensor of its own. Some families tie it unless the config says no.
      const nlohmann::json config =
          nlohmann::json::parse(reader.config_json(), nullptr, /*allow_exceptions=*/false);
      const auto tied = config.find("tie_word_embeddings");
      const bool may_be = tied == config.end() || tied->is_null() || *tied == true;
      if (!may_be || module.reason != kTiedReason) Problem(absl::StrCat(name, ": missing"));
      return;
    }
    const TensorInfo info = *(*shard)->Find(name);
    if (info.shape != std::vector<int64_t>{module.num_outputs, module.num_inputs}) {
      Problem(absl::StrCat(name, ": its shape differs from the manifest's"));
    }
  }

  void CheckNoExtraTensors(const ArtifactReader& reader,
                           const std::map<std::string, int>& quantized) {
    for (const auto& [name, shard] : reader.tensors()) {
      const size_t dot = name.rfind('.');
      if (dot == std::string::npos) continue;
      const std::string module = name.substr(0, dot), suffix = name.substr(dot + 1);
      if (!IsPackedSuffix(suffix)) continue;
      const auto entry = quantized.find(module);
      if (entry == quantized.end()) {
        if (suffix != "weight") {
          Problem(absl::StrCat(name, ": belongs to no quantized module of the manifest"));
        }
        continue;
      }
      const std::string n = absl::StrCat(entry->second);
      if (suffix != "qweight" && suffix != "q_bias" && suffix != "alpha_" + n &&
          suffix != "beta_" + n) {
        Problem(absl::StrCat(name, ": extra tensor of a quantized module"));
      }
    }
  }

  const std::shared_ptr<ObjectStore> store_;
  const std::function<void(uint64_t, uint64_t)>& progress_;
  Manifest manifest_;
  uint64_t total_bytes_ = 0;
  VerifyReport report_;
};

}  // namespace

absl::Status CheckArtifactFiles(ObjectStore* store) {
  UQ_ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(store));
  for (const ManifestFile& file : manifest.files) {
    UQ_ASSIGN_OR_RETURN(const std::string problem, FileProblem(store, file, [](uint64_t) {}));
    if (problem.empty()) continue;
    return MakeError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                     absl::StrCat(store->uri(), "/", file.path, ": ", problem,
                                  "; fetch the artifact again, or make it again"));
  }
  return absl::OkStatus();
}

absl::StatusOr<VerifyReport> VerifyArtifact(
    std::shared_ptr<ObjectStore> store,
    const std::function<void(uint64_t done_bytes, uint64_t total_bytes)>& progress) {
  return Verifier(std::move(store), progress).Run();
}

}  // namespace uniquanf
