#include "server/service/server_main.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "server/service/server_flags.h"
#include "server/service/server_process.h"

namespace uniquanf::server {
namespace {

// Written whole and renamed, so that who waits for it never reads half an address.
absl::Status WriteReadyFile(const std::string& path, const std::string& address) {
  if (path.empty()) return absl::OkStatus();
  const std::string temporary = absl::StrCat(path, ".tmp");
  std::ofstream out(temporary, std::ios::trunc);
  out << address << "\n";
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(temporary, path, error);
  if (!out || error) {
    return FailedPrecondition("READY_FILE", absl::StrCat("cannot write --ready-file=", path));
  }
  return absl::OkStatus();
}

int Run(const ServerFlags& flags) {
  // Every thread inherits this mask, so signals come to sigwait alone.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  std::error_code error;
  std::filesystem::create_directories(flags.data_dir, error);
  if (error) {
    std::fprintf(stderr, "uniquanf-server: cannot create --data-dir=%s: %s\n",
                 flags.data_dir.c_str(), error.message().c_str());
    return 1;
  }
  absl::StatusOr<std::unique_ptr<JobStore>> store = NewJobStore(flags.state);
  if (!store.ok()) {
    std::fprintf(stderr, "uniquanf-server: --state: %s\n",
                 std::string(store.status().message()).c_str());
    return 2;
  }
  const std::unique_ptr<IdGenerator> ids = NewRandomIdGenerator();
  std::atomic<bool> fatal{false};
  ServerProcessOptions options;
  options.listen = flags.listen;
  options.object_root = flags.object_root;
  options.tls = flags.tls;
  options.shutdown_timeout = flags.shutdown_timeout;
  options.runtime.policy = flags.policy;
  options.runtime.random_seed = std::hash<std::string>()(ids->NewId("seed"));
  options.runtime.on_fatal = [&fatal](const absl::Status& status) {
    fatal = true;
    kill(getpid(), SIGTERM);
  };
  ServerProcess server(std::move(options), *std::move(store), &SystemClock(), ids.get(), nullptr,
                       nullptr);
  absl::Status status = server.Start();
  std::string address = flags.listen.substr(0, flags.listen.rfind(':'));
  absl::StrAppend(&address, ":", server.port());
  if (status.ok()) status = WriteReadyFile(flags.ready_file, address);
  if (!status.ok()) {
    std::fprintf(stderr, "uniquanf-server: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  std::printf("listening on %s\n", address.c_str());
  std::fflush(stdout);

  int received = 0;
  sigwait(&signals, &received);
  std::thread([signals] {
    int again = 0;
    sigwait(&signals, &again);
    _exit(1);
  }).detach();
  server.Shutdown();
  return fatal ? 1 : 0;
}

}  // namespace

int ServerMain(int argc, char** argv) {
  const absl::StatusOr<ServerFlags> flags =
      ParseServerFlags(std::vector<std::string>(argv + 1, argv + argc));
  if (!flags.ok()) {
    std::fprintf(stderr, "uniquanf-server: %s\nTry uniquanf-server --help.\n",
                 std::string(flags.status().message()).c_str());
    return 2;
  }
  if (!flags->help.empty()) {
    std::fputs(flags->help.c_str(), stdout);
    return 0;
  }
  if (flags->version) {
    std::printf("uniquanf-server %s (protocol %d)\n", kSoftwareVersion, kProtocolVersion);
    return 0;
  }
  return Run(*flags);
}

}  // namespace uniquanf::server
