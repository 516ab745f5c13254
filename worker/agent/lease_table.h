// What a worker holds and what it must do about it: the decisions of the agent, and nothing else.
// The table of transitions is in README.md. Events go in (a reply, a finished task, the time),
// orders for the slots come out; FillReports says what the server is to be told.
//
// Fencing: a lease is trusted until lease_duration after the moment just before the call was *sent*
// whose reply gave or renewed it, which is never later than the server's own reckoning. Work is
// stopped then and its result discarded, since the server may have given the task to another
// worker. A result that was complete in time is reported all the same: the server accepts or
// refuses it by the lease.
//
// Thread safety: none; the caller locks. No I/O, no clock: `now` is monotonic and passed in.
#ifndef UNIQUANF_WORKER_AGENT_LEASE_TABLE_H_
#define UNIQUANF_WORKER_AGENT_LEASE_TABLE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/job/loss_history.h"
#include "uniquanf/v1/worker_service.pb.h"

namespace uniquanf {

struct LeaseTableOptions {
  int num_slots = 1;
  // A task that shows no progress for this long is reported as failed (TASK_STALLED).
  absl::Duration stall_timeout = absl::InfiniteDuration();
  // A task that was told to stop and has not returned after this long is given up.
  absl::Duration stop_timeout = absl::Seconds(30);
};

// Orders for the slots, and notes for the log.
struct Orders {
  struct Start {
    int slot;
    v1::TaskAssignment assignment;
  };
  std::vector<Start> start;
  std::vector<int> stop;  // slots whose task is to return as soon as it can
  std::vector<std::string> notes;
};

class LeaseTable {
 public:
  explicit LeaseTable(const LeaseTableOptions& options);

  // `sequence` and `sent_at` are those of the request that `reply` answers. A reply to an older
  // request than the last one applied is ignored whole.
  Orders ApplyReply(const v1::SynchronizeResponse& reply, int64_t sequence, absl::Duration sent_at,
                    absl::Duration now);
  // Ends leases that ran out, and gives up stalled tasks. Call it often.
  Orders ApplyTime(absl::Duration now);
  // No new tasks from here on: assignments are given back.
  void SetDraining() { draining_ = true; }
  // Tells every running task to stop; it is reported as released unless it was finished already.
  Orders StopAll(absl::Duration now);
  // Every lease is lost: the worker goes on under a new session, whose calls count from 1.
  Orders StartAfresh(absl::Duration now);

  void OnProgress(int slot, const v1::TaskProgress& progress, absl::Duration now);
  // The losses of the slot's task so far.
  void SetHistory(int slot, const LossHistory& history);
  // The slot's task has returned; the slot is free again.
  void OnFinished(int slot, absl::StatusOr<v1::TaskOutcome> result);

  // Adds one report for every lease held, and the number of free slots.
  void FillReports(v1::SynchronizeRequest* request) const;

  bool draining() const { return draining_; }
  // A slot is stuck in a task that does not return, or a device has failed: the process should end
  // once nothing is held any more, and be started again.
  bool restart_wanted() const { return restart_wanted_; }
  bool holds_leases() const { return !leases_.empty(); }
  // A result, failure or release waits for the server's acknowledgement.
  bool has_final_reports() const;
  // A slot is busy with a task that was told to stop (it may have no lease any more).
  bool is_stopping() const;
  int num_running() const;  // slots busy, stuck ones included
  int num_free_slots() const;
  int64_t num_leases_expired() const { return num_leases_expired_; }
  // The shortest duration of the leases seen last; zero before the first.
  absl::Duration lease_duration() const { return lease_duration_; }

 private:
  enum class StopCause { kNone, kServer, kDrain, kExpired };
  struct Lease {
    v1::TaskAssignment assignment;
    int slot = -1;
    absl::Duration expires_at;
    StopCause stop_cause = StopCause::kNone;
    bool final = false;      // `report` is an outcome, a failure or a release
    v1::LeaseReport report;  // what FillReports sends, with the losses that the server lacks
    LossHistory history;
    int64_t history_step = 0;  // of the last point that the server has
  };
  struct Slot {
    std::string lease_id;  // empty: free; may name a lease that has been forgotten
    bool stopping = false;
    bool stuck = false;
    absl::Duration stop_at;
    absl::Duration last_progress_at;
  };

  void ApplyDirective(const v1::LeaseDirective& directive, absl::Duration sent_at,
                      absl::Duration now, Orders* orders);
  void ApplyAssignment(const v1::TaskAssignment& assignment, absl::Duration sent_at,
                       absl::Duration now, Orders* orders);
  void StopSlot(int slot, absl::Duration now, Orders* orders);
  void Forget(const std::string& lease_id);
  bool WasForgotten(const std::string& lease_id) const;
  static void Release(Lease* lease);
  static void Fail(Lease* lease, const absl::Status& status);

  const LeaseTableOptions options_;
  std::map<std::string, Lease> leases_;
  std::vector<Slot> slots_;
  std::deque<std::string> forgotten_;  // the latest ones: a late reply must not start them again
  int64_t last_sequence_ = 0;
  bool draining_ = false;
  bool restart_wanted_ = false;
  int64_t num_leases_expired_ = 0;
  absl::Duration lease_duration_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_LEASE_TABLE_H_
