// Matrix products through cuBLASLt, with one algorithm per shape for the life of the process.
//
// Thread safety: as Backend. Errors: noted in the backend, surface at Synchronize.
#ifndef UNIQUANF_WORKER_BACKEND_CUDA_MATMUL_H_
#define UNIQUANF_WORKER_BACKEND_CUDA_MATMUL_H_

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <tuple>

#include "worker/backend/tensor.h"

struct nvtxDomainRegistration_st;  // of NVTX, whose headers only the source needs

namespace uniquanf {

class CudaMatmul {
 public:
  CudaMatmul() = default;
  ~CudaMatmul();
  CudaMatmul(const CudaMatmul&) = delete;
  CudaMatmul& operator=(const CudaMatmul&) = delete;
  cublasStatus_t Create();

  // Row-major c[m, n] = a · b (+ c when accumulate), where a is [m, k] (or [k, m] when
  // transpose_a) and b is [k, n] (or [n, k] when transpose_b). a and b are of type `act` (f32 or
  // bf16), c of type `out` (act or f32); products are accumulated in fp32, never in TF32. Rows of c
  // lie `c_stride` elements apart; 0: n.
  cublasStatus_t Multiply(DType act, DType out, bool transpose_a, bool transpose_b, int64_t m,
                          int64_t n, int64_t k, const void* a, const void* b, bool accumulate,
                          void* c, cudaStream_t stream, int64_t c_stride = 0);
  size_t workspace_bytes() const { return kWorkspaceBytes; }

 private:
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;
  struct Plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
  };
  using Key = std::tuple<DType, DType, bool, bool, int64_t, int64_t, int64_t, int64_t, bool>;
  cublasStatus_t MakePlan(const Key& key, Plan* plan);

  cublasLtHandle_t handle_ = nullptr;
  nvtxDomainRegistration_st* domain_ = nullptr;  // see MarkInitialized
  void* workspace_ = nullptr;
  std::map<Key, Plan> plans_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BACKEND_CUDA_MATMUL_H_
