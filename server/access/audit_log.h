// Who did what: one JSON object a line for each call that changes something or is refused, and for
// each lease that is given to a worker (README.md has the members). Lines are written in batches,
// each made durable at once; what cannot be written is kept and tried again, and counted when there
// is no room for it any more.
//
// Thread safety: thread-safe; has a thread of its own. Append never blocks.
#ifndef UNIQUANF_SERVER_ACCESS_AUDIT_LOG_H_
#define UNIQUANF_SERVER_ACCESS_AUDIT_LOG_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/rpc/notes.h"

namespace uniquanf::server {

struct AuditRecord {
  absl::Time time;
  std::string principal, authenticator, peer;
  std::string method;    // "JobService/CancelJob"; "Lease" for a task that is given
  std::string resource;  // as the request names it; of CreateJob the job that was made
  std::string tenant;    // of the stored job, where that is known
  bool allowed = false;
  std::string code, reason;  // how the call ended: "OK", "NOT_FOUND"
  std::string request_id, spec_sha256;
  std::vector<std::string> uris;  // of the job's specification; credentials in them are hidden
};
// One line without its end.
std::string AuditLine(const AuditRecord& record);

class AuditLog {
 public:
  // Appends to `path`, which is made with mode 0600 where it is missing, and begins with a line of
  // the server's start. What goes wrong is said to `note`. Errors: kInvalidArgument (INVALID_FLAG):
  // it cannot be opened.
  static absl::StatusOr<std::unique_ptr<AuditLog>> Open(const std::string& path, NoteSink note);
  // Writes what is left, if that is possible.
  ~AuditLog();

  void Append(const AuditRecord& record);
  // OK, or kUnavailable (AUDIT_UNAVAILABLE): the last batch could not be written.
  absl::Status health() const;
  // Lines that were given up, and batches that could not be written.
  int64_t num_failures() const;
  // Opens the file of that name again, which somebody may have renamed.
  void Reopen();
  // Until all that was appended before has been written, or could not be.
  void Flush();

 private:
  AuditLog(std::string path, NoteSink note, int fd)
      : path_(std::move(path)), note_(std::move(note)), fd_(fd) {}
  void Push(std::string line);
  void Run();
  // *num_lines: those that were written whole.
  absl::Status Write(const std::vector<std::string>& batch, size_t* num_lines);

  const std::string path_;
  const NoteSink note_;
  int fd_;             // the thread's own, once it runs
  bool torn_ = false;  // likewise: a batch was written in part, and its last line has no end
  mutable absl::Mutex mutex_;
  std::deque<std::string> lines_ ABSL_GUARDED_BY(mutex_);
  int64_t num_appended_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_tried_ ABSL_GUARDED_BY(mutex_) = 0;  // of them, the last time
  int64_t num_failures_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
  bool reopen_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_ACCESS_AUDIT_LOG_H_
