// Pieces of objects as files in a directory of bounded size, which several processes may share: the
// disk's part of object_cache.h.
//
// DIRECTORY/pieces-v1/<2 digits>/<62 digits of the id>: a magic, the SHA-256 of id and bytes, the
// bytes. Every piece is checked whenever it is read, so nothing has to be durable and no crash of
// process or machine leaves a piece that is believed and wrong. Files appear by rename; one that is
// evicted while it is read stays readable to whoever has it open. Only this folder's own files are
// counted and removed.
//
// Size. Least recently used pieces go first; a file's modification time says when it was last
// used, by any process. A process alone never exceeds `max_bytes` (in blocks of 4 KiB, as files
// occupy them). Each further one may exceed it by max_bytes / 16, since a process sees what others
// have written only when it counts again.
//
// Nothing here fails: what cannot be written is not there later. `on_problem` hears of the first
// failed write and of the first damaged piece. After a failed write none is tried for a minute.
//
// Thread safety: thread-safe. Ownership: borrows the clock; `on_problem` runs on the caller's
// thread.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_PIECE_FILES_H_
#define UNIQUANF_COMMON_OBJECT_STORE_PIECE_FILES_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/ids.h"

namespace uniquanf {

struct PieceFilesCounts {
  uint64_t evictions = 0;
  uint64_t damaged = 0;  // pieces that were not what had been written
  uint64_t failed_writes = 0;
  uint64_t stored_bytes = 0;  // on the disk, as far as this process knows
};

class PieceFiles {
 public:
  using OnProblem = std::function<void(const absl::Status&)>;  // may be empty

  // Makes the directory where it can, counts what is there, evicts down to `max_bytes`, and removes
  // what killed processes left half written.
  PieceFiles(const std::string& directory, uint64_t max_bytes, const Clock* clock,
             OnProblem on_problem);

  // The `size_bytes` bytes stored under `id` (64 hex digits), or nothing. Damaged pieces are
  // removed.
  std::optional<std::string> Get(const std::string& id, uint64_t size_bytes);
  void Put(const std::string& id, absl::string_view bytes);

  // False for a minute after a failed write.
  bool Writable() const;
  PieceFilesCounts counts() const;

 private:
  std::string PathOf(const std::string& id) const;
  absl::Status Write(const std::string& id, absl::string_view bytes);
  // Counts again; where `wanted_bytes` more do not fit, evicts until they do with some to spare.
  void CountAndEvict(uint64_t wanted_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReportOnce(std::atomic<bool>* reported, const absl::Status& problem);

  const std::string root_;  // DIRECTORY/pieces-v1
  const uint64_t max_bytes_;
  const Clock* const clock_;
  const OnProblem on_problem_;
  const std::unique_ptr<IdGenerator> ids_;

  std::atomic<uint64_t> evictions_{0}, damaged_{0}, failed_writes_{0};
  std::atomic<bool> reported_write_{false}, reported_damage_{false};
  mutable absl::Mutex mutex_;
  absl::Duration no_writes_before_ ABSL_GUARDED_BY(mutex_) = -absl::InfiniteDuration();
  // Counted on the disk, and being written now. A piece may be in both for a moment, or twice in
  // the first when it was there already: what is wrong errs upwards until the next count.
  uint64_t stored_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t reserved_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t written_since_count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_PIECE_FILES_H_
