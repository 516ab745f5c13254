// The C++ client of the service. No type of gRPC or protocol buffers appears here.
//
//   auto client = uniquanf::Client::Connect({.server = "quantizer:50051"});
//   auto job = (*client)->SubmitJob({.spec = spec});
//   auto done = (*client)->WatchJob(job->name, [](const uniquanf::JobUpdate& update) { ... });
//
// Thread safety: Client is thread-safe. JobWatcher and JobIterator are used by one thread at a
// time, except JobWatcher::Cancel. Lifetime: watchers and iterators outlive their Client safely.
//
// Errors: the server's codes and reasons (ErrorReason() in common/base/status.h gives the reason:
// JOB_NOT_FOUND, INVALID_SPEC, ...), and from the client itself kUnavailable (SERVER_UNREACHABLE)
// and kDeadlineExceeded (NO_ANSWER). Only UNAVAILABLE is retried, with growing, jittered pauses.
// All calls are safe to retry: creation carries a request id, and a repeated call whose first reply
// got lost reports what the first one did.
//
// Names: "jobs/x" and "x" are the same job; "workers/y" and "y" the same worker.
#ifndef UNIQUANF_CLIENT_INCLUDE_UNIQUANF_CLIENT_H_
#define UNIQUANF_CLIENT_INCLUDE_UNIQUANF_CLIENT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/include/uniquanf/types.h"

namespace uniquanf {

struct RetryOptions {
  int max_attempts = 4;  // of one call; 1: never retry
  absl::Duration initial_backoff = absl::Milliseconds(200);
  absl::Duration max_backoff = absl::Seconds(5);
  // A watch that has been connected once keeps trying an unreachable server for this long.
  absl::Duration watch_patience = absl::Minutes(5);
};

struct ClientOptions {
  // HOST:PORT, or several joined by commas: servers on one state, of which one is active. A name
  // may stand for several addresses, and is looked up again when calls fail.
  std::string server = "127.0.0.1:50051";
  // PEM files. TLS is on with `tls` (the system's authorities) or `tls_ca_file`. Files that are
  // replaced are taken for new connections within seconds.
  bool tls = false;
  std::string tls_ca_file;
  std::string tls_certificate_file, tls_key_file;  // the client's own, together
  std::string tls_server_name;                     // default: the server's host
  // Holds a token that says who calls (JWT), for a server that asks; read again for each call. Sent
  // over TLS, or to this machine, alone.
  std::string token_file;
  // Deadline of each call, retries included. Watches have none.
  absl::Duration call_timeout = absl::Seconds(30);
  RetryOptions retry;
  // W3C trace context, sent with every call when not empty.
  std::string traceparent;
  // Called, from any thread, with what people should know and no call returns: files of TLS that
  // are replaced by broken ones, a certificate that is about to expire.
  std::function<void(const std::string&)> on_warning;
};

struct SubmitOptions : JobWish {
  QuantizationSpec spec;
  std::string job_id;      // default: chosen by the server
  std::string request_id;  // default: fresh for every SubmitJob
  bool validate_only = false;
  // Do not look at what the spec names: it is there for the workers alone.
  bool unchecked = false;
};

struct ListJobsOptions {
  int page_size = 0;       // 0: the server's
  std::string page_token;  // from the previous page
  std::string filter;      // state=RUNNING AND labels.team="x", see job_service.proto
  std::string order_by;
};
struct JobPage {
  std::vector<Job> jobs;
  std::string next_page_token;  // empty: no more
};

// All jobs of a listing, page by page as they are needed.
class JobIterator {
 public:
  ~JobIterator();
  JobIterator(JobIterator&&) noexcept;
  JobIterator& operator=(JobIterator&&) noexcept;
  // The next job, or nullopt at the end. After an error, the next call tries that page again.
  absl::StatusOr<std::optional<Job>> Next();

 private:
  friend class Client;
  struct Impl;
  explicit JobIterator(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct JobUpdate {
  Job job;
  std::vector<Task> tasks;  // all of the job's that are known, in the order of their names
};

// A job's changes as they happen. Broken connections are made up for: the watch resumes after the
// last version seen, so the final state is never missed.
class JobWatcher {
 public:
  ~JobWatcher();  // cancels
  JobWatcher(JobWatcher&&) noexcept;
  JobWatcher& operator=(JobWatcher&&) noexcept;
  // Blocks until the job changes; the first call returns its present state. nullopt once a final
  // state has been returned. kCancelled (WATCH_CANCELLED) after Cancel; kAborted (JOB_REPLACED)
  // when the job was deleted and its name used again.
  absl::StatusOr<std::optional<JobUpdate>> Next();
  // From any thread, also while Next blocks. The job itself goes on.
  void Cancel();
  // How long the server has not been heard, where it should have been: it sends a message every two
  // seconds at least (older servers: while the connection stands, nobody can tell). From any
  // thread.
  absl::Duration Silence() const;

 private:
  friend class Client;
  struct Impl;
  explicit JobWatcher(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

struct DownloadProgress {
  std::string file;  // being read
  int64_t bytes_done = 0, bytes_total = 0;
};
struct DownloadOptions {
  // Called often, from the calling thread; returning false stops the download with kCancelled.
  std::function<bool(const DownloadProgress&)> progress;
};
struct DownloadResult {
  std::string directory;
  int num_files = 0;
  int64_t size_bytes = 0;
};

class Client {
 public:
  // Checks the options and prepares a channel; the connection is made by the first call.
  // kInvalidArgument (INVALID_TLS_OPTIONS, INVALID_SERVER, INVALID_TOKEN_FILE, INSECURE_TOKEN).
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const ClientOptions& options);
  ~Client();

  absl::StatusOr<Job> SubmitJob(const SubmitOptions& options);
  absl::StatusOr<Job> GetJob(absl::string_view job);
  absl::StatusOr<JobPage> ListJobs(const ListJobsOptions& options);
  JobIterator IterateJobs(const ListJobsOptions& options);

  JobWatcher WatchJob(absl::string_view job);
  // Calls `on_update` for every change until the job is final, and returns that last state.
  absl::StatusOr<Job> WatchJob(absl::string_view job,
                               const std::function<void(const JobUpdate&)>& on_update);

  absl::StatusOr<Job> CancelJob(absl::string_view job);
  absl::StatusOr<Job> PauseJob(absl::string_view job);
  absl::StatusOr<Job> ResumeJob(absl::string_view job);
  absl::StatusOr<Job> RetryJob(absl::string_view job);
  // Only final jobs; the published artifact stays.
  absl::Status DeleteJob(absl::string_view job, bool allow_missing = false);
  // All of a job's tasks, every page of them.
  absl::StatusOr<std::vector<Task>> ListTasks(absl::string_view job);

  absl::StatusOr<std::vector<Worker>> ListWorkers();
  absl::StatusOr<Worker> DrainWorker(absl::string_view worker);  // a drained name stays so
  absl::StatusOr<Worker> UndrainWorker(absl::string_view worker);
  absl::StatusOr<ServerInfo> GetServerInfo();
  // OK when a server serves. kUnavailable (SERVER_UNREACHABLE): none answers within the call's
  // timeout; kFailedPrecondition (NOT_SERVING): it answers, and stands by, starts or stops.
  absl::Status CheckHealth();
  // Says that the server's wall clock is right although it ran ahead.
  absl::StatusOr<ServerInfo> ConfirmWallClock();

 private:
  struct Impl;
  explicit Client(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

// Copies a published artifact from object storage, which this process must be able to read, to
// `directory` (a new local directory). Every file's size and SHA-256 is checked against the
// manifest, and the manifest against `artifact.manifest_sha256` where that is known. The directory
// appears whole, in one step, or not at all; kAlreadyExists (OUTPUT_EXISTS) when there is something
// already.
absl::StatusOr<DownloadResult> DownloadArtifact(const ArtifactInfo& artifact,
                                                absl::string_view directory,
                                                const DownloadOptions& options = {});

}  // namespace uniquanf

#endif  // UNIQUANF_CLIENT_INCLUDE_UNIQUANF_CLIENT_H_
