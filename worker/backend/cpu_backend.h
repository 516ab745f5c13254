// The CPU backend: plain memory, everything done when a call returns. For op implementations only.
#ifndef UNIQUANF_WORKER_BACKEND_CPU_BACKEND_H_
#define UNIQUANF_WORKER_BACKEND_CPU_BACKEND_H_

#include <atomic>
#include <string>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "worker/backend/backend.h"
#include "worker/backend/thread_pool.h"

namespace uniquanf {

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(const CpuBackendOptions& options);
  ~CpuBackend() override;

  // REQUIRES: backend->kind() == kCpu.
  static CpuBackend* From(Backend* backend) { return static_cast<CpuBackend*>(backend); }
  ThreadPool& pool() { return pool_; }
  // BlasMergesPieces, asked once.
  bool merges_products() const { return merges_products_; }
  // Time spent inside BLAS, summed over threads since construction; for benchmarks. Thread-safe.
  void AddBlasNanoseconds(int64_t nanoseconds) {
    blas_nanoseconds_.fetch_add(nanoseconds, std::memory_order_relaxed);
  }
  int64_t blas_nanoseconds() const { return blas_nanoseconds_.load(std::memory_order_relaxed); }

  DeviceKind kind() const override { return DeviceKind::kCpu; }
  std::string description() const override;
  absl::StatusOr<void*> Allocate(size_t size_bytes) override;
  void Free(void* pointer) override;
  absl::StatusOr<void*> AllocateHost(size_t size_bytes) override { return Allocate(size_bytes); }
  void FreeHost(void* pointer) override { Free(pointer); }
  absl::Status CopyFromHost(void* dst, const void* src, size_t size_bytes) override;
  absl::Status CopyToHost(void* dst, const void* src, size_t size_bytes) override;
  absl::Status CopyOnDevice(void* dst, const void* src, size_t size_bytes) override;
  absl::Status CopyFromHostAside(void* dst, const void* src, size_t size_bytes) override;
  absl::Status JoinCopies() override;
  absl::Status FillZero(void* dst, size_t size_bytes) override;
  absl::Status Synchronize() override { return absl::OkStatus(); }
  absl::Status RunCaptured(std::unique_ptr<CapturedSequence>* sequence,
                           const std::function<void()>& issue) override;
  MemoryInfo memory() const override;
  void ResetPeak() override;

 private:
  ThreadPool pool_;
  const bool merges_products_;
  std::atomic<int64_t> blas_nanoseconds_{0};
  mutable absl::Mutex mutex_;
  std::unordered_map<void*, size_t> allocations_ ABSL_GUARDED_BY(mutex_);
  uint64_t allocated_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t peak_allocated_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BACKEND_CPU_BACKEND_H_
