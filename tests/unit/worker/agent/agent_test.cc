#include "worker/agent/agent.h"

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/channel_source.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/worker/agent/fake_worker_service.h"

namespace uniquanf {
namespace {

using State = FakeWorkerService::State;

class ManualClock : public Clock {
 public:
  absl::Time Now() const override { return absl::UnixEpoch() + Monotonic(); }
  absl::Duration Monotonic() const override { return absl::Milliseconds(now_ms_.load()); }
  void Advance(absl::Duration by) { now_ms_ += absl::ToInt64Milliseconds(by); }

 private:
  std::atomic<int64_t> now_ms_{1'000'000};
};

std::unique_ptr<ChannelSource> SourceOf(const std::string& address) {
  ChannelSourceOptions options;
  options.channel.max_reconnect_backoff = absl::Milliseconds(500);
  return *ChannelSource::Make(address, options);
}

std::vector<std::unique_ptr<ChannelSource>> OneServer(const std::string& address) {
  std::vector<std::unique_ptr<ChannelSource>> servers;
  servers.push_back(SourceOf(address));
  return servers;
}

// Runs a task until the test lets it go, or until it is cancelled (unless it is deaf).
class HeldExecutor : public TaskExecutor {
 public:
  absl::StatusOr<v1::TaskOutcome> Execute(const v1::TaskAssignment& assignment,
                                          const TaskCallbacks& callbacks) override {
    absl::MutexLock lock(&mutex_);
    started_.push_back(assignment.task());
    while (!result_.has_value()) {
      if (callbacks.stop.StopRequested() && !deaf_) {
        ++num_cancelled_;
        return absl::CancelledError("stopped");
      }
      mutex_.Unlock();
      if (shows_progress_) callbacks.progress({"reconstructing", ++step_, 1000, 0.5});
      mutex_.Lock();
      mutex_.AwaitWithTimeout(absl::Condition(&wake_), absl::Milliseconds(2));
    }
    absl::StatusOr<v1::TaskOutcome> result = *std::move(result_);
    result_.reset();
    return result;
  }

  void Finish(absl::StatusOr<v1::TaskOutcome> result = Ok()) {
    absl::MutexLock lock(&mutex_);
    result_ = std::move(result);
  }
  static v1::TaskOutcome Ok() {
    v1::TaskOutcome outcome;
    outcome.set_result_sha256("abc");
    return outcome;
  }
  void set_deaf() {
    absl::MutexLock lock(&mutex_);
    deaf_ = true;
  }
  void set_shows_progress(bool value) { shows_progress_ = value; }
  int num_started() {
    absl::MutexLock lock(&mutex_);
    return static_cast<int>(started_.size());
  }
  bool WaitUntilCancelled(absl::Duration timeout = absl::Seconds(10)) {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(
                                       +[](int* n) { return *n > 0; }, &num_cancelled_),
                                   timeout);
  }

 private:
  absl::Mutex mutex_;
  std::vector<std::string> started_;
  std::optional<absl::StatusOr<v1::TaskOutcome>> result_;
  bool deaf_ = false;
  bool wake_ = false;
  std::atomic<bool> shows_progress_{true};
  int64_t step_ = 0;
  int num_cancelled_ = 0;
};

class AgentTest : public testing::Test {
 protected:
  ~AgentTest() override {
    for (HeldExecutor& executor : executors_) executor.Finish();
    if (agent_ == nullptr) return;
    if (thread_.joinable()) {
      service_.With([](State& s) { s.error = absl::OkStatus(); });
      agent_->Drain(absl::ZeroDuration());
      // Backoffs that the test left behind pass on the test's own clock.
      while (!ended_) {
        clock_.Advance(absl::Seconds(1));
        absl::SleepFor(absl::Milliseconds(2));
      }
      thread_.join();
    }
    agent_.reset();
  }

  void StartAgent(int num_slots = 1, const Clock* clock = &SystemClock(),
                  std::vector<std::string> addresses = {}) {
    if (addresses.empty()) addresses.push_back(service_.Start());
    std::vector<std::unique_ptr<ChannelSource>> servers;
    for (const std::string& address : addresses) servers.push_back(SourceOf(address));
    executors_ = std::vector<HeldExecutor>(static_cast<size_t>(num_slots));
    std::vector<TaskExecutor*> executors;
    for (HeldExecutor& executor : executors_) executors.push_back(&executor);
    // The service holds calls in real time: it must not outlast what the manual clock lets pass.
    if (clock == &clock_) options_.report_interval = absl::Milliseconds(10);
    options_.session_id = "session-1";
    options_.worker = "workers/w";
    agent_ = std::make_unique<Agent>(options_, std::move(servers), executors, clock, &observer_);
    thread_ = std::thread([this] {
      result_ = agent_->Run();
      ended_ = true;
    });
  }
  // Lets the manual clock run in `step`s until `condition` holds or `limit` has passed on it.
  bool AdvanceUntil(const std::function<bool(const State&)>& condition, absl::Duration step,
                    absl::Duration limit) {
    for (absl::Duration passed; passed < limit; passed += step) {
      clock_.Advance(step);
      agent_->Wake();
      if (service_.WaitFor(condition, absl::Milliseconds(20))) return true;
    }
    return false;
  }
  AgentResult WaitForEnd() {
    thread_.join();
    return result_;
  }
  void Queue(const std::string& task) {
    service_.With([&](State& s) { s.queue.push_back(task); });
  }
  bool WaitUntilRunning(int num = 1) {
    return service_.WaitFor([num](const State& s) {
      int num_running = 0;
      for (const auto& [id, report] : s.live) num_running += report.has_running() ? 1 : 0;
      return num_running >= num;
    });
  }
  bool WaitUntilEnded(v1::LeaseReport::StatusCase as, absl::Duration timeout = absl::Seconds(10)) {
    return service_.WaitFor(
        [as](const State& s) {
          return !s.ended.empty() && s.ended.begin()->second.status_case() == as;
        },
        timeout);
  }

  FakeWorkerService service_;
  AgentObserver observer_;
  AgentOptions options_;
  std::vector<HeldExecutor> executors_;
  std::unique_ptr<Agent> agent_;
  ManualClock clock_;
  std::thread thread_;
  std::atomic<bool> ended_{false};
  AgentResult result_;
};

TEST_F(AgentTest, RunsATaskAndReportsItUntilAcknowledged) {
  service_.With([](State& s) { s.num_held_acks = 2; });
  Queue("jobs/j/tasks/prepare");
  StartAgent();
  ASSERT_TRUE(WaitUntilRunning());
  executors_[0].Finish();
  ASSERT_TRUE(WaitUntilEnded(v1::LeaseReport::kSucceeded));
  int num_reports = 0;
  int64_t last_sequence = 0;
  service_.With([&](State& s) {
    for (const v1::SynchronizeRequest& request : s.requests) {
      EXPECT_GT(request.sequence(), last_sequence);
      last_sequence = request.sequence();
      EXPECT_EQ(request.session_id(), "session-1");
      EXPECT_EQ(request.worker(), "workers/w");
      EXPECT_EQ(request.protocol_version(), kProtocolVersion);
      for (const v1::LeaseReport& lease : request.leases()) {
        EXPECT_EQ(lease.lease_token(), "token of " + lease.lease_id());
        num_reports += lease.has_succeeded();
      }
    }
    EXPECT_EQ(s.ended["lease-1"].succeeded().result_sha256(), "abc");
  });
  EXPECT_EQ(num_reports, 3);
}

TEST_F(AgentTest, HeartbeatsGoOnWhileATaskSaysNothing) {
  options_.report_interval = absl::Milliseconds(20);
  Queue("jobs/j/tasks/layer-0000");
  StartAgent();
  ASSERT_TRUE(WaitUntilRunning());
  executors_[0].set_shows_progress(false);
  const size_t before = service_.With([](State& s) { return s.requests.size(); });
  EXPECT_TRUE(service_.WaitFor([&](const State& s) { return s.requests.size() > before + 5; }));
}

TEST_F(AgentTest, ProgressIsReportedWithAnEstimate) {
  options_.report_interval = absl::Milliseconds(20);
  Queue("jobs/j/tasks/layer-0000");
  StartAgent();
  EXPECT_TRUE(service_.WaitFor([](const State& s) {
    const auto it = s.live.find("lease-1");
    return it != s.live.end() && it->second.running().phase() == "reconstructing" &&
           it->second.running().step() > 2 && it->second.running().has_remaining();
  }));
}

TEST_F(AgentTest, ALeaseThatCannotBeRenewedIsFencedAndItsResultDiscarded) {
  Queue("jobs/j/tasks/layer-0000");
  StartAgent(1, &clock_);
  ASSERT_TRUE(WaitUntilRunning());
  executors_[0].set_deaf();  // it finishes its work although it is told to stop
  service_.With([](State& s) { s.error = absl::UnavailableError("gone"); });
  const auto never = [](const State&) { return false; };
  AdvanceUntil(never, absl::Seconds(1), absl::Seconds(40));  // the lease is of 30 s
  executors_[0].Finish();
  service_.With([](State& s) { s.error = absl::OkStatus(); });
  EXPECT_TRUE(AdvanceUntil([](const State& s) { return s.ended.count("lease-1") > 0; },
                           absl::Milliseconds(200), absl::Seconds(20)));
  service_.With([](State& s) { EXPECT_TRUE(s.ended["lease-1"].has_released()); });
}

TEST_F(AgentTest, ALeaseThatCannotBeRenewedStopsItsTask) {
  Queue("jobs/j/tasks/layer-0000");
  StartAgent(1, &clock_);
  ASSERT_TRUE(WaitUntilRunning());
  service_.With([](State& s) { s.error = absl::UnavailableError("gone"); });
  clock_.Advance(absl::Seconds(29));
  EXPECT_FALSE(executors_[0].WaitUntilCancelled(absl::Milliseconds(150)));
  clock_.Advance(absl::Seconds(2));
  EXPECT_TRUE(executors_[0].WaitUntilCancelled());
}

TEST_F(AgentTest, ARenewedLeaseIsNotFenced) {
  Queue("jobs/j/tasks/layer-0000");
  StartAgent(1, &clock_);
  ASSERT_TRUE(WaitUntilRunning());
  const auto never = [](const State&) { return false; };
  AdvanceUntil(never, absl::Seconds(1), absl::Seconds(120));
  executors_[0].Finish();
  EXPECT_TRUE(WaitUntilEnded(v1::LeaseReport::kSucceeded));
}

// Whoever made it so: another who knows the session, or a server that lost count.
TEST_F(AgentTest, AWorkerWhoseCallsAreTakenForOldOnesLeasesAgainWithinALease) {
  Queue("jobs/j/tasks/layer-0000");
  StartAgent(1, &clock_);
  ASSERT_TRUE(WaitUntilRunning());
  service_.With(
      [](State& s) { s.error = MakeError(absl::StatusCode::kAborted, "STALE_REQUEST", "older"); });
  const auto in_new_session = [](const State& s) {
    return s.requests.back().session_id() != "session-1";
  };
  EXPECT_TRUE(AdvanceUntil(in_new_session, absl::Milliseconds(500), absl::Seconds(20)));
  EXPECT_TRUE(executors_[0].WaitUntilCancelled()) << "the old session's lease is lost";
  service_.With([](State& s) {
    EXPECT_EQ(s.requests.back().sequence(), 1);
    EXPECT_EQ(s.requests.back().leases_size(), 0);
    s.error = absl::OkStatus();
  });
  Queue("jobs/j/tasks/layer-0001");
  EXPECT_TRUE(AdvanceUntil([](const State& s) { return s.live.count("lease-2") > 0; },
                           absl::Milliseconds(500), absl::Seconds(10)));
}

TEST_F(AgentTest, OneStaleAnswerChangesNothing) {
  Queue("jobs/j/tasks/layer-0000");
  StartAgent(1, &clock_);
  ASSERT_TRUE(WaitUntilRunning());
  const size_t before = service_.With([](State& s) {
    s.error = MakeError(absl::StatusCode::kAborted, "STALE_REQUEST", "older");
    return s.requests.size();
  });
  ASSERT_TRUE(AdvanceUntil([&](const State& s) { return s.requests.size() > before; },
                           absl::Milliseconds(50), absl::Seconds(5)));
  service_.With([](State& s) { s.error = absl::OkStatus(); });
  executors_[0].Finish();
  EXPECT_TRUE(AdvanceUntil([](const State& s) { return s.ended.count("lease-1") > 0; },
                           absl::Milliseconds(50), absl::Seconds(5)));
  service_.With([](State& s) { EXPECT_EQ(s.requests.back().session_id(), "session-1"); });
}

TEST_F(AgentTest, AServerThatGoesAndComesBackGetsTheResult) {
  Queue("jobs/j/tasks/layer-0000");
  StartAgent();
  ASSERT_TRUE(WaitUntilRunning());
  service_.Stop();
  executors_[0].Finish();
  service_.Start(service_.port());
  EXPECT_TRUE(WaitUntilEnded(v1::LeaseReport::kSucceeded));
}

TEST_F(AgentTest, TheSecondServerIsUsedWhenTheFirstDoesNotAnswer) {
  const std::string address = service_.Start();
  Queue("jobs/j/tasks/layer-0000");
  StartAgent(1, &SystemClock(), {"127.0.0.1:1", address});
  EXPECT_TRUE(WaitUntilRunning());
}

TEST_F(AgentTest, AStoppedTaskIsReleasedWithinTwoSeconds) {
  Queue("jobs/j/tasks/layer-0000");
  StartAgent();
  ASSERT_TRUE(WaitUntilRunning());
  const absl::Time start = absl::Now();
  service_.With([](State& s) { s.stop.insert("lease-1"); });
  EXPECT_TRUE(WaitUntilEnded(v1::LeaseReport::kReleased));
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
}

TEST_F(AgentTest, AFinishedTaskIsReportedAlthoughTheServerHoldsACall) {
  options_.report_interval = absl::Seconds(20);
  Queue("jobs/j/tasks/layer-0000");
  StartAgent(2);
  ASSERT_TRUE(WaitUntilRunning());
  const absl::Time start = absl::Now();
  executors_[0].Finish();
  EXPECT_TRUE(WaitUntilEnded(v1::LeaseReport::kSucceeded));
  EXPECT_LT(absl::Now() - start, absl::Seconds(3));
}

TEST_F(AgentTest, AnAssignmentWhoseReplyWasLostIsStartedOnce) {
  service_.With([](State& s) { s.num_lost_replies = 3; });
  Queue("jobs/j/tasks/layer-0000");
  StartAgent();
  ASSERT_TRUE(WaitUntilRunning());
  executors_[0].Finish();
  ASSERT_TRUE(WaitUntilEnded(v1::LeaseReport::kSucceeded));
  EXPECT_EQ(executors_[0].num_started(), 1);
}

TEST_F(AgentTest, AResultWhoseAcknowledgementWasLostIsAnsweredLostAndForgotten) {
  Queue("jobs/j/tasks/layer-0000");
  StartAgent();
  ASSERT_TRUE(WaitUntilRunning());
  service_.With([](State& s) { s.num_lost_replies = 1; });
  executors_[0].Finish();
  ASSERT_TRUE(WaitUntilEnded(v1::LeaseReport::kSucceeded));
  agent_->Drain(absl::Seconds(10));
  EXPECT_EQ(WaitForEnd().end, AgentEnd::kDrained);
}

TEST_F(AgentTest, AnotherProtocolVersionEndsTheAgentWithTheServersMessage) {
  service_.With([](State& s) {
    s.error = FailedPrecondition("VERSION_MISMATCH", "this server speaks 2; upgrade the worker");
  });
  StartAgent();
  const AgentResult result = WaitForEnd();
  EXPECT_EQ(result.end, AgentEnd::kVersionMismatch);
  EXPECT_EQ(result.status.message(), "this server speaks 2; upgrade the worker");
}

TEST_F(AgentTest, AServerThatNeverAcceptedTheWorkerEndsTheAgent) {
  service_.With([](State& s) { s.error = absl::UnauthenticatedError("who are you"); });
  StartAgent();
  EXPECT_EQ(WaitForEnd().end, AgentEnd::kRefused);
}

TEST_F(AgentTest, ErrorsAfterAcceptanceAreRetried) {
  Queue("jobs/j/tasks/layer-0000");
  StartAgent();
  ASSERT_TRUE(WaitUntilRunning());
  service_.With([](State& s) { s.error = absl::PermissionDeniedError("for now"); });
  const size_t before = service_.With([](State& s) { return s.requests.size(); });
  ASSERT_TRUE(service_.WaitFor([&](const State& s) { return s.requests.size() > before + 2; }));
  service_.With([](State& s) { s.error = absl::OkStatus(); });
  executors_[0].Finish();
  EXPECT_TRUE(WaitUntilEnded(v1::LeaseReport::kSucceeded));
}

TEST_F(AgentTest, DrainFinishesTheTaskAndEndsAfterTheAcknowledgement) {
  service_.With([](State& s) { s.num_held_acks = 3; });
  Queue("jobs/j/tasks/layer-0000");
  StartAgent();
  ASSERT_TRUE(WaitUntilRunning());
  Queue("jobs/j/tasks/layer-0001");
  agent_->Drain(absl::Minutes(10));
  ASSERT_TRUE(service_.WaitFor([](const State& s) { return s.requests.back().draining(); }));
  executors_[0].Finish();
  EXPECT_EQ(WaitForEnd().end, AgentEnd::kDrained);
  service_.With([](State& s) {
    EXPECT_TRUE(s.live.empty());
    EXPECT_TRUE(s.ended["lease-1"].has_succeeded());
    EXPECT_EQ(s.queue.size(), 1u) << "takes nothing new";
  });
}

TEST_F(AgentTest, DrainGivesTheTaskBackAtItsTimeout) {
  Queue("jobs/j/tasks/layer-0000");
  StartAgent();
  ASSERT_TRUE(WaitUntilRunning());
  agent_->Drain(absl::Milliseconds(50));
  EXPECT_EQ(WaitForEnd().end, AgentEnd::kDrained);
  service_.With([](State& s) { EXPECT_TRUE(s.ended["lease-1"].has_released()); });
}

TEST_F(AgentTest, AnIdleAgentDrainsWithoutAServer) {
  StartAgent(1, &SystemClock(), {"127.0.0.1:1"});
  agent_->Drain(absl::Seconds(10));
  EXPECT_EQ(WaitForEnd().end, AgentEnd::kDrained);
}

TEST_F(AgentTest, AnAdministratorsDrainEndsTheAgentWhenItsTaskIsDone) {
  Queue("jobs/j/tasks/layer-0000");
  StartAgent();
  ASSERT_TRUE(WaitUntilRunning());
  service_.With([](State& s) { s.drain = true; });
  ASSERT_TRUE(service_.WaitFor([](const State& s) { return s.requests.back().draining(); }));
  executors_[0].Finish();
  EXPECT_EQ(WaitForEnd().end, AgentEnd::kDrained);
}

TEST_F(AgentTest, AnIdleAgentEndsAfterItsTimeAndSaysGoodbye) {
  options_.exit_when_idle = absl::Minutes(2);
  StartAgent(1, &clock_);
  const auto draining = [](const State& s) { return s.requests.back().draining(); };
  ASSERT_TRUE(service_.WaitFor([](const State& s) { return !s.requests.empty(); }));
  EXPECT_FALSE(AdvanceUntil(draining, absl::Seconds(10), absl::Seconds(110)));
  EXPECT_TRUE(AdvanceUntil(draining, absl::Seconds(10), absl::Minutes(2)));
  EXPECT_EQ(WaitForEnd().end, AgentEnd::kDrained);
}

// A batch of workers: each takes what there is and ends when nothing is left.
TEST_F(AgentTest, AnAgentThatEndsWhenIdleFinishesWhatThereIs) {
  options_.exit_when_idle = absl::ZeroDuration();
  Queue("jobs/j/tasks/layer-0000");
  Queue("jobs/j/tasks/layer-0001");
  StartAgent();
  ASSERT_TRUE(WaitUntilRunning());
  executors_[0].Finish();
  ASSERT_TRUE(service_.WaitFor([](const State& s) { return s.live.contains("lease-2"); }));
  EXPECT_FALSE(ended_);
  executors_[0].Finish();
  EXPECT_EQ(WaitForEnd().end, AgentEnd::kDrained);
  service_.With([](State& s) {
    EXPECT_TRUE(s.ended["lease-1"].has_succeeded());
    EXPECT_TRUE(s.ended["lease-2"].has_succeeded());
  });
}

TEST_F(AgentTest, AServerThatDoesNotAnswerIsNotTakenForOneWithoutTasks) {
  service_.With([](State& s) { s.error = absl::UnavailableError("not now"); });
  options_.exit_when_idle = absl::Milliseconds(1);
  options_.max_backoff = absl::Milliseconds(5);
  StartAgent();
  ASSERT_TRUE(service_.WaitFor([](const State& s) { return s.requests.size() > 10; }));
  EXPECT_FALSE(ended_);
  Queue("jobs/j/tasks/layer-0000");
  service_.With([](State& s) { s.error = absl::OkStatus(); });
  ASSERT_TRUE(WaitUntilRunning());
  executors_[0].Finish();
  EXPECT_EQ(WaitForEnd().end, AgentEnd::kDrained);
  service_.With([](State& s) { EXPECT_TRUE(s.ended["lease-1"].has_succeeded()); });
}

TEST_F(AgentTest, ATaskThatHangsWhileItsHeartbeatLivesIsReportedAndEndsTheAgent) {
  options_.task_stall_timeout = absl::Seconds(50);
  Queue("jobs/j/tasks/layer-0000");
  StartAgent(1, &clock_);
  ASSERT_TRUE(WaitUntilRunning());
  executors_[0].set_shows_progress(false);
  executors_[0].set_deaf();
  // Renewed on the way: it is not its lease of 30 s that ends it.
  EXPECT_TRUE(AdvanceUntil([](const State& s) { return !s.ended.empty(); }, absl::Seconds(1),
                           absl::Seconds(200)));
  EXPECT_EQ(WaitForEnd().end, AgentEnd::kRestart);
  service_.With([](State& s) {
    EXPECT_EQ(s.ended["lease-1"].failed().reason(), "TASK_STALLED");
    EXPECT_EQ(s.ended["lease-1"].failed().failure_class(), v1::TRANSIENT);
  });
}

TEST_F(AgentTest, AnExceptionInATaskIsAFailureNotACrash) {
  class Thrower : public TaskExecutor {
    absl::StatusOr<v1::TaskOutcome> Execute(const v1::TaskAssignment&,
                                            const TaskCallbacks&) override {
      throw std::bad_alloc();
    }
  } thrower;
  Queue("jobs/j/tasks/layer-0000");
  options_.worker = "workers/w";
  Agent agent(options_, OneServer(service_.Start()), {&thrower}, &SystemClock(), &observer_);
  std::thread thread([&] { agent.Run(); });
  EXPECT_TRUE(WaitUntilEnded(v1::LeaseReport::kFailed));
  agent.Drain(absl::ZeroDuration());
  thread.join();
  service_.With(
      [](State& s) { EXPECT_EQ(s.ended["lease-1"].failed().failure_class(), v1::OUT_OF_MEMORY); });
}

// gRPC's thread may still be on its way out of the last call's callback when the agent goes, and
// its channel with it.
TEST_F(AgentTest, AgentsComeAndGoWithTheirChannels) {
  const std::string address = service_.Start();
  options_.worker = "workers/w";
  for (int i = 0; i < 300; ++i) {
    options_.session_id = absl::StrCat("session-", i);
    HeldExecutor executor;
    Agent agent(options_, OneServer(address), {&executor}, &SystemClock(), &observer_);
    std::thread thread([&] { EXPECT_EQ(agent.Run().end, AgentEnd::kDrained); });
    service_.WaitFor([&](const State& s) {
      return !s.requests.empty() && s.requests.back().session_id() == options_.session_id;
    });
    agent.Drain(absl::ZeroDuration());
    thread.join();
  }
}

}  // namespace
}  // namespace uniquanf
