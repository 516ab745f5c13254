#include "worker/backend/cpu_backend.h"

#include <cblas.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/format_bytes.h"
#include "common/base/machine_resources.h"
#include "common/base/status.h"
#include "worker/backend/blas_kernel.h"

namespace uniquanf {
namespace {

constexpr size_t kAlignment = 256;
// Allocations from this size on are checked against a control group's limit before they are made:
// the system grants what a group must not use, and ends the process when it is touched.
constexpr size_t kCheckedAllocation = 16 << 20;

bool ExceedsLimit(size_t size_bytes) {
  if (size_bytes < kCheckedAllocation) return false;
  const MachineResources resources = ReadMachineResources();
  return resources.memory_is_limited && size_bytes > resources.available_memory_bytes;
}

// OpenBLAS takes a buffer of this size for each thread that is inside it at once, and its stack.
constexpr uint64_t kBlasBytesPerThread = (128 + 8) << 20;
// What the rest of the smallest job allocates.
constexpr uint64_t kLeastBytes = 128 << 20;

int NumThreads(int wanted) { return wanted > 0 ? wanted : ReadMachineResources().num_cpus; }

// While there is room for them: plans of memory then count them as taken.
void TakeBlasBuffers(ThreadPool* pool) {
  constexpr int kSize = 256;
  const int num_threads = pool->num_threads();
  std::atomic<int> num_ready{0};
  pool->ParallelFor(num_threads, [&](int64_t) {
    const std::vector<float> a(kSize * kSize, 0.5f);
    std::vector<float> c(kSize * kSize);
    // All at once, as well as can be: a thread that comes late would get a buffer that is free
    // again.
    const absl::Time deadline = absl::Now() + absl::Milliseconds(100);
    num_ready.fetch_add(1);
    while (num_ready.load() < num_threads && absl::Now() < deadline) {
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, kSize, kSize, kSize, 1, a.data(), kSize,
                a.data(), kSize, 0, c.data(), kSize);
  });
}

}  // namespace

absl::Status CheckMemoryForBlas(int wanted_threads) {
  const uint64_t free = ReadMachineResources().free_address_space_bytes;
  const int num_threads = NumThreads(wanted_threads);
  // A layer that runs ahead is one more.
  const uint64_t needed = kLeastBytes + (num_threads + 1) * kBlasBytesPerThread;
  if (free >= needed) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
      absl::StrCat("the limit on this process's address space (ulimit -v) leaves ",
                   FormatBytes(free), ", but ", num_threads, " threads of matrix products need ",
                   FormatBytes(needed), "; raise the limit, or use fewer --threads"));
}

void EndPastBlas(int code) {
  if (ReadMachineResources().free_address_space_bytes == UINT64_MAX) return;
  std::fflush(nullptr);
  _exit(code);
}

CpuBackend::CpuBackend(const CpuBackendOptions& options)
    : pool_(NumThreads(options.num_threads)),
      merges_products_((SelectBlasKernel(), BlasMergesPieces())) {
  // Our own pool cuts the work, so that the bits do not depend on how many threads there are.
  openblas_set_num_threads(1);
  if (ReadMachineResources().free_address_space_bytes != UINT64_MAX) TakeBlasBuffers(&pool_);
}

CpuBackend::~CpuBackend() = default;

std::string CpuBackend::description() const {
  return absl::StrCat("cpu; ", openblas_get_config(), "; kernel ", openblas_get_corename());
}

absl::StatusOr<void*> CpuBackend::Allocate(size_t size_bytes) {
  const size_t rounded =
      (std::max<size_t>(size_bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  void* pointer = rounded < size_bytes || ExceedsLimit(rounded)
                      ? nullptr
                      : std::aligned_alloc(kAlignment, rounded);
  if (pointer == nullptr) {
    return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                     absl::StrCat("cannot allocate ", size_bytes, " bytes of host memory; ",
                                  memory().free_bytes, " bytes are free"));
  }
  absl::MutexLock lock(&mutex_);
  allocations_[pointer] = rounded;
  allocated_bytes_ += rounded;
  peak_allocated_bytes_ = std::max(peak_allocated_bytes_, allocated_bytes_);
  return pointer;
}

void CpuBackend::Free(void* pointer) {
  if (pointer == nullptr) return;
  {
    absl::MutexLock lock(&mutex_);
    auto it = allocations_.find(pointer);
    allocated_bytes_ -= it->second;
    allocations_.erase(it);
  }
  std::free(pointer);
}

absl::Status CpuBackend::CopyFromHost(void* dst, const void* src, size_t size_bytes) {
  if (size_bytes > 0) std::memcpy(dst, src, size_bytes);
  return absl::OkStatus();
}
absl::Status CpuBackend::CopyToHost(void* dst, const void* src, size_t size_bytes) {
  return CopyFromHost(dst, src, size_bytes);
}
absl::Status CpuBackend::CopyOnDevice(void* dst, const void* src, size_t size_bytes) {
  return CopyFromHost(dst, src, size_bytes);
}
absl::Status CpuBackend::CopyFromHostAside(void* dst, const void* src, size_t size_bytes) {
  return CopyFromHost(dst, src, size_bytes);
}
absl::Status CpuBackend::JoinCopies() { return absl::OkStatus(); }
absl::Status CpuBackend::FillZero(void* dst, size_t size_bytes) {
  if (size_bytes > 0) std::memset(dst, 0, size_bytes);
  return absl::OkStatus();
}

absl::Status CpuBackend::RunCaptured(std::unique_ptr<CapturedSequence>* sequence,
                                     const std::function<void()>& issue) {
  issue();
  return absl::OkStatus();
}

MemoryInfo CpuBackend::memory() const {
  MemoryInfo info;
  const MachineResources resources = ReadMachineResources();
  info.total_bytes = resources.memory_bytes;
  info.free_bytes = resources.available_memory_bytes;
  absl::MutexLock lock(&mutex_);
  info.allocated_bytes = allocated_bytes_;
  info.peak_allocated_bytes = peak_allocated_bytes_;
  return info;
}

void CpuBackend::ResetPeak() {
  absl::MutexLock lock(&mutex_);
  peak_allocated_bytes_ = allocated_bytes_;
}

std::unique_ptr<Backend> NewCpuBackend(const CpuBackendOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace uniquanf
