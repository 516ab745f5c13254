#include <atomic>
#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "tests/support/faulty_store.h"
#include "tests/unit/worker/task/task_fixture.h"
#include "worker/task/content_store.h"
#include "worker/task/layer_task.h"

namespace uniquanf {
namespace {

constexpr absl::Duration kLongest = absl::Seconds(60);  // of a wait that should end

class ManualClock : public Clock {
 public:
  absl::Time Now() const override { return absl::UnixEpoch() + Monotonic(); }
  absl::Duration Monotonic() const override { return absl::Milliseconds(milliseconds_.load()); }
  void Advance(absl::Duration time) { milliseconds_ += absl::ToInt64Milliseconds(time); }

 private:
  std::atomic<int64_t> milliseconds_{0};
};

class LayerRunnerTest : public TaskTest {
 protected:
  LayerRunnerTest() {
    model_.Write(spec_.model_uri);
    env_.work_uri = dir_.path() + "/work";
  }

  // Prepares the job and runs its layers by themselves, without a cache.
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(const PrepareOutcome prepared, RunPrepare(spec_, env_));
    plan_ = prepared.plan_sha256;
    TaskEnvironment env = env_;
    env.cache = nullptr;
    for (int layer = 0; layer < prepared.num_layers; ++layer) {
      ASSERT_OK_AND_ASSIGN(const LayerOutcome outcome, RunLayer(spec_, plan_, layer, wanted_, env));
      wanted_.push_back(outcome.result_sha256);
    }
    ASSERT_GE(wanted_.size(), 2u);
  }

  std::vector<std::string> Earlier(int layer) const {
    return {wanted_.begin(), wanted_.begin() + layer};
  }
  absl::StatusOr<std::string> Run(LayerRunner* runner, int layer, const TaskEnvironment& env) {
    UQ_ASSIGN_OR_RETURN(const LayerOutcome outcome,
                        runner->Run(spec_, plan_, {layer, 0}, Earlier(layer), env));
    return outcome.result_sha256;
  }
  // An empty working store with the plan and its tokens in it, behind `hook`.
  std::shared_ptr<ObjectStore> NewWork(const std::string& name, FaultHook hook) {
    std::shared_ptr<ObjectStore> store = *OpenObjectStore(dir_.path() + "/" + name);
    TaskEnvironment env = env_;
    env.work = store;
    EXPECT_EQ(RunPrepare(spec_, env)->plan_sha256, plan_);
    return NewFaultyStore(std::move(store), std::move(hook));
  }
  bool CacheHolds(int layer) const {
    return cache_->CachedLayer(plan_) == std::optional<LayerRound>({layer, 0});
  }
  static bool Eventually(const std::function<bool()>& holds) {
    const absl::Time deadline = absl::Now() + kLongest;
    while (!holds()) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(2));
    }
    return true;
  }

  std::string plan_;
  std::vector<std::string> wanted_;  // results of the layers
};

TEST_F(LayerRunnerTest, GivesTheBytesOfRunLayer) {
  LayerRunner runner;
  for (size_t layer = 0; layer < wanted_.size(); ++layer) {
    EXPECT_EQ(*Run(&runner, static_cast<int>(layer), env_), wanted_[layer]);
  }
  EXPECT_EQ(runner.Ahead(plan_), std::nullopt) << "after the last layer";
}

// The first layer's shard does not get stored until the second one's is there to be stored.
TEST_F(LayerRunnerTest, TheNextLayerRunsWhileAResultIsStored) {
  absl::Mutex mutex;
  std::set<std::string> written;  // in order of their first append
  absl::Notification second;
  env_.work = NewWork("slow", [&](absl::string_view operation, absl::string_view key) {
    if (operation != "append" || !absl::StartsWith(key, "objects/")) return absl::OkStatus();
    bool is_first = false;
    {
      absl::MutexLock lock(&mutex);
      written.insert(std::string(key));
      is_first = written.size() == 1;
      if (written.size() == 2 && !second.HasBeenNotified()) second.Notify();
    }
    if (is_first && !second.WaitForNotificationWithTimeout(kLongest)) {
      return absl::DeadlineExceededError("the second layer never came");
    }
    return absl::OkStatus();
  });
  LayerRunner runner;
  ASSERT_EQ(*Run(&runner, 0, env_), wanted_[0]);
  EXPECT_EQ(runner.Ahead(plan_), std::optional<LayerRound>({1, 0}));
  std::vector<std::string> phases;
  env_.progress = [&](const TaskStepProgress& progress) { phases.push_back(progress.phase); };
  EXPECT_EQ(*Run(&runner, 1, env_), wanted_[1]);
  EXPECT_FALSE(phases.empty()) << "what was reported last is passed on";
}

TEST_F(LayerRunnerTest, WhatNobodyComesForIsGivenUpAndItsInputsKept) {
  ManualClock clock;
  absl::Notification go_on;
  std::atomic<int> num_plans_read{0};
  const std::string plan_key = ContentKey(plan_);
  env_.clock = &clock;
  env_.work = NewWork("held", [&](absl::string_view operation, absl::string_view key) {
    if (operation == "read" && key == plan_key && ++num_plans_read == 2) {
      go_on.WaitForNotificationWithTimeout(kLongest);
    }
    return absl::OkStatus();
  });
  LayerRunner runner;
  ASSERT_EQ(*Run(&runner, 0, env_), wanted_[0]);
  ASSERT_EQ(num_plans_read, 2) << "the layer that runs ahead waits at its start";
  clock.Advance(LayerRunner::kPatience + absl::Milliseconds(1));
  go_on.Notify();
  runner.Stop();
  EXPECT_TRUE(CacheHolds(1));
  EXPECT_EQ(*Run(&runner, 1, env_), wanted_[1]);
}

TEST_F(LayerRunnerTest, AnotherLayerStopsIt) {
  LayerRunner runner;
  ASSERT_EQ(*Run(&runner, 0, env_), wanted_[0]);
  EXPECT_EQ(*Run(&runner, 0, env_), wanted_[0]);
  EXPECT_EQ(*Run(&runner, 1, env_), wanted_[1]);
}

// Two jobs of the same settings have the same plan, and each its own store.
TEST_F(LayerRunnerTest, AnotherJobGetsItsOwnResult) {
  LayerRunner runner;
  ASSERT_EQ(*Run(&runner, 0, env_), wanted_[0]);
  TaskEnvironment other = env_;
  other.work =
      NewWork("other", [](absl::string_view, absl::string_view) { return absl::OkStatus(); });
  other.work_uri = dir_.path() + "/other";
  ASSERT_EQ(*Run(&runner, 0, other), wanted_[0]);
  ASSERT_EQ(*Run(&runner, 1, other), wanted_[1]);
  EXPECT_OK(GetContent(other.work.get(), wanted_[0], 1 << 20).status());
  EXPECT_OK(GetContent(other.work.get(), wanted_[1], 1 << 20).status());
}

TEST_F(LayerRunnerTest, ATaskThatTookOverCanBeCancelled) {
  absl::Notification go_on;
  std::atomic<int> num_plans_read{0};
  const std::string plan_key = ContentKey(plan_);
  env_.work = NewWork("held", [&](absl::string_view operation, absl::string_view key) {
    if (operation == "read" && key == plan_key && ++num_plans_read == 2) {
      go_on.WaitForNotificationWithTimeout(kLongest);
    }
    return absl::OkStatus();
  });
  LayerRunner runner;
  ASSERT_EQ(*Run(&runner, 0, env_), wanted_[0]);
  std::atomic<bool> asked{false};
  env_.stop = [&] {
    asked = true;
    return true;
  };
  std::thread later([&] {
    absl::SleepFor(absl::Milliseconds(20));  // so that mostly the task has taken over by then
    go_on.Notify();
  });
  EXPECT_EQ(Run(&runner, 1, env_).status().code(), absl::StatusCode::kCancelled);
  later.join();
  EXPECT_TRUE(asked);
  env_.stop = StopToken();
  EXPECT_EQ(*Run(&runner, 1, env_), wanted_[1]);
}

TEST_F(LayerRunnerTest, AResultThatCannotBeStoredEndsWhatRunsAhead) {
  std::atomic<bool> broken{true};
  env_.work = NewWork("broken", [&](absl::string_view operation, absl::string_view key) {
    if (operation == "commit" && absl::StartsWith(key, "objects/") && broken) {
      return absl::UnavailableError("no store");
    }
    return absl::OkStatus();
  });
  LayerRunner runner;
  EXPECT_EQ(Run(&runner, 0, env_).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(runner.Ahead(plan_), std::nullopt);
  broken = false;
  EXPECT_EQ(*Run(&runner, 0, env_), wanted_[0]);
  EXPECT_EQ(*Run(&runner, 1, env_), wanted_[1]);
}

TEST_F(LayerRunnerTest, WithoutItsInputsALayerDoesNotRunAhead) {
  cache_->Clear();
  EXPECT_THAT(OptimizeLayer(spec_, plan_, {1, 0}, nullptr, env_),
              FailsWith(absl::StatusCode::kFailedPrecondition, std::string(kInputsNotAtHand)));
}

// Independent layers need no results, but a layer that runs ahead only starts where it can go on.
TEST_F(LayerRunnerTest, NothingRunsAheadWithoutACache) {
  env_.cache = nullptr;
  LayerRunner runner;
  ASSERT_EQ(*Run(&runner, 0, env_), wanted_[0]);
  EXPECT_EQ(runner.Ahead(plan_), std::nullopt);
}

}  // namespace
}  // namespace uniquanf
