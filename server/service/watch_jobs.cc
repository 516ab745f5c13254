// WatchJobs: a stream of all jobs that the caller may see, as they change. One write is under way
// at a time; what changes meanwhile is merged into the next.
#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "common/base/status.h"
#include "common/base/violations.h"
#include "server/service/job_listing.h"
#include "server/service/resource_names.h"
#include "server/service/services.h"

namespace uniquanf::server {
namespace {

constexpr absl::Duration kHeartbeat = absl::Seconds(15);
// Clients refuse messages beyond 4 MiB; a job is some KiB, more with a report.
constexpr size_t kMaxJobs = 256;
constexpr size_t kMaxBytes = 1 << 20;

class FeedCall;

// Outlives the call for as long as the hub may still notify it.
class FeedStream : public JobWatcher {
 public:
  // The tenants whose jobs the caller may see now, or why none any more.
  using Scope = std::function<absl::StatusOr<TenantScope>()>;

  FeedStream(FeedCall* call, const ServiceContext* context, JobFilter filter, NameForm form,
             Scope scope, uint64_t after, bool reset)
      : context_(*context),
        filter_(std::move(filter)),
        form_(form),
        scope_(std::move(scope)),
        call_(call),
        after_(after),
        reset_(reset) {}

  void OnJobChanged() override {
    absl::MutexLock lock(&mutex_);
    dirty_ = true;
    Advance();
  }
  void OnTick() override {
    absl::MutexLock lock(&mutex_);
    if (context_.clock->Monotonic() - written_at_ < kHeartbeat) return;
    dirty_ = heartbeat_ = true;
    Advance();
  }
  void OnShutdown() override {
    absl::MutexLock lock(&mutex_);
    End(Unavailable("SHUTTING_DOWN", "the server shuts down; watch again from the last cursor"));
  }
  void OnWriteDone(bool ok) {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
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
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ServiceContext& context_;
  const JobFilter filter_;
  const NameForm form_;
  const Scope scope_;
  absl::Mutex mutex_;
  FeedCall* call_ ABSL_GUARDED_BY(mutex_);
  uint64_t after_ ABSL_GUARDED_BY(mutex_);
  bool reset_ ABSL_GUARDED_BY(mutex_);
  std::set<uint64_t> sent_ ABSL_GUARDED_BY(mutex_);  // jobs that match the filter, as sent last
  v1::WatchJobsResponse response_ ABSL_GUARDED_BY(mutex_);
  absl::Duration written_at_ ABSL_GUARDED_BY(mutex_);
  bool first_ ABSL_GUARDED_BY(mutex_) = true;
  bool dirty_ ABSL_GUARDED_BY(mutex_) = true;
  bool heartbeat_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool pending_end_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status pending_status_ ABSL_GUARDED_BY(mutex_);
};

class FeedCall final : public grpc::ServerWriteReactor<v1::WatchJobsResponse> {
 public:
  FeedCall(const ServiceContext& context, Admission admission, const v1::WatchJobsRequest& request)
      : context_(context), admission_(std::move(admission)) {
    const absl::Status begun = Begin(request);
    if (!begun.ok()) FinishWith(begun);
  }

  void FinishWith(const absl::Status& status) { Finish(admission_.End(status)); }
  static std::string FeedInstance(const ServiceContext& context) {
    return absl::StrCat(absl::Hex(absl::ToUnixNanos(context.start_time)));
  }

 private:
  // OK: the call goes on, or has ended.
  absl::Status Begin(const v1::WatchJobsRequest& request);
  void Start(const JobFilter& filter, uint64_t after, bool reset);
  FeedStream::Scope ScopeNow() const;
  void OnWriteDone(bool ok) override { stream()->OnWriteDone(ok); }
  void OnCancel() override {
    std::shared_ptr<FeedStream> stream;
    {
      absl::MutexLock lock(&mutex_);
      cancelled_ = true;
      stream = stream_;
    }
    if (stream != nullptr) stream->OnCancel();
  }
  void OnDone() override {
    if (const std::shared_ptr<FeedStream> stream = this->stream()) {
      stream->Detach();
      context_.runtime->watch_hub().Remove(WatchHub::kAllJobs, stream.get());
    }
    delete this;
  }
  std::shared_ptr<FeedStream> stream() const {
    absl::MutexLock lock(&mutex_);
    return stream_;
  }

  const ServiceContext& context_;
  const Admission admission_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<FeedStream> stream_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

absl::Status FeedCall::Begin(const v1::WatchJobsRequest& request) {
  UQ_RETURN_IF_ERROR(admission_.status());
  UQ_ASSIGN_OR_RETURN(JobFilter filter, JobFilter::Parse(request.filter()));
  uint64_t after = 0;
  bool reset = false;
  if (!request.cursor().empty()) {
    const std::vector<std::string> parts = absl::StrSplit(request.cursor(), '.');
    if (parts.size() != 2 || !absl::SimpleHexAtoi(parts[1], &after)) {
      return InvalidField("INVALID_CURSOR", "cursor",
                          "cursor is not one that a server gave; start without one");
    }
    // Another server has counted its changes otherwise.
    if (parts[0] != FeedInstance(context_)) {
      after = 0;
      reset = true;
    }
  }
  context_.runtime->WhenCurrent(
      [this, filter = std::move(filter), after, reset](const absl::Status& current) {
        if (current.ok()) {
          Start(filter, after, reset);
        } else {
          FinishWith(current);
        }
      });
  return absl::OkStatus();
}

// By the policy and the time of that moment; a stream may outlive both its token and its right.
FeedStream::Scope FeedCall::ScopeNow() const {
  const AccessControl* const access = context_.door.access;
  if (access == nullptr) {
    return [scope = AccessTo(*admission_.principal(), Verb::kRead).visible] { return scope; };
  }
  return [access, principal = admission_.principal()]() -> absl::StatusOr<TenantScope> {
    UQ_ASSIGN_OR_RETURN(const Principal now, access->Again(*principal));
    return AccessTo(now, Verb::kRead).visible;
  };
}

// Once a stream has been given to the hub, the call may end and be deleted at any time.
void FeedCall::Start(const JobFilter& filter, uint64_t after, bool reset) {
  Runtime* const runtime = context_.runtime;
  const auto stream = std::make_shared<FeedStream>(
      this, &context_, filter, NameFormFor(*admission_.principal()), ScopeNow(), after, reset);
  bool cancelled;
  {
    absl::MutexLock lock(&mutex_);
    stream_ = stream;
    cancelled = cancelled_;
    runtime->watch_hub().Add(WatchHub::kAllJobs, stream);
  }
  if (cancelled) return stream->OnCancel();
  stream->OnJobChanged();
  // Between the two the streams may have been ended for a server that is active no more.
  if (!runtime->availability().ok()) stream->OnShutdown();
}

void FeedStream::Advance() {
  if (call_ == nullptr || ended_ || writing_ || !dirty_) return;
  const absl::StatusOr<TenantScope> scope = scope_();
  if (!scope.ok()) return End(scope.status());
  response_.Clear();
  bool more = true;
  while (more && response_.jobs_size() == 0 && response_.deleted_size() == 0) {
    PublishedState::Feed feed = context_.runtime->published().ChangesAfter(after_, kMaxJobs);
    if (feed.too_old) {
      after_ = 0;
      reset_ = true;
      sent_.clear();
      continue;
    }
    more = feed.changed.size() == kMaxJobs;
    uint64_t reached = feed.change;
    for (const JobView& view : feed.changed) {
      if (!scope->Has(view.job->tenant)) continue;
      const bool matches = filter_.Matches(*view.job);
      // One that matches no more is told once, as it is now.
      const bool told = sent_.contains(view.job->seq);
      if (!matches && !told) continue;
      if (matches) {
        sent_.insert(view.job->seq);
      } else {
        sent_.erase(view.job->seq);
      }
      JobToProto(view, form_, response_.add_jobs());
      if (response_.ByteSizeLong() > kMaxBytes) {
        reached = view.change;
        more = true;
        break;
      }
    }
    for (const auto& [id, tenant] : feed.deleted) {
      if (scope->Has(tenant)) {
        response_.add_deleted(JobName(id, form_ == NameForm::kWithTenant ? tenant : ""));
      }
    }
    after_ = reached;
  }
  dirty_ = more;
  if (response_.jobs_size() == 0 && response_.deleted_size() == 0 && !first_ && !heartbeat_) return;
  first_ = heartbeat_ = false;
  response_.set_cursor(absl::StrCat(FeedCall::FeedInstance(context_), ".", absl::Hex(after_)));
  response_.set_reset(std::exchange(reset_, false));
  writing_ = true;
  written_at_ = context_.clock->Monotonic();
  call_->StartWrite(&response_);
}

void FeedStream::End(const absl::Status& status) {
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

grpc::ServerWriteReactor<v1::WatchJobsResponse>* JobServiceImpl::WatchJobs(
    grpc::CallbackServerContext* rpc, const v1::WatchJobsRequest* request) {
  return new FeedCall(context_, Admit(context_, rpc, MethodRow("WatchJobs"), "jobs"), *request);
}

}  // namespace uniquanf::server
