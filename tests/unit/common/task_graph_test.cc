// The task graph: for many shapes, what holds of every graph that server and batch can walk.
#include "common/job/task_graph.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace uniquanf {
namespace {

std::vector<GraphShape> Shapes() {
  std::vector<GraphShape> shapes;
  for (const int32_t num_layers : {1, 2, 5}) {
    for (const int32_t num_rounds : {1, 2, 4}) {
      for (const bool independent : {false, true}) {
        for (const int32_t window : {0, 1, 2, 5}) {
          if (window > num_layers) continue;
          shapes.push_back({num_layers, num_rounds, independent, window});
        }
      }
    }
  }
  return shapes;
}

std::vector<std::string> Names(const std::vector<TaskNode>& graph,
                               const std::vector<int32_t>& nodes) {
  std::vector<std::string> names;
  for (const int32_t i : nodes) names.push_back(TaskId(graph.at(i)));
  return names;
}

TEST(TaskGraphTest, EveryTaskComesAfterWhatItDependsOnAndNamesAreItsOwn) {
  for (const GraphShape& shape : Shapes()) {
    const std::vector<TaskNode> graph = BuildTaskGraph(shape);
    const int32_t window = shape.distill_window;
    const int32_t num_windows = window == 0 ? 0 : (shape.num_layers + window - 1) / window;
    ASSERT_EQ(graph.size(), 2u + shape.num_layers * shape.num_rounds + num_windows);
    EXPECT_EQ(graph.front().kind, TaskKind::kPrepare);
    EXPECT_EQ(graph.back().kind, TaskKind::kFinalize);
    std::set<std::string> names;
    for (size_t i = 0; i < graph.size(); ++i) {
      EXPECT_TRUE(names.insert(TaskId(graph[i])).second) << TaskId(graph[i]);
      EXPECT_EQ(graph[i].depends_on.empty(), i == 0) << "all wait for prepare, at least";
      for (const int32_t d : graph[i].depends_on) EXPECT_LT(d, static_cast<int32_t>(i));
    }
  }
}

// Else a task could be started without something that it is given.
TEST(TaskGraphTest, EveryInputHasSucceededWhenATaskMayStart) {
  for (const GraphShape& shape : Shapes()) {
    const std::vector<TaskNode> graph = BuildTaskGraph(shape);
    std::vector<std::set<int32_t>> before(graph.size());  // of each, through all dependencies
    for (size_t i = 0; i < graph.size(); ++i) {
      for (const int32_t d : graph[i].depends_on) {
        before[i].insert(d);
        before[i].insert(before[d].begin(), before[d].end());
      }
      for (const int32_t input : InputsOf(shape, graph[i])) {
        EXPECT_EQ(before[i].count(input), 1u)
            << TaskId(graph[i]) << " is given " << TaskId(graph[input]);
      }
    }
    EXPECT_EQ(before.back().size(), graph.size() - 1) << "finalize waits for all";
  }
}

TEST(TaskGraphTest, PipelinedLayersAreAWavefront) {
  using Names_ = std::vector<std::string>;
  const GraphShape shape = {3, 2, false};
  const std::vector<TaskNode> graph = BuildTaskGraph(shape);
  const TaskNode& task = graph.at(5);
  EXPECT_EQ(TaskId(task), "layer-0001-1");
  EXPECT_EQ(Names(graph, task.depends_on), (Names_{"layer-0000-1", "layer-0001"}));
  EXPECT_EQ(Names(graph, InputsOf(shape, graph.at(6))),
            (Names_{"layer-0000-1", "layer-0001-1", "layer-0002"}));
  EXPECT_EQ(Names(graph, InputsOf(shape, graph.back())),
            (Names_{"layer-0000-1", "layer-0001-1", "layer-0002-1"}));
}

TEST(TaskGraphTest, WindowsFollowTheLayersOneAfterTheOther) {
  using Names_ = std::vector<std::string>;
  const GraphShape shape = {5, 2, false, 2};
  const std::vector<TaskNode> graph = BuildTaskGraph(shape);
  ASSERT_EQ(graph.size(), 15u);
  EXPECT_EQ(Names(graph, {11, 12, 13}), (Names_{"distill-0000", "distill-0002", "distill-0004"}));
  EXPECT_EQ(Names(graph, graph[11].depends_on), Names_{"layer-0004-1"});
  EXPECT_EQ(Names(graph, graph[12].depends_on), Names_{"distill-0000"});
  EXPECT_EQ(Names(graph, InputsOf(shape, graph[12])),
            (Names_{"distill-0000", "layer-0002-1", "layer-0003-1", "layer-0004-1"}));
  EXPECT_EQ(Names(graph, InputsOf(shape, graph.back())),
            (Names_{"distill-0000", "distill-0002", "distill-0004"}));
  const GraphShape all = {5, 1, true, 5};
  EXPECT_EQ(Names(BuildTaskGraph(all), InputsOf(all, {TaskKind::kFinalize})),
            Names_{"distill-0000"});
}

TEST(TaskGraphTest, IndependentLayersWaitForPrepareAndAreGivenNothing) {
  const GraphShape shape = {3, 1, true};
  const std::vector<TaskNode> graph = BuildTaskGraph(shape);
  for (size_t i = 1; i + 1 < graph.size(); ++i) {
    EXPECT_EQ(graph[i].depends_on, std::vector<int32_t>{0});
    EXPECT_TRUE(InputsOf(shape, graph[i]).empty());
  }
}

}  // namespace
}  // namespace uniquanf
