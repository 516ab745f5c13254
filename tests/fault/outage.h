// A server that others depend on, such as a database, is killed, stays away for a while and comes
// back on its data, while the test goes on.
//
// Thread safety: none. The destructor waits until it is up again.
#ifndef UNIQUANF_TESTS_FAULT_OUTAGE_H_
#define UNIQUANF_TESTS_FAULT_OUTAGE_H_

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "absl/time/time.h"

namespace uniquanf {

// kill -9 to all of its processes, and up again on the same data and address; false: failed.
struct Crashable {
  std::function<bool()> crash, restart;
};

class Outage {
 public:
  explicit Outage(Crashable what) : what_(std::move(what)) {}
  ~Outage() { Wait(); }
  Outage(const Outage&) = delete;
  Outage& operator=(const Outage&) = delete;

  // Kills it; it is started again after `downtime`, and that takes its own time. REQUIRES: !down().
  void Begin(absl::Duration downtime);
  bool down() const { return down_.load(); }
  // Until it is up. False when one of its ends or starts has failed.
  bool Wait();
  int num_crashes() const { return num_crashes_; }
  // In all, until now.
  absl::Duration down_for() const;

 private:
  const Crashable what_;
  std::thread thread_;
  std::atomic<bool> down_{false}, failed_{false};
  int num_crashes_ = 0;
  absl::Time began_at_;
  absl::Duration past_;              // the outages before the last
  std::atomic<int64_t> last_ns_{0};  // the last, once it is over
};

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_FAULT_OUTAGE_H_
