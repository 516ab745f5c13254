// WatchJob: one stream after another until a final state has been seen.
#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/include/uniquanf/client.h"
#include "client/src/caller.h"
#include "client/src/client_impl.h"
#include "client/src/convert.h"
#include "common/rpc/status_proto.h"
#include "common/rpc/time_proto.h"

namespace uniquanf {
namespace {
constexpr absl::Duration kCancelSlice = absl::Milliseconds(50);
// Asked of the server: how long it is silent at most.
constexpr absl::Duration kHeartbeat = absl::Seconds(2);
}  // namespace

struct JobWatcher::Impl {
  Impl(std::shared_ptr<Caller> the_caller, std::string job)
      : caller(std::move(the_caller)), name(std::move(job)) {}

  absl::StatusOr<std::optional<JobUpdate>> Next();
  void Cancel();

  // Opens the stream after the last version seen. WATCH_CANCELLED after Cancel.
  absl::Status Open();
  // Ends the stream and gives its status.
  grpc::Status Close();
  // Merges a message; nullopt when it holds nothing new.
  absl::StatusOr<std::optional<JobUpdate>> Take(const v1::WatchJobResponse& response);
  // Decides what a stream that ended without a final state means: OK: open the next one.
  absl::Status Recover(const grpc::Status& status);
  absl::Status CheckSameJob();
  absl::Status CancelledError() const {
    return MakeError(absl::StatusCode::kCancelled, "WATCH_CANCELLED",
                     absl::StrCat("the watch of ", name, " was cancelled; the job goes on"));
  }

  const std::shared_ptr<Caller> caller;
  const std::string name;

  // Used by the watching thread only.
  std::unique_ptr<grpc::ClientReader<v1::WatchJobResponse>> reader;
  bool seen = false;  // a message has arrived
  std::string uid;    // of the job watched
  int64_t version = 0;
  std::map<std::string, Task> tasks;
  bool final_seen = false;
  int num_failures = 0;  // since the last message
  absl::Time last_contact = absl::InfinitePast();

  absl::Mutex mutex;
  bool cancelled ABSL_GUARDED_BY(mutex) = false;
  absl::Time heard_at ABSL_GUARDED_BY(mutex) = absl::Now();
  bool stream_lost ABSL_GUARDED_BY(mutex) = false;  // since then
  bool beats ABSL_GUARDED_BY(mutex) = false;        // the server sends heartbeats
  std::unique_ptr<grpc::ClientContext> context ABSL_GUARDED_BY(mutex);
};

absl::Status JobWatcher::Impl::Open() {
  v1::WatchJobRequest request;
  request.set_name(name);
  request.set_after_version(version);
  *request.mutable_heartbeat() = DurationToProto(kHeartbeat);
  auto fresh = std::make_unique<grpc::ClientContext>();
  UQ_RETURN_IF_ERROR(caller->PrepareContext(fresh.get()));
  grpc::ClientContext* const raw = fresh.get();
  {
    absl::MutexLock lock(&mutex);
    if (cancelled) return CancelledError();
    context = std::move(fresh);
  }
  reader = v1::JobService::Stub(caller->channel()).WatchJob(raw, request);
  return absl::OkStatus();
}

grpc::Status JobWatcher::Impl::Close() {
  const grpc::Status status = reader->Finish();
  reader.reset();
  absl::MutexLock lock(&mutex);
  context.reset();
  return status;
}

void JobWatcher::Impl::Cancel() {
  absl::MutexLock lock(&mutex);
  cancelled = true;
  if (context != nullptr) context->TryCancel();
}

absl::StatusOr<std::optional<JobUpdate>> JobWatcher::Impl::Take(
    const v1::WatchJobResponse& response) {
  last_contact = absl::Now();
  num_failures = 0;
  {
    absl::MutexLock lock(&mutex);
    heard_at = last_contact;
    stream_lost = false;
    beats = beats || !response.has_job();
  }
  if (!response.has_job()) return std::nullopt;  // a heartbeat
  const v1::Job& job = response.job();
  if (seen && job.uid() != uid) {
    return MakeError(absl::StatusCode::kAborted, "JOB_REPLACED",
                     absl::StrCat(name, " was deleted, and its name is used by another job now"));
  }
  if (seen && job.version() <= version) return std::nullopt;
  if (response.more()) {  // the rest of this version follows
    for (const v1::Task& task : response.tasks()) tasks[task.name()] = TaskFromProto(task);
    return std::nullopt;
  }
  JobUpdate update;
  UQ_ASSIGN_OR_RETURN(update.job, JobFromProto(job));
  seen = true;
  uid = job.uid();
  version = job.version();
  for (const v1::Task& task : response.tasks()) tasks[task.name()] = TaskFromProto(task);
  for (const auto& [task_name, task] : tasks) update.tasks.push_back(task);
  final_seen = IsFinal(update.job.state);
  return update;
}

// A server that lost the job and has another of the same name would otherwise be waited for
// forever: its versions may all be older than the last one seen.
absl::Status JobWatcher::Impl::CheckSameJob() {
  v1::GetJobRequest request;
  request.set_name(name);
  const auto job = caller->Call(&v1::JobService::Stub::GetJob, request);
  if (!job.ok()) {
    // Unreachable: the stream will say so, under the watch's own patience.
    return job.status().code() == absl::StatusCode::kNotFound ? job.status() : absl::OkStatus();
  }
  if (job->uid() == uid) return absl::OkStatus();
  return MakeError(absl::StatusCode::kAborted, "JOB_REPLACED",
                   absl::StrCat(name, " was deleted, and its name is used by another job now"));
}

absl::Status JobWatcher::Impl::Recover(const grpc::Status& ended_with) {
  {
    absl::MutexLock lock(&mutex);
    stream_lost = true;
  }
  const grpc::Status status = caller->Judge(ended_with);
  const RetryOptions& retry = caller->options().retry;
  ++num_failures;
  // A watch outlives its token; the file may hold a fresh one by now.
  const bool expired = ErrorReason(FromGrpcStatus(status)) == "TOKEN_EXPIRED";
  if (expired && seen && num_failures == 1 && !caller->options().token_file.empty()) {
    return absl::OkStatus();
  }
  // OK without a final state: the server is going away, or renews its connections.
  if (!status.ok() && status.error_code() != grpc::StatusCode::UNAVAILABLE) {
    return caller->Explain(status, num_failures);
  }
  if (!seen ? num_failures >= caller->max_attempts()
            : absl::Now() - last_contact > retry.watch_patience) {
    if (status.ok()) {
      return MakeError(absl::StatusCode::kUnavailable, "SERVER_UNREACHABLE",
                       absl::StrCat("the server at ", caller->options().server,
                                    " keeps ending the watch of ", name));
    }
    return caller->Explain(status, num_failures);
  }
  // In slices, so that Cancel is noticed.
  const absl::Time end = absl::Now() + caller->Backoff(num_failures);
  for (absl::Time now = absl::Now(); now < end; now = absl::Now()) {
    caller->Pause(std::min(end - now, kCancelSlice));
    absl::MutexLock lock(&mutex);
    if (cancelled) return CancelledError();
  }
  return seen ? CheckSameJob() : absl::OkStatus();
}

absl::StatusOr<std::optional<JobUpdate>> JobWatcher::Impl::Next() {
  while (true) {
    if (final_seen) {
      if (reader != nullptr) {
        {
          absl::MutexLock lock(&mutex);
          context->TryCancel();  // nothing of interest can follow
        }
        Close();
      }
      return std::nullopt;
    }
    if (reader == nullptr) UQ_RETURN_IF_ERROR(Open());
    v1::WatchJobResponse response;
    if (reader->Read(&response)) {
      auto update = Take(response);
      if (!update.ok() || update->has_value()) return update;
      continue;
    }
    const grpc::Status status = Close();
    {
      absl::MutexLock lock(&mutex);
      if (cancelled) return CancelledError();
    }
    UQ_RETURN_IF_ERROR(Recover(status));
  }
}

JobWatcher::JobWatcher(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
JobWatcher::JobWatcher(JobWatcher&&) noexcept = default;
JobWatcher& JobWatcher::operator=(JobWatcher&& other) noexcept {
  std::swap(impl_, other.impl_);
  return *this;
}
JobWatcher::~JobWatcher() {
  if (impl_ == nullptr) return;
  impl_->Cancel();
  if (impl_->reader != nullptr) impl_->Close();
}

absl::StatusOr<std::optional<JobUpdate>> JobWatcher::Next() { return impl_->Next(); }
void JobWatcher::Cancel() { impl_->Cancel(); }

absl::Duration JobWatcher::Silence() const {
  absl::MutexLock lock(&impl_->mutex);
  // An older server is silent while the job does not change.
  if (!impl_->stream_lost && !impl_->beats) return absl::ZeroDuration();
  return absl::Now() - impl_->heard_at;
}

JobWatcher Client::WatchJob(absl::string_view job) {
  return JobWatcher(std::make_shared<JobWatcher::Impl>(impl_->caller, JobResourceName(job)));
}

absl::StatusOr<Job> Client::WatchJob(absl::string_view job,
                                     const std::function<void(const JobUpdate&)>& on_update) {
  JobWatcher watcher = WatchJob(job);
  Job last;
  while (true) {
    absl::StatusOr<std::optional<JobUpdate>> update = watcher.Next();
    if (!update.ok()) return update.status();
    if (!update->has_value()) return last;
    if (on_update) on_update(**update);
    last = std::move((*update)->job);
  }
}

}  // namespace uniquanf
