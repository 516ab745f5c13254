// A compute device: memory, copies, ordering. Ops (worker/ops) take a Backend and dispatch on
// kind().
//
// Work on a Backend is issued in order on one stream. On the CPU it has happened when the call
// returns; on CUDA it is asynchronous and errors surface at the next Synchronize or copy to the
// host. Thread safety: one thread at a time. Lifetime: a Backend outlives every Tensor made from
// it. Errors: kResourceExhausted (OUT_OF_MEMORY) from allocations, with bytes asked for and free;
// kInternal (DEVICE_ERROR) from a failing device.
#ifndef UNIQUANF_WORKER_BACKEND_BACKEND_H_
#define UNIQUANF_WORKER_BACKEND_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace uniquanf {

enum class DeviceKind { kCpu, kCuda };

struct MemoryInfo {
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;            // available for new allocations now
  uint64_t allocated_bytes = 0;       // by this backend, now
  uint64_t peak_allocated_bytes = 0;  // by this backend, since ResetPeak
};

// A recorded sequence of ops that can be replayed (a CUDA graph); on the CPU it only marks the
// place.
class CapturedSequence {
 public:
  virtual ~CapturedSequence() = default;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual DeviceKind kind() const = 0;
  // What the results' bits depend on besides the inputs; kept in the manifest. CPU: BLAS library
  // and its kernel. CUDA: device name, compute capability, library versions. No host names, no
  // counts of threads (results do not depend on them).
  virtual std::string description() const = 0;

  // At least 256-byte aligned; contents are undefined. Size 0 gives a non-null unique pointer.
  virtual absl::StatusOr<void*> Allocate(size_t size_bytes) = 0;
  virtual void Free(void* pointer) = 0;
  // Page-locked host memory where the device has such a thing, plain memory elsewhere. These two
  // may be called from any thread.
  virtual absl::StatusOr<void*> AllocateHost(size_t size_bytes) = 0;
  virtual void FreeHost(void* pointer) = 0;

  // Ordered with the ops. CopyToHost has completed when it returns; CopyFromHost may read `src`
  // until the next Synchronize when it is page-locked, else only until it returns.
  virtual absl::Status CopyFromHost(void* dst, const void* src, size_t size_bytes) = 0;
  virtual absl::Status CopyToHost(void* dst, const void* src, size_t size_bytes) = 0;
  virtual absl::Status CopyOnDevice(void* dst, const void* src, size_t size_bytes) = 0;
  // CopyFromHost beside the ops: from page-locked memory, after everything issued so far, at the
  // same time as what is issued next. Ops issued after JoinCopies see the copy; nothing may touch
  // `src` or `dst` between the two.
  virtual absl::Status CopyFromHostAside(void* dst, const void* src, size_t size_bytes) = 0;
  virtual absl::Status JoinCopies() = 0;
  virtual absl::Status FillZero(void* dst, size_t size_bytes) = 0;
  // Waits for everything issued; reports the first error since the last call.
  virtual absl::Status Synchronize() = 0;

  // Runs `issue` (which issues ops and nothing else: no allocation, no copy to or from the host, no
  // synchronization) the first time, recording it in *sequence; later calls replay the recording.
  // All step-dependent values must live in device memory. The CPU calls `issue` every time.
  virtual absl::Status RunCaptured(std::unique_ptr<CapturedSequence>* sequence,
                                   const std::function<void()>& issue) = 0;

  virtual MemoryInfo memory() const = 0;
  virtual void ResetPeak() = 0;
};

struct CpuBackendOptions {
  int num_threads = 0;  // 0: the number of cores this process may use
};
// Results do not depend on num_threads: work is cut into pieces of fixed size, each computed by one
// thread with single-threaded BLAS.
std::unique_ptr<Backend> NewCpuBackend(const CpuBackendOptions& options);

// True when this build has the CUDA backend (it may still find no device).
bool CudaBuilt();
// Number of visible CUDA devices; 0 without a driver or in a build without CUDA.
int NumCudaDevices();
// Errors: kUnimplemented (CUDA_NOT_BUILT), kFailedPrecondition (CUDA_DEVICE_NOT_FOUND).
absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(int device_index);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BACKEND_BACKEND_H_
