#include "server/runtime/runtime.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "server/runtime/janitor.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/server/state_0_1_0.h"

namespace uniquanf::server {
namespace {

// Fails commits on demand, before or after they are done.
class FaultyJobStore : public JobStore {
 public:
  explicit FaultyJobStore(std::unique_ptr<JobStore> store) : store_(std::move(store)) {}
  absl::StatusOr<uint64_t> Open() override {
    if (replaced) return Unavailable("NOT_ACTIVE", "another server is active");
    if (open_failures > 0) {
      --open_failures;
      return Unavailable("STATE_UNAVAILABLE", "injected");
    }
    return store_->Open();
  }
  absl::StatusOr<LoadedState> Load() override { return store_->Load(); }
  absl::Status Commit(const WriteBatch& batch) override {
    ++num_commits;
    if (fail_next.exchange(false)) return Unavailable("STATE_UNAVAILABLE", "injected");
    const absl::Status status = store_->Commit(batch);
    if (lie_next.exchange(false)) return Unavailable("STATE_UNAVAILABLE", "injected, but done");
    return status;
  }
  absl::Status CheckActive(uint64_t epoch) override {
    ++num_checks;
    if (!replaced) return absl::OkStatus();
    return MakeError(absl::StatusCode::kAborted, "STORE_FENCED", "another server is active");
  }
  bool allows_standby() const override { return standby; }
  std::string backend() const override { return "faulty"; }

  std::atomic<bool> fail_next{false}, lie_next{false};
  std::atomic<bool> standby{false}, replaced{false};
  std::atomic<int> num_checks{0};
  std::atomic<int> num_commits{0}, open_failures{0};

 private:
  std::unique_ptr<JobStore> store_;
};

class RuntimeTest : public ::testing::Test {
 protected:
  RuntimeTest() { Start(); }
  void Start() {
    store_ = std::make_unique<FaultyJobStore>(NewSqliteStore(dir_.File("state.sqlite")));
    RuntimeOptions options;
    options.policy.lease_duration = absl::Seconds(30);
    runtime_ = std::make_unique<Runtime>(options, store_.get(), &SystemClock(), nullptr);
    ASSERT_THAT(runtime_->Start(), IsOk());
  }
  void Restart() {
    runtime_.reset();
    store_.reset();
    Start();
  }
  absl::StatusOr<JobView> Change(Event event) {
    std::promise<absl::StatusOr<JobView>> promise;
    runtime_->ChangeJob(std::move(event),
                        [&promise](absl::StatusOr<JobView> view) { promise.set_value(view); });
    return promise.get_future().get();
  }
  static CreateJobEvent Create(const std::string& id) {
    CreateJobEvent event;
    event.job.id = id;
    event.job.uid = "uid-" + id;
    event.job.tenant = "t";
    event.job.request_id = "request-" + id;
    event.job.request_digest = "digest";
    return event;
  }
  SynchronizeEvent Call(int64_t sequence) {
    SynchronizeEvent event;
    event.session = "session";
    event.worker = "worker";
    event.sequence = sequence;
    event.capabilities.device = "cpu";
    event.num_free_slots = 1;
    return event;
  }
  using Reply = absl::StatusOr<SynchronizeReply>;
  std::future<Reply> Synchronize(SynchronizeEvent event, absl::Duration max_wait) {
    auto promise = std::make_shared<std::promise<Reply>>();
    runtime_->Synchronize(std::move(event), max_wait,
                          [promise](Reply reply) { promise->set_value(std::move(reply)); });
    return promise->get_future();
  }

  TempDir dir_;
  std::unique_ptr<FaultyJobStore> store_;
  std::unique_ptr<Runtime> runtime_;
};

// What /readyz?standby=ok says: a standby is as good as the active one, a server without its state
// is not.
TEST_F(RuntimeTest, StandsByOnlyWhenItKnowsAnActiveServer) {
  runtime_.reset();
  store_->standby = true;
  store_->open_failures = 1;
  RuntimeOptions options;
  Runtime runtime(options, store_.get(), &SystemClock(), nullptr);
  EXPECT_THAT(runtime.standing(), FailsWith(absl::StatusCode::kUnavailable, "STARTING"));
  ASSERT_THAT(runtime.Start(), IsOk());
  EXPECT_THAT(runtime.standing(), FailsWith(absl::StatusCode::kUnavailable, "STATE_UNAVAILABLE"));
  const auto eventually = [&](const std::function<bool()>& condition) {
    for (int i = 0; i < 3000 && !condition(); ++i) absl::SleepFor(absl::Milliseconds(10));
    return condition();
  };
  EXPECT_TRUE(eventually([&] { return runtime.standing().ok() && runtime.availability().ok(); }));
  store_->replaced = true;
  EXPECT_TRUE(eventually([&] { return runtime.standing().ok() && !runtime.availability().ok(); }));
}

TEST_F(RuntimeTest, AStateOf010IsMigratedWhenItIsOpened) {
  runtime_.reset();
  store_.reset();
  WriteFile(dir_.File("state.sqlite"), ReadFile(kState010Sqlite));
  Start();
  EXPECT_GE(store_->num_commits, 1) << "before any call is answered";
  runtime_.reset();
  ASSERT_OK_AND_ASSIGN(const uint64_t epoch, store_->Open());
  ASSERT_OK_AND_ASSIGN(const LoadedState loaded, store_->Load());
  EXPECT_GT(epoch, 1u);
  EXPECT_FALSE(loaded.has_old_records);
  EXPECT_EQ(loaded.state.jobs.size(), 5u);
  EXPECT_EQ(loaded.state.tasks.size(), 19u);
}

TEST_F(RuntimeTest, AcknowledgedJobSurvivesARestart) {
  ASSERT_THAT(Change(Create("a")), IsOk());
  Restart();
  ASSERT_TRUE(runtime_->published().Find("a").has_value());
  // The idempotency of its request too.
  CreateJobEvent again = Create("a");
  again.job.id = "b";
  const auto view = Change(again);
  ASSERT_THAT(view, IsOk());
  EXPECT_EQ(view->job->id, "a");
}

TEST_F(RuntimeTest, FailedCommitIsUnavailableAndDidNotHappen) {
  store_->fail_next = true;
  EXPECT_THAT(Change(Create("a")), FailsWith(absl::StatusCode::kUnavailable, "STATE_UNAVAILABLE"));
  EXPECT_THAT(Change(Create("b")), IsOk());
  EXPECT_FALSE(runtime_->published().Find("a").has_value());
}

TEST_F(RuntimeTest, CommitThatWasDoneButReportedFailedIsFoundOnRetry) {
  store_->lie_next = true;
  EXPECT_THAT(Change(Create("a")), FailsWith(absl::StatusCode::kUnavailable, "STATE_UNAVAILABLE"));
  const auto again = Change(Create("a"));
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->job->id, "a");
}

TEST_F(RuntimeTest, ComesBackWhenTheStoreDoes) {
  store_->open_failures = 3;
  store_->fail_next = true;
  EXPECT_FALSE(Change(Create("a")).ok());
  absl::Status status;
  for (int i = 0; i < 1000; ++i) {
    status = Change(Create("a")).status();
    if (status.ok()) break;
    absl::SleepFor(absl::Milliseconds(10));  // the store's outage is in real time
  }
  EXPECT_THAT(status, IsOk());
}

// It has not heard of the takeover yet, and what it knows says that there is nothing to write.
TEST_F(RuntimeTest, AReplacedServerNeitherRefusesNorConfirms) {
  store_->standby = true;
  ASSERT_THAT(Change(Create("a")), IsOk());
  EXPECT_THAT(Change(ResumeJobEvent{"a"}),
              FailsWith(absl::StatusCode::kFailedPrecondition, "JOB_NOT_PAUSED"));
  ASSERT_THAT(Change(PauseJobEvent{"a"}), IsOk());
  const int num_checks = store_->num_checks;
  EXPECT_THAT(Change(PauseJobEvent{"a"}), IsOk()) << "it is so already";
  EXPECT_GT(store_->num_checks, num_checks);
  const auto not_active = FailsWith(absl::StatusCode::kUnavailable, "NOT_ACTIVE");
  store_->replaced = true;
  EXPECT_THAT(Change(PauseJobEvent{"a"}), not_active);
  EXPECT_THAT(Change(ResumeJobEvent{"missing"}), not_active);
}

TEST_F(RuntimeTest, AReplacedServerIsNotRead) {
  const auto read = [this] {
    std::promise<absl::Status> promise;
    runtime_->WhenCurrent([&](const absl::Status& current) { promise.set_value(current); });
    return promise.get_future().get();
  };
  EXPECT_THAT(read(), IsOk());
  EXPECT_EQ(store_->num_checks, 0) << "nobody can have taken over";
  store_->standby = true;
  ASSERT_THAT(Change(Create("a")), IsOk());
  const int num_checks = store_->num_checks;
  EXPECT_THAT(read(), IsOk());
  EXPECT_GT(store_->num_checks, num_checks);
  store_->replaced = true;
  EXPECT_THAT(read(), FailsWith(absl::StatusCode::kUnavailable, "NOT_ACTIVE"));
  runtime_->Stop();
  EXPECT_THAT(read(), FailsWith(absl::StatusCode::kUnavailable, "SHUTTING_DOWN"));
}

TEST_F(RuntimeTest, ReadsThatWaitShareACheckAndDoNotHoldUpTheWriter) {
  store_->standby = true;
  std::promise<void> go;
  std::shared_future<void> may_go = go.get_future();
  std::atomic<int> num_read{0};
  std::promise<void> entered, opened;
  runtime_->Read([&](const State*) {
    entered.set_value();
    opened.get_future().wait();
  });
  entered.get_future().wait();
  const int before = store_->num_checks;
  for (int i = 0; i < 50; ++i) {
    runtime_->WhenCurrent([&num_read, may_go](const absl::Status& current) {
      may_go.wait_for(std::chrono::seconds(10));
      if (current.ok()) ++num_read;
    });
  }
  opened.set_value();
  ASSERT_THAT(Change(Create("a")), IsOk()) << "while the first read is still under way";
  EXPECT_LE(store_->num_checks - before, 2) << "the blocking Read's own, and one for all";
  EXPECT_EQ(num_read, 0);
  go.set_value();
  runtime_->Stop();
  EXPECT_EQ(num_read, 50);
}

TEST_F(RuntimeTest, AReplacedServerTellsNoWorkerThatItsLeaseIsLost) {
  store_->standby = true;
  ASSERT_THAT(Synchronize(Call(1), absl::ZeroDuration()).get(), IsOk());
  store_->replaced = true;
  SynchronizeEvent call = Call(2);
  EXPECT_THAT(Synchronize(std::move(call), absl::ZeroDuration()).get(),
              FailsWith(absl::StatusCode::kUnavailable, "NOT_ACTIVE"));
}

TEST_F(RuntimeTest, EventsThatWaitShareATransaction) {
  std::promise<void> entered, go;
  runtime_->Read([&](const State*) {
    entered.set_value();
    go.get_future().wait();
  });
  entered.get_future().wait();
  std::vector<std::promise<absl::Status>> done(50);
  for (int i = 0; i < 50; ++i) {
    runtime_->ChangeJob(Create(absl::StrCat("j", i)), [&done, i](absl::StatusOr<JobView> view) {
      done[i].set_value(view.status());
    });
  }
  const int before = store_->num_commits;
  go.set_value();
  for (auto& promise : done) EXPECT_THAT(promise.get_future().get(), IsOk());
  EXPECT_EQ(store_->num_commits - before, 1);
}

TEST_F(RuntimeTest, HeldCallIsAnsweredWhenWorkArrives) {
  std::future<Reply> held = Synchronize(Call(1), absl::Seconds(20));
  ASSERT_THAT(Change(Create("a")), IsOk());
  const Reply reply = held.get();
  ASSERT_THAT(reply, IsOk());
  ASSERT_EQ(reply->assignments.size(), 1u);
  EXPECT_EQ(reply->assignments[0].task, "prepare");
}

TEST_F(RuntimeTest, HeldCallIsAnsweredAtItsEnd) {
  const Reply reply = Synchronize(Call(1), absl::Milliseconds(50)).get();
  ASSERT_THAT(reply, IsOk());
  EXPECT_TRUE(reply->assignments.empty());
}

TEST_F(RuntimeTest, NewerCallEndsTheHeldOne) {
  std::future<Reply> first = Synchronize(Call(1), absl::Seconds(20));
  std::future<Reply> second = Synchronize(Call(2), absl::Seconds(20));
  EXPECT_THAT(first.get(), FailsWith(absl::StatusCode::kAborted, "STALE_REQUEST"));
  ASSERT_THAT(Change(Create("a")), IsOk());
  EXPECT_EQ(second.get()->assignments.size(), 1u);
}

TEST_F(RuntimeTest, WorkerThatWentAwayIsGivenNothing) {
  std::future<Reply> held = Synchronize(Call(1), absl::Seconds(20));
  runtime_->AbandonSynchronize("session", 1);
  EXPECT_FALSE(held.get().ok());
  ASSERT_THAT(Change(Create("a")), IsOk());
  EXPECT_EQ(runtime_->published().Find("a")->tasks[0]->state, TaskState::kReady);
}

TEST_F(RuntimeTest, RunningTaskSurvivesTheServer) {
  ASSERT_THAT(Change(Create("a")), IsOk());
  const Reply reply = Synchronize(Call(1), absl::ZeroDuration()).get();
  ASSERT_EQ(reply->assignments.size(), 1u);
  Restart();
  SynchronizeEvent call = Call(2);
  LeaseReport report;
  report.lease_id = reply->assignments[0].lease_id;
  report.attempt = 1;
  report.job = "a";
  report.task = "prepare";
  report.token_sha256 = Sha256Hex(reply->assignments[0].lease_token);
  call.leases = {report};
  call.num_free_slots = 0;
  const Reply after = Synchronize(call, absl::ZeroDuration()).get();
  ASSERT_EQ(after->directives.size(), 1u);
  EXPECT_EQ(after->directives[0].action, LeaseAction::kContinue);
}

TEST_F(RuntimeTest, StopAnswersWhatIsHeld) {
  std::future<Reply> held = Synchronize(Call(1), absl::Seconds(20));
  // The call is held once a later event has been answered.
  ASSERT_THAT(Change(CancelJobEvent{"none"}),
              FailsWith(absl::StatusCode::kNotFound, "JOB_NOT_FOUND"));
  runtime_->Stop();
  EXPECT_THAT(held.get(), FailsWith(absl::StatusCode::kUnavailable, "SHUTTING_DOWN"));
  EXPECT_THAT(Change(Create("a")), FailsWith(absl::StatusCode::kUnavailable, "SHUTTING_DOWN"));
}

// Advanced by hand; everything else asks the system's.
class ManualClock : public Clock {
 public:
  absl::Time Now() const override { return SystemClock().Now(); }
  absl::Duration Monotonic() const override { return absl::Seconds(seconds_.load()); }
  void Advance(absl::Duration by) { seconds_ += absl::ToInt64Seconds(by); }

 private:
  std::atomic<int64_t> seconds_{0};
};

class JanitorTest : public RuntimeTest {
 protected:
  JanitorTest() {
    options_.object_root = "file://" + dir_.File("objects");
    options_.period = absl::Milliseconds(1);
    options_.clock = &clock_;
    options_.on_swept = [this](const std::string& uid, int64_t n, const absl::Status& status) {
      EXPECT_THAT(status, IsOk());
      absl::MutexLock lock(&mutex_);
      sweeps_.emplace_back(uid, n);
    };
    store_at_root_ = *OpenObjectStore(options_.object_root);
  }
  // Waits for the `n`-th sweep.
  std::pair<std::string, int64_t> Sweep(size_t n) {
    absl::MutexLock lock(&mutex_);
    const auto come = [this, n]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return sweeps_.size() >= n; };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&come), absl::Seconds(20))) return {"none", -1};
    return sweeps_[n - 1];
  }
  void WaitUntilNothingIsListed() {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (!runtime_->published().Garbage().empty() && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(1));
    }
  }

  ManualClock clock_;
  JanitorOptions options_;
  std::shared_ptr<ObjectStore> store_at_root_;
  absl::Mutex mutex_;
  std::vector<std::pair<std::string, int64_t>> sweeps_;
};

TEST_F(JanitorTest, WorkingObjectsOfADeletedJobGoAlsoAfterARestart) {
  ASSERT_THAT(store_at_root_->Write("work/uid-a/objects/1", "x"), IsOk());
  ASSERT_THAT(store_at_root_->Write("work/uid-b/objects/1", "x"), IsOk());
  ASSERT_THAT(store_at_root_->Write("artifacts/a/config.json", "x"), IsOk());
  ASSERT_THAT(Change(Create("a")), IsOk());
  ASSERT_THAT(Change(Create("b")), IsOk());
  ASSERT_THAT(Change(CancelJobEvent{"a"}), IsOk());
  ASSERT_THAT(Change(DeleteJobEvent{"a"}), IsOk());
  Restart();
  ASSERT_EQ(runtime_->published().Garbage(), std::vector<std::string>{"uid-a"});
  Janitor janitor(options_, runtime_.get());
  EXPECT_EQ(Sweep(1), (std::pair<std::string, int64_t>("uid-a", 1)));
  EXPECT_THAT(store_at_root_->Stat("work/uid-a/objects/1"),
              FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
  EXPECT_THAT(store_at_root_->Stat("work/uid-b/objects/1"), IsOk());
  EXPECT_THAT(store_at_root_->Stat("artifacts/a/config.json"), IsOk());
}

TEST_F(JanitorTest, WhatALateWorkerWritesAfterTheSweepGoesToo) {
  ASSERT_THAT(store_at_root_->Write("work/uid-a/objects/1", "x"), IsOk());
  ASSERT_THAT(Change(Create("a")), IsOk());
  ASSERT_THAT(Change(CancelJobEvent{"a"}), IsOk());
  ASSERT_THAT(Change(DeleteJobEvent{"a"}), IsOk());
  Janitor janitor(options_, runtime_.get());
  EXPECT_EQ(Sweep(1).second, 1);
  ASSERT_THAT(store_at_root_->Write("work/uid-a/objects/late", "x"), IsOk());
  EXPECT_EQ(runtime_->published().Garbage().size(), 1u) << "forgotten while a worker may write";
  clock_.Advance(options_.late_write_grace);
  EXPECT_EQ(Sweep(2).second, 1);
  EXPECT_EQ(runtime_->published().Garbage().size(), 1u);
  clock_.Advance(options_.late_write_grace);
  EXPECT_EQ(Sweep(3).second, 0);
  WaitUntilNothingIsListed();
  EXPECT_TRUE(runtime_->published().Garbage().empty());
  EXPECT_THAT(store_at_root_->List({})->objects, ::testing::IsEmpty());
}

TEST_F(JanitorTest, OldHalfWrittenObjectsGoAndYoungOnesStay) {
  std::filesystem::create_directories(dir_.File("objects/work/uid-x"));
  const std::string old_file = dir_.File("objects/work/uid-x/.tmp-old");
  const std::string young_file = dir_.File("objects/work/uid-x/.tmp-young");
  for (const std::string& file : {old_file, young_file}) WriteFile(file, "half an object");
  std::filesystem::last_write_time(
      old_file, std::filesystem::file_time_type::clock::now() - std::chrono::hours(25));
  std::promise<absl::StatusOr<int>> removed;
  options_.on_unfinished_writes = [&removed](const absl::StatusOr<int>& num_removed) {
    removed.set_value(num_removed);
  };
  Janitor janitor(options_, runtime_.get());
  const absl::StatusOr<int> num_removed = removed.get_future().get();
  ASSERT_THAT(num_removed.status(), IsOk());
  EXPECT_EQ(*num_removed, 1);
  EXPECT_FALSE(std::filesystem::exists(old_file));
  EXPECT_TRUE(std::filesystem::exists(young_file));
}

}  // namespace
}  // namespace uniquanf::server
