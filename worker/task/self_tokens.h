// Sequences that a job's model writes itself, as an object of the job. Internal to worker/task.
//
// Batches are objects of their own, noted under "self-text/" as they are written; a prepare task
// that is killed goes on with the batch it was at. The tokens depend on the model, the device, the
// arithmetic, the seed and the calibration, on nothing else.
#ifndef UNIQUANF_WORKER_TASK_SELF_TOKENS_H_
#define UNIQUANF_WORKER_TASK_SELF_TOKENS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/checkpoint.h"
#include "worker/task/plan.h"
#include "worker/task/task_runner.h"
#include "worker/task/tokens.h"

namespace uniquanf {

// ids [spec.self_samples, sequence_length]. They begin with parts of `calibration`'s sequences, or,
// where that is empty, with the token with which the model begins a text, or with a drawn one where
// it has none. `plan` tells model, device and arithmetic. Errors: those of SelfTextWriter; store
// errors; kCancelled (TASK_CANCELLED).
absl::StatusOr<std::vector<int32_t>> WriteSelfTokens(const Plan& plan, const Checkpoint& checkpoint,
                                                     const CalibrationTokens& calibration,
                                                     int64_t sequence_length,
                                                     const TaskEnvironment& env);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_SELF_TOKENS_H_
