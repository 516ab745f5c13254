// How far a job is: counts, the finished fraction of its estimated work, and the time that remains.
// Pure functions over values.
#ifndef UNIQUANF_SERVER_CORE_PROGRESS_H_
#define UNIQUANF_SERVER_CORE_PROGRESS_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "server/core/types.h"

namespace uniquanf::server {

struct JobProgress {
  int32_t num_tasks = 0;
  int32_t num_tasks_succeeded = 0;
  int32_t num_layers = 0;
  int32_t num_layers_succeeded = 0;
  double fraction = 0;  // 0..1
  std::optional<absl::Duration> remaining;
};

// `tasks` are all of the job's, in order.
JobProgress ComputeProgress(const Job& job, const std::vector<std::shared_ptr<const Task>>& tasks);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_CORE_PROGRESS_H_
