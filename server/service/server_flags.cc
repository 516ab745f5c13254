#include "server/service/server_flags.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/flag_set.h"
#include "common/base/status.h"

namespace uniquanf::server {

absl::StatusOr<ServerFlags> ParseServerFlags(const std::vector<std::string>& arguments) {
  ServerFlags flags;
  Policy& policy = flags.policy;
  FlagSet set(
      "uniquanf-server [flags]",
      "Schedules quantization jobs: takes them from clients, leases their tasks to workers.");
  set.Section("Network");
  set.String("listen", "HOST:PORT", &flags.listen, "gRPC address; port 0 takes a free one");
  set.String("metrics-listen", "HOST:PORT", &flags.metrics_listen,
             "HTTP address of /metrics, /healthz and /readyz; empty: off");
  set.String("ready-file", "FILE", &flags.ready_file,
             "written with the gRPC address once the server serves");
  set.String("tls-cert", "FILE", &flags.tls.certificate_file,
             "PEM certificate of this server; turns TLS on");
  set.String("tls-key", "FILE", &flags.tls.key_file, "PEM key of that certificate");
  set.String("tls-ca", "FILE", &flags.tls.client_ca_file,
             "PEM; clients and workers must prove themselves with a certificate of this authority");
  set.Duration("shutdown-timeout", &flags.shutdown_timeout, absl::ZeroDuration(),
               "open calls are cancelled this long after SIGTERM");
  set.Section("State and objects");
  set.String("data-dir", "DIR", &flags.data_dir, "where state and objects live by default");
  set.String(
      "state", "FILE|URI", &flags.state,
      "SQLite file, or postgresql://user@host/database, which several servers may share: one "
      "is active, the others stand by; default: DATA_DIR/state.sqlite");
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
  set.Duration("tenant-usage-half-life", &policy.usage_half_life, absl::Seconds(1),
               "fair share: worker time used counts half after this long");
  set.Duration("default-ttl", &policy.default_time_to_live, absl::ZeroDuration(),
               "finished jobs submitted without --ttl are deleted (not their artifacts) after this "
               "long; 0s: kept");
  set.Section("Diagnostics");
  set.Choice("log-format", {"text", "json"}, &flags.log_format, "one record per line on stderr");
  set.Choice("log-level", {"debug", "info", "warning", "error"}, &flags.log_level,
             "least severe records written");
  set.Bool("version", &flags.version, "print the version and exit");
  UQ_RETURN_IF_ERROR(set.Parse(arguments));
  if (set.help_requested()) {
    flags.help = set.Help();
    return flags;
  }
  std::error_code error;
  const auto absolute = [&error](const std::string& path) {
    return std::filesystem::absolute(path, error).lexically_normal().string();
  };
  flags.data_dir = absolute(flags.data_dir);
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
  if (!absl::StartsWith(flags.object_root, "file:///") &&
      !absl::StartsWith(flags.object_root, "s3://")) {
    return InvalidInput("INVALID_FLAG", absl::StrCat("--object-root=", flags.object_root,
                                                     ": give file:///directory, a path, or "
                                                     "s3://bucket/prefix"));
  }
  if (error) {
    return InvalidInput("INVALID_FLAG", absl::StrCat("no working directory: ", error.message()));
  }
  return flags;
}

}  // namespace uniquanf::server
