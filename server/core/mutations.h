// The steps that Apply is made of: one Mutation per event, over the state, writing down edits.
// Private to server/core. Thread safety: none.
#ifndef UNIQUANF_SERVER_CORE_MUTATIONS_H_
#define UNIQUANF_SERVER_CORE_MUTATIONS_H_

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/core/apply.h"
#include "server/core/state.h"

namespace uniquanf::server {

class Mutation {
 public:
  Mutation(State* state, const Now& now, Edits* edits)
      : state_(*state), now_(now), edits_(*edits) {}

  // Jobs (job_mutations.cc).
  Outcome CreateJob(const CreateJobEvent& event);
  Outcome CancelJob(const CancelJobEvent& event);
  Outcome PauseJob(const PauseJobEvent& event);
  Outcome ResumeJob(const ResumeJobEvent& event);
  Outcome RetryJob(const RetryJobEvent& event);
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

  // All tasks of a job, in slices (task_sweeps.cc).
  // The first slice at once. `missing`: for kReset, results to be made again.
  void StartSweep(JobEntry* entry, JobEntry::Sweep sweep, std::set<std::string> missing = {});
  void StartExpansion(JobEntry* entry);
  // Goes on with what is unfinished, one slice.
  void ContinueSweeps();

  // Results that were lost (lost_results.cc).
  void LoseInputs(JobEntry* entry, int32_t index, const LeaseReport& report, TaskFailure failure);
  void Reopen(JobEntry* entry, int32_t index);
  // Whatever rests on this task's former result runs again: it came out differently.
  void ReopenConsumers(JobEntry* entry, int32_t index);

  // Sick workers (worker_health.cc).
  void NoteFailure(Session* session, const JobEntry& entry, const TaskFailure& failure);
  // Unless it is. For longer each time.
  void Quarantine(Session* session, std::string reason);
  void NoteSuccess(Session* session);
  void LiftQuarantine(Session* session);
  void EndQuarantines();
  // Whether a process other than `session` calls, is well, and may run the task; one on which it
  // has failed as `also_where_it_failed` says.
  bool OthersCanRun(const Job& job, const Task& task, const Session& session,
                    bool also_where_it_failed) const;
  // Whether `session` may run it as far as health is concerned.
  bool MayRun(const Job& job, const Task& task, const Session& session) const;

  // Spot checks (spot_checks.cc).
  // The task has just succeeded on `maker`: whether that is to be checked.
  void MaybeCheck(const JobEntry& entry, int32_t index, const Session& maker);
  // Gives `session` a check that waits; false: there is none for it.
  bool LeaseCheck(Session* session);
  void ReportOnCheck(Session* session, const LeaseReport& report);
  // `result_sha256` "": it came to nothing.
  void EndCheck(uint64_t id, const std::string& result_sha256);
  void ReturnCheck(SpotCheck* check);
  void TickChecks();
  // Has a session give up a check when there is a task for it and no other place.
  void YieldChecks(Session* session);
  void MatchChecks();
  int ChecksOf(uint64_t job) const;
  // How long `task`, whose inputs are there, waits for checks of its job.
  absl::Duration WaitForChecks(const JobEntry& entry, Task* task) const;

  // Workers (synchronize.cc).
  Outcome Synchronize(const SynchronizeEvent& event);
  void Unpark(const std::string& session);
  Outcome DrainWorker(const DrainWorkerEvent& event);

  // Time (tick.cc).
  void Tick();
  void ExpireTimers();
  void ObserveClock();
  void ConfirmWallClock();
  // The wall-clock time that is believed.
  absl::Time BelievedTime() const { return now_.wall - state_.clock.lead; }

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
  // The job of this id that `access` reaches. JOB_NOT_FOUND, whether there is none or it is not for
  // the caller to know of; AMBIGUOUS_NAME; PERMISSION_DENIED: one to be seen, and no more.
  absl::StatusOr<JobEntry*> Reach(const std::string& id, const JobAccess& access);
  void EndLease(JobEntry* entry, int32_t index, LeaseStatus end);
  void RecordFailure(JobEntry* entry, int32_t index, const TaskFailure& failure);
  void BumpVersion(JobEntry* entry);
  int32_t ContinueSweep(JobEntry* entry, int32_t budget);
  int32_t ExpandSlice(JobEntry* entry, int32_t budget);
  int32_t SweepSlice(JobEntry* entry, int32_t budget);
  void ResetTask(JobEntry* entry, int32_t index);
  void ReadyIfInputsAre(JobEntry* entry, int32_t index);
  void FinishIfDone(JobEntry* entry);
  void RunLeaseAgain(JobEntry* entry, int32_t index, absl::Duration delay);
  void ProcessReport(Session* session, const LeaseReport& report);
  void NoteProgress(JobEntry* entry, int32_t index, const LeaseReport& report);
  static void AppendLosses(Task* task, const LeaseReport& report);
  void CountBefore();
  void NoteSilence();
  void EndSupersededSessions(const Session& session);
  void NoteSharedName(Session* session);
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
  bool match_checks_ = false;
};

// Adds what `job` in its present state means to its tenant's counters; `sign` is 1 or −1.
void CountJob(State* state, const Job& job, int sign);
// Recomputes the entry's derived fields from its tasks, but for `ready`.
void IndexTasks(JobEntry* entry);
// Adds the entry's task `index` to its derived fields. REQUIRES: those before it are there.
void IndexTask(JobEntry* entry, int32_t index);
// What of the job is to be swept or expanded, as its states say, from the first task on.
JobEntry::Sweep SweepOf(const JobEntry& entry);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_CORE_MUTATIONS_H_
