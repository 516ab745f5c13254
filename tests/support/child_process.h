// A program under test: started with its own log, killed as from outside, waited for with a
// deadline.
//
// Thread safety: none. The destructor kills what still runs.
#ifndef UNIQUANF_TESTS_SUPPORT_CHILD_PROCESS_H_
#define UNIQUANF_TESTS_SUPPORT_CHILD_PROCESS_H_

#include <sys/types.h>

#include <functional>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace uniquanf {

struct ExitStatus {
  int code = -1;   // of exit(), when signal is 0
  int signal = 0;  // that killed it
  bool operator==(const ExitStatus&) const = default;
  friend std::ostream& operator<<(std::ostream& out, const ExitStatus& status) {
    return status.signal != 0 ? out << "killed by signal " << status.signal
                              : out << "exit code " << status.code;
  }
};

class ChildProcess {
 public:
  // Both outputs are appended to `log_file`. `environment` is added to this process's. Aborts the
  // test when the program cannot be started.
  ChildProcess(const std::string& program, const std::vector<std::string>& arguments,
               const std::map<std::string, std::string>& environment, const std::string& log_file);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void Signal(int signal);
  // Whether a handler of its own, or a thread that waits for it, would get the signal (other than
  // SIGUSR1). One that has not come as far is ended by it.
  bool Handles(int signal) const;
  // SIGKILL, and waits until it is gone.
  void Kill();
  // nullopt when it still runs after `timeout`.
  std::optional<ExitStatus> WaitForExit(absl::Duration timeout);
  bool running() { return !WaitForExit(absl::ZeroDuration()).has_value(); }
  pid_t pid() const { return pid_; }
  // All that it has written so far.
  std::string Log() const;

 private:
  const std::string log_file_;
  pid_t pid_ = -1;
  std::optional<ExitStatus> exit_status_;
};

// Polls every few milliseconds; false when `condition` does not hold within `timeout`.
bool WaitUntil(const std::function<bool()>& condition, absl::Duration timeout);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_CHILD_PROCESS_H_
