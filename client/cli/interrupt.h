// Ctrl-C (SIGINT) and SIGTERM as a callback, for commands that have something to tidy up or to say.
#ifndef UNIQUANF_CLIENT_CLI_INTERRUPT_H_
#define UNIQUANF_CLIENT_CLI_INTERRUPT_H_

#include <atomic>
#include <functional>
#include <thread>

#include "absl/time/time.h"

namespace uniquanf::cli {

// timeout(1) and shells may signal the process and its group: one wish, two signals.
inline constexpr absl::Duration kSameWish = absl::Milliseconds(500);

// While it lives, the first signal calls `on_interrupt` on a thread of its own. Signals within
// `same_wish` of that one are the same wish, also when the handler is gone by then: the process is
// ending as it was asked to, and its exit code says so. Any other signal ends the process as usual.
// The signals' dispositions are not restored. REQUIRES: at most one at a time. Thread safety:
// interrupted() from any thread.
class InterruptHandler {
 public:
  explicit InterruptHandler(std::function<void()> on_interrupt,
                            absl::Duration same_wish = kSameWish);
  ~InterruptHandler();
  InterruptHandler(const InterruptHandler&) = delete;
  InterruptHandler& operator=(const InterruptHandler&) = delete;

  bool interrupted() const { return interrupted_.load(); }

 private:
  void Run(const std::function<void()>& on_interrupt);

  std::atomic<bool> interrupted_{false};
  std::atomic<bool> taken_{false};  // a signal was, or is about to be, handed to the thread
  std::thread thread_;
};

}  // namespace uniquanf::cli

#endif  // UNIQUANF_CLIENT_CLI_INTERRUPT_H_
