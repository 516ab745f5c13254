#include "client/cli/interrupt.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <utility>

#include "common/base/check.h"

namespace uniquanf::cli {
namespace {

// A signal handler can reach nothing but globals; the pipe carries the news to a normal thread.
int interrupt_pipe[2] = {-1, -1};

void OnSignal(int) {
  const int saved_errno = errno;
  const char byte = 'i';
  if (::write(interrupt_pipe[1], &byte, 1) < 0) {
    // Nothing can be done here, and the next signal ends the process.
  }
  errno = saved_errno;
}

}  // namespace

InterruptHandler::InterruptHandler(std::function<void()> on_interrupt) {
  UQ_CHECK(interrupt_pipe[0] == -1 && ::pipe2(interrupt_pipe, O_CLOEXEC) == 0);
  thread_ = std::thread([this, on_interrupt = std::move(on_interrupt)] {
    char byte = 0;
    ssize_t n;
    do {
      n = ::read(interrupt_pipe[0], &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n != 1 || byte != 'i') return;
    interrupted_.store(true);
    on_interrupt();
  });
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  // The second signal finds the default action.
  action.sa_flags = SA_RESTART | SA_RESETHAND;
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
