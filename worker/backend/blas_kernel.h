// Choice of OpenBLAS's kernels on processors that are newer than the library, and the memory that
// it takes.
#ifndef UNIQUANF_WORKER_BACKEND_BLAS_KERNEL_H_
#define UNIQUANF_WORKER_BACKEND_BLAS_KERNEL_H_

#include "absl/status/status.h"

namespace uniquanf {

// OpenBLAS picks kernels by processor model, and falls back to SSE3 ones on a model that it does
// not know (0.3.21 on Emerald Rapids: a fifth of the speed). Where it fell back and the processor
// has AVX-512 or AVX2, this switches to the SkylakeX or Haswell kernels. Does nothing when
// OPENBLAS_CORETYPE is set, when the library chose well, or when it is a build without a choice.
// Thread safety: the first call does the work and must come before BLAS is used elsewhere.
void SelectBlasKernel();

// Whether the kernel in use is one of those whose sgemm gives each row of the result the same bits
// whether 64 or 256 rows are computed at once (measured for OpenBLAS 0.3.21; Haswell's and Zen's do
// not). Call after SelectBlasKernel. Thread-safe.
bool BlasMergesPieces();

// Whether the limit on the process's address space (ulimit -v) leaves room for what BLAS allocates
// in products on `num_threads` threads (0: as a CPU backend chooses): where it does not, OpenBLAS
// tries again for ever. To be asked before NewCpuBackend. Error: kResourceExhausted
// (OUT_OF_MEMORY).
absl::Status CheckMemoryForBlas(int num_threads);
// Ends the process with `code` where such a limit is set, without OpenBLAS's own end, which would
// wait for threads that may still try to allocate; else returns.
void EndPastBlas(int code);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BACKEND_BLAS_KERNEL_H_
