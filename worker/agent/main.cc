// uniquanf-worker: joins a server and runs its tasks. Everything that decides is in agent.h; here
// are flags, devices, signals and the end of the process.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/core_dumps.h"
#include "common/base/file_limit.h"
#include "common/base/file_modes.h"
#include "common/base/ids.h"
#include "common/base/machine_resources.h"
#include "common/base/ready_file.h"
#include "common/base/standard_output.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/rpc/call_token.h"
#include "common/rpc/channel_source.h"
#include "common/rpc/health_check.h"
#include "common/rpc/quiet_grpc.h"
#include "common/telemetry/logger.h"
#include "common/telemetry/process_metrics.h"
#include "common/telemetry/store_metrics.h"
#include "common/telemetry/telemetry_server.h"
#include "prometheus/registry.h"
#include "worker/agent/agent.h"
#include "worker/agent/cache_metrics.h"
#include "worker/agent/engine_executor.h"
#include "worker/agent/gpu_metrics.h"
#include "worker/agent/worker_options.h"
#include "worker/agent/worker_telemetry.h"
#include "worker/backend/backend.h"
#include "worker/backend/blas_kernel.h"
#include "worker/backend/gpu_monitor.h"
#include "worker/model/checkpoint.h"
#include "worker/model/supported_architectures.h"

namespace uniquanf {
namespace {

constexpr int kExitOk = 0, kExitInternal = 1, kExitUsage = 2, kExitVersion = 3, kExitRestart = 4,
              kExitRefused = 5;
constexpr absl::Duration kMaxTick = absl::Seconds(30);
// Spares the first call a standby; gRPC looks the name up by itself where this does not suffice.
constexpr absl::Duration kFirstLookup = absl::Seconds(2);

std::string HostName() {
  char name[256] = "";
  if (gethostname(name, sizeof(name) - 1) != 0) return "";
  return name;
}

absl::StatusOr<std::vector<std::unique_ptr<Backend>>> OpenBackends(const WorkerOptions& options) {
  std::vector<std::unique_ptr<Backend>> backends;
  const int num_gpus = CudaBuilt() ? NumCudaDevices() : 0;
  if (options.device == "cuda" && num_gpus == 0) {
    return CudaBuilt() ? FailedPrecondition("CUDA_DEVICE_NOT_FOUND",
                                            "--device=cuda: no CUDA GPU is visible; check the "
                                            "driver and CUDA_VISIBLE_DEVICES, or use --device=cpu")
                       : FailedPrecondition("CUDA_NOT_BUILT",
                                            "--device=cuda: this program was built without CUDA; "
                                            "build with the preset \"cuda\", or use --device=cpu");
  }
  if (options.device == "cpu" || num_gpus == 0) {
    UQ_RETURN_IF_ERROR(CheckMemoryForBlas(options.num_threads));
    backends.push_back(NewCpuBackend({.num_threads = options.num_threads}));
    return backends;
  }
  for (int i = 0; i < num_gpus; ++i) {
    UQ_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, NewCudaBackend(i));
    backends.push_back(std::move(backend));
  }
  return backends;
}

v1::WorkerCapabilities Capabilities(const WorkerOptions& options, int num_cpus,
                                    const std::vector<std::unique_ptr<Backend>>& backends) {
  v1::WorkerCapabilities capabilities;
  capabilities.set_device(backends[0]->kind() == DeviceKind::kCuda ? "cuda" : "cpu");
  capabilities.set_device_description(backends[0]->description());
  // What every slot has: the server may send any task to any of them.
  uint64_t memory_bytes = backends[0]->memory().total_bytes;
  for (const auto& backend : backends) {
    memory_bytes = std::min(memory_bytes, backend->memory().total_bytes);
  }
  capabilities.set_memory_bytes(static_cast<int64_t>(memory_bytes));
  capabilities.set_num_slots(static_cast<int>(backends.size()));
  capabilities.set_num_cpus(options.num_threads > 0 ? std::min(options.num_threads, num_cpus)
                                                    : num_cpus);
  for (const std::string& name : SupportedArchitectures()) capabilities.add_architectures(name);
  for (const auto& [key, value] : options.labels) (*capabilities.mutable_labels())[key] = value;
  return capabilities;
}

// Of the slots' GPUs, in their order.
std::vector<std::string> PciBusIds(const std::vector<std::unique_ptr<Backend>>& backends) {
  std::vector<std::string> ids;
  if (backends[0]->kind() != DeviceKind::kCuda) return ids;
  for (size_t i = 0; i < backends.size(); ++i) ids.push_back(CudaPciBusId(static_cast<int>(i)));
  return ids;
}

// Null when it is off.
std::shared_ptr<ObjectCache> OpenCache(const WorkerOptions& options, size_t num_slots,
                                       Logger* logger) {
  // A slot reads a block's tensors side by side.
  const int num_readers = static_cast<int>(num_slots) * kTensorsReadAtOnce;
  std::shared_ptr<ObjectCache> cache =
      options.cache.Open(num_readers, [logger](const absl::Status& problem) {
        logger->Warning(
            "the object cache does not help as it should; tasks go on",
            {{"reason", ErrorReason(problem)}, {"message", std::string(problem.message())}});
      });
  if (cache != nullptr) {
    logger->Info("caching remote objects", {{"directory", options.cache.directory},
                                            {"max_bytes", options.cache.size_bytes},
                                            {"bytes", cache->counts().files.stored_bytes}});
  }
  return cache;
}

// The end of a pipe that the signal handler writes to; handlers can reach nothing but globals.
// Blocking the signals and waiting for them (sigwait) would not do: OpenBLAS has started threads of
// its own before main, and those would take them.
int signal_pipe[2] = {-1, -1};

void OnSignal(int signal) {
  const int saved_errno = errno;
  const char byte = static_cast<char>(signal);
  [[maybe_unused]] const ssize_t written = write(signal_pipe[1], &byte, 1);
  errno = saved_errno;
}

// SIGTERM and SIGINT: the first drains, the second ends the process. SIGHUP, where there are files
// of TLS, reads them.
class SignalThread {
 public:
  // SIGPIPE is ignored: a closed socket is an error of its call.
  SignalThread(bool take_hangup, Logger* logger) : logger_(logger) {
    UQ_CHECK(pipe2(signal_pipe, O_CLOEXEC) == 0);
    signal(SIGPIPE, SIG_IGN);
    struct sigaction action = {};
    action.sa_handler = OnSignal;
    action.sa_flags = SA_RESTART;
    for (const int s : {SIGTERM, SIGINT}) sigaction(s, &action, nullptr);
    if (take_hangup) sigaction(SIGHUP, &action, nullptr);
  }
  ~SignalThread() { Stop(); }
  // After this the agent is not touched any more.
  void Stop() {
    if (!thread_.joinable()) return;
    OnSignal(0);
    thread_.join();
  }
  // Signals that came before are acted on now.
  void Start(Agent* agent, absl::Duration drain_timeout) {
    thread_ = std::thread([this, agent, drain_timeout] {
      for (int num_seen = 0;;) {
        char received = 0;
        if (read(signal_pipe[0], &received, 1) != 1) continue;
        if (received == 0) return;
        if (received == SIGHUP) {
          agent->RefreshServers();
          continue;
        }
        if (++num_seen > 1) {
          logger_->Warning("second signal: exiting at once");
          _exit(128 + received);
        }
        logger_->Info("signal: draining; another one exits at once",
                      {{"drain_timeout", absl::FormatDuration(drain_timeout)}});
        agent->Drain(drain_timeout);
      }
    });
  }

 private:
  Logger* const logger_;
  std::thread thread_;
};

int ExitCode(const AgentResult& result, Logger* logger) {
  switch (result.end) {
    case AgentEnd::kDrained:
      logger->Info("drained; every result is acknowledged");
      return kExitOk;
    case AgentEnd::kVersionMismatch:
      logger->Error("the server speaks another protocol version",
                    {{"message", std::string(result.status.message())}});
      return kExitVersion;
    case AgentEnd::kRefused:
      logger->Error("the server refuses this worker",
                    {{"message", std::string(result.status.message())},
                     {"reason", ErrorReason(result.status)}});
      return kExitRefused;
    case AgentEnd::kRestart:
      logger->Error("a task or its device hangs: exiting, to be started again");
      return kExitRestart;
  }
  return kExitInternal;
}

int RunWorker(const WorkerOptions& options) {
  if (!options.core_dumps) ForbidCoreDumps();
  const std::unique_ptr<LogSink> sink = NewStderrSink();
  Logger logger(sink.get(), &SystemClock(),
                options.log_format == "json" ? LogFormat::kJson : LogFormat::kText,
                ParseLogLevel(options.log_level).value_or(LogLevel::kInfo));
  const uint32_t umask_before = RestrictUmask(kPrivateUmask);
  const uint32_t artifact_mode = options.artifact_mode.value_or(kArtifactMode & ~umask_before);
  const FileLimit files = RaiseFileLimit();
  const MachineResources machine = ReadMachineResources();
  logger.Info("limits", {{"open_files_before", files.before},
                         {"open_files", files.now},
                         {"memory_bytes", machine.memory_bytes},
                         {"memory_is_limited", machine.memory_is_limited},
                         {"cpus", machine.num_cpus}});
  SignalThread signals(!options.tls.files().empty(), &logger);
  std::optional<SigningKey> signing_key;
  if (!options.signing_key_file.empty()) {
    auto key = SigningKey::FromPemFile(options.signing_key_file);
    if (!key.ok()) {
      std::fprintf(stderr, "uniquanf-worker: --signing-key: %s\n",
                   std::string(key.status().message()).c_str());
      return kExitUsage;
    }
    logger.Info("results are signed", {{"public_key", key->verifying_key().Base64()}});
    signing_key = *std::move(key);
  }
  auto backends = OpenBackends(options);
  if (!backends.ok()) {
    std::fprintf(stderr, "uniquanf-worker: %s\n", std::string(backends.status().message()).c_str());
    return backends.status().code() == absl::StatusCode::kFailedPrecondition ? kExitUsage
                                                                             : kExitInternal;
  }
  std::vector<std::unique_ptr<ChannelSource>> servers;
  for (const std::string& server : options.servers) {
    if (const absl::Status token = CheckToken(options.token_file, server, options.tls);
        !token.ok()) {
      std::fprintf(stderr, "uniquanf-worker: %s\n", std::string(token.message()).c_str());
      return kExitUsage;
    }
    ChannelSourceOptions source_options;
    source_options.channel.tls = options.tls;
    source_options.channel.max_reconnect_backoff = absl::Seconds(1);  // be there when it comes back
    source_options.note = [&logger](NoteLevel level, const std::string& text) {
      logger.Log(level == NoteLevel::kWarning ? LogLevel::kWarning : LogLevel::kInfo,
                 "on the way to the server", {{"message", text}});
    };
    auto source = ChannelSource::Make(server, source_options);
    if (!source.ok()) {
      std::fprintf(stderr, "uniquanf-worker: %s\n", std::string(source.status().message()).c_str());
      return kExitUsage;
    }
    (*source)->Get(kFirstLookup);
    servers.push_back(*std::move(source));
  }

  const std::unique_ptr<IdGenerator> ids = NewRandomIdGenerator();
  AgentOptions agent_options;
  agent_options.session_id = ids->NewId("session");
  agent_options.new_session_id = [&ids] { return ids->NewId("session"); };
  agent_options.worker = absl::StrCat("workers/", options.name);
  agent_options.token_file = options.token_file;
  agent_options.wait_for_version = options.wait_for_version;
  agent_options.protocol_version = kProtocolVersion;
  agent_options.software_version = kSoftwareVersion;
  agent_options.capabilities = Capabilities(options, machine.num_cpus, *backends);
  agent_options.task_stall_timeout = options.task_stall_timeout;
  agent_options.exit_when_idle = options.exit_when_idle;
  agent_options.jitter_seed = std::hash<std::string>()(agent_options.session_id);
  logger.Info("worker starts",
              {{"version", kSoftwareVersion},
               {"worker", agent_options.worker},
               {"session", agent_options.session_id},
               {"device", agent_options.capabilities.device()},
               {"device_description", agent_options.capabilities.device_description()},
               {"slots", agent_options.capabilities.num_slots()}});

  auto registry = std::make_shared<prometheus::Registry>();
  WorkerTelemetry telemetry(&logger, registry.get(), [&options, &logger] {
    const absl::Status written = WriteReadyFile(options.ready_file, options.name);
    if (!written.ok()) logger.Error(written.message());
  });
  const std::shared_ptr<ObjectCache> cache = OpenCache(options, backends->size(), &logger);
  CacheMetrics cache_metrics(registry.get());
  ProcessMetrics process_metrics(registry.get(), "uniquanf-worker");
  GpuMetrics gpu_metrics(registry.get(), OpenGpuMonitor(PciBusIds(*backends)));
  EngineExecutorOptions executor_options;
  executor_options.object_cache = cache;
  executor_options.store_observer = std::make_shared<StoreMetrics>(registry.get());
  executor_options.artifact_mode = artifact_mode;
  executor_options.credentials_dir = options.credentials_dir;
  executor_options.signing_key = signing_key;
  std::vector<std::unique_ptr<EngineExecutor>> executors;
  std::vector<TaskExecutor*> slots;
  for (auto& backend : *backends) {
    executors.push_back(
        std::make_unique<EngineExecutor>(std::move(backend), &SystemClock(), executor_options));
    slots.push_back(executors.back().get());
  }
  auto agent =
      std::make_unique<Agent>(agent_options, std::move(servers), slots, &SystemClock(), &telemetry);
  std::unique_ptr<TelemetryServer> pages;
  if (!options.metrics_listen.empty()) {
    TelemetryServerOptions page_options;
    page_options.listen = options.metrics_listen;
    page_options.registry = registry;
    page_options.before_scrape = [&cache, &cache_metrics, &process_metrics, &gpu_metrics] {
      process_metrics.Update();
      gpu_metrics.Update();
      if (cache != nullptr) cache_metrics.Update(cache->counts());
    };
    page_options.healthy = [&agent]() -> absl::Status {
      if (agent->SinceLastTick() > kMaxTick) return Unavailable("HANGS", "the agent hangs");
      return absl::OkStatus();
    };
    page_options.ready = [&agent, &telemetry] {
      if (agent->SinceLastTick() > kMaxTick) return Unavailable("HANGS", "the agent hangs");
      return telemetry.connected()
                 ? absl::OkStatus()
                 : Unavailable("NOT_CONNECTED", "no server accepts this worker's calls");
    };
    auto started = TelemetryServer::Start(std::move(page_options));
    if (!started.ok()) {
      std::fprintf(stderr, "uniquanf-worker: --metrics-listen: %s\n",
                   std::string(started.status().message()).c_str());
      return kExitUsage;
    }
    pages = *std::move(started);
    logger.Info("serving metrics", {{"port", pages->port()}});
  }
  signals.Start(agent.get(), options.drain_timeout);
  const AgentResult result = agent->Run();
  const int code = ExitCode(result, &logger);
  // A task that hangs, or one that a refusing server left running, cannot be waited for.
  if (code != kExitOk) _exit(code);
  signals.Stop();
  return code;
}

int Main(int argc, char** argv) {
  QuietGrpc();
  // gRPC attends to a connection only while a call is in flight, else at this interval, by default
  // 5 s: longer than a lease may be. Read once, before the first channel; no thread runs yet.
  setenv("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "200", /*overwrite=*/0);
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  std::string help;
  const auto options = ParseWorkerOptions(arguments, DefaultWorkerOptions(HostName()), &help);
  if (!options.ok()) {
    std::fprintf(stderr, "uniquanf-worker: %s\nTry uniquanf-worker --help.\n",
                 std::string(options.status().message()).c_str());
    return kExitUsage;
  }
  if (!help.empty()) {
    std::fputs(help.c_str(), stdout);
    return ExitCodeAfterOutput("uniquanf-worker", kExitOk);
  }
  if (options->show_version) {
    std::printf("uniquanf-worker %s (protocol %d)\n", kSoftwareVersion, kProtocolVersion);
    return ExitCodeAfterOutput("uniquanf-worker", kExitOk);
  }
  if (!options->health.empty()) {
    return RunHealthFlag("uniquanf-worker", options->health, options->tls);
  }
  return RunWorker(*options);
}

}  // namespace
}  // namespace uniquanf

int main(int argc, char** argv) {
  const int code = uniquanf::Main(argc, argv);
  uniquanf::EndPastBlas(code);
  return code;
}
