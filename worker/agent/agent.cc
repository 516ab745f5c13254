#include "worker/agent/agent.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/backoff.h"
#include "common/base/check.h"
#include "common/base/crash_point.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "common/rpc/call_token.h"
#include "common/rpc/job_proto.h"
#include "common/rpc/status_proto.h"
#include "common/rpc/time_proto.h"
#include "grpcpp/client_context.h"

namespace uniquanf {
namespace {

constexpr absl::Duration kMaxHold = absl::Seconds(20);  // the protocol's limit
constexpr absl::Duration kTick = absl::Milliseconds(50);
// Between calls that the server answers at once although it may hold them.
constexpr absl::Duration kIdlePoll = absl::Milliseconds(500);
constexpr absl::Duration kUnacknowledgedPoll = absl::Milliseconds(100);
// A worker that drains with nothing in hand tells the server so, but does not insist.
constexpr int kMaxGoodbyes = 3;
// Before the server has said how long a lease lasts.
constexpr absl::Duration kDefaultLease = absl::Seconds(30);

bool IsRefusal(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented:
      return true;
    default:
      return false;
  }
}

}  // namespace

struct Agent::Call {
  explicit Call(const std::shared_ptr<grpc::Channel>& channel) : stub(channel) {}

  v1::WorkerService::Stub stub;
  grpc::ClientContext context;
  v1::SynchronizeRequest request;
  v1::SynchronizeResponse response;
  grpc::Status status;
  absl::Duration sent_at;
  absl::Duration max_wait;
  bool has_final_reports = false;
  bool abandoned = false;
  bool done = false;
};

Agent::Agent(const AgentOptions& options, std::vector<std::unique_ptr<ChannelSource>> servers,
             std::vector<TaskExecutor*> executors, const Clock* clock, AgentObserver* observer)
    : options_(options),
      clock_(clock),
      observer_(observer),
      servers_(std::move(servers)),
      executors_(std::move(executors)),
      last_tick_ns_(absl::ToInt64Nanoseconds(clock->Monotonic())),
      table_(LeaseTableOptions{static_cast<int>(executors_.size()), options.task_stall_timeout,
                               options.stop_timeout}),
      running_(executors_.size()),
      session_id_(options.session_id) {
  UQ_CHECK(!servers_.empty());
  for (size_t i = 0; i < executors_.size(); ++i) {
    const int slot = static_cast<int>(i);
    runners_.push_back(std::make_unique<SlotRunner>(
        executors_[i],
        [this, slot](const TaskStepProgress& progress) { OnTaskProgress(slot, progress); },
        [this, slot](absl::StatusOr<v1::TaskOutcome> result) {
          OnTaskFinished(slot, std::move(result));
        }));
  }
}

Agent::~Agent() {
  CancelCallAndWait();
  runners_.clear();
}

AgentResult Agent::Run() {
  AgentResult result;
  {
    absl::MutexLock lock(&mutex_);
    next_call_at_ = not_before_ = clock_->Monotonic();
    while (true) {
      const absl::Duration now = clock_->Monotonic();
      last_tick_ns_.store(absl::ToInt64Nanoseconds(now));
      if (call_ != nullptr && call_->done && FinishCall(now, &result)) break;
      ApplyOrders(table_.ApplyTime(now));
      if (now >= drain_at_) ApplyOrders(table_.StopAll(now));
      DrainWhenIdle(now);
      if (ShouldEnd(&result)) break;
      MaybeStartCall(now);
      const absl::Duration until_call = std::max(next_call_at_, not_before_) - now;
      mutex_.AwaitWithTimeout(absl::Condition(&wake_),
                              std::clamp(until_call, absl::Milliseconds(1), kTick));
      wake_ = false;
    }
  }
  CancelCallAndWait();
  return result;
}

void Agent::Drain(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  table_.SetDraining();
  drain_at_ = clock_->Monotonic() + timeout;
  news_ = wake_ = true;
}

void Agent::RefreshServers() {
  for (const auto& server : servers_) server->Refresh();
}

absl::Duration Agent::SinceLastTick() const {
  return clock_->Monotonic() - absl::Nanoseconds(last_tick_ns_.load());
}

void Agent::Wake() {
  absl::MutexLock lock(&mutex_);
  wake_ = true;
}

// A server that does not answer may have tasks: it is waited for.
void Agent::DrainWhenIdle(absl::Duration now) {
  if (table_.num_running() > 0 || table_.holds_leases()) idle_since_ = now;
  if (!accepted_ || num_failed_calls_ > 0 || table_.draining() || asked_at_ < idle_since_ ||
      now - idle_since_ < options_.exit_when_idle) {
    return;
  }
  observer_->OnNote(absl::StrCat("no task for ", absl::FormatDuration(options_.exit_when_idle),
                                 ": this worker drains and ends"));
  table_.SetDraining();
  news_ = wake_ = true;
}

bool Agent::ShouldEnd(AgentResult* result) {
  if (!table_.draining() && !table_.restart_wanted()) return false;
  if (table_.holds_leases() || table_.is_stopping()) return false;
  // A reply that got lost may have given a lease: the server learns of the drain and gets it back.
  if (accepted_ && !told_draining_ && num_failed_calls_ < kMaxGoodbyes) return false;
  result->end = table_.restart_wanted() ? AgentEnd::kRestart : AgentEnd::kDrained;
  return true;
}

void Agent::ApplyOrders(const Orders& orders) {
  for (const std::string& note : orders.notes) observer_->OnNote(note);
  for (const int slot : orders.stop) runners_[static_cast<size_t>(slot)]->Stop();
  for (const Orders::Start& start : orders.start) {
    running_[static_cast<size_t>(start.slot)] = {start.assignment, clock_->Monotonic(), {}};
    observer_->OnTaskStarted(start.slot, start.assignment);
    runners_[static_cast<size_t>(start.slot)]->Start(start.assignment);
  }
  // A fresh lease is counted from before a call that may have been held long: confirm it at once.
  if (!orders.start.empty() || !orders.stop.empty()) news_ = wake_ = true;
}

absl::Duration Agent::MaxWait() const {
  if (!accepted_ || table_.has_final_reports()) return absl::ZeroDuration();
  if (table_.num_running() == 0) {
    if (table_.draining()) return absl::ZeroDuration();
    return std::min(std::clamp(next_call_, absl::Seconds(1), kMaxHold), options_.exit_when_idle);
  }
  return next_call_ > absl::ZeroDuration() ? std::min(next_call_, options_.report_interval)
                                           : options_.report_interval;
}

void Agent::MaybeStartCall(absl::Duration now) {
  if (call_ != nullptr) {
    if (news_ && !call_->abandoned && call_->max_wait > absl::ZeroDuration()) {
      call_->abandoned = true;
      call_->context.TryCancel();
    }
    return;
  }
  if (now < (news_ ? not_before_ : std::max(next_call_at_, not_before_))) return;
  news_ = false;
  call_ = std::make_unique<Call>(servers_[server_]->Get(absl::ZeroDuration()));
  v1::SynchronizeRequest& request = call_->request;
  request.set_session_id(session_id_);
  request.set_worker(options_.worker);
  request.set_protocol_version(options_.protocol_version);
  request.set_software_version(options_.software_version);
  request.set_sequence(++sequence_);
  *request.mutable_capabilities() = options_.capabilities;
  table_.FillReports(&request);
  for (const TaskExecutor* executor : executors_) {
    for (v1::CachedActivations& cached : executor->Cached()) {
      *request.add_cached() = std::move(cached);
    }
  }
  const absl::Status token = AddToken(options_.token_file, &call_->context);
  // The server says what it thinks of a call without one; the file may come back.
  if (!token.ok() && token != last_token_error_) observer_->OnNote(std::string(token.message()));
  last_token_error_ = token;
  call_->sent_at = now;
  call_->max_wait = MaxWait();
  call_->has_final_reports = table_.has_final_reports();
  *request.mutable_max_wait() = DurationToProto(call_->max_wait);
  if (call_->has_final_reports) UQ_CRASH_POINT("worker.before_report");

  // A server that went silent must be noticed while there is still time to renew elsewhere.
  absl::Duration timeout = options_.call_timeout;
  if (table_.num_running() > 0 && table_.lease_duration() > absl::ZeroDuration()) {
    timeout = std::clamp(table_.lease_duration() / 3, absl::Milliseconds(500), timeout);
  }
  call_->context.set_deadline(std::chrono::system_clock::now() +
                              absl::ToChronoNanoseconds(call_->max_wait + timeout));
  // The callback owns nothing of the call, whose context shares the channel: gRPC's own thread,
  // which runs and then destroys it, must not be the one that destroys the channel. That joins the
  // thread.
  call_->stub.async()->Synchronize(&call_->context, &call_->request, &call_->response,
                                   [this, call = call_.get()](grpc::Status status) {
                                     absl::MutexLock lock(&mutex_);
                                     call->status = std::move(status);
                                     call->done = true;
                                     wake_ = true;
                                   });
}

bool Agent::FinishCall(absl::Duration now, AgentResult* result) {
  const absl::Status status = FromGrpcStatus(call_->status);
  bool cannot_go_on = false;
  if (status.ok()) {
    OnReply(now);
  } else if (call_->abandoned && absl::IsCancelled(status)) {
    news_ = true;  // our own doing
  } else {
    cannot_go_on = OnCallError(status, now, result);
  }
  if (!call_->abandoned || !absl::IsCancelled(status)) {
    observer_->OnSynchronized(status, now - call_->sent_at,
                              {table_.num_running(), table_.num_free_slots(), table_.draining(),
                               table_.num_leases_expired()});
  }
  call_.reset();
  return cannot_go_on;
}

bool Agent::OnCallError(const absl::Status& status, absl::Duration now, AgentResult* result) {
  const bool mismatch = ErrorReason(status) == "VERSION_MISMATCH";
  const bool wait = mismatch && options_.wait_for_version && !accepted_;
  if (mismatch && !wait) {
    *result = {AgentEnd::kVersionMismatch, status};
    return true;
  }
  if (wait && num_failed_calls_ == 0) {
    observer_->OnNote(absl::StrCat("waiting for a server of this version: ", status.message()));
  }
  if (!accepted_ && !wait && IsRefusal(status)) {
    *result = {AgentEnd::kRefused, status};
    return true;
  }
  if (ErrorReason(status) == "STALE_REQUEST") {
    if (!stale_since_.has_value()) stale_since_ = now;
    const absl::Duration told = table_.lease_duration();
    const absl::Duration lease = told > absl::ZeroDuration() ? told : kDefaultLease;
    if (now - *stale_since_ >= lease / 3) BeginNewSession(now);
  }
  ++num_failed_calls_;
  servers_[server_]->Refresh();
  server_ = (server_ + 1) % servers_.size();
  not_before_ = next_call_at_ = now + NextBackoff();
  return false;
}

// The server knows calls of this session that this process did not make, or lost count: it would
// refuse all that follow. Its leases are not to be had any more.
void Agent::BeginNewSession(absl::Duration now) {
  observer_->OnNote(absl::StrCat("the server takes the calls of session ", session_id_,
                                 " for old ones; this worker begins a new session"));
  ++num_sessions_;
  session_id_ = options_.new_session_id != nullptr
                    ? options_.new_session_id()
                    : absl::StrCat(options_.session_id, ".", num_sessions_);
  sequence_ = 0;
  stale_since_.reset();
  ApplyOrders(table_.StartAfresh(now));
}

void Agent::OnReply(absl::Duration now) {
  const Call& call = *call_;
  stale_since_.reset();
  if (call.response.name_shared() && !name_shared_) {
    observer_->OnNote(absl::StrCat("another worker process calls itself ", options_.worker,
                                   ": people cannot tell the two apart; give each its own --name"));
  }
  name_shared_ = call.response.name_shared();
  if (!accepted_ || num_failed_calls_ > 0) idle_since_ = call.sent_at;
  asked_at_ = call.sent_at;
  accepted_ = true;
  num_failed_calls_ = 0;
  not_before_ = now;
  next_call_ = DurationFromProto(call.response.next_call());
  if (call.request.draining()) told_draining_ = true;
  if (call.has_final_reports) UQ_CRASH_POINT("worker.after_report");
  const bool was_restarting = table_.restart_wanted();
  ApplyOrders(table_.ApplyReply(call.response, call.request.sequence(), call.sent_at, now));
  if (call.response.drain() && !table_.draining()) {
    observer_->OnNote("the server asks this worker to drain");
    table_.SetDraining();
    news_ = true;
  }
  if (table_.restart_wanted() != was_restarting) news_ = true;

  const bool held = call.max_wait > absl::ZeroDuration() && now - call.sent_at >= call.max_wait / 2;
  if (table_.has_final_reports()) {
    next_call_at_ = now + kUnacknowledgedPoll;
  } else if (table_.num_running() > 0) {
    next_call_at_ = held ? now : call.sent_at + MaxWait();
  } else if (held || call.max_wait == absl::ZeroDuration()) {
    next_call_at_ = now;
  } else {
    next_call_at_ = now + kIdlePoll;
  }
}

// Exponential, with full jitter over its upper half: workers that lost the same server come back
// spread out.
absl::Duration Agent::NextBackoff() {
  const double draw =
      PhiloxAt(options_.jitter_seed, /*stream=*/0, num_jitters_++).v[0] / 4294967296.0;
  return WithJitter(
      ExponentialBackoff(options_.min_backoff, options_.max_backoff, num_failed_calls_), draw);
}

void Agent::OnTaskProgress(int slot, const TaskStepProgress& progress) {
  absl::MutexLock lock(&mutex_);
  const absl::Duration now = clock_->Monotonic();
  RunningTask& task = running_[static_cast<size_t>(slot)];
  v1::TaskProgress proto;
  TaskProgressToProto(
      task.phases.Update(progress.phase, progress.step, progress.num_steps, progress.loss, now),
      &proto);
  table_.OnProgress(slot, proto, now);
  table_.SetHistory(slot, task.phases.history());
}

void Agent::OnTaskFinished(int slot, absl::StatusOr<v1::TaskOutcome> result) {
  absl::MutexLock lock(&mutex_);
  RunningTask& task = running_[static_cast<size_t>(slot)];
  const absl::Duration now = clock_->Monotonic();
  observer_->OnTaskReturned(slot, task.assignment, result.status(), now - task.started_at);
  const std::vector<PhaseTime> phases = task.phases.End(now);
  if (result.ok()) PhasesToProto(phases, result->mutable_phases());
  table_.OnFinished(slot, std::move(result));
  news_ = wake_ = true;
}

void Agent::CancelCallAndWait() {
  absl::MutexLock lock(&mutex_);
  if (call_ == nullptr) return;
  call_->context.TryCancel();
  mutex_.Await(absl::Condition(&call_->done));
  call_.reset();
}

}  // namespace uniquanf
