#include "worker/backend/cuda_backend.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/backend/cuda_matmul.h"
#include "worker/backend/gpu_monitor.h"

namespace uniquanf {
namespace {

// nullptr graph: the ops have run once, so that their kernels are loaded, and nothing is recorded.
class CudaGraph : public CapturedSequence {
 public:
  ~CudaGraph() override {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  }
  cudaGraphExec_t graph = nullptr;
};

absl::Status DeviceError(cudaError_t error, absl::string_view doing) {
  if (error == cudaErrorMemoryAllocation) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
        absl::StrCat("the CUDA device ran out of memory while ", doing,
                     "; use a smaller batch or sequence length, or a device with more memory"));
  }
  return MakeError(
      absl::StatusCode::kInternal, "DEVICE_ERROR",
      absl::StrCat("CUDA failed while ", doing, ": ", cudaGetErrorName(error), " (",
                   cudaGetErrorString(error), "); restart the process to use the device again"));
}

}  // namespace

CudaBackend::CudaBackend(int device_index) : device_(device_index) {}

absl::StatusOr<std::unique_ptr<Backend>> CudaBackend::Create(int device_index) {
  std::unique_ptr<CudaBackend> backend(new CudaBackend(device_index));
  absl::Status status = backend->Initialize();
  if (!status.ok()) return status;
  return std::unique_ptr<Backend>(std::move(backend));
}

absl::Status CudaBackend::Initialize() {
  cudaError_t error = cudaSetDevice(device_);
  if (error == cudaSuccess) error = cudaGetDeviceProperties(&properties_, device_);
  // The step's own ops go first; updates fill what they leave free.
  int least = 0, greatest = 0;
  if (error == cudaSuccess) error = cudaDeviceGetStreamPriorityRange(&least, &greatest);
  if (error == cudaSuccess) {
    error = cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest);
  }
  if (error == cudaSuccess) {
    error = cudaStreamCreateWithPriority(&side_stream_, cudaStreamNonBlocking, least);
  }
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&copy_stream_, cudaStreamNonBlocking);
  if (error == cudaSuccess) error = cudaEventCreateWithFlags(&copy_event_, cudaEventDisableTiming);
  if (error == cudaSuccess) error = cudaEventCreateWithFlags(&fork_event_, cudaEventDisableTiming);
  if (error == cudaSuccess) error = cudaEventCreateWithFlags(&join_event_, cudaEventDisableTiming);
  if (error == cudaSuccess) {
    error = cudaMallocHost(reinterpret_cast<void**>(&staging_), kStagingBytes);
  }
  if (error != cudaSuccess) return DeviceError(error, absl::StrCat("opening device ", device_));
  if (properties_.major < 8) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "CUDA_DEVICE_UNSUPPORTED",
        absl::StrCat("device ", device_, " (", properties_.name, ") has compute capability ",
                     properties_.major, ".", properties_.minor,
                     "; 8.0 or higher is needed. Use another device or --device cpu"));
  }
  matmul_ = std::make_unique<CudaMatmul>();
  const cublasStatus_t status = matmul_->Create();
  if (status != CUBLAS_STATUS_SUCCESS) {
    return MakeError(absl::StatusCode::kInternal, "DEVICE_ERROR",
                     absl::StrCat("cuBLASLt cannot start on device ", device_, ": ",
                                  cublasLtGetStatusString(status)));
  }
  return absl::OkStatus();
}

CudaBackend::~CudaBackend() {
  cudaSetDevice(device_);
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  if (copy_stream_ != nullptr) cudaStreamSynchronize(copy_stream_);
  matmul_.reset();
  if (copy_event_ != nullptr) cudaEventDestroy(copy_event_);
  if (copy_stream_ != nullptr) cudaStreamDestroy(copy_stream_);
  if (fork_event_ != nullptr) cudaEventDestroy(fork_event_);
  if (join_event_ != nullptr) cudaEventDestroy(join_event_);
  if (side_stream_ != nullptr) cudaStreamDestroy(side_stream_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
  if (staging_ != nullptr) cudaFreeHost(staging_);
}

cudaStream_t CudaBackend::stream() {
  Note(cudaSetDevice(device_));
  return stream_;
}

cudaStream_t CudaBackend::ForkForUpdate() {
  cudaStream_t main = stream();
  if (!overlap_ || !in_sequence_) return main;
  Note(cudaEventRecord(fork_event_, main));
  Note(cudaStreamWaitEvent(side_stream_, fork_event_, 0));
  forked_ = true;
  return side_stream_;
}

void CudaBackend::JoinUpdates() {
  if (!forked_) return;
  Note(cudaEventRecord(join_event_, side_stream_));
  Note(cudaStreamWaitEvent(stream_, join_event_, 0));
  forked_ = false;
}

std::string CudaBackend::description() const {
  int runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  return absl::StrCat("cuda; ", properties_.name, "; compute capability ", properties_.major, ".",
                      properties_.minor, "; CUDA ", runtime / 1000, ".", runtime % 1000 / 10,
                      "; cuBLASLt ", cublasLtGetVersion());
}

absl::StatusOr<void*> CudaBackend::Allocate(size_t size_bytes) {
  Note(cudaSetDevice(device_));
  const size_t asked = std::max<size_t>(size_bytes, 1);
  void* pointer = nullptr;
  const cudaError_t error = cudaMalloc(&pointer, asked);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // this error is not sticky; leave no trace of it
    const MemoryInfo info = memory();
    return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                     absl::StrCat("cannot allocate ", size_bytes, " bytes on ", properties_.name,
                                  "; ", info.free_bytes, " of ", info.total_bytes,
                                  " bytes are free and this worker holds ", info.allocated_bytes));
  }
  if (error != cudaSuccess) return DeviceError(error, "allocating memory");
  allocations_[pointer] = asked;
  allocated_bytes_ += asked;
  peak_allocated_bytes_ = std::max(peak_allocated_bytes_, allocated_bytes_);
  return pointer;
}

void CudaBackend::Free(void* pointer) {
  if (pointer == nullptr) return;
  auto it = allocations_.find(pointer);
  UQ_CHECK(it != allocations_.end());
  allocated_bytes_ -= it->second;
  allocations_.erase(it);
  Note(cudaSetDevice(device_));
  Note(cudaFree(pointer));  // waits for the device, so nothing still uses the memory
}

absl::StatusOr<void*> CudaBackend::AllocateHost(size_t size_bytes) {
  void* pointer = nullptr;
  cudaError_t error = cudaSetDevice(device_);
  if (error == cudaSuccess) error = cudaMallocHost(&pointer, std::max<size_t>(size_bytes, 1));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                     absl::StrCat("cannot allocate ", size_bytes,
                                  " bytes of page-locked host memory; free host memory or use "
                                  "fewer or shorter sequences"));
  }
  if (error != cudaSuccess) return DeviceError(error, "allocating page-locked host memory");
  return pointer;
}

// An error here is an earlier one, which the next call reports.
void CudaBackend::FreeHost(void* pointer) {
  if (pointer != nullptr) cudaFreeHost(pointer);
}

absl::StatusOr<const void*> CudaBackend::Stage(const void* src, size_t size_bytes) {
  if (staging_used_ + size_bytes > kStagingBytes) {
    const cudaError_t error = cudaStreamSynchronize(stream());
    if (error != cudaSuccess) return DeviceError(error, "copying to the device");
    staging_used_ = 0;
  }
  char* staged = staging_ + staging_used_;
  std::memcpy(staged, src, size_bytes);
  staging_used_ += (size_bytes + 255) / 256 * 256;
  return staged;
}

absl::Status CudaBackend::CopyFromHost(void* dst, const void* src, size_t size_bytes) {
  if (size_bytes == 0) return absl::OkStatus();
  if (size_bytes <= kLargestStagedBytes) {
    UQ_ASSIGN_OR_RETURN(src, Stage(src, size_bytes));
  }
  const cudaError_t error = cudaMemcpyAsync(dst, src, size_bytes, cudaMemcpyHostToDevice, stream());
  return error == cudaSuccess ? absl::OkStatus() : DeviceError(error, "copying to the device");
}

absl::Status CudaBackend::CopyToHost(void* dst, const void* src, size_t size_bytes) {
  if (size_bytes > 0) {
    const cudaError_t error =
        cudaMemcpyAsync(dst, src, size_bytes, cudaMemcpyDeviceToHost, stream());
    if (error != cudaSuccess) return DeviceError(error, "copying from the device");
  }
  return Synchronize();
}

absl::Status CudaBackend::CopyOnDevice(void* dst, const void* src, size_t size_bytes) {
  if (size_bytes == 0) return absl::OkStatus();
  const cudaError_t error =
      cudaMemcpyAsync(dst, src, size_bytes, cudaMemcpyDeviceToDevice, stream());
  return error == cudaSuccess ? absl::OkStatus() : DeviceError(error, "copying on the device");
}

absl::Status CudaBackend::CopyFromHostAside(void* dst, const void* src, size_t size_bytes) {
  if (size_bytes == 0) return absl::OkStatus();
  cudaError_t error = cudaEventRecord(copy_event_, stream());
  if (error == cudaSuccess) error = cudaStreamWaitEvent(copy_stream_, copy_event_, 0);
  if (error == cudaSuccess) {
    error = cudaMemcpyAsync(dst, src, size_bytes, cudaMemcpyHostToDevice, copy_stream_);
  }
  return error == cudaSuccess ? absl::OkStatus() : DeviceError(error, "copying to the device");
}

absl::Status CudaBackend::JoinCopies() {
  cudaError_t error = cudaEventRecord(copy_event_, copy_stream_);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(stream(), copy_event_, 0);
  return error == cudaSuccess ? absl::OkStatus() : DeviceError(error, "copying to the device");
}

absl::Status CudaBackend::FillZero(void* dst, size_t size_bytes) {
  if (size_bytes == 0) return absl::OkStatus();
  const cudaError_t error = cudaMemsetAsync(dst, 0, size_bytes, stream());
  return error == cudaSuccess ? absl::OkStatus() : DeviceError(error, "filling memory");
}

absl::Status CudaBackend::TakeError() {
  const cudaError_t error = first_error_;
  const cublasStatus_t matmul_error = first_matmul_error_;
  first_error_ = cudaSuccess;
  first_matmul_error_ = CUBLAS_STATUS_SUCCESS;
  if (error != cudaSuccess) return DeviceError(error, "running kernels");
  if (matmul_error != CUBLAS_STATUS_SUCCESS) {
    return MakeError(absl::StatusCode::kInternal, "DEVICE_ERROR",
                     absl::StrCat("cuBLASLt failed in a matrix product: ",
                                  cublasLtGetStatusString(matmul_error)));
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::Synchronize() {
  Note(cudaStreamSynchronize(stream()));
  return TakeError();
}

absl::Status CudaBackend::RunCaptured(std::unique_ptr<CapturedSequence>* sequence,
                                      const std::function<void()>& issue) {
  cudaStream_t main = stream();
  auto* recorded = static_cast<CudaGraph*>(sequence->get());
  if (recorded == nullptr) {
    in_sequence_ = true;
    issue();
    JoinUpdates();
    in_sequence_ = false;
    *sequence = std::make_unique<CudaGraph>();
    return absl::OkStatus();
  }
  if (recorded->graph == nullptr) {
    cudaError_t error = cudaStreamBeginCapture(main, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) return DeviceError(error, "recording a graph");
    in_sequence_ = true;
    issue();
    JoinUpdates();
    in_sequence_ = false;
    cudaGraph_t graph = nullptr;
    error = cudaStreamEndCapture(main, &graph);
    if (error == cudaSuccess) error = cudaGraphInstantiate(&recorded->graph, graph, 0);
    if (graph != nullptr) cudaGraphDestroy(graph);
    if (error != cudaSuccess) return DeviceError(error, "recording a graph");
  }
  const cudaError_t error = cudaGraphLaunch(recorded->graph, main);
  return error == cudaSuccess ? absl::OkStatus() : DeviceError(error, "replaying a graph");
}

MemoryInfo CudaBackend::memory() const {
  MemoryInfo info;
  size_t free_bytes = 0, total_bytes = 0;
  cudaSetDevice(device_);
  if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) cudaGetLastError();
  info.free_bytes = free_bytes;
  info.total_bytes = total_bytes;
  info.allocated_bytes = allocated_bytes_;
  info.peak_allocated_bytes = peak_allocated_bytes_;
  return info;
}

bool CudaBuilt() { return true; }

int NumCudaDevices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

std::string CudaPciBusId(int device_index) {
  char id[32] = "";
  if (cudaDeviceGetPCIBusId(id, sizeof(id), device_index) != cudaSuccess) {
    cudaGetLastError();
    return "";
  }
  return id;
}

absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(int device_index) {
  const int count = NumCudaDevices();
  if (device_index < 0 || device_index >= count) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "CUDA_DEVICE_NOT_FOUND",
                     absl::StrCat("there is no CUDA device ", device_index, "; ", count,
                                  " are visible. Check the driver and CUDA_VISIBLE_DEVICES, or "
                                  "use --device cpu"));
  }
  return CudaBackend::Create(device_index);
}

}  // namespace uniquanf
