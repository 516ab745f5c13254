// File names of a Hugging Face model directory, and the small files that are carried along
// unchanged: tokenizer, generation settings, code, licence. Internal to worker/task.
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

struct CopyPlan {
  struct File {
    std::string from, to;
    uint64_t size_bytes = 0;
  };
  std::vector<File> files;            // in byte order of `from`
  std::vector<std::string> left_out;  // other files, and folders ("onnx/"), that are not copied

  uint64_t size_bytes() const;
};

// Which files of a model's folder an artifact takes over: every small one directly in it but
// config, weights, their indices, hidden ones and what only says how the source is quantized; a
// README under another name. Error: kInvalidArgument (FILE_TOO_LARGE) for one that a reader needs
// and that has over 256 MiB.
absl::StatusOr<CopyPlan> PlanCopies(ObjectStore* from);

// Copies them; appends to *files.
absl::Status CopyModelFiles(const CopyPlan& plan, ObjectStore* from, ObjectStore* to,
                            std::vector<CopiedFile>* files);

// What the manifest says about the model's head, which no layer holds.
ManifestModule HeadModule(const ModelConfig& config);

// "model-00001-of-00005.safetensors" for index 0 of 5.
std::string ShardFileName(int index, int num_shards);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_COPIED_FILES_H_
