// Wall-clock time that may end jobs: a jump ahead is not believed until it has lasted, or an
// operator confirms it. Deadlines and deletions cannot be taken back.
#include <algorithm>

#include "server/core/mutations.h"

namespace uniquanf::server {

void Mutation::ObserveClock() {
  WallClock& clock = state_.clock;
  const absl::Duration offset = (now_.wall - absl::UnixEpoch()) - now_.mono;
  const absl::Duration tolerance = state_.policy.clock_tolerance;
  const absl::Duration settle_time = state_.policy.clock_settle_time;
  if (offset < clock.trusted_offset) {  // it went back: followed at once, however little
    clock.trusted_offset = offset;
    clock.trusted_at = now_.mono;
  }
  if (offset - clock.trusted_offset > tolerance) {
    if (!clock.ahead_since.has_value() ||
        absl::AbsDuration(offset - clock.ahead_offset) > tolerance) {
      clock.ahead_since = now_.mono;  // a jump, or another one
      clock.ahead_offset = offset;
    }
    // What has lasted is the least of what it said meanwhile.
    clock.ahead_offset = std::min(clock.ahead_offset, offset);
    if (now_.mono - *clock.ahead_since < settle_time) {
      clock.lead = offset - clock.trusted_offset;
      return;
    }
    clock.trusted_offset = clock.ahead_offset;
    clock.trusted_at = now_.mono;
  }
  clock.ahead_since.reset();
  clock.lead = absl::ZeroDuration();
  // A clock that is slewed (by 500 ppm at most, as clocks are) is followed; many small steps must
  // not lead it astray.
  if (now_.mono - clock.trusted_at >= settle_time) {
    clock.trusted_offset = std::min(offset, clock.trusted_offset + settle_time / 1000);
    clock.trusted_at = now_.mono;
  }
}

void Mutation::ConfirmWallClock() {
  WallClock& clock = state_.clock;
  clock.trusted_offset = (now_.wall - absl::UnixEpoch()) - now_.mono;
  clock.trusted_at = now_.mono;
  clock.ahead_since.reset();
  clock.lead = absl::ZeroDuration();
}

}  // namespace uniquanf::server
