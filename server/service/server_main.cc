#include "server/service/server_main.h"

#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/base/clock.h"
#include "common/base/core_dumps.h"
#include "common/base/environment.h"
#include "common/base/file_limit.h"
#include "common/base/ids.h"
#include "common/base/listen_socket.h"
#include "common/base/ready_file.h"
#include "common/base/standard_output.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/rpc/channel.h"
#include "common/rpc/health_check.h"
#include "common/rpc/quiet_grpc.h"
#include "common/telemetry/logger.h"
#include "common/telemetry/process_metrics.h"
#include "common/telemetry/store_metrics.h"
#include "common/telemetry/telemetry_server.h"
#include "server/runtime/janitor.h"
#include "server/service/check_policy.h"
#include "server/service/server_access.h"
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

constexpr absl::Duration kFatalShutdownGrace = absl::Seconds(5);

enum class Phase { kStarting, kServing, kStopping };

// Null where it is off. `running`: OK from the end of the start to the begin of the shutdown.
absl::StatusOr<std::unique_ptr<TelemetryServer>> StartTelemetry(
    const ServerFlags& flags, ServerMetrics* metrics, ProcessMetrics* process_metrics,
    ServerProcess* server, const AccessControl* access, const AuditLog* audit, bool insecure,
    TelemetryCheck running) {
  if (flags.metrics_listen.empty()) return nullptr;
  TelemetryServerOptions options;
  options.listen = flags.metrics_listen;
  options.registry = metrics->registry();
  options.before_scrape = [metrics, process_metrics, server, access, audit, insecure] {
    if (access != nullptr) metrics->SetAccess(access->health());
    if (audit != nullptr) metrics->SetAuditFailures(audit->num_failures());
    metrics->SetInsecure(insecure);
    process_metrics->Update();
    metrics->SetWatchStreams(server->runtime()->watch_hub().num_watchers());
    metrics->SetConnections(server->connections());
    metrics->SetHttp(server->http_connections(), server->num_http_streams());
    metrics->SetTlsNotAfter(server->tls_not_after());
  };
  options.healthy = [server] { return server->listener_health(); };
  options.ready = [server, running]() -> absl::Status {
    UQ_RETURN_IF_ERROR(running());
    UQ_RETURN_IF_ERROR(server->listener_health());
    return server->runtime()->availability();
  };
  options.ready_or_standby = [server, running]() -> absl::Status {
    UQ_RETURN_IF_ERROR(running());
    UQ_RETURN_IF_ERROR(server->listener_health());
    return server->runtime()->standing();
  };
  return TelemetryServer::Start(std::move(options));
}

int Run(const ServerFlags& flags) {
  const absl::StatusOr<bool> insecure = IsOpenToAll(flags);
  if (!insecure.ok()) {
    std::fprintf(stderr, "uniquanf-server: %s\n", std::string(insecure.status().message()).c_str());
    return absl::IsInvalidArgument(insecure.status()) ? 2 : 1;
  }
  // Debian builds Abseil with it on: a process-wide lock, and a search, at every lock of a Mutex.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // Every thread inherits this mask, so signals come to sigwait alone.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  // Reads its files now.
  if (flags.tls.enabled() || !flags.policy_file.empty() || !flags.audit_file.empty()) {
    sigaddset(&signals, SIGHUP);
  }
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  std::error_code error;
  // State, working objects and what is in the default place are for this user alone. A directory
  // that is there already keeps its mode.
  umask(077);
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
  const FileLimit files = RaiseFileLimit();
  const ConnectionLimits connections =
      ResolveConnectionLimits(flags.max_connections, flags.max_connections_per_peer,
                              flags.worker_listen.empty() ? files.now : files.now / 2);
  logger.Info("limits", {{"open_files_before", files.before},
                         {"open_files", files.now},
                         {"max_connections", connections.max_connections},
                         {"max_connections_per_peer", connections.max_per_peer}});
  ServerMetrics metrics(&logger);
  ProcessMetrics process_metrics(metrics.registry().get(), "uniquanf-server");
  StoreOptions store_options;
  store_options.observer = std::make_shared<StoreMetrics>(metrics.registry().get());
  const std::unique_ptr<IdGenerator> ids = NewRandomIdGenerator();
  const InsecureWarning warning(*insecure, flags.listen, &logger);
  const NoteSink note_access = NoteTo(&logger, "access");
  std::unique_ptr<AccessControl> access;
  std::unique_ptr<AuditLog> audit;
  if (const absl::Status opened = OpenAccess(flags, note_access, &access, &audit); !opened.ok()) {
    std::fprintf(stderr, "uniquanf-server: %s\n", std::string(opened.message()).c_str());
    return 2;
  }
  std::atomic<bool> fatal{false};
  ServerProcessOptions options;
  options.listen = flags.listen;
  options.object_root = flags.object_root;
  options.data_dir = flags.data_dir;
  options.store = store_options;
  options.tls = flags.tls;
  options.tls.client_certificate_optional =
      access != nullptr && !access->policy()->issuers().empty();
  options.access = access.get();
  options.audit = audit.get();
  options.audit_required = flags.audit_required;
  options.credentials_dir = flags.credentials_dir;
  options.worker_listen = flags.worker_listen;
  options.http_listen = flags.http_listen;
  options.http_max_streams = flags.http_max_streams;
  options.worker_tls = options.tls;
  if (!flags.worker_ca_file.empty()) options.worker_tls.client_ca_file = flags.worker_ca_file;
  options.reflection = flags.reflection;
  options.tls_watch.note = NoteTo(&logger, "TLS");
  options.connections = connections;
  options.shutdown_timeout = flags.shutdown_timeout;
  options.check_results = true;
  options.check_submissions = true;
  options.runtime.policy = flags.policy;
  options.runtime.random_seed = std::hash<std::string>()(ids->NewId("seed"));
  const auto end = [&fatal, &logger](const char* why, const absl::Status& status) {
    logger.Error(why, {{"message", std::string(status.message())}});
    fatal = true;
    kill(getpid(), SIGTERM);
  };
  options.runtime.on_fatal = [end](const absl::Status& status) {
    end("the state is lost to this server; it ends", status);
  };
  options.listener_watch.on_dead = [end](const absl::Status& status) {
    end("the gRPC port does not answer any more; the server ends, to be started again", status);
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
  std::atomic<Phase> phase{Phase::kStarting};
  // Before the state is read, which may take long: probes must find the process alive meanwhile.
  absl::StatusOr<std::unique_ptr<TelemetryServer>> telemetry = StartTelemetry(
      flags, &metrics, &process_metrics, &server, access.get(), audit.get(), *insecure,
      [&phase, &fatal] {
        if (fatal || phase == Phase::kStopping) {
          return Unavailable("SHUTTING_DOWN", "the server shuts down");
        }
        return phase == Phase::kStarting ? Unavailable("STARTING", "the state is being read")
                                         : absl::OkStatus();
      });
  absl::Status status = telemetry.status();
  if (status.ok()) status = server.Start();
  std::string address = flags.listen.substr(0, flags.listen.rfind(':'));
  absl::StrAppend(&address, ":", server.port());
  if (status.ok()) status = readiness.SetAddress(address);
  if (!status.ok()) {
    std::fprintf(stderr, "uniquanf-server: %s\n", std::string(status.message()).c_str());
    return absl::IsInvalidArgument(status) ? 2 : 1;  // 2: a flag's value, such as a TLS file's
  }
  phase = Phase::kServing;
  logger.Info("listening on", {{"address", address}});
  if (!flags.worker_listen.empty()) {
    logger.Info("listening for workers", {{"port", server.worker_port()}});
  }
  if (!flags.http_listen.empty()) {
    logger.Info("listening for HTTP", {{"port", server.http_port()}});
  }
  logger.Info("serving", {{"address", address},
                          {"version", kSoftwareVersion},
                          {"state", DisplayState(flags.state)},
                          {"object_root", flags.object_root},
                          {"metrics_port", *telemetry == nullptr ? 0 : (*telemetry)->port()}});
  JanitorOptions janitor_options;
  janitor_options.object_root = flags.object_root;
  janitor_options.store = store_options;
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
  while (sigwait(&signals, &received) == 0 && received == SIGHUP) {
    server.ReloadTls();
    if (access != nullptr) access->ReloadNow();
    if (audit != nullptr) audit->Reopen();
  }
  std::thread([signals] {
    int again = 0;
    while (sigwait(&signals, &again) == 0 && again == SIGHUP) continue;
    _exit(1);
  }).detach();
  if (fatal) {
    // What is broken may keep the shutdown from ending.
    std::thread([timeout = flags.shutdown_timeout + kFatalShutdownGrace] {
      absl::SleepFor(timeout);
      _exit(1);
    }).detach();
  }
  phase = Phase::kStopping;
  logger.Info("shutting down", {{"signal", received}});
  janitor.reset();
  server.Shutdown();
  telemetry->reset();
  logger.Info("stopped");
  return fatal ? 1 : 0;
}

}  // namespace

int ServerMain(int argc, char** argv) {
  QuietGrpc();
  if (argc > 1 && std::string(argv[1]) == "--check-policy") {
    return RunCheckPolicy(std::vector<std::string>(argv + 2, argv + argc));
  }
  const absl::StatusOr<ServerFlags> flags = ParseServerFlags(
      std::vector<std::string>(argv + 1, argv + argc), EnvironmentVariable("UNIQUANF_STATE"));
  if (!flags.ok()) {
    std::fprintf(stderr, "uniquanf-server: %s\nTry uniquanf-server --help.\n",
                 std::string(flags.status().message()).c_str());
    return 2;
  }
  if (!flags->help.empty()) {
    std::fputs(flags->help.c_str(), stdout);
    return ExitCodeAfterOutput("uniquanf-server", 0);
  }
  if (flags->version) {
    std::printf("uniquanf-server %s (protocol %d)\n", kSoftwareVersion, kProtocolVersion);
    return ExitCodeAfterOutput("uniquanf-server", 0);
  }
  if (!flags->health.empty()) {
    ClientTlsOptions tls;
    tls.ca_file = flags->tls.client_ca_file;
    tls.certificate_file = flags->tls.certificate_file;
    tls.key_file = flags->tls.key_file;
    return RunHealthFlag("uniquanf-server", flags->health, tls);
  }
  if (!flags->core_dumps) ForbidCoreDumps();
  return Run(*flags);
}

}  // namespace uniquanf::server
