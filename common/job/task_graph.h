// A job's tasks and what each waits for and is given, as data: the one description that the server
// (which leases them) and the batch program (which runs them itself) both walk. A new schedule, or
// a kind of task that follows the layers, is a change here and in what runs such a task.
//
// Only the shape is stored with a job, so the same shape must always give the same graph.
// Thread safety: plain values, free functions.
#ifndef UNIQUANF_COMMON_JOB_TASK_GRAPH_H_
#define UNIQUANF_COMMON_JOB_TASK_GRAPH_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/job/states.h"

namespace uniquanf {

// What the graph depends on; known once prepare has run. REQUIRES: both numbers are 1 or more.
struct GraphShape {
  int32_t num_layers = 0;
  int32_t num_rounds = 1;           // tasks of each layer, one after the other
  bool layers_independent = false;  // no layer needs another's result
  // Layers of a window that is distilled after all of them; 0: none is. At most num_layers.
  int32_t distill_window = 0;
};

// Which task: its kind and, where the kind has several, which of them.
struct TaskKey {
  TaskKind kind = TaskKind::kPrepare;
  int32_t layer = 0;  // of a window: its first
  int32_t round = 0;
};

struct TaskNode : TaskKey {
  std::vector<int32_t> depends_on;  // nodes that must have succeeded before it may start
};

// Node 0 is prepare, every node comes after those that it depends on, finalize is the last. With
// independent layers each waits for prepare only. In several rounds a layer's task waits for the
// layer before it in its round, and for its own task of the round before: a wavefront. Windows come
// after all layers, one after the other.
int64_t NumNodes(const GraphShape& shape);
// REQUIRES: 0 <= index < NumNodes. In constant time but for finalize and the first window.
TaskNode NodeOf(const GraphShape& shape, int32_t index);
// Every node.
std::vector<TaskNode> BuildTaskGraph(const GraphShape& shape);

// The nodes whose results the task is given, in this order, beside the plan, which every task after
// prepare is given. A layer: the earlier layers of its round (none where layers are independent),
// then, after round 0, itself in the round before. A window: the windows before it, then the layers
// from its first on, in the last round. Finalize: every window, or every layer in the last round.
std::vector<int32_t> InputsOf(const GraphShape& shape, const TaskKey& task);

// "prepare", "layer-0003" and, after round 0, "layer-0003-1", "distill-0008", "finalize": unique in
// the job.
std::string TaskId(const TaskKey& task);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_JOB_TASK_GRAPH_H_
