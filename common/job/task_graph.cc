#include "common/job/task_graph.h"

#include "absl/strings/str_format.h"

namespace uniquanf {
namespace {

// Layers stand behind prepare, round after round.
int32_t LayerNode(const GraphShape& shape, int32_t layer, int32_t round) {
  return 1 + round * shape.num_layers + layer;
}

int32_t NumWindows(const GraphShape& shape) {
  if (shape.distill_window == 0) return 0;
  return (shape.num_layers + shape.distill_window - 1) / shape.distill_window;
}

// Windows stand behind all rounds.
int32_t WindowNode(const GraphShape& shape, int32_t window) {
  return 1 + shape.num_rounds * shape.num_layers + window;
}

}  // namespace

int64_t NumNodes(const GraphShape& shape) {
  return 2 + int64_t{shape.num_layers} * shape.num_rounds + NumWindows(shape);
}

TaskNode NodeOf(const GraphShape& shape, int32_t index) {
  if (index == 0) return {{TaskKind::kPrepare, 0, 0}, {}};
  if (index == NumNodes(shape) - 1) {
    const TaskKey finalize = {TaskKind::kFinalize, 0, 0};
    return {finalize, InputsOf(shape, finalize)};
  }
  if (const int32_t window = index - WindowNode(shape, 0); window >= 0) {
    const TaskKey key = {TaskKind::kDistill, window * shape.distill_window, 0};
    TaskNode node = {key, {}};
    if (window > 0) {
      node.depends_on.push_back(WindowNode(shape, window - 1));
    } else if (shape.layers_independent) {
      node.depends_on = InputsOf(shape, key);
    } else {
      node.depends_on.push_back(LayerNode(shape, shape.num_layers - 1, shape.num_rounds - 1));
    }
    return node;
  }
  const int32_t layer = (index - 1) % shape.num_layers, round = (index - 1) / shape.num_layers;
  TaskNode node = {{TaskKind::kLayer, layer, round}, {}};
  const bool is_first = shape.layers_independent || layer == 0;
  node.depends_on.push_back(is_first ? 0 : LayerNode(shape, layer - 1, round));
  if (round > 0) node.depends_on.push_back(LayerNode(shape, layer, round - 1));
  return node;
}

std::vector<TaskNode> BuildTaskGraph(const GraphShape& shape) {
  std::vector<TaskNode> graph;
  for (int64_t i = 0; i < NumNodes(shape); ++i) graph.push_back(NodeOf(shape, i));
  return graph;
}

std::vector<int32_t> InputsOf(const GraphShape& shape, const TaskKey& task) {
  std::vector<int32_t> inputs;
  const auto add_layers = [&](int32_t begin, int32_t end, int32_t round) {
    for (int32_t i = begin; i < end; ++i) inputs.push_back(LayerNode(shape, i, round));
  };
  const auto add_windows = [&](int32_t end) {
    for (int32_t i = 0; i < end; ++i) inputs.push_back(WindowNode(shape, i));
  };
  switch (task.kind) {
    case TaskKind::kUnknown:
    case TaskKind::kPrepare:
      break;
    case TaskKind::kLayer:
      if (!shape.layers_independent) add_layers(0, task.layer, task.round);
      if (task.round > 0) inputs.push_back(LayerNode(shape, task.layer, task.round - 1));
      break;
    case TaskKind::kDistill:
      add_windows(task.layer / shape.distill_window);
      add_layers(task.layer, shape.num_layers, shape.num_rounds - 1);
      break;
    case TaskKind::kFinalize:
      if (shape.distill_window > 0) {
        add_windows(NumWindows(shape));
      } else {
        add_layers(0, shape.num_layers, shape.num_rounds - 1);
      }
      break;
  }
  return inputs;
}

std::string TaskId(const TaskKey& task) {
  switch (task.kind) {
    case TaskKind::kUnknown:
      break;
    case TaskKind::kPrepare:
      return "prepare";
    case TaskKind::kLayer:
      return task.round == 0 ? absl::StrFormat("layer-%04d", task.layer)
                             : absl::StrFormat("layer-%04d-%d", task.layer, task.round);
    case TaskKind::kDistill:
      return absl::StrFormat("distill-%04d", task.layer);
    case TaskKind::kFinalize:
      return "finalize";
  }
  return "unknown";
}

}  // namespace uniquanf
