// The artifact's config.json and model.safetensors.index.json (FORMAT.md, "Files").
// Thread safety: free functions. Errors: kInvalidArgument (INVALID_MODEL_CONFIG).
#ifndef UNIQUANF_COMMON_ARTIFACT_ARTIFACT_CONFIG_H_
#define UNIQUANF_COMMON_ARTIFACT_ARTIFACT_CONFIG_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/artifact/manifest.h"

namespace uniquanf {

// quantization_config.quant_method of an artifact's config.json.
// Why a manifest lists a head without a tensor: the model's family or config ties it.
inline constexpr char kTiedReason[] = "tied to the embedding";
inline constexpr char kQuantMethod[] = "uniquanf";

struct ArtifactConfig {
  std::string json;
  // Why there is no "anybcq" section; "" when there is one. For Manifest::anybcq_omitted.
  std::string anybcq_omitted;
};

// The source's config.json with "quantization_config" {quant_method, format_version, bits,
// group_size, modules_to_not_convert} and, where AnyBCQ's runtime can read all of `modules`,
// "anybcq" added; every other field keeps its value (doubles a spelling that reads back exactly).
// `bits` and `group_size` (0: per row) are the spec's. Members are sorted by name.
absl::StatusOr<ArtifactConfig> BuildArtifactConfig(absl::string_view source_config_json,
                                                   const QuantizationSpec& spec,
                                                   const std::vector<ManifestModule>& modules);

// model.safetensors.index.json: which file holds which tensor; `total_size_bytes` is the sum of the
// tensors' bytes. Sorted by tensor name.
std::string BuildIndexJson(const std::map<std::string, std::string>& tensor_to_file,
                           uint64_t total_size_bytes);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_ARTIFACT_ARTIFACT_CONFIG_H_
