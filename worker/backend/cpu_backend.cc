#include "worker/backend/cpu_backend.h"

#include <cblas.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
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

}  // namespace

CpuBackend::CpuBackend(const CpuBackendOptions& options)
    : pool_(options.num_threads > 0 ? options.num_threads : ReadMachineResources().num_cpus),
      merges_products_((SelectBlasKernel(), BlasMergesPieces())) {
  // Our own pool cuts the work, so that the bits do not depend on how many threads there are.
  openblas_set_num_threads(1);
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
