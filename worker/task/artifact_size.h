// How large the artifact of a plan will be, to the byte, before anything is quantized: the sum over
// the files that its manifest lists. Internal to worker/task.
#ifndef UNIQUANF_WORKER_TASK_ARTIFACT_SIZE_H_
#define UNIQUANF_WORKER_TASK_ARTIFACT_SIZE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/task/plan.h"

namespace uniquanf {

// With the bits that plan.spec and plan.allocation give. Errors: those of the model's store.
absl::StatusOr<int64_t> ArtifactSize(const Plan& plan, const Checkpoint& checkpoint);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_ARTIFACT_SIZE_H_
