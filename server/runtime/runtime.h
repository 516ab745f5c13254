// The single writer: takes events from any thread, applies them to the core's state in order,
// commits what they changed in one transaction for as many events as have come in meanwhile, and
// only then answers. Where other servers may take over, it asks the store whether it is still
// active before it answers events that changed nothing, and before published() is read
// (WhenCurrent). Also owns the timers and the replies that are held for workers.
//
// When a commit fails, nobody hears of its events (they are answered kUnavailable, reason
// STATE_UNAVAILABLE, and may or may not have happened), and the state is built again from the
// store, which alone knows. A store that another server has taken ends this one (on_fatal), unless
// servers may stand by for it: then this one answers kUnavailable (NOT_ACTIVE) until the store is
// its own again.
//
// Thread safety: thread-safe. Callbacks must not block; they run on the writer's thread or, when
// they are refused at once, on the caller's. WhenCurrent says where its own run.
// Lifetime: borrows everything it is given; Stop answers whatever is still open.
#ifndef UNIQUANF_SERVER_RUNTIME_RUNTIME_H_
#define UNIQUANF_SERVER_RUNTIME_RUNTIME_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "server/core/apply.h"
#include "server/core/events.h"
#include "server/core/state.h"
#include "server/runtime/callback_thread.h"
#include "server/runtime/published_state.h"
#include "server/runtime/watch_hub.h"
#include "server/store/job_store.h"

namespace uniquanf::server {

// For logs and metrics. Called on the writer's thread.
class RuntimeObserver {
 public:
  virtual ~RuntimeObserver() = default;
  virtual void OnRecovered(const State& state, absl::Duration duration) {}
  virtual void OnCommit(size_t num_events, bool durable, absl::Duration duration,
                        const State& state, const Edits& edits) {}
  virtual void OnCommitFailed(const absl::Status& status) {}
  // This server does not speak for the state any more; OnRecovered says when it does again.
  virtual void OnStandBy() {}
  virtual void OnJobState(const Job& job, std::optional<JobState> before) {}
};

struct RuntimeOptions {
  Policy policy;
  uint64_t random_seed = 1;
  std::string token_key;  // State::token_key; "": a random one
  // Asked of every job that is read from the store: what the core takes as opaque bytes may be
  // damaged (kDataLoss). May be null.
  std::function<absl::Status(const Job&)> check_job;
  // The state cannot be written any more and never will be: end the process.
  std::function<void(const absl::Status&)> on_fatal;
  // This server has become the active one (OK), or stands by and why. Called on the writer's
  // thread, the first time by Start.
  std::function<void(const absl::Status&)> on_active;
};

class Runtime {
 public:
  Runtime(RuntimeOptions options, JobStore* store, const Clock* clock, RuntimeObserver* observer);
  ~Runtime();

  // Opens the store, rebuilds the state and starts the writer. OK as well when this server stands
  // by for another.
  absl::Status Start();
  // OK, or kUnavailable (NOT_ACTIVE): this server stands by, as far as it knows.
  absl::Status availability() const;
  // OK when this server is the active one, or knows another one to be and waits to take over.
  // kUnavailable while it starts, and while it cannot reach the state.
  absl::Status standing() const;
  // Answers what is open (kUnavailable, SHUTTING_DOWN) and ends the writer. Idempotent.
  void Stop();

  // Applies an event that concerns one job (create, cancel, ...); `done` gets the job as committed,
  // or an empty view when it is gone.
  using JobCallback = std::function<void(absl::StatusOr<JobView>)>;
  void ChangeJob(Event event, JobCallback done);
  // Any other event.
  void Post(Event event, std::function<void(const absl::Status&)> done = nullptr);

  // The reply comes when there is something to say, at the latest after `max_wait`.
  using SynchronizeCallback = std::function<void(absl::StatusOr<SynchronizeReply>)>;
  void Synchronize(SynchronizeEvent event, absl::Duration max_wait, SynchronizeCallback done);
  // The caller of that session's held call has gone away.
  void AbandonSynchronize(const std::string& session, int64_t sequence);

  // Runs `read` on the committed state, on the writer's thread; null when there is none now.
  void Read(std::function<void(const State*)> read);
  // Runs `read` once published() holds every change that any server had made before this call; with
  // kUnavailable when that cannot be known here. At once and on this thread when no other server
  // may take over; else the store is asked, once for all that wait, and a `read` that finds it
  // current runs on the readers' thread, so that a long one does not hold up the writer.
  void WhenCurrent(std::function<void(const absl::Status&)> read);

  // Whether the wall clock is believed (server/core/state.h, WallClock): while it is not, nothing
  // is deleted for its age.
  bool wall_clock_believed() const { return wall_clock_believed_; }

  // No new leases; held replies go out.
  void StopLeasing();
  // Makes the writer look at the clock; for tests that moved it.
  void Wake();

  const PublishedState& published() const { return published_; }
  WatchHub& watch_hub() { return watch_hub_; }

 private:
  struct Item {
    Event event;
    std::function<void(const State*)> read;                 // instead of an event
    std::function<void(const absl::Status&)> when_current;  // likewise
    JobCallback job_done;
    SynchronizeCallback synchronize_done;
    std::function<void(const absl::Status&)> done;
    absl::Duration max_wait;
    bool abandon = false;  // UnparkEvent for one call only
    int64_t sequence = 0;
    Outcome outcome;
  };
  struct Parked {
    SynchronizeCallback done;
    int64_t sequence = 0;
    absl::Duration deadline;
  };

  void Enqueue(Item item);
  void Run();
  Now ReadClock() const;
  absl::Status Recover();
  void ApplyItem(Item* item, const Now& now);
  bool Speaks(const std::vector<Item>& items) const;
  void Answer(Item* item);
  void Refuse(Item* item, const absl::Status& status);
  void ReplyToSession(const std::string& session);
  void OnCommitError(std::vector<Item>* items, const absl::Status& status);
  void StandBy(const absl::Status& status);
  void SetStanding(const absl::Status& standing);
  void SetAvailability(const absl::Status& availability, const absl::Status& why);
  void ReleaseDueReplies(const Now& now);
  absl::Duration NextWake(const Now& now) const;

  const RuntimeOptions options_;
  JobStore* const store_;
  const Clock* const clock_;
  RuntimeObserver* const observer_;
  PublishedState published_;
  WatchHub watch_hub_;

  mutable absl::Mutex mutex_;
  absl::Status availability_ ABSL_GUARDED_BY(mutex_);
  absl::Status standing_ ABSL_GUARDED_BY(mutex_);
  std::vector<Item> queue_ ABSL_GUARDED_BY(mutex_);
  bool wake_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;

  std::atomic<bool> wall_clock_believed_{true};

  // The writer's own.
  std::optional<State> state_;
  uint64_t sequence_ = 0;
  bool leasing_ = true;
  Edits edits_;
  std::map<std::string, Parked> parked_;  // by session
  absl::Duration recover_at_;
  int num_failed_recoveries_ = 0;
  absl::Duration store_seen_at_;  // when the store last confirmed this server's epoch
  absl::Status unavailable_;      // why there is no state

  CallbackThread readers_;
  std::thread thread_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_RUNTIME_RUNTIME_H_
