#include "server/service/server_flags.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/flag_set.h"
#include "common/base/read_file.h"
#include "common/base/status.h"
#include "common/object_store/store_schemes.h"

namespace uniquanf::server {

namespace {

constexpr size_t kMaxStateBytes = 64 << 10;

// What --state-file names, without the white space around it.
absl::StatusOr<std::string> ReadStateFile(const std::string& path) {
  const std::string text = ReadSmallFile(path, kMaxStateBytes).value_or("");
  const absl::string_view state = absl::StripAsciiWhitespace(text);
  if (state.empty()) {
    return InvalidInput("INVALID_FLAG",
                        absl::StrCat("--state-file=", path,
                                     ": cannot be read, is empty, or holds more than one state; "
                                     "give a file with what --state would take"));
  }
  return std::string(state);
}

}  // namespace

absl::StatusOr<ServerFlags> ParseServerFlags(const std::vector<std::string>& arguments,
                                             const std::string& state_from_env) {
  ServerFlags flags;
  std::string state_file;
  std::string check_policy;  // for the help: it is the first argument or none
  Policy& policy = flags.policy;
  // One tenant must not be able to fill the server by default.
  policy.max_queued_jobs_per_tenant = 1000;
  policy.max_creates_per_second_per_tenant = 50;
  FlagSet set(
      "uniquanf-server [flags]",
      "Schedules quantization jobs: takes them from clients, leases their tasks to workers.");
  set.Example("uniquanf-server --data-dir /var/lib/uniquanf",
              "State and objects on this machine, for clients and workers of this machine.");
  set.Example(
      "UNIQUANF_STATE=postgresql://uniquanf@db/uniquanf uniquanf-server --listen 0.0.0.0:50051 "
      "--object-root s3://bucket/uniquanf",
      "One of several servers on one state; workers anywhere.");
  set.Section("Network");
  set.String("listen", "HOST:PORT", &flags.listen, "gRPC address; port 0 takes a free one");
  set.String("worker-listen", "HOST:PORT", &flags.worker_listen,
             "gRPC address for workers alone, who then are not served at --listen");
  set.String("http-listen", "HOST:PORT", &flags.http_listen,
             "HTTP address of the API as JSON and of its page, for the same callers with the same "
             "certificates as --listen; empty: off");
  set.Int("http-max-streams", &flags.http_max_streams, 1, 1000,
          "streams of events open at once at --http-listen; further ones are answered 503");
  set.String("metrics-listen", "HOST:PORT", &flags.metrics_listen,
             "HTTP address of /metrics, /healthz, /readyz and /readyz?standby=ok; empty: off");
  set.Int("max-connections", &flags.max_connections, 0, 1000000,
          "open connections to the gRPC port; more are refused; 0: as many as the limit on open "
          "files (ulimit -n) bears, at most 8192");
  set.Int("max-connections-per-peer", &flags.max_connections_per_peer, 0, 1000000,
          "of them from one address; 0: half");
  set.String("ready-file", "FILE", &flags.ready_file,
             "written with the gRPC address once the server serves");
  set.String("tls-cert", "FILE", &flags.tls.certificate_file,
             "PEM certificate of this server; turns TLS on");
  set.String("tls-key", "FILE", &flags.tls.key_file, "PEM key of that certificate");
  set.String("tls-ca", "FILE", &flags.tls.client_ca_file,
             "PEM; clients and workers must prove themselves with a certificate of this authority");
  set.String(
      "worker-tls-ca", "FILE", &flags.worker_ca_file,
      "PEM; at --worker-listen workers prove themselves with a certificate of this authority "
      "instead of that of --tls-ca");
  set.String("policy", "FILE", &flags.policy_file,
             "who may do what (server/access/README.md); callers then prove who they are by "
             "certificate or token; read again when it changes; without it everybody may do "
             "everything");
  set.Bool("insecure-allow-anonymous", &flags.insecure_allow_anonymous,
           "listen beyond this machine although callers need not prove who they are");
  set.String(
      "check-policy", "FILE PRINCIPAL METHOD RESOURCE", &check_policy,
      "say whether that policy allows it, and why, and end: with 0 when it does, 1 when not; "
      "such as tenant/a/user/alice CancelJob tenants/a/jobs/j");
  set.String("audit-log", "FILE", &flags.audit_file,
             "who did what, a JSON line for each call that changes something or is refused and for "
             "each lease; opened anew on SIGHUP");
  set.Bool("audit-required", &flags.audit_required,
           "refuse calls that change something while the audit log cannot be written");
  set.String(
      "credentials-dir", "DIR", &flags.credentials_dir,
      "holds tenants' credentials for S3, which the policy names as file:NAME: with these the "
      "server reads the manifests of their results");
  set.Environment("UNIQUANF_CREDENTIALS_DIR");
  set.Bool("reflection", &flags.reflection, "describe the services to whoever asks");
  set.Duration("shutdown-timeout", &flags.shutdown_timeout, absl::ZeroDuration(),
               "open calls are cancelled this long after SIGTERM");
  set.Section("State and objects");
  set.String("data-dir", "DIR", &flags.data_dir, "where state and objects live by default");
  set.String(
      "state", "FILE|URI", &flags.state,
      "SQLite file, or postgresql://user@host/database, which several servers may share: one "
      "is active, the others stand by; a URI with a password belongs into the environment variable "
      "UNIQUANF_STATE or into a --state-file; default: DATA_DIR/state.sqlite");
  set.Environment("UNIQUANF_STATE", state_from_env);
  set.String("state-file", "FILE", &state_file, "a file that holds what --state would say");
  set.String(
      "object-root", "URI", &flags.object_root,
      "artifacts and working objects (file:///dir or s3://bucket/prefix), reachable for every "
      "worker; default: DATA_DIR/objects");
  set.Duration("unfinished-upload-age", &flags.unfinished_upload_age, absl::ZeroDuration(),
               "uploads below the object root that nobody finished are removed when they are this "
               "old; longer than any upload takes; 0s: never");
  set.Section("Scheduling");
  set.Duration("lease-duration", &policy.lease_duration, absl::Milliseconds(500),
               "a task runs elsewhere when its worker is silent for this long");
  set.Duration("task-stall-timeout", &policy.stall_timeout, absl::ZeroDuration(),
               "a task without progress for this long is taken from its worker; 0s: never");
  set.Int("retry-max-worker-lost", &policy.max_worker_lost, 1, 1000,
          "lost workers of one task before its job fails");
  set.Int("retry-max-transient", &policy.max_transient, 1, 1000,
          "transient failures of one task before its job fails");
  set.Duration("retry-backoff-initial", &policy.backoff_initial, absl::Milliseconds(1),
               "wait after the first transient failure; doubles with each");
  set.Duration("retry-backoff-max", &policy.backoff_max, absl::Milliseconds(1), "longest wait");
  set.Int("tenant-max-running-jobs", &policy.max_running_jobs_per_tenant, 0, 1000000,
          "jobs of one tenant that run at once; 0: no limit");
  set.Int("tenant-max-queued-jobs", &policy.max_queued_jobs_per_tenant, 0, 1000000,
          "jobs of one tenant that wait to start; more are refused; 0: no limit");
  set.Double("tenant-max-creates-per-second", &policy.max_creates_per_second_per_tenant, 0, 1e6,
             "jobs that one tenant creates a second; more are refused; 0: no limit");
  set.Int("job-max-tasks", &policy.max_tasks_per_job, 3, 260000,
          "tasks of one job: layers times rounds, and two; a job with more fails");
  set.Duration("tenant-usage-half-life", &policy.usage_half_life, absl::Seconds(1),
               "fair share: worker time used counts half after this long");
  set.Duration("default-ttl", &policy.default_time_to_live, absl::ZeroDuration(),
               "finished jobs submitted without --ttl are deleted (not their artifacts) after this "
               "long; 0s: kept");
  set.Int("quarantine-after-jobs", &policy.quarantine_after_jobs, 0, 1000,
          "a worker on which this many different jobs fail in a row gets only what no other worker "
          "can run, for a time that doubles; 0: never");
  set.Int("spot-check", &policy.spot_check_one_in, 0, 1000000,
          "one in so many layers runs again on another worker of the same kind that has nothing to "
          "do, and the results are compared (uniquanf_spot_checks_total); 0: none");
  set.Duration("spot-check-wait", &policy.spot_check_wait, absl::ZeroDuration(),
               "how long a job that is otherwise done waits for spot checks of its layers");
  set.Duration("clock-settle-time", &policy.clock_settle_time, absl::ZeroDuration(),
               "when the wall clock runs ahead by more than a minute, deadlines and deletions wait "
               "until that has lasted for this long");
  set.Section("Diagnostics");
  set.Choice("log-format", {"text", "json"}, &flags.log_format, "one record per line on stderr");
  set.Choice("log-level", {"debug", "info", "warning", "error"}, &flags.log_level,
             "least severe records written");
  set.Bool("core-dumps", &flags.core_dumps,
           "leave a core dump after a crash, and let debuggers attach; it holds keys and data");
  set.String("health", "ADDRESS|URL", &flags.health,
             "ask a running server whether it serves, at its gRPC address or at the URL of a page "
             "such as http://127.0.0.1:9090/readyz?standby=ok; exit with 0 when it does, else 1");
  set.Bool("version", &flags.version, "print the version and exit");
  UQ_RETURN_IF_ERROR(set.Parse(arguments));
  if (set.help_requested()) {
    flags.help = set.Help();
    return flags;
  }
  if (!check_policy.empty()) {
    return InvalidInput(
        "INVALID_FLAG",
        "--check-policy comes first: --check-policy FILE PRINCIPAL METHOD RESOURCE");
  }
  if (!flags.worker_ca_file.empty() && (flags.worker_listen.empty() || !flags.tls.enabled())) {
    return InvalidInput("INVALID_FLAG",
                        "--worker-tls-ca is for --worker-listen with TLS (--tls-cert, --tls-key)");
  }
  if (flags.audit_required && flags.audit_file.empty()) {
    return InvalidInput("INVALID_FLAG", "--audit-required needs --audit-log=FILE");
  }
  std::error_code error;
  const auto absolute = [&error](const std::string& path) {
    return std::filesystem::absolute(path, error).lexically_normal().string();
  };
  flags.data_dir = absolute(flags.data_dir);
  if (!state_file.empty() && !set.WasSet("state")) {
    UQ_ASSIGN_OR_RETURN(flags.state, ReadStateFile(state_file));
  }
  if (flags.state.empty()) {
    flags.state = absl::StrCat(flags.data_dir, "/state.sqlite");
  } else if (!absl::StrContains(flags.state, "://")) {
    flags.state = absolute(flags.state);
  }
  if (flags.object_root.empty()) {
    flags.object_root = absl::StrCat("file://", flags.data_dir, "/objects");
  } else if (!absl::StrContains(flags.object_root, "://")) {
    flags.object_root = absl::StrCat("file://", absolute(flags.object_root));
  }
  if (!IsCompleteStoreUri(flags.object_root)) {
    return InvalidInput("INVALID_FLAG", absl::StrCat("--object-root=", flags.object_root, ": give ",
                                                     StoreUriForms(), ", or a path"));
  }
  if (error) {
    return InvalidInput("INVALID_FLAG", absl::StrCat("no working directory: ", error.message()));
  }
  return flags;
}

}  // namespace uniquanf::server
