// The safetensors files of a checkpoint, single or sharded, seen as one map from tensor names.
#ifndef UNIQUANF_WORKER_MODEL_CHECKPOINT_FILES_H_
#define UNIQUANF_WORKER_MODEL_CHECKPOINT_FILES_H_

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/object_store/object_store.h"
#include "worker/model/checkpoint.h"

namespace uniquanf {

using TensorMap = std::map<std::string, Checkpoint::RawTensor>;

// Reads the headers of model.safetensors or, without it, of the shards that
// model.safetensors.index.json names. Errors: MODEL_NOT_FOUND when there is neither or a shard is
// missing; INVALID_MODEL_INDEX for an index that is no index or leads outside the directory;
// TENSOR_NOT_FOUND for a tensor that its shard does not hold; those of safetensors.
absl::StatusOr<TensorMap> OpenCheckpointFiles(const std::shared_ptr<ObjectStore>& store);

// The object `key` as text; MODEL_NOT_FOUND when it does not exist.
absl::StatusOr<std::string> ReadModelText(ObjectStore* store, absl::string_view key,
                                          uint64_t max_bytes);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_CHECKPOINT_FILES_H_
