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

JobProgress ComputeProgress(const Job& job, const std::vector<std::shared_ptr<const Task>>& tasks);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_CORE_PROGRESS_H_
