#include "common/job/task_graph.h"

#include "absl/strings/str_format.h"

namespace uniquanf {
namespace {

// Layers stand behind prepare, round after round.
int32_t LayerNode(const GraphShape& shape, int32_t layer, int32_t round) {
  return 1 + round * shape.num_layers + layer;
}

}  // namespace

int64_t NumNodes(const GraphShape& shape) {
  return 2 + int64_t{shape.num_layers} * shape.num_rounds;
}

TaskNode NodeOf(const GraphShape& shape, int32_t index) {
  if (index == 0) return {{TaskKind::kPrepare, 0, 0}, {}};
  if (index == NumNodes(shape) - 1) {
    const TaskKey finalize = {TaskKind::kFinalize, 0, 0};
    return {finalize, InputsOf(shape, finalize)};
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
  const auto add_layers = [&](int32_t end, int32_t round) {
    for (int32_t i = 0; i < end; ++i) inputs.push_back(LayerNode(shape, i, round));
  };
  switch (task.kind) {
    case TaskKind::kUnknown:
    case TaskKind::kPrepare:
      break;
    case TaskKind::kLayer:
      if (!shape.layers_independent) add_layers(task.layer, task.round);
      if (task.round > 0) inputs.push_back(LayerNode(shape, task.layer, task.round - 1));
      break;
    case TaskKind::kFinalize:
      add_layers(shape.num_layers, shape.num_rounds - 1);
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
    case TaskKind::kFinalize:
      return "finalize";
  }
  return "unknown";
}

}  // namespace uniquanf
