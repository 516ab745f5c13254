#include "client/cli/interrupt.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/check.h"

namespace uniquanf::cli {
namespace {

// A signal handler can reach nothing but globals; the pipe carries the news to a normal thread.
int interrupt_pipe[2] = {-1, -1};

// timeout(1) and shells may signal the process and its group: one wish, two signals.
constexpr absl::Duration kSamePress = absl::Milliseconds(500);

void OnSignal(int) {
  const int saved_errno = errno;
  const char byte = 'i';
  if (::write(interrupt_pipe[1], &byte, 1) < 0) {
    // The pipe is full of earlier signals; one more says nothing new.
  }
  errno = saved_errno;
}

}  // namespace

InterruptHandler::InterruptHandler(std::function<void()> on_interrupt) {
  UQ_CHECK(interrupt_pipe[0] == -1 && ::pipe2(interrupt_pipe, O_CLOEXEC) == 0);
  thread_ = std::thread([this, on_interrupt = std::move(on_interrupt)] {
    absl::Time first = absl::InfiniteFuture();
    while (true) {
      char byte = 0;
      const ssize_t n = ::read(interrupt_pipe[0], &byte, 1);
      if (n < 0 && errno == EINTR) continue;
      if (n != 1 || byte != 'i') return;
      if (!interrupted_.exchange(true)) {
        first = absl::Now();
        on_interrupt();
      } else if (absl::Now() - first > kSamePress) {
        std::signal(SIGINT, SIG_DFL);
        ::kill(::getpid(), SIGINT);
      }
    }
  });
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

InterruptHandler::~InterruptHandler() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  const char byte = 'q';
  if (::write(interrupt_pipe[1], &byte, 1) == 1) thread_.join();
  ::close(interrupt_pipe[0]);
  ::close(interrupt_pipe[1]);
  interrupt_pipe[0] = interrupt_pipe[1] = -1;
}

}  // namespace uniquanf::cli
