// Ctrl-C (SIGINT) and SIGTERM as a callback, for commands that have something to tidy up or to say.
#ifndef UNIQUANF_CLIENT_CLI_INTERRUPT_H_
#define UNIQUANF_CLIENT_CLI_INTERRUPT_H_

#include <atomic>
#include <functional>
#include <thread>

namespace uniquanf::cli {

// While it lives, the first signal calls `on_interrupt` on a thread of its own; a second one ends
// the process as usual. REQUIRES: at most one at a time. Thread safety: interrupted() from any
// thread.
class InterruptHandler {
 public:
  explicit InterruptHandler(std::function<void()> on_interrupt);
  ~InterruptHandler();
  InterruptHandler(const InterruptHandler&) = delete;
  InterruptHandler& operator=(const InterruptHandler&) = delete;

  bool interrupted() const { return interrupted_.load(); }

 private:
  std::atomic<bool> interrupted_{false};
  std::thread thread_;
};

}  // namespace uniquanf::cli

#endif  // UNIQUANF_CLIENT_CLI_INTERRUPT_H_
