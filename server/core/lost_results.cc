// Working objects that disappear (a lifecycle rule, a restored backup, a damaged disk): whoever
// misses one says through which result, and the task that made it runs again. Results are
// deterministic, so that what rests on a lost one mostly stays right; where it comes out otherwise,
// that runs again too.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "server/core/mutations.h"

namespace uniquanf::server {

void Mutation::LoseInputs(JobEntry* entry, int32_t index, const LeaseReport& report,
                          TaskFailure failure) {
  const auto is_missing = [&report](const std::string& sha256) {
    return !sha256.empty() && std::find(report.missing_sha256.begin(), report.missing_sha256.end(),
                                        sha256) != report.missing_sha256.end();
  };
  std::vector<int32_t> lost, awaited;
  for (int32_t i = 0; i < index; ++i) {
    const Task& producer = entry->tasks[i];
    if (producer.state == TaskState::kSucceeded && is_missing(producer.result_sha256)) {
      lost.push_back(i);
    } else if (producer.state != TaskState::kSucceeded && is_missing(producer.lost_sha256)) {
      awaited.push_back(i);  // somebody else missed it first
    }
  }
  if (lost.empty() && awaited.empty()) {  // nothing that this task was given
    failure.failure_class = FailureClass::kTransient;
    return Fail(entry, index, std::move(failure), LeaseStatus::kReported);
  }
  EndLease(entry, index, LeaseStatus::kReported);
  RecordFailure(entry, index, failure);
  if (entry->job.state == JobState::kCancelling) {
    SetTaskState(entry, index, TaskEvent::kCancel);
    return FinishIfDone(entry);
  }
  for (const int32_t i : lost) {
    if (entry->tasks[i].num_reopened < state_.policy.max_reopened) continue;
    SetTaskState(entry, index, TaskEvent::kFail);
    return FailJob(
        entry, {failure.reason,
                absl::StrCat(failure.message, " (the result of task ", entry->tasks[i].id,
                             " was lost ", entry->tasks[i].num_reopened + 1, " times, the limit)"),
                entry->tasks[index].id});
  }
  // It waits for them, also for those that the graph lets it reach only through others.
  Task& task = entry->tasks[index];
  awaited.insert(awaited.end(), lost.begin(), lost.end());
  for (const int32_t i : awaited) {
    if (std::count(task.depends_on.begin(), task.depends_on.end(), i) > 0) continue;
    task.depends_on.push_back(i);
    entry->dependents[i].push_back(index);
    if (entry->tasks[i].state != TaskState::kSucceeded) ++entry->num_open_dependencies[index];
  }
  for (const int32_t i : lost) {
    ++edits_.num_results_lost;
    edits_.results_lost.push_back({entry->job.seq, i});
    ++entry->tasks[i].num_reopened;
    Reopen(entry, i);
    ReadyIfInputsAre(entry, i);
  }
  RunLeaseAgain(entry, index, absl::ZeroDuration());
}

void Mutation::Reopen(JobEntry* entry, int32_t index) {
  Task& task = entry->tasks[index];
  UQ_CHECK(task.state == TaskState::kSucceeded);
  task.lost_sha256 = std::exchange(task.result_sha256, "");
  SetTaskState(entry, index, TaskEvent::kReopen);
  for (const int32_t dependent : entry->dependents[index]) {
    ++entry->num_open_dependencies[dependent];
    if (entry->tasks[dependent].state == TaskState::kReady) {
      SetTaskState(entry, dependent, TaskEvent::kInputsOpen);
    }
  }
  // A lost plan: the rest of the graph is made when it is there again.
  if (entry->sweep == JobEntry::Sweep::kNone && !NeedsExpansion(*entry)) {
    state_.unfinished.erase(entry->job.seq);
  }
}

void Mutation::ReopenConsumers(JobEntry* entry, int32_t index) {
  std::set<int32_t> consumers;  // by whatever way; in order, for dependencies come before
  std::vector<int32_t> next = {index};
  while (!next.empty()) {
    const int32_t from = next.back();
    next.pop_back();
    for (const int32_t dependent : entry->dependents[from]) {
      if (consumers.insert(dependent).second) next.push_back(dependent);
    }
  }
  for (const int32_t consumer : consumers) {
    const TaskState state = entry->tasks[consumer].state;
    if (state == TaskState::kSucceeded) {
      Reopen(entry, consumer);
    } else if (state == TaskState::kLeased) {
      EndLease(entry, consumer, LeaseStatus::kRevoked);
      SetTaskState(entry, consumer, TaskEvent::kInputsOpen);
    }
  }
}

}  // namespace uniquanf::server
