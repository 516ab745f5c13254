// How op.cc and its like check arguments and choose a device's implementation. Internal to
// worker/ops.
#ifndef UNIQUANF_WORKER_OPS_OP_CHECK_H_
#define UNIQUANF_WORKER_OPS_OP_CHECK_H_

#include <initializer_list>

#include "common/base/check.h"
#include "worker/ops/op_cpu.h"
#if defined(UNIQUANF_HAVE_CUDA)
#include "worker/ops/op_cuda.h"
#endif

#if defined(UNIQUANF_HAVE_CUDA)
#define UQ_DISPATCH(backend, call) ((backend)->kind() == DeviceKind::kCuda ? cuda::call : cpu::call)
#else
#define UQ_DISPATCH(backend, call) cpu::call
#endif

namespace uniquanf::ops {

inline int64_t LastDim(const Tensor& tensor) {
  return tensor.shape().empty() ? 1 : tensor.shape().back();
}

inline void CheckActivation(const Backend* backend, const Tensor& tensor, DType dtype) {
  UQ_CHECK(!tensor.empty());
  UQ_CHECK(tensor.backend() == backend);
  UQ_CHECK(tensor.dtype() == dtype);
}

// All tensors are on `backend` and of one activation type that it supports.
inline void CheckActivations(const Backend* backend, std::initializer_list<const Tensor*> tensors) {
  const DType dtype = (*tensors.begin())->dtype();
  UQ_CHECK(dtype == DType::kFloat32 ||
           (dtype == DType::kBfloat16 && backend->kind() == DeviceKind::kCuda));
  for (const Tensor* tensor : tensors) CheckActivation(backend, *tensor, dtype);
}

inline void CheckFloats(const Backend* backend, const Tensor& tensor, int64_t num_elements) {
  CheckActivation(backend, tensor, DType::kFloat32);
  UQ_CHECK(tensor.num_elements() == num_elements);
}

inline void CheckSameSize(std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* tensor : tensors) {
    UQ_CHECK(tensor->num_elements() == (*tensors.begin())->num_elements());
  }
}

}  // namespace uniquanf::ops

#endif  // UNIQUANF_WORKER_OPS_OP_CHECK_H_
