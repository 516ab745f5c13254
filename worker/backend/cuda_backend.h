// The CUDA backend: one stream, a side stream for the optimizer and one for copies, cuBLASLt. For
// op implementations only.
//
// Determinism: matrix products use the first algorithm cuBLASLt's heuristic gives for a shape,
// without atomics, and the same one ever after; kernels reduce in a fixed order. So bits depend on
// the device and the library versions, which description() names.
// Thread safety and lifetime: as Backend.
#ifndef UNIQUANF_WORKER_BACKEND_CUDA_BACKEND_H_
#define UNIQUANF_WORKER_BACKEND_CUDA_BACKEND_H_

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "worker/backend/backend.h"
#include "worker/backend/tensor.h"

namespace uniquanf {

class CudaMatmul;

class CudaBackend : public Backend {
 public:
  ~CudaBackend() override;
  static absl::StatusOr<std::unique_ptr<Backend>> Create(int device_index);

  // REQUIRES: backend->kind() == kCuda.
  static CudaBackend* From(Backend* backend) { return static_cast<CudaBackend*>(backend); }
  static const CudaBackend& From(const Backend& backend) {
    return static_cast<const CudaBackend&>(backend);
  }

  // For launching kernels; makes this backend's device the calling thread's current one.
  cudaStream_t stream();
  // Where an update that nothing later in the sequence depends on goes. Inside RunCaptured (when
  // overlapping is on) this is the side stream, ordered after everything issued so far and joined
  // at the end of the sequence; elsewhere it is stream().
  cudaStream_t ForkForUpdate();
  // Off: ForkForUpdate is always stream(). On by default; results are the same bits either way.
  void set_overlap(bool on) { overlap_ = on; }
  CudaMatmul& matmul() { return *matmul_; }
  int num_multiprocessors() const { return properties_.multiProcessorCount; }
  // Largest dynamic shared memory a block may ask for.
  int max_shared_bytes() const { return static_cast<int>(properties_.sharedMemPerBlockOptin); }
  // Call after every launch: keeps the first error for Synchronize.
  void NoteLaunch() { Note(cudaGetLastError()); }
  void Note(cudaError_t error) {
    if (error != cudaSuccess && first_error_ == cudaSuccess) first_error_ = error;
  }
  void NoteMatmul(cublasStatus_t status) {
    if (status != CUBLAS_STATUS_SUCCESS && first_matmul_error_ == CUBLAS_STATUS_SUCCESS) {
      first_matmul_error_ = status;
    }
  }

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::string description() const override;
  absl::StatusOr<void*> Allocate(size_t size_bytes) override;
  void Free(void* pointer) override;
  absl::StatusOr<void*> AllocateHost(size_t size_bytes) override;
  void FreeHost(void* pointer) override;
  absl::Status CopyFromHost(void* dst, const void* src, size_t size_bytes) override;
  absl::Status CopyToHost(void* dst, const void* src, size_t size_bytes) override;
  absl::Status CopyOnDevice(void* dst, const void* src, size_t size_bytes) override;
  absl::Status CopyFromHostAside(void* dst, const void* src, size_t size_bytes) override;
  absl::Status JoinCopies() override;
  absl::Status FillZero(void* dst, size_t size_bytes) override;
  absl::Status Synchronize() override;
  // The first call issues the ops one by one (which loads every kernel), the second records and
  // runs them, later ones replay: `issue` is called twice in all.
  absl::Status RunCaptured(std::unique_ptr<CapturedSequence>* sequence,
                           const std::function<void()>& issue) override;
  MemoryInfo memory() const override;
  void ResetPeak() override { peak_allocated_bytes_ = allocated_bytes_; }

 private:
  explicit CudaBackend(int device_index);
  absl::Status Initialize();
  void JoinUpdates();
  absl::Status TakeError();
  // A page-locked copy of a small host buffer, valid until the copy to the device has been made.
  absl::StatusOr<const void*> Stage(const void* src, size_t size_bytes);

  const int device_;
  cudaDeviceProp properties_{};
  cudaStream_t stream_ = nullptr, side_stream_ = nullptr, copy_stream_ = nullptr;
  cudaEvent_t fork_event_ = nullptr, join_event_ = nullptr, copy_event_ = nullptr;
  bool overlap_ = true, in_sequence_ = false, forked_ = false;
  cudaError_t first_error_ = cudaSuccess;
  cublasStatus_t first_matmul_error_ = CUBLAS_STATUS_SUCCESS;
  std::unique_ptr<CudaMatmul> matmul_;
  // Copies from pageable memory wait for the stream, which would stop the host once a step: small
  // ones pass through this page-locked ring instead.
  static constexpr size_t kStagingBytes = size_t{4} << 20, kLargestStagedBytes = size_t{64} << 10;
  char* staging_ = nullptr;
  size_t staging_used_ = 0;
  std::unordered_map<void*, size_t> allocations_;
  uint64_t allocated_bytes_ = 0, peak_allocated_bytes_ = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BACKEND_CUDA_BACKEND_H_
