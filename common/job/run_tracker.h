// Follows a run whose tasks this process runs itself, and estimates how far it is and how long it
// will take (time_estimate.h). What it is told can be recorded, and a recording replayed, so that
// an estimate can be judged by what really happened.
//
// Thread safety: none. Times are monotonic.
#ifndef UNIQUANF_COMMON_JOB_RUN_TRACKER_H_
#define UNIQUANF_COMMON_JOB_RUN_TRACKER_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/job/phase_clock.h"
#include "common/job/task_graph.h"
#include "common/job/time_estimate.h"

namespace uniquanf {

class RunTracker {
 public:
  // Given one JSON line, without its end, for everything that the tracker is told.
  using Recorder = std::function<void(const std::string& line)>;

  // `begin`: when the run began, the zero of recorded times.
  explicit RunTracker(absl::Duration begin, Recorder recorder = nullptr);

  // Once prepare has told them. Node 0, prepare, goes on.
  void SetGraph(const GraphShape& shape, const JobWork& work, int num_slots, absl::Duration now);
  void Start(int node, absl::Duration now);
  // REQUIRES: started.
  void Update(int node, absl::string_view phase, int64_t step, int64_t num_steps, double loss,
              absl::Duration now);
  void Finish(int node, absl::Duration now);
  // Its result was there already.
  void Skip(int node, absl::Duration now);

  // The fraction never falls.
  TimeEstimate Estimate(absl::Duration now);
  int num_done() const { return num_done_; }
  const TaskProgress& progress(int node) const { return tasks_[node].timing.progress; }

 private:
  struct Tracked {
    TaskTiming timing;
    PhaseClock clock;
    absl::Duration started_at, told_at;
  };
  void Record(const std::string& line);

  const absl::Duration begin_;
  const Recorder recorder_;
  GraphShape shape_;
  JobWork work_;
  int num_slots_ = 1;
  std::vector<Tracked> tasks_;
  int num_done_ = 0;
  double fraction_ = 0;
};

// Feeds the lines of a recording to a new tracker, and calls `after` with it after each, with the
// line's time. Errors: kInvalidArgument (INVALID_RECORDING) names the line.
absl::Status ReplayRun(absl::string_view lines,
                       const std::function<void(RunTracker*, absl::Duration)>& after);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_JOB_RUN_TRACKER_H_
