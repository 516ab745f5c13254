#include "worker/agent/worker_options.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/file_modes.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr size_t kMaxNameLength = 63;
constexpr size_t kMaxLabels = 32;
constexpr absl::Duration kDefaultIdle = absl::Minutes(1);

bool IsNameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

absl::Status CheckName(absl::string_view name) {
  if (!name.empty() && name.size() <= kMaxNameLength &&
      std::all_of(name.begin(), name.end(), IsNameCharacter)) {
    return absl::OkStatus();
  }
  return InvalidInput("INVALID_FLAG", "allowed: 1 to 63 characters of [a-z0-9-]");
}

absl::Status AddServers(absl::string_view text, std::vector<std::string>* servers) {
  for (const absl::string_view server : absl::StrSplit(text, ',')) {
    if (server.empty() || server.find(':') == absl::string_view::npos) {
      return InvalidInput("INVALID_FLAG", "allowed: HOST:PORT, or several joined by commas");
    }
    servers->emplace_back(server);
  }
  return absl::OkStatus();
}

absl::Status AddLabel(absl::string_view text, std::map<std::string, std::string>* labels) {
  const size_t equals = text.find('=');
  if (equals == absl::string_view::npos || equals == 0) {
    return InvalidInput("INVALID_FLAG", "allowed: KEY=VALUE");
  }
  (*labels)[std::string(text.substr(0, equals))] = std::string(text.substr(equals + 1));
  if (labels->size() > kMaxLabels) {
    return InvalidInput("INVALID_FLAG", "allowed: at most 32 labels");
  }
  return absl::OkStatus();
}

// FlagSet knows finite durations; "0" switches the watchdog off.
absl::Status SetStallTimeout(absl::string_view text, absl::Duration* timeout) {
  absl::Duration value;
  if (!absl::ParseDuration(text, &value) || value < absl::ZeroDuration()) {
    return InvalidInput("INVALID_FLAG", "allowed: a duration such as 90s or 1h30m, or 0 for never");
  }
  *timeout = value == absl::ZeroDuration() ? absl::InfiniteDuration() : value;
  return absl::OkStatus();
}

}  // namespace

WorkerOptions DefaultWorkerOptions(absl::string_view host_name) {
  WorkerOptions options;
  options.servers = {"127.0.0.1:50051"};
  for (const char c : host_name.substr(0, kMaxNameLength)) {
    const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    options.name += IsNameCharacter(lower) ? lower : '-';
  }
  if (options.name.empty()) options.name = "worker";
  return options;
}

absl::StatusOr<WorkerOptions> ParseWorkerOptions(const std::vector<std::string>& arguments,
                                                 const WorkerOptions& defaults, std::string* help) {
  WorkerOptions options = defaults;
  std::vector<std::string> servers;
  FlagSet flags("uniquanf-worker [flags]",
                "Joins a server, leases quantization tasks and runs them on the CPU or on every "
                "visible CUDA GPU.\nSIGTERM or SIGINT drains; a second one exits at once.");
  flags.Section("Service");
  flags.Custom("server", "HOST:PORT", absl::StrJoin(defaults.servers, ","),
               "the server; several, repeated or joined by commas, are tried in turn",
               [&servers](absl::string_view text) { return AddServers(text, &servers); });
  flags.Environment("UNIQUANF_SERVER");
  flags.Custom("name", "NAME", defaults.name,
               "what people see: workers/NAME; stable across restarts, unique among workers",
               [&options](absl::string_view text) {
                 options.name = std::string(text);
                 return CheckName(text);
               });
  flags.Custom("label", "KEY=VALUE", "",
               "a label of this worker, for jobs submitted with --require; may repeat",
               [&options](absl::string_view text) { return AddLabel(text, &options.labels); });
  flags.Section("Device");
  flags.Choice("device", {"auto", "cpu", "cuda"}, &options.device,
               "auto: every visible CUDA GPU, the CPU where there is none");
  flags.Int("threads", &options.num_threads, 0, 1024,
            "threads of the CPU backend; 0: as many processors as the process, or its container, "
            "may use");
  options.cache.AddTo(&flags);
  flags.Custom("artifact-mode", "MODE", "",
               "mode of the directories of artifacts on a file system, their files are the same "
               "without execution; default: 0750 less the umask. All else is for this user alone",
               [&options](absl::string_view text) {
                 return ParseDirectoryMode(text, &options.artifact_mode.emplace());
               });
  flags.Section("Behaviour");
  flags.Duration("drain-timeout", &options.drain_timeout, absl::ZeroDuration(),
                 "after SIGTERM, how long running tasks may finish before they are given back");
  flags.OptionalDuration(
      "exit-when-idle", &options.exit_when_idle, kDefaultIdle, absl::ZeroDuration(),
      absl::StrCat("drain, and exit with 0, when the server has had no task for this worker for so "
                   "long; without a value ",
                   absl::FormatDuration(kDefaultIdle), "; unless given: never"));
  flags.Custom("task-stall-timeout", "DURATION", absl::FormatDuration(defaults.task_stall_timeout),
               "a task without progress for so long is reported as failed, and the worker exits "
               "with code 4; 0: never",
               [&options](absl::string_view text) {
                 return SetStallTimeout(text, &options.task_stall_timeout);
               });
  flags.Bool(
      "wait-for-version", &options.wait_for_version,
      "at the start, wait for a server of another protocol version to be upgraded instead of "
      "ending with code 3");
  flags.String("ready-file", "FILE", &options.ready_file,
               "written, with the worker's name, when the server has accepted this worker");
  flags.Section("Observing");
  flags.String("metrics-listen", "HOST:PORT", &options.metrics_listen,
               "HTTP address of /metrics, /healthz and /readyz; empty: off");
  flags.Choice("log-level", {"debug", "info", "warning", "error"}, &options.log_level,
               "the least severe messages that are logged");
  flags.Choice("log-format", {"text", "json"}, &options.log_format, "one record a line on stderr");
  flags.Section("Transport security");
  flags.Bool("tls", &options.tls.enabled, "use TLS with the system's certificate authorities");
  flags.String("tls-ca", "FILE", &options.tls.ca_file, "PEM authorities to check the server with");
  flags.String("tls-cert", "FILE", &options.tls.certificate_file, "PEM certificate of this worker");
  flags.String("tls-key", "FILE", &options.tls.key_file, "PEM key of that certificate");
  flags.String("tls-server-name", "NAME", &options.tls.server_name,
               "name expected in the server's certificate");
  flags.String("token-file", "FILE", &options.token_file,
               "holds the token that says who this worker is, for a server that asks; read again "
               "for each call");
  flags.Environment("UNIQUANF_TOKEN_FILE");
  flags.String("credentials-dir", "DIR", &options.credentials_dir,
               "holds tenants' credentials for S3, a file each in the form of ~/.aws/credentials, "
               "which the server's policy names as file:NAME");
  flags.Environment("UNIQUANF_CREDENTIALS_DIR");
  flags.String(
      "signing-key", "FILE", &options.signing_key_file,
      "PEM Ed25519 key (openssl genpkey -algorithm ed25519) with which results are signed, "
      "for a server whose policy has its public half, and for verify --trust");
  flags.Section("Other");
  flags.String(
      "health", "ADDRESS|URL", &options.health,
      "ask a running worker at the URL of a page such as http://127.0.0.1:9090/healthz, or "
      "a server at its gRPC address; exit with 0 when it answers well, else 1");
  flags.Bool("core-dumps", &options.core_dumps,
             "leave a core dump after a crash, and let debuggers attach; it holds keys and data");
  flags.Bool("version", &options.show_version, "print the version and exit");
  flags.Example("uniquanf-worker --server scheduler:50051 --cache-dir /var/cache/uniquanf",
                "Works for a server elsewhere, and keeps what it reads of models on this disk.");
  flags.ExitCodes(
      "0 drained, every result acknowledged; 1 internal error; 2 wrong usage;\n3 the server speaks "
      "another protocol version; 4 a task or device hangs: start me again;\n5 the server refuses "
      "this worker; 128 + signal at a second signal.");
  UQ_RETURN_IF_ERROR(flags.Parse(arguments));
  UQ_RETURN_IF_ERROR(options.cache.Check());
  if (flags.help_requested()) {
    *help = flags.Help();
    return options;
  }
  if (!servers.empty()) options.servers = servers;
  return options;
}

}  // namespace uniquanf
