// The worker's side of WorkerService: calls Synchronize, runs what it is given, reports until every
// result is acknowledged, and ends as asked.
//
// One control thread (the caller of Run) owns the LeaseTable's decisions; calls are asynchronous,
// so neither a slow task nor a slow server delays a heartbeat, a fence or a stop. While the server
// has nothing to say it may hold a call; an event here (a finished task, a drain) abandons a held
// call and makes a new one, which is safe because calls may be lost.
//
// Thread safety: Run is called once; the other methods from any thread. Ownership: borrows the
// executors, the clock and the observer, which outlive it.
#ifndef UNIQUANF_WORKER_AGENT_AGENT_H_
#define UNIQUANF_WORKER_AGENT_AGENT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/version.h"
#include "common/job/phase_clock.h"
#include "common/rpc/channel_source.h"
#include "uniquanf/v1/worker_service.grpc.pb.h"
#include "worker/agent/agent_observer.h"
#include "worker/agent/lease_table.h"
#include "worker/agent/slot_runner.h"
#include "worker/agent/task_executor.h"

namespace uniquanf {

struct AgentOptions {
  std::string session_id;  // fresh for every process
  // Of a process whose session the server does not accept any more; null: numbers are appended.
  std::function<std::string()> new_session_id;
  std::string worker;      // "workers/{worker}"
  std::string token_file;  // says who this worker is; read again for each call; empty: none
  std::string software_version;
  v1::WorkerCapabilities capabilities;
  int protocol_version = kProtocolVersion;
  absl::Duration task_stall_timeout = absl::Minutes(30);
  absl::Duration stop_timeout = absl::Seconds(30);
  // A server that answers and has no task for so long: drains. Zero: as soon as it has none.
  absl::Duration exit_when_idle = absl::InfiniteDuration();
  // While tasks run the server hears at least this often, so that people see them move.
  absl::Duration report_interval = absl::Seconds(1);
  absl::Duration call_timeout = absl::Seconds(10);  // beyond what the server may hold a call
  absl::Duration min_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(2);
  // A server of another protocol version is waited for, until it has accepted this worker once: it
  // is about to be upgraded.
  bool wait_for_version = false;
  uint64_t jitter_seed = 0;
};

enum class AgentEnd {
  kDrained,          // nothing held any more, as asked
  kVersionMismatch,  // the server speaks another protocol version
  kRefused,          // the server never accepted this worker: credentials, an invalid request
  kRestart,          // a task hangs or a device failed: the process must start afresh
};
struct AgentResult {
  AgentEnd end = AgentEnd::kDrained;
  absl::Status status;  // kVersionMismatch, kRefused: what the server said
};

class Agent {
 public:
  // `servers` are tried in turn when one does not answer. One executor for each slot.
  // REQUIRES: neither is empty.
  Agent(const AgentOptions& options, std::vector<std::unique_ptr<ChannelSource>> servers,
        std::vector<TaskExecutor*> executors, const Clock* clock, AgentObserver* observer);
  ~Agent();

  // Serves until it has drained or cannot go on. After kRestart with a task that does not return,
  // destroying the agent waits for it: end the process instead.
  AgentResult Run();

  // No new tasks; Run returns when the running ones are finished and acknowledged. Those that still
  // run after `timeout` are stopped and given back. May be called again with another timeout.
  void Drain(absl::Duration timeout);

  // Looks for the servers' addresses and for new files of TLS now.
  void RefreshServers();

  // How long ago the control thread last looked after things: a few ticks, or it hangs.
  absl::Duration SinceLastTick() const;

  // Wakes the control thread; for tests that moved their clock.
  void Wake();

 private:
  struct Call;

  void DrainWhenIdle(absl::Duration now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool ShouldEnd(AgentResult* result) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ApplyOrders(const Orders& orders) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MaybeStartCall(absl::Duration now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // True when the agent cannot go on; fills `result`.
  bool FinishCall(absl::Duration now, AgentResult* result) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool OnCallError(const absl::Status& status, absl::Duration now, AgentResult* result)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BeginNewSession(absl::Duration now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnReply(absl::Duration now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration MaxWait() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration NextBackoff() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnTaskProgress(int slot, const TaskStepProgress& progress);
  void OnTaskFinished(int slot, absl::StatusOr<v1::TaskOutcome> result);
  void CancelCallAndWait();

  const AgentOptions options_;
  const Clock* const clock_;
  AgentObserver* const observer_;
  const std::vector<std::unique_ptr<ChannelSource>> servers_;
  std::vector<TaskExecutor*> executors_;

  std::atomic<int64_t> last_tick_ns_{0};
  absl::Mutex mutex_;
  LeaseTable table_ ABSL_GUARDED_BY(mutex_);
  struct RunningTask {
    v1::TaskAssignment assignment;
    absl::Duration started_at;
    PhaseClock phases;
  };
  std::vector<RunningTask> running_ ABSL_GUARDED_BY(mutex_);  // by slot
  bool wake_ ABSL_GUARDED_BY(mutex_) = false;
  // Something changed that the server should hear of at once.
  bool news_ ABSL_GUARDED_BY(mutex_) = true;
  absl::Duration drain_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteDuration();
  bool told_draining_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration idle_since_ ABSL_GUARDED_BY(mutex_);  // the last task's end, or a server's return
  absl::Duration asked_at_
      ABSL_GUARDED_BY(mutex_);  // when the last call that was answered was sent

  std::unique_ptr<Call> call_ ABSL_GUARDED_BY(mutex_);
  int64_t sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string session_id_ ABSL_GUARDED_BY(mutex_);
  absl::Status last_token_error_ ABSL_GUARDED_BY(mutex_);
  int num_sessions_ ABSL_GUARDED_BY(mutex_) = 1;
  // Since when the server says that calls of this session are stale.
  std::optional<absl::Duration> stale_since_ ABSL_GUARDED_BY(mutex_);
  bool name_shared_ ABSL_GUARDED_BY(mutex_) = false;
  size_t server_ ABSL_GUARDED_BY(mutex_) = 0;
  bool accepted_ ABSL_GUARDED_BY(mutex_) = false;  // some call has succeeded
  int num_failed_calls_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Duration next_call_at_ ABSL_GUARDED_BY(mutex_);
  absl::Duration not_before_ ABSL_GUARDED_BY(mutex_);  // backoff; news do not shorten it
  absl::Duration next_call_ ABSL_GUARDED_BY(mutex_);   // what the server last asked for
  uint64_t num_jitters_ ABSL_GUARDED_BY(mutex_) = 0;

  // Last: their threads use what is above.
  std::vector<std::unique_ptr<SlotRunner>> runners_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_AGENT_H_
