#include "server/access/audit_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/json_util.h"
#include "common/base/status.h"

namespace uniquanf::server {
namespace {

constexpr size_t kMaxLinesKept = 100'000;
constexpr size_t kMaxBatchLines = 1'000;
constexpr size_t kMaxText = 1'024;
constexpr absl::Duration kRetryPause = absl::Milliseconds(500);
constexpr int kFlags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC;

}  // namespace

std::string AuditLine(const AuditRecord& record) {
  OrderedJson line;
  const auto add = [&line](const char* name, const std::string& value) {
    if (!value.empty()) line[name] = value.substr(0, kMaxText);
  };
  add("time", absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", record.time, absl::UTCTimeZone()));
  add("principal", record.principal);
  add("authenticator", record.authenticator);
  add("peer", record.peer);
  add("method", record.method);
  add("resource", record.resource);
  add("tenant", record.tenant);
  line["decision"] = record.allowed ? "allowed" : "denied";
  add("code", record.code);
  add("reason", record.reason);
  add("request_id", record.request_id);
  add("spec_sha256", record.spec_sha256);
  for (const std::string& uri : record.uris) line["uris"].push_back(uri.substr(0, kMaxText));
  return CompactJson(line);
}

absl::StatusOr<std::unique_ptr<AuditLog>> AuditLog::Open(const std::string& path, NoteSink note) {
  const int fd = open(path.c_str(), kFlags, 0600);
  if (fd < 0) {
    return InvalidInput("INVALID_FLAG",
                        absl::StrCat("--audit-log=", path, ": ", std::strerror(errno)));
  }
  std::unique_ptr<AuditLog> log(new AuditLog(path, std::move(note), fd));
  log->thread_ = std::thread([raw = log.get()] { raw->Run(); });
  AuditRecord start;
  start.time = absl::Now();
  start.method = "Start";
  start.allowed = true;
  log->Append(start);
  log->Flush();
  return log;
}

AuditLog::~AuditLog() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
  if (fd_ >= 0) close(fd_);
}

void AuditLog::Append(const AuditRecord& record) { Push(AuditLine(record)); }

void AuditLog::Push(std::string line) {
  absl::MutexLock lock(&mutex_);
  ++num_appended_;
  if (lines_.size() >= kMaxLinesKept) {
    ++num_tried_;
    ++num_failures_;
    return;
  }
  lines_.push_back(std::move(line));
}

absl::Status AuditLog::health() const {
  absl::MutexLock lock(&mutex_);
  return health_;
}

int64_t AuditLog::num_failures() const {
  absl::MutexLock lock(&mutex_);
  return num_failures_;
}

void AuditLog::Reopen() {
  absl::MutexLock lock(&mutex_);
  reopen_ = true;
}

void AuditLog::Flush() {
  absl::MutexLock lock(&mutex_);
  const int64_t wanted = num_appended_;
  const auto done = [this, wanted]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return num_tried_ >= wanted || stop_;
  };
  mutex_.Await(absl::Condition(&done));
}

// A line that was cut off by a full disk is ended first, so that what follows can be read.
absl::Status AuditLog::Write(const std::vector<std::string>& batch, size_t* num_lines) {
  std::string whole = torn_ ? "\n" : "";
  const size_t begin = whole.size();
  for (const std::string& line : batch) absl::StrAppend(&whole, line, "\n");
  size_t written = 0;
  while (written < whole.size()) {
    const ssize_t n = write(fd_, whole.data() + written, whole.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const int error = errno;
      if (written > 0) torn_ = whole[written - 1] != '\n';
      for (size_t i = begin; i < written; ++i) *num_lines += whole[i] == '\n';
      return Unavailable("AUDIT_UNAVAILABLE",
                         absl::StrCat("the audit log cannot be written: ", std::strerror(error)));
    }
    written += static_cast<size_t>(n);
  }
  torn_ = false;
  *num_lines = batch.size();
  // Pipes and terminals have nothing to make durable.
  if (fdatasync(fd_) != 0 && errno != EINVAL && errno != EROFS) {
    return Unavailable("AUDIT_UNAVAILABLE", absl::StrCat("the audit log cannot be made durable: ",
                                                         std::strerror(errno)));
  }
  return absl::OkStatus();
}

void AuditLog::Run() {
  bool again = false;  // after a failure
  while (true) {
    std::vector<std::string> batch;
    bool reopen = false, stop = false;
    {
      absl::MutexLock lock(&mutex_);
      const auto woken = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stop_ || reopen_ || !lines_.empty();
      };
      const auto urgent = [this]()
                              ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || reopen_; };
      if (again) {
        mutex_.AwaitWithTimeout(absl::Condition(&urgent), kRetryPause);
      } else {
        mutex_.Await(absl::Condition(&woken));
      }
      reopen = std::exchange(reopen_, false);
      stop = stop_;
      const size_t count = std::min(lines_.size(), kMaxBatchLines);
      batch.assign(lines_.begin(), lines_.begin() + static_cast<int64_t>(count));
    }
    if (reopen) {
      const int fd = open(path_.c_str(), kFlags, 0600);
      if (fd >= 0) {
        close(std::exchange(fd_, fd));
        torn_ = false;
      } else if (note_ != nullptr) {
        note_(NoteLevel::kWarning,
              absl::StrCat("the audit log cannot be opened again, and goes on in the old file: ",
                           std::strerror(errno)));
      }
    }
    if (batch.empty()) {
      if (stop) return;
      continue;
    }
    size_t num_lines = 0;
    const absl::Status status = Write(batch, &num_lines);
    if (!status.ok() && !again && note_ != nullptr) {
      note_(NoteLevel::kWarning, absl::StrCat(status.message(), "; it is tried again"));
    }
    again = !status.ok();
    absl::MutexLock lock(&mutex_);
    health_ = status;
    lines_.erase(lines_.begin(), lines_.begin() + static_cast<int64_t>(num_lines));
    if (status.ok()) {
      num_tried_ = num_appended_ - static_cast<int64_t>(lines_.size());
    } else {
      ++num_failures_;
      num_tried_ = num_appended_;
    }
    if (stop && (again || lines_.empty())) return;
  }
}

}  // namespace uniquanf::server
