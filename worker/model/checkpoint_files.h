// The safetensors files of a checkpoint, single or sharded, seen as one map from tensor names.
#ifndef UNIQUANF_WORKER_MODEL_CHECKPOINT_FILES_H_
#define UNIQUANF_WORKER_MODEL_CHECKPOINT_FILES_H_

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/object_store/object_store.h"
#include "worker/model/source_tensor.h"

namespace uniquanf {

struct CheckpointFiles {
  TensorMap tensors;
  // What index and shards disagree about, by tensor; it matters where the tensor is needed.
  std::map<std::string, std::string> unlisted;  // the shard that holds it, which the index omits
  std::map<std::string, std::string> absent;    // the shard that the index names and that lacks it
};

// Reads the headers of model.safetensors or of the shards that model.safetensors.index.json names.
// Empty tensors are left out. Errors: MODEL_NOT_FOUND when there is neither, which says what there
// is instead, or a shard is missing; TWO_MODELS when both are there and the index does not name the
// file; INVALID_MODEL_INDEX for an index that is no index or leads outside the directory; those of
// safetensors.
absl::StatusOr<CheckpointFiles> OpenCheckpointFiles(const std::shared_ptr<ObjectStore>& store);

// The object `key` as text; MODEL_NOT_FOUND when it does not exist, NOT_THE_FILE when it is
// something else that people commonly take for it.
absl::StatusOr<std::string> ReadModelText(ObjectStore* store, absl::string_view key,
                                          uint64_t max_bytes);

// Whether `values`, which are `count` elements of the tensor from element `first` on, are all
// finite. Error: kInvalidArgument (WEIGHT_NOT_FINITE) with the first one's place.
absl::Status CheckFiniteValues(const TensorInfo& info, int64_t first, const float* values,
                               int64_t count);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_CHECKPOINT_FILES_H_
