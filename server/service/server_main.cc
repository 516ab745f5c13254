#include "server/service/server_main.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/ready_file.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/telemetry/logger.h"
#include "common/telemetry/telemetry_server.h"
#include "server/runtime/janitor.h"
#include "server/service/server_flags.h"
#include "server/service/server_metrics.h"
#include "server/service/server_process.h"

namespace uniquanf::server {
namespace {

// Keeps the ready file: there while this server listens and is active. Thread-safe.
class Readiness {
 public:
  explicit Readiness(std::string path) : path_(std::move(path)) {}
  absl::Status SetAddress(const std::string& address) {
    absl::MutexLock lock(&mutex_);
    address_ = address;
    return active_ ? WriteReadyFile(path_, address_) : absl::OkStatus();
  }
  void SetActive(bool active) {
    absl::MutexLock lock(&mutex_);
    active_ = active;
    std::error_code error;
    if (!active && !path_.empty()) std::filesystem::remove(path_, error);
    if (active && !address_.empty()) WriteReadyFile(path_, address_).IgnoreError();
  }

 private:
  const std::string path_;
  absl::Mutex mutex_;
  std::string address_ ABSL_GUARDED_BY(mutex_);
  bool active_ ABSL_GUARDED_BY(mutex_) = false;
};

int Run(const ServerFlags& flags) {
  // Debian builds Abseil with it on: a process-wide lock, and a search, at every lock of a Mutex.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
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
  const std::unique_ptr<LogSink> sink = NewStderrSink();
  Logger logger(sink.get(), &SystemClock(),
                flags.log_format == "json" ? LogFormat::kJson : LogFormat::kText,
                ParseLogLevel(flags.log_level).value_or(LogLevel::kInfo));
  ServerMetrics metrics(&logger);
  const std::unique_ptr<IdGenerator> ids = NewRandomIdGenerator();
  std::atomic<bool> fatal{false};
  ServerProcessOptions options;
  options.listen = flags.listen;
  options.object_root = flags.object_root;
  options.tls = flags.tls;
  options.shutdown_timeout = flags.shutdown_timeout;
  options.runtime.policy = flags.policy;
  options.runtime.random_seed = std::hash<std::string>()(ids->NewId("seed"));
  options.runtime.on_fatal = [&fatal, &logger](const absl::Status& status) {
    logger.Error("the state is lost to this server; it ends",
                 {{"message", std::string(status.message())}});
    fatal = true;
    kill(getpid(), SIGTERM);
  };
  // The ready file says that this server takes calls, so a standby has none.
  Readiness readiness(flags.ready_file);
  options.runtime.on_active = [&readiness, &logger](const absl::Status& status) {
    if (status.ok()) {
      logger.Info("this server is active");
    } else {
      logger.Info("this server stands by", {{"message", std::string(status.message())}});
    }
    readiness.SetActive(status.ok());
  };
  ServerProcess server(std::move(options), *std::move(store), &SystemClock(), ids.get(), &metrics,
                       &metrics);
  absl::Status status = server.Start();
  std::atomic<bool> serving{true};
  std::unique_ptr<TelemetryServer> telemetry;
  if (status.ok() && !flags.metrics_listen.empty()) {
    TelemetryServerOptions telemetry_options;
    telemetry_options.listen = flags.metrics_listen;
    telemetry_options.registry = metrics.registry();
    telemetry_options.before_scrape = [&] {
      metrics.SetWatchStreams(server.runtime()->watch_hub().num_watchers());
    };
    telemetry_options.ready = [&] {
      return serving && !fatal ? server.runtime()->availability()
                               : Unavailable("SHUTTING_DOWN", "the server shuts down");
    };
    absl::StatusOr<std::unique_ptr<TelemetryServer>> started =
        TelemetryServer::Start(std::move(telemetry_options));
    status = started.status();
    if (started.ok()) telemetry = *std::move(started);
  }
  std::string address = flags.listen.substr(0, flags.listen.rfind(':'));
  absl::StrAppend(&address, ":", server.port());
  if (status.ok()) status = readiness.SetAddress(address);
  if (!status.ok()) {
    std::fprintf(stderr, "uniquanf-server: %s\n", std::string(status.message()).c_str());
    return absl::IsInvalidArgument(status) ? 2 : 1;  // 2: a flag's value, such as a TLS file's
  }
  std::printf("listening on %s\n", address.c_str());
  std::fflush(stdout);
  logger.Info("serving", {{"address", address},
                          {"version", kSoftwareVersion},
                          {"state", DisplayState(flags.state)},
                          {"object_root", flags.object_root},
                          {"metrics_port", telemetry == nullptr ? 0 : telemetry->port()}});
  JanitorOptions janitor_options;
  janitor_options.object_root = flags.object_root;
  // A worker stops a task within half a minute of the end of its lease, or exits.
  janitor_options.late_write_grace = flags.policy.lease_duration + absl::Minutes(2);
  janitor_options.unfinished_write_age = flags.unfinished_upload_age == absl::ZeroDuration()
                                             ? absl::InfiniteDuration()
                                             : flags.unfinished_upload_age;
  janitor_options.on_unfinished_writes = [&logger](const absl::StatusOr<int>& removed) {
    if (removed.ok()) {
      logger.Info("unfinished uploads removed", {{"uploads", *removed}});
    } else {
      logger.Warning("unfinished uploads not removed; will try again",
                     {{"message", std::string(removed.status().message())}});
    }
  };
  janitor_options.on_swept = [&logger](const std::string& uid, int64_t num_objects,
                                       const absl::Status& swept) {
    if (swept.ok() && num_objects == 0) return;  // the look for late writes
    if (swept.ok()) {
      logger.Info("working objects deleted", {{"uid", uid}, {"objects", num_objects}});
    } else {
      logger.Warning("working objects not deleted; will try again",
                     {{"uid", uid}, {"message", std::string(swept.message())}});
    }
  };
  auto janitor = std::make_unique<Janitor>(janitor_options, server.runtime());

  int received = 0;
  sigwait(&signals, &received);
  std::thread([signals] {
    int again = 0;
    sigwait(&signals, &again);
    _exit(1);
  }).detach();
  serving = false;
  logger.Info("shutting down", {{"signal", received}});
  janitor.reset();
  server.Shutdown();
  telemetry.reset();
  logger.Info("stopped");
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
