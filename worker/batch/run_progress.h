// Shows a run of the batch program: a bar of the job with the time that is left, one of each task
// that runs, and a line for each that is done.
//
// Thread safety: thread-safe.
#ifndef UNIQUANF_WORKER_BATCH_RUN_PROGRESS_H_
#define UNIQUANF_WORKER_BATCH_RUN_PROGRESS_H_

#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/base/terminal_progress.h"
#include "common/job/run_tracker.h"
#include "worker/task/task_runner.h"

namespace uniquanf::batch {

class RunProgress {
 public:
  // `record`: a file for the tracker's recording, or "". One that cannot be written is left alone.
  explicit RunProgress(const std::string& record);

  void SetGraph(const GraphShape& shape, const JobWork& work, int num_slots);
  void Start(int node, const std::string& name);
  void Update(int node, const TaskStepProgress& progress);
  // `text` stays on the screen; "": nothing.
  void Finish(int node, const std::string& text);
  void Skip(int node, const std::string& text);
  void End();

 private:
  void Show() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Done(int node, const std::string& text) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  std::ofstream record_;
  RunTracker tracker_ ABSL_GUARDED_BY(mutex_);
  TerminalProgress terminal_ ABSL_GUARDED_BY(mutex_);
  GraphShape shape_ ABSL_GUARDED_BY(mutex_);
  std::vector<TaskNode> graph_ ABSL_GUARDED_BY(mutex_);
  std::map<int, std::string> running_ ABSL_GUARDED_BY(mutex_);  // names, by node
  int num_layers_done_ ABSL_GUARDED_BY(mutex_) = 0;             // in their last round
  int num_windows_ ABSL_GUARDED_BY(mutex_) = 0, num_windows_done_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace uniquanf::batch

#endif  // UNIQUANF_WORKER_BATCH_RUN_PROGRESS_H_
