// What the walks over an artifact share: its tensors as they are, and what a conversion cost.
// Thread safety: free functions. Errors: as ArtifactReader and the stores.
#ifndef UNIQUANF_WORKER_EXPORT_EXPORT_FILE_H_
#define UNIQUANF_WORKER_EXPORT_EXPORT_FILE_H_

#include <string>
#include <vector>

#include "worker/export/export.h"

namespace uniquanf {

// What follows a quantized module's name in its tensors' names.
std::vector<std::string> PackedSuffixes(const ManifestModule& module);
absl::StatusOr<std::string> ReadRawTensor(const SafetensorsFile& shard, const std::string& name);
// Adds to the summary; EXPORT_NOT_EXACT where the options do not allow it.
absl::Status AddDeviation(const std::string& module, const Deviation& deviation,
                          const ExportOptions& options, ExportSummary* summary);
// Every digested file but config, index and shards.
absl::Status CopyTokenizerFiles(const Manifest& manifest, ObjectStore* from, ObjectStore* to);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_EXPORT_EXPORT_FILE_H_
