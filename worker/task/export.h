// Writes an artifact as an ordinary bf16 Hugging Face checkpoint, which any runtime loads: every
// quantized layer dequantized and rounded to bf16, one shard a layer, one layer in memory at a
// time. Errors: as Checkpoint and the stores; kAlreadyExists (OUTPUT_EXISTS).
#ifndef UNIQUANF_WORKER_TASK_EXPORT_H_
#define UNIQUANF_WORKER_TASK_EXPORT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

// `progress(layer, num_layers)` and `cancelled` may be empty. The index file is written last.
absl::Status ExportDequantized(std::shared_ptr<ObjectStore> artifact, const std::string& output_uri,
                               const std::function<void(int, int)>& progress,
                               const std::function<bool()>& cancelled);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_EXPORT_H_
