// A fixed set of threads for data-parallel loops of one Backend.
//
// Work is cut into chunks by the caller; which thread runs a chunk is not defined, so results must
// not depend on it: chunks write disjoint outputs, and reductions over chunks are made by the
// caller in chunk order. Thread safety: one ParallelFor at a time (a Backend is used by one
// thread).
#ifndef UNIQUANF_WORKER_BACKEND_THREAD_POOL_H_
#define UNIQUANF_WORKER_BACKEND_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace uniquanf {

class ThreadPool {
 public:
  // `num_threads` counts the calling thread; 1 runs everything inline.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();

  // Calls fn(chunk) once for each chunk in [0, num_chunks), and returns when all have returned.
  // REQUIRES: fn does not call ParallelFor on this pool.
  void ParallelFor(int64_t num_chunks, const std::function<void(int64_t)>& fn);
  int num_threads() const { return static_cast<int>(threads_.size()) + 1; }

 private:
  void WorkerLoop();
  // Waits a little for done() without giving up the core; false when it is not so by then. Ops
  // follow each other within microseconds, and waking a sleeping thread takes many.
  template <typename Condition>
  static bool SpinUntil(const Condition& done);
  void RunChunks(const std::function<void(int64_t)>& fn, int64_t num_chunks);

  std::vector<std::thread> threads_;
  absl::Mutex mutex_;
  absl::CondVar work_ready_, work_done_;
  // Null between loops: a worker that wakes up late finds nothing to do, and nobody waits for it.
  const std::function<void(int64_t)>* fn_ ABSL_GUARDED_BY(mutex_) = nullptr;
  int64_t num_chunks_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<uint64_t> generation_{0};  // written under mutex_
  std::atomic<int> num_active_{0};       // workers inside *fn_; written under mutex_
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<int64_t> next_chunk_{0};
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BACKEND_THREAD_POOL_H_
