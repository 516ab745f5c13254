// Stands in for the CUDA backend in builds without nvcc.
#include "common/base/status.h"
#include "worker/backend/backend.h"
#include "worker/backend/gpu_monitor.h"

namespace uniquanf {

bool CudaBuilt() { return false; }
int NumCudaDevices() { return 0; }
std::string CudaPciBusId(int) { return ""; }

absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(int device_index) {
  return MakeError(
      absl::StatusCode::kUnimplemented, "CUDA_NOT_BUILT",
      "this build has no CUDA backend; rebuild with -DUNIQUANF_CUDA=ON and nvcc on PATH, "
      "or use --device cpu");
}

}  // namespace uniquanf
