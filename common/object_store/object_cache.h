// A local cache of pieces of remote objects: on disk (piece_files.h), with the latest few in
// memory. NewCachingStore (caching_store.h) puts it in front of a store.
//
// Objects are cached in aligned pieces of one size, not as the ranges that were asked for: tensors
// are read in chunks far smaller than a request to S3 is worth, and layers, evaluations and copies
// cut the same file differently. The price is what lies beside a tensor in its first and last
// piece.
//
// Concurrent readers of one piece fetch it once in a process; the others wait. Several processes
// may share the directory, and each may fetch a piece that the other is just fetching.
//
// Thread safety: thread-safe. Ownership: borrows the clock. Errors: none of its own: a cache that
// cannot write, or whose pieces are damaged, costs speed only.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_OBJECT_CACHE_H_
#define UNIQUANF_COMMON_OBJECT_STORE_OBJECT_CACHE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/stop_token.h"
#include "common/object_store/piece_files.h"

namespace uniquanf {

struct ObjectCacheOptions {
  std::string directory;
  uint64_t max_bytes = 0;
  uint64_t piece_bytes = 4u << 20;
  // Kept in memory, so that reading on within a piece neither reads nor checks it again. One for
  // each thread that reads is enough.
  int num_recent_pieces = 16;
  const Clock* clock = &SystemClock();
  PieceFiles::OnProblem on_problem = {};
};

struct ObjectCacheCounts {
  uint64_t hits = 0;           // reads of (a part of) one piece served without the store
  uint64_t misses = 0;         // reads that asked the store
  uint64_t hit_bytes = 0;      // bytes that the readers of the hits asked for
  uint64_t fetched_bytes = 0;  // bytes that came from the store
  PieceFilesCounts files;
};

class ObjectCache {
 public:
  using Piece = std::shared_ptr<const std::string>;
  using Fetch = std::function<absl::Status(char* out)>;

  explicit ObjectCache(ObjectCacheOptions options);

  // The piece of `size_bytes` bytes under `id` (64 hex digits): from memory, from disk, or by
  // `fetch`, whose errors pass through. `used_bytes` of it are wanted, for the counts. While others
  // fetch it, `stop` is asked; kCancelled (REQUEST_INTERRUPTED) when it says yes. That others were
  // interrupted is no error of ours.
  absl::StatusOr<Piece> Get(const std::string& id, uint64_t size_bytes, uint64_t used_bytes,
                            const Fetch& fetch, const StopToken& stop = {});
  // The same without fetching: null when it is not there.
  Piece Find(const std::string& id, uint64_t size_bytes, uint64_t used_bytes);

  // False while pieces that are fetched could not be stored: then fetch what is wanted only.
  bool CanStore() const { return files_.Writable(); }
  void CountUncached(uint64_t bytes);

  const ObjectCacheOptions& options() const { return options_; }
  ObjectCacheCounts counts() const;

 private:
  // One fetch under way, or done and being written, and those who wait for it.
  struct Flight {
    bool done = false;
    absl::StatusOr<Piece> piece = Piece();
  };

  Piece FindRecent(const std::string& id, uint64_t used_bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddRecent(const std::string& id, Piece piece) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountHit(uint64_t used_bytes);

  const ObjectCacheOptions options_;
  PieceFiles files_;
  std::atomic<uint64_t> hits_{0}, misses_{0}, hit_bytes_{0}, fetched_bytes_{0};
  absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<Flight>> flights_ ABSL_GUARDED_BY(mutex_);
  // Most recently used first.
  std::list<std::pair<std::string, Piece>> recent_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_OBJECT_CACHE_H_
