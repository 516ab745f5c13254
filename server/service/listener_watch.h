// Asks the server's own gRPC port for its health every few seconds, through the real socket, so
// that a port that nobody can reach is noticed: by /healthz first, and in the end by ending the
// process, which is what makes it serve again where no supervisor probes it.
//
// Thread safety: thread-safe; works on a thread of its own. Lifetime: borrows the listener; the
// destructor waits for a check under way (its timeout at most).
#ifndef UNIQUANF_SERVER_SERVICE_LISTENER_WATCH_H_
#define UNIQUANF_SERVER_SERVICE_LISTENER_WATCH_H_

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/rpc/guarded_listener.h"

namespace uniquanf::server {

struct ListenerWatchOptions {
  absl::Duration period = absl::Seconds(2);
  absl::Duration timeout = absl::Seconds(2);
  // Checks in a row that fail before health() says so, and before on_dead is called (once). Checks
  // are counted, not time: a process that was stopped for a while is not dead.
  int max_failures = 2;
  int max_failures_alive = 10;
  std::function<void(const absl::Status&)> on_dead;
};

class ListenerWatch {
 public:
  ListenerWatch(ListenerWatchOptions options, GuardedListener* listener);
  ~ListenerWatch();

  // OK, or kUnavailable with what the last check found.
  absl::Status health() const;

 private:
  void Run();

  const ListenerWatchOptions options_;
  GuardedListener* const listener_;
  mutable absl::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  int num_failures_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status last_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_LISTENER_WATCH_H_
