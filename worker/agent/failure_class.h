// Which class of failure a task's status is: the only place that decides what the server may retry.
//
// Thread safety: free functions, no state.
#ifndef UNIQUANF_WORKER_AGENT_FAILURE_CLASS_H_
#define UNIQUANF_WORKER_AGENT_FAILURE_CLASS_H_

#include "absl/status/status.h"
#include "uniquanf/v1/task.pb.h"

namespace uniquanf {

// REQUIRES: !status.ok().
v1::FailureClass FailureClassOf(const absl::Status& status);

// Class, reason (the status's, or its code's name when it has none) and message, which is cut to
// 2000 bytes. REQUIRES: !status.ok().
v1::TaskFailure FailureFromStatus(const absl::Status& status);

// True when the process had better start afresh after this: a CUDA context does not survive a
// device error.
bool NeedsRestart(const absl::Status& status);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_FAILURE_CLASS_H_
