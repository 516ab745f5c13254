// Work on all tasks of a job: making the graph, cancelling what is left of it, resetting it for a
// retry. A job of thousands of tasks is done in slices, one a tick, so that nobody else's call
// waits for all of them; a small one at once. What is left to do follows from the states of the
// job and of its tasks.
#include <utility>

#include "server/core/mutations.h"

namespace uniquanf::server {
namespace {

Task GraphTask(const Job& job, int32_t index) {
  TaskNode node = NodeOf(ShapeOf(job), index);
  Task task;
  task.id = TaskId(node);
  task.kind = node.kind;
  task.layer = node.layer;
  task.round = node.round;
  task.depends_on = std::move(node.depends_on);
  return task;
}

bool IsOpen(const JobEntry& entry) {
  const JobState state = entry.job.state;
  return state == JobState::kQueued || state == JobState::kRunning || state == JobState::kPaused;
}

}  // namespace

int64_t NumGraphTasks(const Job& job) { return NumNodes(ShapeOf(job)); }

bool NeedsExpansion(const JobEntry& entry) {
  return entry.job.num_layers > 0 && IsOpen(entry) &&
         entry.tasks[0].state == TaskState::kSucceeded &&
         static_cast<int64_t>(entry.tasks.size()) < NumGraphTasks(entry.job);
}

JobEntry::Sweep SweepOf(const JobEntry& entry) {
  const bool open = IsOpen(entry);
  for (const Task& task : entry.tasks) {
    switch (task.state) {
      case TaskState::kBlocked:
      case TaskState::kReady:
        if (!open) return JobEntry::Sweep::kCancel;
        break;
      case TaskState::kFailed:
      case TaskState::kCancelled:
        if (open) return JobEntry::Sweep::kReset;
        break;
      default:
        break;
    }
  }
  return JobEntry::Sweep::kNone;
}

void Mutation::StartSweep(JobEntry* entry, JobEntry::Sweep sweep, std::set<std::string> missing) {
  entry->sweep = sweep;
  entry->sweep_next = 0;
  entry->missing = std::move(missing);
  state_.unfinished.insert(entry->job.seq);
  ContinueSweep(entry, state_.policy.tasks_per_slice);
}

void Mutation::StartExpansion(JobEntry* entry) {
  if (!NeedsExpansion(*entry)) return;
  state_.unfinished.insert(entry->job.seq);
  ContinueSweep(entry, state_.policy.tasks_per_slice);
}

int32_t Mutation::ContinueSweep(JobEntry* entry, int32_t budget) {
  if (entry->sweep != JobEntry::Sweep::kNone) budget = SweepSlice(entry, budget);
  if (entry->sweep == JobEntry::Sweep::kNone && NeedsExpansion(*entry)) {
    budget = ExpandSlice(entry, budget);
  }
  if (entry->sweep == JobEntry::Sweep::kNone && !NeedsExpansion(*entry)) {
    state_.unfinished.erase(entry->job.seq);
  }
  return budget;
}

void Mutation::ContinueSweeps() {
  int32_t budget = state_.policy.tasks_per_slice;
  while (budget > 0 && !state_.unfinished.empty()) {
    budget = ContinueSweep(&state_.jobs.at(*state_.unfinished.begin()), budget);
  }
}

// Both return what is left of `budget`.
int32_t Mutation::SweepSlice(JobEntry* entry, int32_t budget) {
  const auto count = static_cast<int32_t>(entry->tasks.size());
  while (entry->sweep_next < count && budget > 0) {
    const int32_t index = entry->sweep_next++;
    const TaskState state = entry->tasks[index].state;
    if (entry->sweep == JobEntry::Sweep::kReset) {
      budget -= state != TaskState::kSucceeded;
      ResetTask(entry, index);
    } else if (state == TaskState::kBlocked || state == TaskState::kReady) {
      --budget;
      CancelTask(entry, index);
    }
  }
  if (entry->sweep_next == count) {
    entry->sweep = JobEntry::Sweep::kNone;
    entry->missing.clear();
    FinishIfDone(entry);
  }
  return budget;
}

// Attempts are counted afresh; what is finished stays so while its result is there.
void Mutation::ResetTask(JobEntry* entry, int32_t index) {
  Task& task = entry->tasks[index];
  if (task.state == TaskState::kSucceeded) {
    if (entry->missing.count(task.result_sha256) == 0) return;
    ++edits_.num_results_lost;
    edits_.results_lost.push_back({entry->job.seq, index});
    Reopen(entry, index);
  }
  if (entry->ready.count(index) > 0) entry->num_ready_choosy -= IsChoosy(task);
  task.num_worker_lost = task.num_transient = task.num_out_of_memory = task.num_internal = 0;
  task.num_environment = task.num_reopened = 0;
  task.environment_sessions.clear();
  task.exceeded_memory_bytes = 0;
  if (NextState(task.state, TaskEvent::kReset).has_value()) {
    task.next_attempt_time.reset();
    SetTaskState(entry, index, TaskEvent::kReset);
  } else {
    TouchTask(entry, index);
    RefreshQueue(entry);
  }
  ReadyIfInputsAre(entry, index);
}

void Mutation::ReadyIfInputsAre(JobEntry* entry, int32_t index) {
  if (entry->tasks[index].state != TaskState::kBlocked) return;
  if (entry->num_open_dependencies[index] > 0) return;
  SetTaskState(entry, index, TaskEvent::kDependenciesMet);
  MakeReady(entry, index, WaitForChecks(*entry, &entry->tasks[index]));
}

int32_t Mutation::ExpandSlice(JobEntry* entry, int32_t budget) {
  const int64_t end = NumGraphTasks(entry->job);
  while (static_cast<int64_t>(entry->tasks.size()) < end && budget > 0) {
    --budget;
    const auto index = static_cast<int32_t>(entry->tasks.size());
    entry->tasks.push_back(GraphTask(entry->job, index));
    ++state_.num_tasks[static_cast<int>(TaskState::kBlocked)];
    IndexTask(entry, index);
    TouchTask(entry, index);
    ReadyIfInputsAre(entry, index);
  }
  return budget;
}

}  // namespace uniquanf::server
