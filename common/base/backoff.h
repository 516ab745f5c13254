// How long to wait after a failure before the next attempt.
//
// Thread safety: free functions, no state; draws come from the caller, so that they can be seeded.
#ifndef UNIQUANF_COMMON_BASE_BACKOFF_H_
#define UNIQUANF_COMMON_BASE_BACKOFF_H_

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace uniquanf {

// `initial` after the first failure, twice as long after each further one, at most `max`. With
// num_failures < 1 as after the first.
inline absl::Duration ExponentialBackoff(absl::Duration initial, absl::Duration max,
                                         int64_t num_failures) {
  const int64_t doublings = std::clamp<int64_t>(num_failures - 1, 0, 30);
  return std::min(max, initial * (int64_t{1} << doublings));
}

// Between half and all of `wait`, for `draw` in [0, 1): those that failed together come back
// spread out, and none at once.
inline absl::Duration WithJitter(absl::Duration wait, double draw) {
  return wait * (0.5 + 0.5 * draw);
}

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_BACKOFF_H_
