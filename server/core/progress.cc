#include "server/core/progress.h"

#include <algorithm>

#include "common/job/time_estimate.h"

namespace uniquanf::server {
namespace {

TaskTiming TimingOf(const Task& task, absl::Duration now) {
  TaskTiming timing;
  timing.key = {task.kind, task.layer, task.round};
  timing.done = task.state == TaskState::kSucceeded;
  timing.running = task.state == TaskState::kLeased;
  if (timing.done && task.start_time.has_value() && task.end_time.has_value()) {
    timing.spent = std::max(*task.end_time - *task.start_time, absl::ZeroDuration());
    timing.phases = task.phases;
  } else if (timing.running) {
    // A server that started again has known the lease for less long than the worker has.
    timing.spent = task.progress.elapsed;
    for (const PhaseTime& phase : task.progress.finished) timing.spent += phase.duration;
    timing.spent = std::max(timing.spent, now - task.leased_at);
    timing.progress = task.progress;
    timing.since_told = now - task.told_at;
  }
  return timing;
}

}  // namespace

JobProgress ComputeProgress(const Job& job, const std::vector<std::shared_ptr<const Task>>& tasks) {
  JobProgress progress;
  progress.num_tasks = static_cast<int32_t>(tasks.size());
  progress.num_layers = job.num_layers;
  for (const auto& task : tasks) {
    if (task->state != TaskState::kSucceeded) continue;
    ++progress.num_tasks_succeeded;
    if (task->kind == TaskKind::kLayer && task->round == job.num_rounds - 1) {
      ++progress.num_layers_succeeded;
    }
  }
  progress.fraction = job.state == JobState::kSucceeded ? 1 : job.fraction;
  if (!IsFinal(job.state)) progress.remaining = job.remaining;
  return progress;
}

void EstimateProgress(JobEntry* entry, absl::Duration now) {
  Job& job = entry->job;
  job.estimated_at = now;
  job.remaining.reset();
  if (IsFinal(job.state)) return;  // how far it was
  std::vector<TaskTiming> timings;
  timings.reserve(entry->tasks.size());
  for (const Task& task : entry->tasks) timings.push_back(TimingOf(task, now));
  job.most_leased = std::max(job.most_leased, entry->num_leased);
  const TimeEstimate estimate = EstimateTime(ShapeOf(job), job.work, timings, job.most_leased);
  job.fraction = std::max(job.fraction, estimate.fraction);
  if (entry->num_leased > 0) job.remaining = estimate.remaining;
  for (size_t i = 0; i < timings.size(); ++i) {
    if (!timings[i].running) continue;
    TaskProgress& progress = entry->tasks[i].progress;
    progress.fraction = std::max(progress.fraction, estimate.tasks[i].fraction);
    progress.remaining = estimate.tasks[i].remaining;
  }
}

}  // namespace uniquanf::server
