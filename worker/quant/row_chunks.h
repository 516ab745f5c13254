// How the CPU cuts work on a linear layer's groups. Internal to worker/quant.
#ifndef UNIQUANF_WORKER_QUANT_ROW_CHUNKS_H_
#define UNIQUANF_WORKER_QUANT_ROW_CHUNKS_H_

#include <algorithm>
#include <cstdint>

#include "worker/backend/cpu_backend.h"

namespace uniquanf::quant::cpu {

// Calls fn(begin, end) for ranges of groups of whole rows, about 16k weights each.
template <class State, class Fn>
void ForRowChunks(Backend* backend, const State& s, const Fn& fn) {
  const int64_t rows_per_chunk = std::max<int64_t>(1, 16384 / s.num_inputs());
  const int64_t num_chunks = (s.num_outputs() + rows_per_chunk - 1) / rows_per_chunk;
  CpuBackend::From(backend)->pool().ParallelFor(num_chunks, [&](int64_t chunk) {
    const int64_t end_row = std::min(s.num_outputs(), (chunk + 1) * rows_per_chunk);
    fn(chunk * rows_per_chunk * s.groups_per_row(), end_row * s.groups_per_row());
  });
}

}  // namespace uniquanf::quant::cpu

#endif  // UNIQUANF_WORKER_QUANT_ROW_CHUNKS_H_
