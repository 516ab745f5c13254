#include "client/cli/interrupt.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <utility>

#include "common/base/check.h"

namespace uniquanf::cli {
namespace {

constexpr char kInterrupt = 'i', kQuit = 'q';

// A signal handler can reach nothing but globals; the pipe carries the news to a normal thread. It
// stays open: a handler may write while its InterruptHandler ends.
int interrupt_pipe[2] = {-1, -1};
std::atomic<bool> armed{false};           // an InterruptHandler waits for its first signal
std::atomic<int64_t> first_signal_ns{0};  // by CLOCK_MONOTONIC; 0: none yet
std::atomic<int64_t> same_wish_ns{0};
static_assert(std::atomic<int64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free,
              "a signal handler must not wait for a lock");

// Async-signal-safe.
void OnSignal(int signal) {
  const int saved_errno = errno;
  timespec time = {};
  clock_gettime(CLOCK_MONOTONIC, &time);
  const int64_t now = int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  int64_t first = first_signal_ns.load();
  const bool same_wish = first != 0 && now - first < same_wish_ns.load();
  // Where the exchange fails another thread has just taken a signal: the same wish as well.
  if (!same_wish && first_signal_ns.compare_exchange_strong(first, now)) {
    if (!armed.exchange(false)) {
      std::signal(signal, SIG_DFL);
      std::raise(signal);  // delivered when this handler has returned
    } else if (::write(interrupt_pipe[1], &kInterrupt, 1) < 0) {
      // Cannot be: the pipe holds one such byte at most.
    }
  }
  errno = saved_errno;
}

}  // namespace

InterruptHandler::InterruptHandler(std::function<void()> on_interrupt, absl::Duration same_wish) {
  if (interrupt_pipe[0] == -1) UQ_CHECK(::pipe2(interrupt_pipe, O_CLOEXEC) == 0);
  same_wish_ns = absl::ToInt64Nanoseconds(same_wish);
  UQ_CHECK(!armed.exchange(true));
  thread_ = std::thread([this, on_interrupt = std::move(on_interrupt)] { Run(on_interrupt); });
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

void InterruptHandler::Run(const std::function<void()>& on_interrupt) {
  // A signal that was taken is handed over before the end, whatever the order of the two bytes.
  for (bool quit = false; !quit || (taken_.load() && !interrupted_.load());) {
    char byte = 0;
    const ssize_t n = ::read(interrupt_pipe[0], &byte, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n != 1) return;
    if (byte == kQuit) {
      quit = true;
    } else if (!interrupted_.exchange(true)) {
      on_interrupt();
    }
  }
}

InterruptHandler::~InterruptHandler() {
  taken_ = !armed.exchange(false);
  if (::write(interrupt_pipe[1], &kQuit, 1) == 1) thread_.join();
}

}  // namespace uniquanf::cli
