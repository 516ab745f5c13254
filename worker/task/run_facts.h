// Facts of a run that are no part of its result: how long a task took. They lie beside the results
// in the working store, are overwritten by every run, and are never digested. Losing one loses a
// number in the report, so errors are ignored. Internal to worker/task.
#ifndef UNIQUANF_WORKER_TASK_RUN_FACTS_H_
#define UNIQUANF_WORKER_TASK_RUN_FACTS_H_

#include <string>

#include "absl/time/time.h"
#include "common/job/task_graph.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

// Under which name a layer's facts are kept.
inline std::string LayerTaskName(LayerRound layer) {
  return TaskId({TaskKind::kLayer, layer.layer, layer.round});
}
void WriteRunFacts(const TaskEnvironment& env, const std::string& task, absl::Duration elapsed);
// Seconds the task's latest run took, or 0 when that is not known.
double ReadRunSeconds(const TaskEnvironment& env, const std::string& task);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_RUN_FACTS_H_
