#include "server/core/progress.h"

#include <algorithm>

namespace uniquanf::server {
namespace {

// Of a window's task, for each layer that its steps go through.
constexpr double kDistillWork = 2.0;

// Work of a task in units of one layer's: measured on small models, where reading and publishing
// weigh most.
double Work(const Job& job, const Task& task) {
  switch (task.kind) {
    case TaskKind::kUnknown:
      break;
    case TaskKind::kPrepare:
      return 0.2;
    case TaskKind::kLayer:
      return 1.0 / std::max(1, job.num_rounds);
    case TaskKind::kDistill:  // its steps go through all layers that follow, forward and back
      return kDistillWork * (job.num_layers - task.layer);
    case TaskKind::kFinalize:
      return 0.5;
  }
  return 1.0;
}

double DoneFraction(const Task& task) {
  if (task.state == TaskState::kSucceeded) return 1.0;
  if (task.state != TaskState::kLeased || task.progress.num_steps <= 0) return 0.0;
  // Never quite done before it is: storing the result comes after the last step.
  return std::clamp(static_cast<double>(task.progress.step) / task.progress.num_steps, 0.0, 0.99);
}

}  // namespace

JobProgress ComputeProgress(const Job& job, const std::vector<std::shared_ptr<const Task>>& tasks) {
  JobProgress progress;
  progress.num_tasks = static_cast<int32_t>(tasks.size());
  progress.num_layers = job.num_layers;
  double total = 0, done = 0, measured_work = 0;
  absl::Duration measured_time;
  int num_running = 0;
  for (const auto& task : tasks) {
    const double work = Work(job, *task);
    total += work;
    done += work * DoneFraction(*task);
    if (task->state == TaskState::kLeased) ++num_running;
    if (task->state != TaskState::kSucceeded) continue;
    ++progress.num_tasks_succeeded;
    if (task->kind == TaskKind::kLayer) {
      if (task->round == job.num_rounds - 1) ++progress.num_layers_succeeded;
      if (task->start_time.has_value() && task->end_time.has_value()) {
        measured_work += work;
        measured_time += std::max(*task->end_time - *task->start_time, absl::ZeroDuration());
      }
    }
  }
  if (tasks.size() == 1) total = 20;  // the model has not been read: some layers will follow
  if (job.state == JobState::kSucceeded) {
    progress.fraction = 1;
    return progress;
  }
  progress.fraction = total > 0 ? done / total : 0;
  if (!IsFinal(job.state) && num_running > 0) {
    if (measured_work > 0) {
      progress.remaining = measured_time * ((total - done) / measured_work / num_running);
    } else {
      // Before the first layer is done, its own estimate stands for the others.
      for (const auto& task : tasks) {
        if (task->state != TaskState::kLeased || task->kind != TaskKind::kLayer) continue;
        const double left = 1.0 - DoneFraction(*task);
        if (!task->progress.remaining.has_value() || left <= 0) continue;
        progress.remaining = *task->progress.remaining * ((total - done) / left / num_running);
        break;
      }
    }
  }
  return progress;
}

}  // namespace uniquanf::server
