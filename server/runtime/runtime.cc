#include "server/runtime/runtime.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/backoff.h"
#include "common/base/check.h"
#include "common/base/crash_point.h"
#include "common/base/secret.h"
#include "common/base/status.h"

namespace uniquanf::server {
namespace {

// Bounds a transaction, and so the wait of its first event.
constexpr size_t kMaxBatch = 4096;
// A standby asks for the state this often; a server with nothing to write asks this often whether
// it still has it.
constexpr absl::Duration kStandbyPoll = absl::Milliseconds(250);
constexpr absl::Duration kActiveCheck = absl::Seconds(1);

bool IsFatal(const absl::Status& status) {
  return absl::IsAborted(status) || absl::IsDataLoss(status) || absl::IsFailedPrecondition(status);
}

RuntimeOptions WithTokenKey(RuntimeOptions options) {
  constexpr size_t kKeyBytes = 32;
  if (options.token_key.empty()) options.token_key = RandomBytes(kKeyBytes);
  return options;
}

absl::Status NotActive() {
  return Unavailable("NOT_ACTIVE",
                     "this server stands by for the active one; call that one, or again");
}

absl::Status ShuttingDown() {
  return Unavailable("SHUTTING_DOWN", "the server shuts down; call again");
}

}  // namespace

Runtime::Runtime(RuntimeOptions options, JobStore* store, const Clock* clock,
                 RuntimeObserver* observer)
    : options_(WithTokenKey(std::move(options))),
      store_(store),
      clock_(clock),
      observer_(observer),
      standing_(Unavailable("STARTING", "the state is being read")) {}

Runtime::~Runtime() { Stop(); }

Now Runtime::ReadClock() const { return {clock_->Now(), clock_->Monotonic()}; }

absl::Status Runtime::Recover() {
  const absl::Duration start = clock_->Monotonic();
  UQ_ASSIGN_OR_RETURN(const uint64_t epoch, store_->Open());
  UQ_ASSIGN_OR_RETURN(LoadedState loaded, store_->Load());
  for (const Job& job : loaded.state.jobs) {
    if (options_.check_job != nullptr) UQ_RETURN_IF_ERROR(options_.check_job(job));
  }
  if (loaded.has_old_records) {
    UQ_RETURN_IF_ERROR(RewriteRecords(store_, epoch, &loaded));
  }
  const Now now = ReadClock();
  UQ_ASSIGN_OR_RETURN(State state, Rebuild(options_.policy, loaded.state, epoch,
                                           options_.random_seed + epoch, now));
  state.leasing = leasing_;
  state.token_key = options_.token_key;
  state_ = std::move(state);
  sequence_ = loaded.sequence;
  edits_ = {};
  unavailable_ = absl::OkStatus();
  num_failed_recoveries_ = 0;
  store_seen_at_ = now.mono;
  watch_hub_.JobsChanged(published_.PublishAll(*state_).jobs);
  SetStanding(absl::OkStatus());
  SetAvailability(absl::OkStatus(), absl::OkStatus());
  if (observer_ != nullptr) observer_->OnRecovered(*state_, clock_->Monotonic() - start);
  return absl::OkStatus();
}

absl::Status Runtime::Start() {
  SetAvailability(NotActive(), Unavailable("STARTING", "the state is being read"));
  const absl::Status status = Recover();
  if (!status.ok()) {
    if (!store_->allows_standby() || !absl::IsUnavailable(status)) return status;
    OnCommitError(nullptr, status);
  }
  thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

void Runtime::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  if (thread_.joinable()) thread_.join();
  readers_.Stop();
}

absl::Status Runtime::availability() const {
  absl::MutexLock lock(&mutex_);
  return availability_;
}

absl::Status Runtime::standing() const {
  absl::MutexLock lock(&mutex_);
  return standing_;
}

void Runtime::SetStanding(const absl::Status& standing) {
  absl::MutexLock lock(&mutex_);
  standing_ = standing;
}

void Runtime::SetAvailability(const absl::Status& availability, const absl::Status& why) {
  {
    absl::MutexLock lock(&mutex_);
    if (availability_.ok() == availability.ok()) return;
    availability_ = availability;
  }
  if (options_.on_active != nullptr) options_.on_active(why);
}

void Runtime::Enqueue(Item item) {
  absl::Status refusal;
  {
    absl::MutexLock lock(&mutex_);
    if (!stopped_ && availability_.ok()) {
      queue_.push_back(std::move(item));
      return;
    }
    refusal = stopped_ ? ShuttingDown() : availability_;
  }
  Refuse(&item, refusal);
}

void Runtime::ChangeJob(Event event, JobCallback done) {
  Item item;
  item.event = std::move(event);
  item.job_done = std::move(done);
  Enqueue(std::move(item));
}

void Runtime::Post(Event event, std::function<void(const absl::Status&)> done) {
  Item item;
  item.event = std::move(event);
  item.done = std::move(done);
  Enqueue(std::move(item));
}

void Runtime::Synchronize(SynchronizeEvent event, absl::Duration max_wait,
                          SynchronizeCallback done) {
  Item item;
  item.max_wait = std::clamp(max_wait, absl::ZeroDuration(), MaxHold(options_.policy));
  event.may_wait = item.max_wait > absl::ZeroDuration();
  item.sequence = event.sequence;
  item.event = std::move(event);
  item.synchronize_done = std::move(done);
  Enqueue(std::move(item));
}

void Runtime::AbandonSynchronize(const std::string& session, int64_t sequence) {
  Item item;
  item.event = UnparkEvent{session};
  item.abandon = true;
  item.sequence = sequence;
  Enqueue(std::move(item));
}

void Runtime::Read(std::function<void(const State*)> read) {
  Item item;
  item.read = std::move(read);
  Enqueue(std::move(item));
}

void Runtime::WhenCurrent(std::function<void(const absl::Status&)> read) {
  if (!store_->allows_standby()) {
    read(availability());
    return;
  }
  Item item;
  item.when_current = std::move(read);
  Enqueue(std::move(item));
}

void Runtime::StopLeasing() { Post(StopLeasingEvent{}); }

void Runtime::Wake() {
  absl::MutexLock lock(&mutex_);
  wake_ = true;
}

absl::Duration Runtime::NextWake(const Now& now) const {
  if (!state_.has_value()) return std::max(recover_at_ - now.mono, absl::Milliseconds(1));
  absl::Duration next = NextTick(*state_, now);
  for (const auto& [session, parked] : parked_) next = std::min(next, parked.deadline);
  return std::clamp(next - now.mono, absl::ZeroDuration(), absl::Seconds(1));
}

void Runtime::Run() {
  const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stop_ || wake_ || !queue_.empty();
  };
  bool stopping = false;
  while (!stopping) {
    std::vector<Item> items;
    const absl::Duration wait = NextWake(ReadClock());
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(&has_work), wait);
      wake_ = false;
      stopping = stop_;
      if (queue_.size() <= kMaxBatch) {
        items.swap(queue_);
      } else {
        const auto end = queue_.begin() + kMaxBatch;
        items.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(end));
        queue_.erase(queue_.begin(), end);
      }
    }
    const Now now = ReadClock();
    if (!state_.has_value()) {
      if (now.mono >= recover_at_) {
        const absl::Status status = Recover();
        if (!status.ok()) OnCommitError(nullptr, status);
      }
      if (!state_.has_value()) {
        for (Item& item : items) Refuse(&item, unavailable_);
        continue;
      }
    }
    Item tick;
    tick.event = TickEvent{};
    ApplyItem(&tick, now);
    for (Item& item : items) ApplyItem(&item, now);
    wall_clock_believed_ = state_->clock.lead == absl::ZeroDuration();
    const absl::Duration start = clock_->Monotonic();
    const bool durable = edits_.durable();
    if (durable) {
      WriteBatch batch = MakeBatch(*state_, edits_);
      batch.expected_sequence = sequence_;
      const absl::Status status = store_->Commit(batch);
      if (!status.ok()) {
        OnCommitError(&items, status);
        continue;
      }
      ++sequence_;
      store_seen_at_ = start;
    } else if (store_->allows_standby() &&
               (Speaks(items) || start - store_seen_at_ >= kActiveCheck)) {
      const absl::Status status = store_->CheckActive(state_->epoch);
      if (!status.ok()) {
        OnCommitError(&items, status);
        continue;
      }
      store_seen_at_ = start;
    }
    const PublishedState::Changes changes = published_.Publish(*state_, edits_);
    UQ_CRASH_POINT("runtime.before_reply");
    for (Item& item : items) Answer(&item);
    for (const std::string& session : edits_.wake) ReplyToSession(session);
    ReleaseDueReplies(now);
    UQ_CRASH_POINT("runtime.after_reply");
    watch_hub_.JobsChanged(changes.jobs);
    if (observer_ != nullptr) {
      observer_->OnCommit(items.size(), durable, clock_->Monotonic() - start, *state_, edits_);
      for (const auto& [job, before] : changes.transitions) observer_->OnJobState(*job, before);
    }
    edits_ = {};
  }
  for (auto& [session, parked] : parked_) parked.done(ShuttingDown());
  parked_.clear();
  std::vector<Item> rest;
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    rest.swap(queue_);
  }
  for (Item& item : rest) Refuse(&item, ShuttingDown());
}

// Somebody is about to hear what the state is. When nothing was written on his behalf that may be
// the state of a server that has been replaced: a refusal, or an OK since it is so already, must
// not come from there.
bool Runtime::Speaks(const std::vector<Item>& items) const {
  return !edits_.wake.empty() || std::any_of(items.begin(), items.end(), [](const Item& item) {
    return item.read != nullptr || item.when_current != nullptr || item.job_done != nullptr ||
           item.done != nullptr || item.synchronize_done != nullptr;
  });
}

void Runtime::ApplyItem(Item* item, const Now& now) {
  if (item->read != nullptr || item->when_current != nullptr) return;
  if (std::holds_alternative<StopLeasingEvent>(item->event)) leasing_ = false;
  if (item->abandon) {
    const std::string& session = std::get<UnparkEvent>(item->event).session;
    const auto it = parked_.find(session);
    if (it == parked_.end() || it->second.sequence != item->sequence) return;
  }
  item->outcome = Apply(&*state_, item->event, now, &edits_);
  if (item->synchronize_done == nullptr || !item->outcome.status.ok()) return;
  // An older call of the session that is still held has lost its caller.
  const std::string& session = std::get<SynchronizeEvent>(item->event).session;
  const auto it = parked_.find(session);
  if (it != parked_.end()) {
    it->second.done(MakeError(absl::StatusCode::kAborted, "STALE_REQUEST",
                              "a newer call of the session has come"));
    parked_.erase(it);
  }
  if (item->outcome.parked) {
    parked_[session] = {std::move(item->synchronize_done), item->sequence,
                        now.mono + item->max_wait};
  }
}

void Runtime::Answer(Item* item) {
  if (item->read != nullptr) {
    item->read(&*state_);
  } else if (item->when_current != nullptr) {
    readers_.Add([read = std::move(item->when_current)] { read(absl::OkStatus()); });
  } else if (item->job_done != nullptr) {
    if (!item->outcome.status.ok()) {
      item->job_done(item->outcome.status);
    } else {
      item->job_done(published_.Find(item->outcome.job).value_or(JobView{}));
    }
  } else if (item->synchronize_done != nullptr) {
    if (!item->outcome.status.ok()) {
      item->synchronize_done(item->outcome.status);
    } else {
      item->synchronize_done(BuildReply(*state_, std::get<SynchronizeEvent>(item->event).session));
    }
  } else if (item->done != nullptr) {
    item->done(item->outcome.status);
  } else if (item->abandon) {
    const auto it = parked_.find(std::get<UnparkEvent>(item->event).session);
    if (it == parked_.end() || it->second.sequence != item->sequence) return;
    it->second.done(absl::CancelledError("the caller went away"));
    parked_.erase(it);
  }
}

void Runtime::Refuse(Item* item, const absl::Status& status) {
  if (item->read != nullptr) item->read(nullptr);
  if (item->when_current != nullptr) item->when_current(status);
  if (item->job_done != nullptr) item->job_done(status);
  if (item->synchronize_done != nullptr) item->synchronize_done(status);
  if (item->done != nullptr) item->done(status);
}

void Runtime::ReplyToSession(const std::string& session) {
  const auto it = parked_.find(session);
  if (it == parked_.end()) return;
  it->second.done(BuildReply(*state_, session));
  parked_.erase(it);
}

void Runtime::ReleaseDueReplies(const Now& now) {
  std::vector<std::string> due;
  for (const auto& [session, parked] : parked_) {
    if (parked.deadline <= now.mono) due.push_back(session);
  }
  for (const std::string& session : due) {
    // Changes nothing that is stored.
    Apply(&*state_, UnparkEvent{session}, now, &edits_);
    ReplyToSession(session);
  }
}

void Runtime::StandBy(const absl::Status& status) {
  unavailable_ = NotActive();
  SetAvailability(unavailable_, status);
  if (observer_ != nullptr) observer_->OnStandBy();
  watch_hub_.EndStreams();
}

void Runtime::OnCommitError(std::vector<Item>* items, const absl::Status& status) {
  const bool stands_by = ErrorReason(status) == "NOT_ACTIVE";
  SetStanding(stands_by ? absl::OkStatus() : status);
  if (observer_ != nullptr && !stands_by) observer_->OnCommitFailed(status);
  unavailable_ =
      Unavailable("STATE_UNAVAILABLE", "the server cannot write its state now; call again");
  state_.reset();
  edits_ = {};
  const absl::Duration backoff =
      ExponentialBackoff(absl::Milliseconds(50), absl::Seconds(2), ++num_failed_recoveries_);
  recover_at_ = clock_->Monotonic() + (items != nullptr ? absl::ZeroDuration()
                                       : stands_by      ? kStandbyPoll
                                                        : backoff);
  // Another server may have become active, or will: who cannot reach the state any more does not
  // speak for it.
  if (store_->allows_standby() && (items == nullptr || absl::IsAborted(status))) StandBy(status);
  if (items != nullptr) {
    for (Item& item : *items) Refuse(&item, unavailable_);
  }
  for (auto& [session, parked] : parked_) parked.done(unavailable_);
  parked_.clear();
  const bool replaced = absl::IsAborted(status) && store_->allows_standby();
  if (IsFatal(status) && !replaced && options_.on_fatal != nullptr) {
    recover_at_ = absl::InfiniteDuration();
    options_.on_fatal(status);
  }
}

}  // namespace uniquanf::server
