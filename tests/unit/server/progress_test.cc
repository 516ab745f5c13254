// What people see of a job that runs or waits: how far it is, its losses, what it waits for.
#include "tests/unit/server/core_fixture.h"

namespace uniquanf::server {
namespace {

class ProgressTest : public CoreTest {
 protected:
  ProgressTest() {
    work_.num_steps = 100;
    work_.tokens_per_step = 100;
    work_.calibration_tokens = 1000;
    work_.evaluation_tokens = 100000;
    work_.layer_weights = 1000;
    work_.head_weights = 1000;
  }
  // The worker holds the first of two layers.
  void StartLayer(Worker* w) {
    Synchronize(w);
    Succeed(&w->reports.at(0));
    w->reports[0].outcome.work = work_;
    ASSERT_EQ(Synchronize(w).at(0).task, "layer-0000");
  }
  void Report(Worker* w, const std::string& phase, int64_t step, int64_t num_steps,
              absl::Duration elapsed) {
    TaskProgress& progress = w->reports.at(0).progress;
    if (progress.phase != phase && !progress.phase.empty()) {
      progress.finished.push_back({progress.phase, progress.elapsed});
    }
    progress.phase = phase;
    progress.step = step;
    progress.num_steps = num_steps;
    progress.elapsed = elapsed;
    progress.remaining.reset();
    if (step > 0) {
      progress.remaining = elapsed * (static_cast<double>(num_steps - step) / step);
    }
    Synchronize(w);
  }
  JobWork work_;
};

// With the phase's steps for the task's fraction it went from 85% of "initializing" to 0%.
TEST_F(ProgressTest, TheFractionNeverFalls) {
  Create("a");
  Worker w = NewWorker("w");
  StartLayer(&w);
  double last = 0;
  for (const std::string phase : {"activations", "initializing", "reconstructing", "storing"}) {
    for (int step = 0; step <= 10; ++step) {
      mono_ += absl::Seconds(1);
      Report(&w, phase, step, 10, absl::Seconds(step));
      EXPECT_GE(job("a").fraction, last) << phase << " " << step;
      last = job("a").fraction;
    }
  }
  EXPECT_GT(last, 0);
  EXPECT_LT(last, 0.5) << "an evaluation of 100,000 tokens is still to come";
}

TEST_F(ProgressTest, UpdateTimeMovesWithProgress) {
  Create("a");
  Worker w = NewWorker("w");
  StartLayer(&w);
  const absl::Time before = job("a").update_time;
  mono_ += absl::Seconds(3);
  Report(&w, "reconstructing", 1, 10, absl::Seconds(3));
  EXPECT_EQ(job("a").update_time, before + absl::Seconds(3));
}

TEST_F(ProgressTest, ACancelledJobKeepsHowFarItWas) {
  Create("a");
  Worker w = NewWorker("w");
  StartLayer(&w);
  mono_ += absl::Seconds(9);
  Report(&w, "reconstructing", 9, 10, absl::Seconds(9));
  const double fraction = job("a").fraction;
  ASSERT_GT(fraction, 0);
  Do(CancelJobEvent{"a"});
  w.reports[0].kind = LeaseReport::Kind::kReleased;
  Synchronize(&w);
  ASSERT_EQ(job("a").state, JobState::kCancelled);
  EXPECT_EQ(job("a").fraction, fraction);
  EXPECT_FALSE(job("a").remaining.has_value());
}

TEST_F(ProgressTest, LossesAreAskedForFromWhereTheServerIs) {
  Create("a");
  Worker w = NewWorker("w");
  StartLayer(&w);
  w.reports[0].losses = {{8, 0.5f}, {16, 0.25f}};
  Report(&w, "reconstructing", 16, 100, absl::Seconds(1));
  ASSERT_NE(task("a", "layer-0000").history, nullptr);
  EXPECT_EQ(task("a", "layer-0000").history->steps(), (std::vector<int64_t>{8, 16}));
  EXPECT_EQ(BuildReply(state_, w.session).directives.at(0).history_step, 16);
  Synchronize(&w);  // said again: a reply was lost
  EXPECT_EQ(task("a", "layer-0000").history->size(), 2u);
}

TEST_F(ProgressTest, AFinishedLayerHasItsLossesAndCurve) {
  Create("a");
  Worker w = NewWorker("w");
  StartLayer(&w);
  w.reports[0].losses = {{8, 0.5f}};
  Report(&w, "reconstructing", 16, 100, absl::Seconds(1));
  Succeed(&w.reports[0]);
  TaskOutcome& outcome = w.reports[0].outcome;
  outcome.initial_loss = 1;
  outcome.final_loss = 0.5;
  for (int step = 1; step <= 4; ++step) outcome.history.Append(step * 25, 1.0f / step);
  Synchronize(&w);
  EXPECT_EQ(task("a", "layer-0000").initial_loss, 1);
  EXPECT_EQ(task("a", "layer-0000").final_loss, 0.5);
  EXPECT_EQ(task("a", "layer-0000").history->size(), 4u);
}

TEST_F(ProgressTest, ADoneTaskKeepsFewerPointsWithBothEnds) {
  Create("a");
  Worker w = NewWorker("w");
  StartLayer(&w);
  Synchronize(&w);
  Succeed(&w.reports[0]);
  LossHistory& told = w.reports[0].outcome.history;
  for (int step = 1; step <= 200; ++step) told.Append(step, 1.0f / step);
  Synchronize(&w);
  const LossHistory& kept = *task("a", "layer-0000").history;
  EXPECT_EQ(kept.size(), 64u);
  EXPECT_EQ(kept.steps().front(), 1);
  EXPECT_EQ(kept.steps().back(), 200);
  EXPECT_EQ(kept.losses().back(), 1.0f / 200);
}

// Three jobs, one slot.
TEST_F(ProgressTest, AJobThatWaitsKnowsItsPlace) {
  for (const char* id : {"a", "b", "c"}) Create(id);
  Create("urgent", "t", 5);
  Worker w = NewWorker("w");
  ASSERT_EQ(Synchronize(&w).at(0).job, "urgent");
  for (int i = 0; i < 8; ++i) {
    Pass(absl::Seconds(1));
    Synchronize(&w);
  }
  EXPECT_EQ(job("urgent").num_before, -1);
  EXPECT_EQ(job("a").num_before, 0);
  EXPECT_EQ(job("b").num_before, 1);
  EXPECT_EQ(job("c").num_before, 2);
  Do(CancelJobEvent{"a"});
  for (int i = 0; i < 3; ++i) {
    Pass(absl::Seconds(1));
    Synchronize(&w);
  }
  EXPECT_EQ(job("c").num_before, 1);
}

TEST_F(ProgressTest, WithoutAWorkerItWaitsForThat) {
  Create("a", "t", 0, "cuda");
  Worker w = NewWorker("w");
  Synchronize(&w);
  for (int i = 0; i < 8; ++i) {
    Pass(absl::Seconds(1));
    Synchronize(&w);
  }
  EXPECT_EQ(job("a").waits_for, "WORKER");
  EXPECT_EQ(job("a").num_before, -1);
}

TEST_F(ProgressTest, AWorkerThatDoesNotCallIsToldBeforeItsLeaseRunsOut) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Pass(absl::Seconds(8));
  EXPECT_EQ(job("a").state, JobState::kRunning);
  EXPECT_EQ(job("a").silent_worker, "w");
  Synchronize(&w);
  Pass(absl::Seconds(3));
  EXPECT_EQ(job("a").silent_worker, "");
}

}  // namespace
}  // namespace uniquanf::server
