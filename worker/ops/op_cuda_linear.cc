// Linear layers through cuBLASLt.
#include "worker/backend/cuda_backend.h"
#include "worker/backend/cuda_matmul.h"
#include "worker/ops/op_cuda.h"

namespace uniquanf::ops::cuda {

// y[t, n] = bias[n]; in op_cuda_elementwise.cu.
void FillRows(Backend* backend, const Tensor& bias, Tensor* y);

namespace {

void Multiply(Backend* backend, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
              const Tensor& a, const Tensor& b, bool accumulate, Tensor* c) {
  CudaBackend* cuda = CudaBackend::From(backend);
  cuda->NoteMatmul(cuda->matmul().Multiply(a.dtype(), c->dtype(), transpose_a, transpose_b, m, n, k,
                                           a.data(), b.data(), accumulate, c->data(),
                                           cuda->stream()));
}

}  // namespace

void LinearForward(Backend* backend, const Tensor& x, const Tensor& w, const Tensor* bias,
                   Tensor* y) {
  const int64_t num_outputs = w.dim(0), num_inputs = w.dim(1);
  if (bias != nullptr) FillRows(backend, *bias, y);
  Multiply(backend, false, true, x.num_elements() / num_inputs, num_outputs, num_inputs, x, w,
           bias != nullptr, y);
}

void LinearBackwardInput(Backend* backend, const Tensor& dy, const Tensor& w, bool accumulate,
                         Tensor* dx) {
  const int64_t num_outputs = w.dim(0), num_inputs = w.dim(1);
  Multiply(backend, false, false, dy.num_elements() / num_outputs, num_inputs, num_outputs, dy, w,
           accumulate, dx);
}

void LinearBackwardWeight(Backend* backend, const Tensor& dy, const Tensor& x, bool accumulate,
                          Tensor* dw) {
  const int64_t num_outputs = dw->dim(0), num_inputs = dw->dim(1);
  Multiply(backend, true, false, num_outputs, num_inputs, x.num_elements() / num_inputs, dy, x,
           accumulate, dw);
}

}  // namespace uniquanf::ops::cuda
