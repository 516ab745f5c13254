#include "worker/backend/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace uniquanf {
namespace {

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace

template <typename Condition>
bool ThreadPool::SpinUntil(const Condition& done) {
  constexpr int kSpins = 1000;  // some 40 µs
  for (int i = 0; i < kSpins; ++i) {
    if (done()) return true;
    Pause();
  }
  return done();
}

ThreadPool::ThreadPool(int num_threads) {
  for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this] { WorkerLoop(); });
}

ThreadPool::~ThreadPool() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  work_ready_.SignalAll();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::RunChunks(const std::function<void(int64_t)>& fn, int64_t num_chunks) {
  for (;;) {
    const int64_t chunk = next_chunk_.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= num_chunks) return;
    fn(chunk);
  }
}

void ThreadPool::ParallelFor(int64_t num_chunks, const std::function<void(int64_t)>& fn) {
  if (num_chunks <= 1 || threads_.empty()) {
    for (int64_t chunk = 0; chunk < num_chunks; ++chunk) fn(chunk);
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    fn_ = &fn;
    num_chunks_ = num_chunks;
    next_chunk_.store(0, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
  }
  work_ready_.SignalAll();
  RunChunks(fn, num_chunks);
  // Every chunk has been taken; those that workers took are awaited, workers that never came are
  // not.
  {
    absl::MutexLock lock(&mutex_);
    fn_ = nullptr;
  }
  SpinUntil([this] { return num_active_.load(std::memory_order_acquire) == 0; });
  absl::MutexLock lock(&mutex_);
  while (num_active_.load(std::memory_order_relaxed) != 0) work_done_.Wait(&mutex_);
}

void ThreadPool::WorkerLoop() {
  uint64_t seen_generation = 0;
  for (;;) {
    const std::function<void(int64_t)>* fn;
    int64_t num_chunks;
    SpinUntil([&] { return generation_.load(std::memory_order_acquire) != seen_generation; });
    {
      absl::MutexLock lock(&mutex_);
      while (!stopping_ && generation_ == seen_generation) work_ready_.Wait(&mutex_);
      if (stopping_) return;
      seen_generation = generation_.load(std::memory_order_relaxed);
      if (fn_ == nullptr) continue;
      fn = fn_;
      num_chunks = num_chunks_;
      num_active_.fetch_add(1, std::memory_order_relaxed);
    }
    RunChunks(*fn, num_chunks);
    absl::MutexLock lock(&mutex_);
    if (num_active_.fetch_sub(1, std::memory_order_release) == 1) work_done_.Signal();
  }
}

}  // namespace uniquanf
