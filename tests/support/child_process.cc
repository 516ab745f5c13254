#include "tests/support/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/check.h"

extern char** environ;

namespace uniquanf {
namespace {
constexpr absl::Duration kPoll = absl::Milliseconds(5);
}  // namespace

ChildProcess::ChildProcess(const std::string& program, const std::vector<std::string>& arguments,
                           const std::map<std::string, std::string>& environment,
                           const std::string& log_file)
    : log_file_(log_file) {
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  std::vector<std::string> added;
  for (const auto& [name, value] : environment) added.push_back(name + "=" + value);
  std::vector<char*> envp;
  for (std::string& variable : added) envp.push_back(variable.data());
  for (char** variable = environ; *variable != nullptr; ++variable) envp.push_back(*variable);
  envp.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  UQ_CHECK(posix_spawn_file_actions_init(&actions) == 0);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                   0644);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  const int error =
      posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    std::fprintf(stderr, "cannot start %s: %s\n", program.c_str(), std::strerror(error));
    std::abort();
  }
}

ChildProcess::~ChildProcess() { Kill(); }

void ChildProcess::Signal(int signal) {
  if (!exit_status_.has_value()) kill(pid_, signal);
}

bool ChildProcess::Handles(int signal) const {
  const auto has = [](uint64_t mask, int s) { return (mask >> (s - 1) & 1) != 0; };
  std::ifstream file(absl::StrCat("/proc/", pid_, "/status"));
  for (std::string name, value; file >> name && std::getline(file, value);) {
    const uint64_t mask = std::strtoull(value.c_str(), nullptr, 16);
    if (name == "SigCgt:" && has(mask, signal)) return true;
    // The C library blocks all signals for the moment in which it makes a thread or a process.
    if (name == "SigBlk:" && has(mask, signal) && !has(mask, SIGUSR1)) return true;
  }
  return false;
}

void ChildProcess::Kill() {
  Signal(SIGKILL);
  UQ_CHECK(WaitForExit(absl::Seconds(30)).has_value());
}

std::optional<ExitStatus> ChildProcess::WaitForExit(absl::Duration timeout) {
  WaitUntil(
      [this] {
        if (exit_status_.has_value()) return true;
        int status = 0;
        if (waitpid(pid_, &status, WNOHANG) != pid_) return false;
        exit_status_ = WIFSIGNALED(status) ? ExitStatus{-1, WTERMSIG(status)}
                                           : ExitStatus{WEXITSTATUS(status), 0};
        return true;
      },
      timeout);
  return exit_status_;
}

std::string ChildProcess::Log() const {
  std::ifstream file(log_file_, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

bool WaitUntil(const std::function<bool()>& condition, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!condition()) {
    if (absl::Now() >= deadline) return false;
    absl::SleepFor(kPoll);
  }
  return true;
}

}  // namespace uniquanf
