// File names of a Hugging Face model directory, and the small files that are carried along
// unchanged (tokenizer, generation settings, licence). Internal to worker/task.
#ifndef UNIQUANF_WORKER_TASK_COPIED_FILES_H_
#define UNIQUANF_WORKER_TASK_COPIED_FILES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/artifact/manifest.h"
#include "common/object_store/object_store.h"
#include "worker/model/model_config.h"

namespace uniquanf {

struct CopiedFile {
  std::string path;
  uint64_t size_bytes = 0;
  std::string sha256;
};

// Copies those that `from` has, in byte order of their names; appends to *files when not null.
// Errors: kInvalidArgument (FILE_TOO_LARGE) for one over 256 MiB.
absl::Status CopyModelFiles(ObjectStore* from, ObjectStore* to, std::vector<CopiedFile>* files);

// Their bytes together.
absl::StatusOr<uint64_t> CopiedBytes(ObjectStore* from);

// What the manifest says about the model's head, which no layer holds.
ManifestModule HeadModule(const ModelConfig& config);

// "model-00001-of-00005.safetensors" for index 0 of 5.
std::string ShardFileName(int index, int num_shards);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_COPIED_FILES_H_
