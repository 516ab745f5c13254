// How far a job is: counts, the finished part of its estimated time, and the time that remains.
// Pure functions over values.
#ifndef UNIQUANF_SERVER_CORE_PROGRESS_H_
#define UNIQUANF_SERVER_CORE_PROGRESS_H_

#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "server/core/state.h"
#include "server/core/types.h"

namespace uniquanf::server {

// What is shown of a job: counts, and what was estimated when it last changed.
JobProgress ComputeProgress(const Job& job, const std::vector<std::shared_ptr<const Task>>& tasks);

// Estimates anew how far the job and its running tasks are (common/job/time_estimate.h), at the
// monotonic time `now`.
void EstimateProgress(JobEntry* entry, absl::Duration now);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_CORE_PROGRESS_H_
