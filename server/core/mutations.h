// The steps that Apply is made of: one Mutation per event, over the state, writing down edits.
// Private to server/core. Thread safety: none.
#ifndef UNIQUANF_SERVER_CORE_MUTATIONS_H_
#define UNIQUANF_SERVER_CORE_MUTATIONS_H_

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/core/apply.h"
#include "server/core/state.h"

namespace uniquanf::server {

class Mutation {
 public:
  Mutation(State* state, const Now& now, Edits* edits)
      : state_(*state), now_(now), edits_(*edits) {}

  // Jobs (job_mutations.cc).
  Outcome CreateJob(const CreateJobEvent& event);
  Outcome CancelJob(const std::string& id);
  Outcome PauseJob(const std::string& id);
  Outcome ResumeJob(const std::string& id);
  Outcome RetryJob(const std::string& id);
  Outcome DeleteJob(const DeleteJobEvent& event);
  void FailJob(JobEntry* entry, JobError error);
  void EraseJob(JobEntry* entry);
  // The working objects of this job are wanted no more.
  void AddGarbage(const std::string& uid);

  // Tasks and leases (task_mutations.cc).
  void Lease(Session* session, const TaskRef& ref);
  void Succeed(JobEntry* entry, int32_t index, const TaskOutcome& outcome);
  void Fail(JobEntry* entry, int32_t index, TaskFailure failure, LeaseStatus end);
  void Release(JobEntry* entry, int32_t index);
  void SetTaskState(JobEntry* entry, int32_t index, TaskEvent event);
  void CancelTask(JobEntry* entry, int32_t index);
  void MakeReady(JobEntry* entry, int32_t index, absl::Duration delay);
  void MarkReady(JobEntry* entry, int32_t index);  // leasable now

  // Workers (synchronize.cc).
  Outcome Synchronize(const SynchronizeEvent& event);
  void Unpark(const std::string& session);
  Outcome DrainWorker(const DrainWorkerEvent& event);

  // Time (tick.cc).
  void Tick();
  void ExpireTimers();

  // Scheduling (scheduling.cc).
  void RefreshQueue(JobEntry* entry);
  // The best task for `session` now, or nullopt.
  std::optional<TaskRef> Pick(const Session& session) const;
  // Gives tasks that became leasable during this event to workers that wait.
  void MatchParked();

  void SetJobState(JobEntry* entry, JobEvent event);
  void Touch(JobEntry* entry);
  void TouchTask(JobEntry* entry, int32_t index);
  void SetStatusMessage(JobEntry* entry, std::string message);

 private:
  void EndLease(JobEntry* entry, int32_t index, LeaseStatus end);
  void BumpVersion(JobEntry* entry);
  void Expand(JobEntry* entry, const TaskOutcome& outcome);
  void FinishIfDone(JobEntry* entry);
  void RunLeaseAgain(JobEntry* entry, int32_t index, absl::Duration delay);
  void ProcessReport(Session* session, const LeaseReport& report);
  void EndSupersededSessions(const Session& session);
  void RenewUnreported(Session* session);
  bool CanTakeTasks(const Session& session) const;
  // The first job of `queue` that has a task for `session`, and that task.
  std::optional<TaskRef> FirstOf(const QueueKey& key, const std::set<uint64_t>& queue,
                                 const Session& session) const;
  std::optional<int32_t> TaskFor(const JobEntry& entry, const Session& session) const;
  void Wake(const std::string& session);
  void CheckUnschedulable();
  // "", or why no worker of `live` can run the job's next task.
  std::string NoWorkerFor(const JobEntry& entry, const std::vector<const Session*>& live) const;
  void DecayUsage();
  void ForgetSessions();
  double Random();

  State& state_;
  const Now& now_;
  Edits& edits_;
  std::set<uint64_t> matchable_;  // jobs with tasks that became leasable
  bool rematch_all_ = false;
};

// Adds what `job` in its present state means to its tenant's counters; `sign` is 1 or −1.
void CountJob(State* state, const Job& job, int sign);
// Recomputes the entry's derived fields from its tasks, but for `ready`.
void IndexTasks(JobEntry* entry);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_CORE_MUTATIONS_H_
