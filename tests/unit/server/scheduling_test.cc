#include <algorithm>
#include <ctime>

#include "tests/unit/server/core_fixture.h"

namespace uniquanf::server {
namespace {

class SchedulingTest : public CoreTest {
 protected:
  std::string NextJob(Worker* worker) {
    const std::vector<Assignment> got = Synchronize(worker);
    return got.empty() ? "" : got[0].job;
  }
};

TEST_F(SchedulingTest, HigherPriorityFirstThenOlder) {
  Create("low", "t", -1);
  Create("first");
  Create("second");
  Create("high", "t", 5);
  for (const char* expected : {"high", "first", "second", "low"}) {
    Worker w = NewWorker(absl::StrCat("w-", expected));
    EXPECT_EQ(NextJob(&w), expected);
  }
}

TEST_F(SchedulingTest, AWaitingWorkerGetsTheHigherPriorityOfWhatBecomesReadyAtOnce) {
  Create("low", "t", -1);
  Create("high", "t", 5);
  Worker first = NewWorker("first"), second = NewWorker("second"), waiting = NewWorker("waiting");
  Synchronize(&first);
  Synchronize(&second);
  for (Worker* worker : {&first, &second}) {
    Fail(&worker->reports[0], FailureClass::kTransient);
    worker->draining = true;
    Synchronize(worker);
  }
  ASSERT_TRUE(Call(&waiting, /*may_wait=*/true).status.ok());
  ASSERT_TRUE(Hear(&waiting).empty()) << "both wait for their next attempt";
  mono_ += absl::Seconds(3);  // both times come within one tick
  Do(TickEvent{});
  const std::vector<Assignment> got = Hear(&waiting);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].job, "high");
}

TEST_F(SchedulingTest, DeviceMustMatch) {
  Create("gpu", "t", 9, "cuda");
  Create("any");
  Worker cpu = NewWorker("cpu"), cuda = NewWorker("cuda");
  cuda.capabilities.device = "cuda";
  EXPECT_EQ(NextJob(&cpu), "any");
  EXPECT_EQ(NextJob(&cuda), "gpu");
}

TEST_F(SchedulingTest, AllTasksOfAJobRunOnOneKindOfDevice) {
  Create("a");
  Worker cpu = NewWorker("cpu"), cuda = NewWorker("cuda");
  cuda.capabilities.device = "cuda";
  Synchronize(&cpu);
  Succeed(&cpu.reports[0], 3, /*independent=*/true);
  Synchronize(&cpu);
  EXPECT_EQ(NextJob(&cuda), "");
  Worker other = NewWorker("other");
  EXPECT_EQ(NextJob(&other), "a");
}

TEST_F(SchedulingTest, RoundsFormAWavefront) {
  Create("a");
  Worker w = NewWorker("w"), other = NewWorker("other");
  Synchronize(&w);
  Succeed(&w.reports[0], /*num_layers=*/2);
  w.reports[0].outcome.num_rounds = 3;
  std::vector<Assignment> got = Synchronize(&w);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].task, "layer-0000");
  EXPECT_TRUE(Synchronize(&other).empty()) << "nothing else can start yet";
  // With the first layer's first round done, its second round and the next layer can run.
  got = FinishAndSynchronize(&w);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].task, "layer-0001");
  EXPECT_EQ(got[0].layer_sha256, (std::vector<std::string>{Sha256Hex("layer-0000")}));
  got = Synchronize(&other);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].task, "layer-0000-1");
  EXPECT_EQ(got[0].round, 1);
  EXPECT_EQ(got[0].layer_sha256, (std::vector<std::string>{Sha256Hex("layer-0000")}));
  got = FinishAndSynchronize(&other);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].task, "layer-0000-2") << "layer-0001-1 waits for layer-0001";
  got = FinishAndSynchronize(&w);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].task, "layer-0001-1");
  EXPECT_EQ(got[0].layer_sha256,
            (std::vector<std::string>{Sha256Hex("layer-0000-1"), Sha256Hex("layer-0001")}));
  EXPECT_TRUE(FinishAndSynchronize(&other).empty());
  got = FinishAndSynchronize(&w);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].task, "layer-0001-2");
  got = FinishAndSynchronize(&w);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].task, "finalize");
  EXPECT_EQ(got[0].layer_sha256,
            (std::vector<std::string>{Sha256Hex("layer-0000-2"), Sha256Hex("layer-0001-2")}));
}

TEST_F(SchedulingTest, LayersNeedTheirMemory) {
  Create("a");
  Worker large = NewWorker("large"), small = NewWorker("small");
  large.capabilities.memory_bytes = int64_t{64} << 30;
  Synchronize(&large);
  Succeed(&large.reports[0], 3, true, int64_t{32} << 30);
  Synchronize(&large);
  EXPECT_EQ(NextJob(&small), "");
}

TEST_F(SchedulingTest, RequiredLabelsMustMatch) {
  CreateJobEvent event;
  event.job.id = "a";
  event.job.uid = "u";
  event.job.tenant = "t";
  event.job.labels = {{"require/zone", "b"}, {"team", "x"}};
  Do(event);
  Worker wrong = NewWorker("wrong"), right = NewWorker("right");
  wrong.capabilities.labels = {{"zone", "a"}};
  right.capabilities.labels = {{"zone", "b"}};
  EXPECT_EQ(NextJob(&wrong), "");
  Pass(absl::Seconds(8));
  EXPECT_EQ(job("a").status_message, "no worker offers label zone=b");
  EXPECT_EQ(state_.num_unschedulable, 1);
  EXPECT_EQ(NextJob(&right), "a");
  EXPECT_EQ(state_.num_unschedulable, 0);
}

// Jobs of a tenant that this worker cannot run stand before one that it can.
TEST_F(SchedulingTest, ATaskThatDoesNotFitHidesNoOther) {
  Create("needs-much");
  Worker large = NewWorker("large"), small = NewWorker("small");
  large.capabilities.memory_bytes = int64_t{64} << 30;
  Synchronize(&large);
  Succeed(&large.reports[0], 3, true, int64_t{32} << 30);
  large.num_slots = 0;
  Synchronize(&large);
  Create("needs-little");
  EXPECT_EQ(NextJob(&small), "needs-little");
  FinishAndSynchronize(&small, 2, true);
  ASSERT_EQ(small.reports.size(), 1u);
  EXPECT_EQ(small.reports[0].job, "needs-little");
  Create("younger");
  // What ran out of memory goes elsewhere; its siblings and younger jobs stay open to the worker.
  Fail(&small.reports[0], FailureClass::kOutOfMemory);
  Synchronize(&small);
  ASSERT_EQ(small.reports.size(), 1u);
  EXPECT_EQ(small.reports[0].task, "layer-0001");
  Fail(&small.reports[0], FailureClass::kOutOfMemory);
  EXPECT_EQ(NextJob(&small), "younger");
  // Nor does a job of which nothing fits any more hide one of which something does.
  FinishAndSynchronize(&small, 2, true);
  ASSERT_EQ(small.reports.size(), 1u);
  Fail(&small.reports[0], FailureClass::kOutOfMemory);
  EXPECT_EQ(NextJob(&small), "younger");
}

TEST_F(SchedulingTest, RefusingAWorkerCostsTheSameWithALongQueue) {
  Worker worker = NewWorker("worker");
  const auto cpu_seconds = [] { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; };
  const auto call = [&] {
    SynchronizeEvent event;
    event.session = event.worker = "worker";
    event.capabilities = worker.capabilities;
    event.num_free_slots = 1;
    double fastest = 1;
    for (int round = 0; round < 20; ++round) {
      const double start = cpu_seconds();
      for (int i = 0; i < 50; ++i) {
        ++event.sequence;
        EXPECT_TRUE(Apply(&state_, event, now(), &edits_).status.ok());
      }
      fastest = std::min(fastest, cpu_seconds() - start);
      event.sequence += 100;
    }
    EXPECT_TRUE(state_.sessions.at("worker").leases.empty());
    state_.sessions.at("worker").sequence = -1;
    return fastest;
  };
  const auto create = [&](int first, int last) {
    for (int i = first; i < last; ++i) {
      CreateJobEvent event;
      event.job.id = event.job.uid = absl::StrCat("job-", i);
      event.job.tenant = "t";
      event.job.labels = {{"require/zone", "elsewhere"}};
      EXPECT_TRUE(Apply(&state_, event, now(), &edits_).status.ok());
    }
  };
  create(0, 10);
  const double with_ten = call();
  create(10, 20000);
  const double with_many = call();
  EXPECT_LT(with_many, 20 * with_ten + 0.001) << "2,000 times as many jobs are queued";
}

TEST_F(SchedulingTest, CachedActivationsArePreferredWithinAJob) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Succeed(&w.reports[0], 4, true);
  w.cached = {{"a", 2}};
  EXPECT_EQ(Synchronize(&w).at(0).task, "layer-0002");
}

TEST_F(SchedulingTest, AWaitingWorkerWithTheActivationsGetsTheTask) {
  Create("a");
  Worker plain = NewWorker("aa-plain"), cached = NewWorker("zz-cached"), w = NewWorker("w");
  Synchronize(&w);
  Succeed(&w.reports[0]);
  cached.cached = {{"a", 0}};
  ASSERT_TRUE(Call(&plain, true).parked);
  ASSERT_TRUE(Call(&cached, true).parked);
  w.draining = true;
  Synchronize(&w);
  EXPECT_EQ(task("a", "layer-0000").worker, "zz-cached");
  EXPECT_EQ(edits_.wake.count(cached.session), 1u);
}

TEST_F(SchedulingTest, TenantsShareWorkerTime) {
  for (int i = 0; i < 4; ++i) Create(absl::StrCat("greedy-", i), "greedy");
  Worker w = NewWorker("w");
  Synchronize(&w);
  for (int i = 0; i < 5; ++i) {
    Pass(absl::Seconds(5));
    Synchronize(&w);
  }
  Create("modest-0", "modest");
  // Ten tasks of equal length: the newcomer gets about every other one, but no credit for the past.
  std::map<std::string, int> count;
  for (int i = 0; i < 10; ++i) {
    const std::vector<Assignment> next = FinishAndSynchronize(&w, 20);
    ASSERT_EQ(next.size(), 1u);
    ++count[std::string(next[0].job.substr(0, next[0].job.find('-')))];
    Pass(absl::Seconds(5));
  }
  EXPECT_GE(count["modest"], 4);
  EXPECT_LE(count["modest"], 6);
}

TEST_F(SchedulingTest, ARestartForgetsWorkerTimeAsFastAsTheRunningServer) {
  Create("a", "t");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Pass(absl::Seconds(8));
  FinishAndSynchronize(&w);
  StoredState stored;
  const JobEntry& entry = *state_.FindJob("a");
  stored.jobs.push_back(entry.job);
  for (size_t i = 0; i < entry.tasks.size(); ++i) {
    stored.tasks.push_back({{entry.job.seq, static_cast<int32_t>(i)}, entry.tasks[i]});
  }
  const auto used_after = [&](absl::Duration age) {
    const Now later = {now().wall + age, now().mono};
    return Rebuild(policy_, stored, 2, 1, later)->tenants.at("t").UsedSeconds(later.mono);
  };
  EXPECT_NEAR(used_after(absl::ZeroDuration()), 8, 0.01);
  EXPECT_NEAR(used_after(policy_.usage_half_life), 4, 0.01);
  EXPECT_NEAR(used_after(10 * policy_.usage_half_life), 0, 0.01);
  EXPECT_NEAR(used_after(-absl::Hours(5)), 8, 0.01) << "a clock that was set back";
}

TEST_F(SchedulingTest, RunningQuotaHoldsJobsBackAndSaysSo) {
  policy_.max_running_jobs_per_tenant = 1;
  Start(Policy(policy_));
  Create("a");
  Create("b");
  Worker w1 = NewWorker("w1"), w2 = NewWorker("w2");
  EXPECT_EQ(NextJob(&w1), "a");
  EXPECT_EQ(NextJob(&w2), "");
  for (int i = 0; i < 8; ++i) {
    Pass(absl::Seconds(1));
    Synchronize(&w1);
  }
  EXPECT_EQ(job("b").status_message, "tenant \"t\" runs 1 jobs, its quota");
  ASSERT_TRUE(Call(&w2, true).parked);
  Fail(&w1.reports[0], FailureClass::kInvalidInput);
  Synchronize(&w1);
  EXPECT_EQ(job("b").state, JobState::kRunning);
}

TEST_F(SchedulingTest, QueuedQuotaRefuses) {
  policy_.max_queued_jobs_per_tenant = 1;
  Start(Policy(policy_));
  Create("a");
  const Outcome refused = Create("b");
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(refused.status), "QUOTA_EXCEEDED");
  EXPECT_TRUE(Create("c", "other").status.ok());
}

TEST_F(SchedulingTest, PausedJobLeasesNothingAndResumes) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Do(PauseJobEvent{"a"});
  EXPECT_TRUE(FinishAndSynchronize(&w).empty());
  EXPECT_EQ(job("a").state, JobState::kPaused);
  ASSERT_TRUE(Call(&w, true).parked);
  Do(ResumeJobEvent{"a"});
  EXPECT_EQ(job("a").state, JobState::kRunning);
  EXPECT_EQ(Hear(&w).at(0).task, "layer-0000");
}

TEST_F(SchedulingTest, NoWorkerAtAllIsSaid) {
  Create("a");
  Pass(absl::Seconds(8));
  EXPECT_EQ(job("a").status_message, "no worker is connected");
}

TEST_F(SchedulingTest, RequestIdMakesCreationIdempotent) {
  CreateJobEvent event;
  event.job.id = "a";
  event.job.uid = "u";
  event.job.tenant = "t";
  event.job.request_id = "r";
  event.job.request_digest = "d";
  const Outcome first = Do(event);
  event.job.id = "b";
  EXPECT_EQ(Do(event).job, first.job);
  event.job.request_digest = "other";
  EXPECT_EQ(ErrorReason(Do(event).status), "REQUEST_ID_REUSED");
  event.job.request_id = "r2";
  event.job.id = "a";
  EXPECT_EQ(ErrorReason(Do(event).status), "JOB_EXISTS");
}

TEST_F(SchedulingTest, RefusedWishesChangeNothing) {
  Create("a");
  edits_ = {};
  EXPECT_EQ(ErrorReason(Do(RetryJobEvent{"a"}).status), "JOB_NOT_RETRYABLE");
  EXPECT_EQ(ErrorReason(Do(ResumeJobEvent{"a"}).status), "JOB_NOT_PAUSED");
  EXPECT_EQ(ErrorReason(Do(DeleteJobEvent{"a"}).status), "JOB_NOT_FINAL");
  EXPECT_EQ(ErrorReason(Do(CancelJobEvent{"none"}).status), "JOB_NOT_FOUND");
  EXPECT_EQ(ErrorReason(Do(DrainWorkerEvent{"none"}).status), "WORKER_NOT_FOUND");
  EXPECT_TRUE(Do(DeleteJobEvent{"none", true}).status.ok());
  EXPECT_FALSE(edits_.durable());
  Do(CancelJobEvent{"a"});
  EXPECT_EQ(job("a").state, JobState::kCancelled);
  EXPECT_EQ(ErrorReason(Do(PauseJobEvent{"a"}).status), "JOB_FINAL");
}

}  // namespace
}  // namespace uniquanf::server
