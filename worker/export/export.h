// Writes an artifact in a form that other runtimes load. One row of ExportFormats() a format;
// README.md lists what is exact where.
//
// Thread safety: free functions. Memory: one layer's converted tensors at a time.
// Errors: as ArtifactReader and the stores; kAlreadyExists (OUTPUT_EXISTS); kInvalidArgument
// (UNKNOWN_FORMAT, EXPORT_NOT_POSSIBLE names the module and the format's rule);
// kFailedPrecondition (EXPORT_NOT_EXACT) with the largest and mean error, where the format cannot
// hold the weights and `allow_approximate` is off: nothing usable is left at the output.
#ifndef UNIQUANF_WORKER_EXPORT_EXPORT_H_
#define UNIQUANF_WORKER_EXPORT_EXPORT_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/stop_token.h"
#include "common/object_store/object_store.h"
#include "worker/export/export_format.h"

namespace uniquanf {

struct ExportOptions {
  std::string format = "dequantized";
  bool allow_approximate = false;
  std::function<void(int done, int total)> progress;  // layers' modules; may be empty
  StopToken stop;
};

struct ExportSummary {
  Deviation deviation;       // of all modules
  std::string worst_module;  // with the largest error; empty when there is none
  int num_modules = 0;
  // "exact", "exact up to the rounding of fp16" (or bf16), or "approximate: ...".
  std::string Describe() const;
};

absl::StatusOr<ExportSummary> ExportArtifact(std::shared_ptr<ObjectStore> artifact,
                                             const std::string& output_uri,
                                             const ExportOptions& options);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_EXPORT_EXPORT_H_
