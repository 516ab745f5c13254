#include "tests/fault/outage.h"

#include "absl/time/clock.h"
#include "common/base/check.h"

namespace uniquanf {

void Outage::Begin(absl::Duration downtime) {
  UQ_CHECK(!down());
  Wait();
  past_ = down_for();
  began_at_ = absl::Now();
  ++num_crashes_;
  down_.store(true);
  thread_ = std::thread([this, downtime] {
    if (!what_.crash()) failed_.store(true);
    absl::SleepFor(downtime);
    if (!what_.restart()) failed_.store(true);
    last_ns_.store(absl::ToInt64Nanoseconds(absl::Now() - began_at_));
    down_.store(false);
  });
}

bool Outage::Wait() {
  if (thread_.joinable()) thread_.join();
  return !failed_.load();
}

absl::Duration Outage::down_for() const {
  if (num_crashes_ == 0) return absl::ZeroDuration();
  return past_ + (down() ? absl::Now() - began_at_ : absl::Nanoseconds(last_ns_.load()));
}

}  // namespace uniquanf
