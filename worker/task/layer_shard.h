// Serializes one layer (or everything outside the layers) as a safetensors shard of the artifact.
// Internal to worker/task. Tensors lie in byte order of their names; the bytes depend on nothing
// else.
#ifndef UNIQUANF_WORKER_TASK_LAYER_SHARD_H_
#define UNIQUANF_WORKER_TASK_LAYER_SHARD_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/artifact/layout.h"
#include "worker/model/checkpoint.h"

namespace uniquanf {

// The values as a tensor of this element type (F32, F16 or BF16) holds them.
std::vector<float> RoundedTo(const std::vector<float>& values, SafetensorsDType dtype);
float RoundedTo(SafetensorsDType dtype, float value);

// Layer `layer`: the packed tensors of the modules in `packed` (by module name), and the source's
// tensors of that layer as they are, except the weights that are packed, and those in `changed`, by
// stored name inside the layer, with these bytes.
absl::StatusOr<std::string> BuildLayerShard(const Checkpoint& checkpoint, int layer,
                                            const std::map<std::string, PackedLinear>& packed,
                                            const std::map<std::string, std::string>& changed);
// Values as the bytes of a tensor of type F32, F16 or BF16.
std::string AsStored(const std::vector<float>& values, SafetensorsDType dtype);

// Embedding, final norm, LM head: every tensor of the source that belongs to no layer, streamed.
absl::Status WriteOuterShard(const Checkpoint& checkpoint, ObjectWriter* out,
                             std::vector<std::string>* names);

// How large a shard is and what it holds, from declarations alone.
struct ShardSize {
  uint64_t file_bytes = 0, tensor_bytes = 0;  // the whole file; its tensors
  std::vector<std::string> tensors;
};
// `packed` need their bits and shapes only.
absl::StatusOr<ShardSize> LayerShardSize(const Checkpoint& checkpoint, int layer,
                                         const std::map<std::string, PackedLinear>& packed);
absl::StatusOr<ShardSize> OuterShardSize(const Checkpoint& checkpoint);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_LAYER_SHARD_H_
