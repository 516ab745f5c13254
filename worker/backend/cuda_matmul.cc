#include "worker/backend/cuda_matmul.h"

#include <nvtx3/nvToolsExtMemCudaRt.h>

namespace uniquanf {
namespace {

cudaDataType_t CudaType(DType type) { return type == DType::kBfloat16 ? CUDA_R_16BF : CUDA_R_32F; }

void DestroyLayout(cublasLtMatrixLayout_t layout) {
  if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
}

// Tells compute-sanitizer's initcheck that a product has been written: some of cuBLASLt's kernels
// store through the copy engine, which it does not see. Costs a test of a pointer without a tool.
void MarkInitialized(nvtxDomainHandle_t domain, const void* data, size_t size_bytes,
                     cudaStream_t stream) {
  const nvtxMemVirtualRangeDesc_t range = {size_bytes, data};
  nvtxMemMarkInitializedBatch_t batch = {};
  batch.extCompatID = NVTX_EXT_COMPATID_MEM;
  batch.structSize = sizeof(batch);
  batch.regionType = NVTX_MEM_TYPE_VIRTUAL_ADDRESS;
  batch.regionDescCount = 1;
  batch.regionDescElementSize = sizeof(range);
  batch.regionDescElements = &range;
  nvtxMemCudaMarkInitialized(domain, stream, /*isPerThreadStream=*/0, &batch);
}

}  // namespace

CudaMatmul::~CudaMatmul() {
  if (domain_ != nullptr) nvtxDomainDestroy(domain_);
  for (auto& [key, plan] : plans_) {
    if (plan.operation != nullptr) cublasLtMatmulDescDestroy(plan.operation);
    DestroyLayout(plan.a);
    DestroyLayout(plan.b);
    DestroyLayout(plan.c);
  }
  if (handle_ != nullptr) cublasLtDestroy(handle_);
  if (workspace_ != nullptr) cudaFree(workspace_);
}

cublasStatus_t CudaMatmul::Create() {
  if (cudaMalloc(&workspace_, kWorkspaceBytes) != cudaSuccess) return CUBLAS_STATUS_ALLOC_FAILED;
  domain_ = nvtxDomainCreateA("uniquanf");
  return cublasLtCreate(&handle_);
}

// cuBLASLt is column-major: it computes cᵀ = bᵀ · aᵀ, so its A is our b.
cublasStatus_t CudaMatmul::MakePlan(const Key& key, Plan* plan) {
  const auto [act, out, transpose_a, transpose_b, m, n, k, c_stride, accumulate] = key;
  cublasStatus_t status =
      cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const cublasOperation_t op_a = transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t op_b = transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof(op_a));
  cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof(op_b));
  const int64_t a_rows = transpose_b ? k : n, a_cols = transpose_b ? n : k;
  const int64_t b_rows = transpose_a ? m : k, b_cols = transpose_a ? k : m;
  status = cublasLtMatrixLayoutCreate(&plan->a, CudaType(act), a_rows, a_cols, a_rows);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  status = cublasLtMatrixLayoutCreate(&plan->b, CudaType(act), b_rows, b_cols, b_rows);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  status = cublasLtMatrixLayoutCreate(&plan->c, CudaType(out), n, m, c_stride);
  if (status != CUBLAS_STATUS_SUCCESS) return status;

  cublasLtMatmulPreference_t preference = nullptr;
  status = cublasLtMatmulPreferenceCreate(&preference);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const size_t workspace = kWorkspaceBytes;
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                       &workspace, sizeof(workspace));
  // Split-K only with a separate reduction in a fixed order, never in place.
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                       &reductions, sizeof(reductions));
  cublasLtMatmulHeuristicResult_t result{};
  int num_results = 0;
  status = cublasLtMatmulAlgoGetHeuristic(handle_, plan->operation, plan->a, plan->b, plan->c,
                                          plan->c, preference, 1, &result, &num_results);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (num_results == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  plan->algorithm = result.algo;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CudaMatmul::Multiply(DType act, DType out, bool transpose_a, bool transpose_b,
                                    int64_t m, int64_t n, int64_t k, const void* a, const void* b,
                                    bool accumulate, void* c, cudaStream_t stream,
                                    int64_t c_stride) {
  if (c_stride == 0) c_stride = n;
  const Key key{act, out, transpose_a, transpose_b, m, n, k, c_stride, accumulate};
  auto it = plans_.find(key);
  if (it == plans_.end()) {
    Plan plan;
    const cublasStatus_t status = MakePlan(key, &plan);
    it = plans_.emplace(key, plan).first;
    if (status != CUBLAS_STATUS_SUCCESS) {
      DestroyLayout(plan.a);
      DestroyLayout(plan.b);
      DestroyLayout(plan.c);
      if (plan.operation != nullptr) cublasLtMatmulDescDestroy(plan.operation);
      plans_.erase(it);
      return status;
    }
  }
  const Plan& plan = it->second;
  const float alpha = 1, beta = accumulate ? 1 : 0;
  const cublasStatus_t status =
      cublasLtMatmul(handle_, plan.operation, &alpha, b, plan.a, a, plan.b, &beta, c, plan.c, c,
                     plan.c, &plan.algorithm, workspace_, kWorkspaceBytes, stream);
  MarkInitialized(domain_, c, static_cast<size_t>((m - 1) * c_stride + n) * DTypeBytes(out),
                  stream);
  return status;
}

}  // namespace uniquanf
