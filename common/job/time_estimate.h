// How far a job is and how long it will take: one estimate for the server and the batch program.
//
// What each phase of each task has to do is counted in multiply-adds of forward passes (JobWork);
// how long that takes is measured. A phase that runs is judged by its own pace, a phase of a task
// like one that is done by how long that took, and anything else by its amount at the rate of what
// has been measured of the job so far. The fraction is of time spent computing, so it grows evenly
// when the estimate is right, and waiting does not count.
//
// Thread safety: pure functions over plain values. Errors: none; nothing is too odd to estimate.
#ifndef UNIQUANF_COMMON_JOB_TIME_ESTIMATE_H_
#define UNIQUANF_COMMON_JOB_TIME_ESTIMATE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "common/job/job.h"
#include "common/job/task_graph.h"

namespace uniquanf {

// A task, as far as its time is concerned.
struct TaskTiming {
  TaskKey key;
  bool done = false;
  bool running = false;
  absl::Duration spent;           // of the attempt that runs, or that made the result
  std::vector<PhaseTime> phases;  // done: how long each took; may be empty
  TaskProgress progress;          // running: as told last
  absl::Duration since_told;      // running: since then
};

struct TimeEstimate {
  double fraction = 0;                      // 0..1; below 1
  std::optional<absl::Duration> remaining;  // unset: nothing was measured that tells
  // Of each task that runs, in the order of `tasks`; else 0 and nullopt.
  struct OfTask {
    double fraction = 0;
    std::optional<absl::Duration> remaining;
  };
  std::vector<OfTask> tasks;
};

// `tasks` are the first nodes of the graph of `shape` (all of them, once prepare is done; prepare
// alone before), `num_slots` how many of them can run at once (at least 1).
TimeEstimate EstimateTime(const GraphShape& shape, const JobWork& work,
                          const std::vector<TaskTiming>& tasks, int num_slots);

// Multiply-adds of all tasks after prepare, in the units that rates are measured in: what a job
// with this work takes is about this, times the seconds a unit of another job on the same device.
double WorkUnits(const GraphShape& shape, const JobWork& work);
// Of one layer's task of this round alone.
double LayerUnits(const GraphShape& shape, const JobWork& work, int round);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_JOB_TIME_ESTIMATE_H_
