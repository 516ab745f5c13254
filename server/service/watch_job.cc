// WatchJob: a stream that follows the published state. One write is under way at a time; changes
// meanwhile are merged into the next, which carries whatever is newest then.
#include <algorithm>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/status.h"
#include "common/rpc/time_proto.h"
#include "server/service/resource_names.h"
#include "server/service/services.h"

namespace uniquanf::server {
namespace {

constexpr absl::Duration kMinHeartbeat = absl::Seconds(1), kMaxHeartbeat = absl::Minutes(1);

class WatchCall;

// Outlives the call for as long as the hub may still notify it.
class WatchStream : public JobWatcher {
 public:
  // Asked again and again: OK while the caller has the right.
  using StillAllowed = std::function<absl::Status()>;

  // `heartbeat`: how long it is silent at most; infinite: for ever.
  WatchStream(WatchCall* call, uint64_t job, int64_t after_version, NameForm form,
              StillAllowed still_allowed, WatchUpdates* updates, const Clock* clock,
              absl::Duration heartbeat)
      : job_(job),
        clock_(clock),
        heartbeat_(heartbeat),
        form_(form),
        still_allowed_(std::move(still_allowed)),
        updates_(updates),
        call_(call),
        sent_version_(after_version) {}

  uint64_t job() const { return job_; }

  void OnJobChanged() override {
    absl::MutexLock lock(&mutex_);
    dirty_ = true;
    Advance();
  }
  void OnTick() override {
    absl::MutexLock lock(&mutex_);
    if (call_ == nullptr || ended_ || writing_ || !responses_.empty()) return;
    if (clock_->Monotonic() - written_at_ < heartbeat_) return;
    responses_.push_back(std::make_shared<const v1::WatchJobResponse>());
    Write();
  }
  void OnShutdown() override {
    absl::MutexLock lock(&mutex_);
    End(Unavailable("SHUTTING_DOWN", "the server shuts down; watch again from the last version"));
  }
  void OnWriteDone(bool ok) {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    responses_.pop_back();
    if (!ok) {
      End(absl::CancelledError("the caller went away"));
    } else if (pending_end_) {
      End(pending_status_);
    } else {
      Advance();
    }
  }
  void OnCancel() {
    absl::MutexLock lock(&mutex_);
    End(absl::CancelledError("the caller went away"));
  }
  // The call is being deleted.
  void Detach() {
    absl::MutexLock lock(&mutex_);
    call_ = nullptr;
  }

 private:
  // Sends what is new, or ends the stream when there will be nothing more.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const uint64_t job_;
  const Clock* const clock_;
  const absl::Duration heartbeat_;
  const NameForm form_;
  const StillAllowed still_allowed_;
  WatchUpdates* const updates_;
  absl::Mutex mutex_;
  WatchCall* call_ ABSL_GUARDED_BY(mutex_);
  int64_t sent_version_ ABSL_GUARDED_BY(mutex_);
  int64_t tasks_sent_version_ ABSL_GUARDED_BY(mutex_) = -1;
  absl::Duration written_at_ ABSL_GUARDED_BY(mutex_);
  bool dirty_ ABSL_GUARDED_BY(mutex_) = true;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool pending_end_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status pending_status_ ABSL_GUARDED_BY(mutex_);
  // What is being written, held meanwhile, and what follows it; in reverse order.
  std::vector<std::shared_ptr<const v1::WatchJobResponse>> responses_ ABSL_GUARDED_BY(mutex_);
  bool final_ ABSL_GUARDED_BY(mutex_) = false;  // the stream ends with them
};

class WatchCall final : public grpc::ServerWriteReactor<v1::WatchJobResponse> {
 public:
  WatchCall(const ServiceContext& context, Admission admission, const v1::WatchJobRequest& request,
            WatchUpdates* updates)
      : context_(context), admission_(std::move(admission)) {
    if (!admission_.status().ok()) {
      FinishWith(admission_.status());
      return;
    }
    const absl::StatusOr<JobRef> job = ParseJobName("name", request.name());
    if (!job.ok()) {
      FinishWith(job.status());
      return;
    }
    absl::Duration heartbeat = absl::InfiniteDuration();
    if (request.has_heartbeat()) {
      heartbeat = std::clamp(DurationFromProto(request.heartbeat()), kMinHeartbeat, kMaxHeartbeat);
    }
    context.runtime->WhenCurrent([this, job = *job, after = request.after_version(), updates,
                                  heartbeat](const absl::Status& current) {
      if (current.ok()) {
        Start(job, after, updates, heartbeat);
      } else {
        FinishWith(current);
      }
    });
  }

  void FinishWith(const absl::Status& status) { Finish(admission_.End(status)); }

 private:
  void Start(const JobRef& job, int64_t after_version, WatchUpdates* updates,
             absl::Duration heartbeat);
  WatchStream::StillAllowed StillAllowed(const Job& job) const;
  void OnWriteDone(bool ok) override { stream()->OnWriteDone(ok); }
  void OnCancel() override {
    std::shared_ptr<WatchStream> stream;
    {
      absl::MutexLock lock(&mutex_);
      cancelled_ = true;
      stream = stream_;
    }
    if (stream != nullptr) stream->OnCancel();
  }
  void OnDone() override {
    if (const std::shared_ptr<WatchStream> stream = this->stream()) {
      stream->Detach();
      context_.runtime->watch_hub().Remove(stream->job(), stream.get());
    }
    delete this;
  }
  std::shared_ptr<WatchStream> stream() const {
    absl::MutexLock lock(&mutex_);
    return stream_;
  }

  const ServiceContext& context_;
  const Admission admission_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<WatchStream> stream_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

// Once a stream has been given to the hub, the call may end and be deleted at any time.
void WatchCall::Start(const JobRef& job, int64_t after_version, WatchUpdates* updates,
                      absl::Duration heartbeat) {
  const Principal& principal = *admission_.principal();
  const absl::StatusOr<JobView> view =
      FindJob(context_.runtime->published(), job, AccessTo(principal, Verb::kRead));
  if (!view.ok()) {
    FinishWith(view.status());
    return;
  }
  Runtime* const runtime = context_.runtime;
  const auto stream =
      std::make_shared<WatchStream>(this, view->job->seq, after_version, NameFormFor(principal),
                                    StillAllowed(*view->job), updates, context_.clock, heartbeat);
  bool cancelled;
  {
    absl::MutexLock lock(&mutex_);
    stream_ = stream;
    cancelled = cancelled_;
    runtime->watch_hub().Add(stream->job(), stream);
  }
  if (cancelled) return stream->OnCancel();
  stream->OnJobChanged();
  // Between the two the streams may have been ended for a server that is active no more.
  if (!runtime->availability().ok()) stream->OnShutdown();
}

// By the policy and the time of that moment; a stream may outlive both its token and its right.
WatchStream::StillAllowed WatchCall::StillAllowed(const Job& job) const {
  const AccessControl* const access = context_.door.access;
  if (access == nullptr) return [] { return absl::OkStatus(); };
  return [access, principal = admission_.principal(), tenant = job.tenant,
          id = job.id]() -> absl::Status {
    UQ_ASSIGN_OR_RETURN(const Principal now, access->Again(*principal));
    if (AccessTo(now, Verb::kRead).visible.Has(tenant)) return absl::OkStatus();
    return NotFound("JOB_NOT_FOUND", absl::StrCat("no job ", Quoted(JobName(id))));
  };
}

void WatchStream::Advance() {
  if (call_ == nullptr || ended_ || writing_) return;
  const absl::Status allowed = still_allowed_();
  if (!allowed.ok()) return End(allowed);
  if (!responses_.empty()) return Write();
  if (!dirty_) return;
  dirty_ = false;
  std::optional<WatchUpdates::Update> update =
      updates_->After(job_, sent_version_, tasks_sent_version_, form_);
  if (!update.has_value()) {
    return End(NotFound("JOB_NOT_FOUND", "the job was deleted while it was watched"));
  }
  if (!update->responses.empty()) {
    responses_.assign(update->responses.rbegin(), update->responses.rend());
    sent_version_ = tasks_sent_version_ = responses_[0]->job().version();
    final_ = update->final;
    Write();
  } else if (update->final) {
    End(absl::OkStatus());
  }
}

void WatchStream::Write() {
  writing_ = true;
  written_at_ = clock_->Monotonic();
  if (final_ && responses_.size() == 1) {
    pending_end_ = true;
    pending_status_ = absl::OkStatus();
  }
  call_->StartWrite(responses_.back().get());
}

void WatchStream::End(const absl::Status& status) {
  if (call_ == nullptr || ended_) return;
  if (writing_) {
    // One operation at a time: the end follows the write that is under way.
    if (!pending_end_) {
      pending_end_ = true;
      pending_status_ = status;
    }
    return;
  }
  ended_ = true;
  call_->FinishWith(status);
}

}  // namespace

grpc::ServerWriteReactor<v1::WatchJobResponse>* JobServiceImpl::WatchJob(
    grpc::CallbackServerContext* rpc, const v1::WatchJobRequest* request) {
  return new WatchCall(context_, Admit(context_, rpc, MethodRow("WatchJob"), request->name()),
                       *request, &watch_updates_);
}

}  // namespace uniquanf::server
