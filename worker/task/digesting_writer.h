// A writer that tells the size and the SHA-256 of what went through it. Internal to worker/task.
// Thread safety: as its target.
#ifndef UNIQUANF_WORKER_TASK_DIGESTING_WRITER_H_
#define UNIQUANF_WORKER_TASK_DIGESTING_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/base/digest.h"
#include "common/object_store/object_store.h"
#include "worker/task/copied_files.h"

namespace uniquanf {

// Counts and hashes what passes through on its way to another writer.
class DigestingWriter : public ObjectWriter {
 public:
  explicit DigestingWriter(std::unique_ptr<ObjectWriter> out) : out_(std::move(out)) {}
  absl::Status Append(absl::string_view data) override {
    sha256_.Update(data);
    size_bytes_ += data.size();
    return out_->Append(data);
  }
  absl::Status Commit() override { return out_->Commit(); }
  CopiedFile Describe(const std::string& path) { return {path, size_bytes_, sha256_.FinishHex()}; }

 private:
  std::unique_ptr<ObjectWriter> out_;
  Sha256 sha256_;
  uint64_t size_bytes_ = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_DIGESTING_WRITER_H_
