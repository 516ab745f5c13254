// What a finished job prints on standard output. Thread safety: free functions.
#ifndef UNIQUANF_WORKER_BATCH_PRINT_OUTCOME_H_
#define UNIQUANF_WORKER_BATCH_PRINT_OUTCOME_H_

#include "worker/task/task_runner.h"

namespace uniquanf::batch {

void PrintJson(const FinalizeOutcome& outcome);    // one line
void PrintReport(const FinalizeOutcome& outcome);  // for people

}  // namespace uniquanf::batch

#endif  // UNIQUANF_WORKER_BATCH_PRINT_OUTCOME_H_
