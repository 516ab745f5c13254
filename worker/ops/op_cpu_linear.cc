#include <cstring>

#include "worker/ops/op_cpu.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::ops::cpu {

void LinearForward(Backend* backend, const Tensor& x, const Tensor& w, const Tensor* bias,
                   Tensor* y) {
  CpuBackend* cpu = CpuBackend::From(backend);
  GemmArgs args;
  args.transpose_b = true;
  args.n = w.dim(0);
  args.k = w.dim(1);
  args.m = x.num_elements() / args.k;
  args.a = x.f32();
  args.lda = args.k;
  if (w.dtype() == DType::kBfloat16) {
    args.b_bf16 = static_cast<const uint16_t*>(w.data());
  } else {
    args.b = w.f32();
  }
  args.ldb = args.k;
  args.c = y->f32();
  args.ldc = args.n;
  if (bias != nullptr) {
    // The bias is put in first and the product added to it, which saves a pass over y.
    const float* source = bias->f32();
    ParallelChunks(cpu, args.m, RowChunk(args.n), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        std::memcpy(args.c + t * args.n, source, args.n * sizeof(float));
      }
    });
    args.beta = 1.0f;
  }
  Gemm(cpu, args);
}

void LinearBackwardInput(Backend* backend, const Tensor& dy, const Tensor& w, bool accumulate,
                         Tensor* dx) {
  GemmArgs args;
  args.n = w.dim(1);
  args.k = w.dim(0);
  args.m = dy.num_elements() / args.k;
  args.a = dy.f32();
  args.lda = args.k;
  args.b = w.f32();
  args.ldb = args.n;
  args.beta = accumulate ? 1.0f : 0.0f;
  args.c = dx->f32();
  args.ldc = args.n;
  Gemm(CpuBackend::From(backend), args);
}

void LinearBackwardWeight(Backend* backend, const Tensor& dy, const Tensor& x, bool accumulate,
                          Tensor* dw) {
  GemmArgs args;
  args.transpose_a = true;
  args.m = dw->dim(0);
  args.n = dw->dim(1);
  args.k = dy.num_elements() / args.m;
  args.a = dy.f32();
  args.lda = args.m;
  args.b = x.f32();
  args.ldb = args.n;
  args.beta = accumulate ? 1.0f : 0.0f;
  args.c = dw->f32();
  args.ldc = args.n;
  Gemm(CpuBackend::From(backend), args);
}

}  // namespace uniquanf::ops::cpu
