#include "worker/backend/cpu_backend.h"

#include <cblas.h>
#include <sched.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/backend/blas_kernel.h"

namespace uniquanf {
namespace {

constexpr size_t kAlignment = 256;

int UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

uint64_t FreeHostBytes(uint64_t* total_bytes) {
  struct sysinfo info {};
  if (sysinfo(&info) != 0) return 0;
  *total_bytes = static_cast<uint64_t>(info.totalram) * info.mem_unit;
  return static_cast<uint64_t>(info.freeram + info.bufferram) * info.mem_unit;
}

}  // namespace

CpuBackend::CpuBackend(const CpuBackendOptions& options)
    : pool_(options.num_threads > 0 ? options.num_threads : UsableCores()) {
  // Our own pool cuts the work, so that the bits do not depend on how many threads there are.
  SelectBlasKernel();
  openblas_set_num_threads(1);
}

CpuBackend::~CpuBackend() = default;

std::string CpuBackend::description() const {
  return absl::StrCat("cpu; ", openblas_get_config(), "; kernel ", openblas_get_corename());
}

absl::StatusOr<void*> CpuBackend::Allocate(size_t size_bytes) {
  const size_t rounded =
      (std::max<size_t>(size_bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  void* pointer = rounded < size_bytes ? nullptr : std::aligned_alloc(kAlignment, rounded);
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
  info.free_bytes = FreeHostBytes(&info.total_bytes);
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
