// Building blocks of the CPU ops: matrix products in fixed pieces, parallel loops, thread scratch.
//
// Thread safety: Gemm and ParallelChunks as Backend; Sgemm and ThreadScratch from any chunk.
#ifndef UNIQUANF_WORKER_OPS_OP_CPU_GEMM_H_
#define UNIQUANF_WORKER_OPS_OP_CPU_GEMM_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "worker/backend/cpu_backend.h"

namespace uniquanf::ops::cpu {

// C[M,N] = alpha · op(A)[M,K] · op(B)[K,N] + beta · C, row-major with leading dimensions.
struct GemmArgs {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1.0f;
  const float* a = nullptr;
  int64_t lda = 0;
  const float* b = nullptr;
  int64_t ldb = 0;
  // Gemm with transpose_b: op(B) as bf16 instead of `b`, with the same bits as if it were f32.
  const uint16_t* b_bf16 = nullptr;
  float beta = 0.0f;
  float* c = nullptr;
  int64_t ldc = 0;
};

// One BLAS call on the calling thread; its time is added to the backend's blas_nanoseconds.
void Sgemm(CpuBackend* backend, const GemmArgs& args);
// The same product cut into pieces of C, run by the pool. Where the kernel gives the same bits for
// several pieces at once (BlasMergesPieces) their sizes follow the number of threads, elsewhere the
// shape only: C's bits never depend on the threads.
void Gemm(CpuBackend* backend, const GemmArgs& args);

// Calls fn(begin, end) over [0, count) in chunks of `chunk_size`; small loops run inline.
void ParallelChunks(CpuBackend* backend, int64_t count, int64_t chunk_size,
                    const std::function<void(int64_t, int64_t)>& fn);

// At least `num_floats` uninitialized floats, 64-byte aligned, that belong to the calling thread
// until its next call; they grow and are kept for the thread's lifetime.
float* ThreadScratch(size_t num_floats);

// Elements a chunk of an elementwise loop: long enough to pay for handing it to a thread.
inline constexpr int64_t kElementChunk = 16384;
// Rows a chunk, for loops over rows of `width` elements.
inline int64_t RowChunk(int64_t width) {
  return std::max<int64_t>(1, kElementChunk / std::max<int64_t>(1, width));
}

}  // namespace uniquanf::ops::cpu

#endif  // UNIQUANF_WORKER_OPS_OP_CPU_GEMM_H_
