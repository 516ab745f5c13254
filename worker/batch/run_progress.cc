#include "worker/batch/run_progress.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/clock.h"

namespace uniquanf::batch {

RunProgress::RunProgress(const std::string& record)
    : tracker_(
          SystemClock().Monotonic(),
          record.empty() ? RunTracker::Recorder()
                         : [this](const std::string& line) { record_ << line << "\n"; }),
      terminal_(STDERR_FILENO, DetectTerminal(STDERR_FILENO), SystemClock()) {
  if (!record.empty()) record_.open(record, std::ios::trunc);
}

void RunProgress::SetGraph(const GraphShape& shape, const JobWork& work, int num_slots) {
  absl::MutexLock lock(&mutex_);
  shape_ = shape;
  graph_ = BuildTaskGraph(shape);
  num_windows_ =
      static_cast<int>(std::count_if(graph_.begin(), graph_.end(), [](const TaskNode& node) {
        return node.kind == TaskKind::kDistill;
      }));
  tracker_.SetGraph(shape, work, num_slots, SystemClock().Monotonic());
}

void RunProgress::Start(int node, const std::string& name) {
  absl::MutexLock lock(&mutex_);
  running_[node] = name;
  tracker_.Start(node, SystemClock().Monotonic());
}

void RunProgress::Update(int node, const TaskStepProgress& progress) {
  absl::MutexLock lock(&mutex_);
  if (running_.count(node) == 0) return;  // a layer that runs ahead of its task's end
  tracker_.Update(node, progress.phase, progress.step, progress.num_steps, progress.loss,
                  SystemClock().Monotonic());
  Show();
}

void RunProgress::Finish(int node, const std::string& text) {
  absl::MutexLock lock(&mutex_);
  running_.erase(node);
  tracker_.Finish(node, SystemClock().Monotonic());
  Done(node, text);
}

void RunProgress::Skip(int node, const std::string& text) {
  absl::MutexLock lock(&mutex_);
  tracker_.Skip(node, SystemClock().Monotonic());
  Done(node, text);
}

void RunProgress::Done(int node, const std::string& text) {
  if (!text.empty()) terminal_.Print(text);
  if (node >= static_cast<int>(graph_.size())) return;
  const TaskNode& task = graph_[node];
  num_windows_done_ += task.kind == TaskKind::kDistill;
  num_layers_done_ += task.kind == TaskKind::kLayer && task.round + 1 == shape_.num_rounds;
}

void RunProgress::Show() {
  const TimeEstimate estimate = tracker_.Estimate(SystemClock().Monotonic());
  std::vector<ProgressRow> rows;
  if (!graph_.empty()) {
    ProgressRow& job = rows.emplace_back();
    job.label = "job";
    job.fraction = estimate.fraction;
    job.detail = absl::StrCat(num_layers_done_, "/", shape_.num_layers, " layers");
    if (num_windows_ > 0) {
      absl::StrAppend(&job.detail, ", ", num_windows_done_, "/", num_windows_, " windows");
    }
    if (estimate.remaining.has_value()) {
      absl::StrAppend(&job.detail, ", ", ShortDuration(*estimate.remaining), " left");
    }
  }
  for (const auto& [node, name] : running_) {
    const TaskProgress& progress = tracker_.progress(node);
    ProgressRow& row = rows.emplace_back();
    row.label = name;
    row.fraction = estimate.tasks[node].fraction;
    row.detail = progress.phase;
    if (progress.loss > 0) {
      absl::StrAppendFormat(&row.detail, ", %s %.3e",
                            progress.phase == "distilling" ? "divergence" : "block error",
                            progress.loss);
    }
  }
  terminal_.Update(rows);
}

void RunProgress::End() {
  absl::MutexLock lock(&mutex_);
  terminal_.Finish();
}

}  // namespace uniquanf::batch
