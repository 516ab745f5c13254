// Time as a dependency: everything that asks for the time gets a Clock, so that tests own it.
// Thread safety: implementations are thread-safe.
#ifndef UNIQUANF_COMMON_BASE_CLOCK_H_
#define UNIQUANF_COMMON_BASE_CLOCK_H_

#include "absl/time/time.h"

namespace uniquanf {

class Clock {
 public:
  virtual ~Clock() = default;
  // Wall-clock time; may jump. For records that people read.
  virtual absl::Time Now() const = 0;
  // Time since an arbitrary point; never jumps. For leases, timeouts and rates.
  virtual absl::Duration Monotonic() const = 0;
};

// The process's real clock. Never deleted.
const Clock& SystemClock();

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_CLOCK_H_
