#include "common/job/time_estimate.h"

#include <algorithm>

#include "gtest/gtest.h"

namespace uniquanf {
namespace {

// A job of four layers of 10 s each and an evaluation of 60 s.
constexpr GraphShape kShape = {4, 1, false, 0};
JobWork Work() {
  JobWork work;
  work.num_steps = 100;
  work.tokens_per_step = 1000;
  work.calibration_tokens = 10000;
  work.evaluation_tokens = 200000;
  work.layer_weights = 1000000;
  work.head_weights = 1000000;
  return work;
}

TaskTiming Done(TaskKey key, std::vector<PhaseTime> phases) {
  TaskTiming timing;
  timing.key = key;
  timing.done = true;
  for (const PhaseTime& phase : phases) timing.spent += phase.duration;
  timing.phases = std::move(phases);
  return timing;
}
TaskTiming Open(TaskKey key) {
  TaskTiming timing;
  timing.key = key;
  return timing;
}
std::vector<PhaseTime> LayerPhases() {
  return {{"loading", absl::Milliseconds(100)},
          {"activations", absl::Milliseconds(900)},
          {"initializing", absl::Seconds(2)},
          {"reconstructing", absl::Milliseconds(6900)},
          {"storing", absl::Milliseconds(100)}};
}
std::vector<TaskTiming> AfterLayers(int num_done) {
  std::vector<TaskTiming> tasks = {Done({TaskKind::kPrepare}, {{"loading", absl::Seconds(1)}})};
  for (int layer = 0; layer < 4; ++layer) {
    const TaskKey key = {TaskKind::kLayer, layer, 0};
    tasks.push_back(layer < num_done ? Done(key, LayerPhases()) : Open(key));
  }
  tasks.push_back(Open({TaskKind::kFinalize}));
  return tasks;
}

TEST(TimeEstimateTest, NothingIsKnownBeforeAnythingWasMeasured) {
  const TimeEstimate estimate = EstimateTime(kShape, Work(), AfterLayers(0), 1);
  EXPECT_FALSE(estimate.remaining.has_value());
  EXPECT_LT(estimate.fraction, 0.05);
}

// 200,000 tokens through four layers and a head, at the rate of the layers' activations (20,000
// token-layers in 0.9 s): 54 s.
TEST(TimeEstimateTest, AnEvaluationCountsByItsTokens) {
  const TimeEstimate estimate = EstimateTime(kShape, Work(), AfterLayers(3), 1);
  ASSERT_TRUE(estimate.remaining.has_value());
  EXPECT_GT(*estimate.remaining, absl::Seconds(10 + 45));
  EXPECT_LT(*estimate.remaining, absl::Seconds(10 + 75));
  EXPECT_LT(estimate.fraction, 0.4);
}

TEST(TimeEstimateTest, AnEvaluationThatRunsIsJudgedByItsPace) {
  std::vector<TaskTiming> tasks = AfterLayers(4);
  tasks[5].running = true;
  tasks[5].spent = absl::Seconds(10);
  tasks[5].progress.phase = "evaluating";
  tasks[5].progress.step = 50;
  tasks[5].progress.num_steps = 200;
  tasks[5].progress.elapsed = absl::Seconds(10);
  tasks[5].progress.remaining = absl::Seconds(30);
  const TimeEstimate estimate = EstimateTime(kShape, Work(), tasks, 1);
  EXPECT_EQ(*estimate.remaining, absl::Seconds(30));
  EXPECT_NEAR(estimate.fraction, 51.0 / 81.0, 0.01);
  EXPECT_NEAR(estimate.tasks[5].fraction, 0.25, 0.01);
}

// A later phase that has not begun is not taken for done, nor an earlier one for open.
TEST(TimeEstimateTest, ALayerIsTheSumOfItsPhases) {
  std::vector<TaskTiming> tasks = AfterLayers(2);
  tasks[3].running = true;
  tasks[3].spent = absl::Milliseconds(500);
  tasks[3].progress.phase = "activations";
  tasks[3].progress.num_steps = 2;
  tasks[3].progress.elapsed = absl::Milliseconds(400);
  tasks[3].progress.finished = {{"loading", absl::Milliseconds(100)}};
  JobWork work = Work();
  work.evaluation_tokens = 0;
  const TimeEstimate estimate = EstimateTime(kShape, work, tasks, 1);
  EXPECT_NEAR(absl::ToDoubleSeconds(*estimate.tasks[3].remaining), 9.5, 0.2);
  EXPECT_NEAR(absl::ToDoubleSeconds(*estimate.remaining), 19.5, 1.0);
}

TEST(TimeEstimateTest, IndependentLayersShareTheSlots) {
  const GraphShape shape = {4, 1, true, 0};
  JobWork work = Work();
  work.evaluation_tokens = 0;
  const TimeEstimate one = EstimateTime(shape, work, AfterLayers(1), 1);
  const TimeEstimate three = EstimateTime(shape, work, AfterLayers(1), 3);
  EXPECT_NEAR(absl::ToDoubleSeconds(*one.remaining), 30, 1.0);
  EXPECT_NEAR(absl::ToDoubleSeconds(*three.remaining), 10, 1.0);
  EXPECT_EQ(one.fraction, three.fraction);
}

TEST(TimeEstimateTest, TheLastRoundIsTwiceAsLong) {
  const GraphShape shape = {2, 3, false, 0};
  EXPECT_GT(LayerUnits(shape, Work(), 2), 1.8 * LayerUnits(shape, Work(), 1));
}

// Windows are no layers: each goes through all layers that follow.
TEST(TimeEstimateTest, WindowsCountByTheLayersTheyGoThrough) {
  const GraphShape shape = {4, 1, false, 2};
  JobWork work = Work();
  work.evaluation_tokens = 0;
  work.distill_steps = 100;
  work.distill_tokens_per_step = 1000;
  std::vector<TaskTiming> tasks = AfterLayers(4);
  tasks.insert(tasks.begin() + 5,
               Done({TaskKind::kDistill, 0, 0}, {{"loading", absl::Seconds(1)},
                                                 {"activations", absl::Seconds(4)},
                                                 {"distilling", absl::Seconds(50)},
                                                 {"storing", absl::Seconds(1)}}));
  tasks.insert(tasks.begin() + 6, Open({TaskKind::kDistill, 2, 0}));
  const TimeEstimate estimate = EstimateTime(shape, work, tasks, 1);
  // Three fifths of the first: two layers and the head instead of four and the head.
  EXPECT_NEAR(absl::ToDoubleSeconds(*estimate.remaining), 33, 3);
}

// Never 100% while something is left, whatever the steps say.
TEST(TimeEstimateTest, NeverDoneBeforeItIs) {
  std::vector<TaskTiming> tasks = AfterLayers(4);
  tasks[5].running = true;
  tasks[5].spent = absl::Seconds(1000);
  tasks[5].progress.phase = "storing";
  tasks[5].progress.step = 4;
  tasks[5].progress.num_steps = 4;
  const TimeEstimate estimate = EstimateTime(kShape, Work(), tasks, 1);
  EXPECT_LT(estimate.fraction, 1.0);
  EXPECT_GE(*estimate.remaining, absl::ZeroDuration());
}

}  // namespace
}  // namespace uniquanf
