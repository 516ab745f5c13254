// Data-parallel loops over host memory, for the work around the numerics: conversions, packing,
// hashing.
//
// Thread safety: may be called from several threads; each call uses threads of its own.
#ifndef UNIQUANF_COMMON_BASE_PARALLEL_H_
#define UNIQUANF_COMMON_BASE_PARALLEL_H_

#include <cstdint>
#include <functional>

namespace uniquanf {

// Calls fn(begin, end) for consecutive pieces of [0, size) of `grain` elements (the last may be
// shorter), each once, on as many threads as the process may use but no more than pieces; runs
// inline when there is only one. The pieces do not depend on the number of threads, so results are
// reproducible when each piece writes its own part. `fn` must not throw.
void ParallelRanges(int64_t size, int64_t grain, const std::function<void(int64_t, int64_t)>& fn);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_PARALLEL_H_
