// Single faults of real processes, each with its promise: what is lost, how soon it is made up for.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/crash_point.h"
#include "gmock/gmock.h"
#include "tests/fault/process_fault.h"
#include "tests/support/socket_util.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;

// T15. A worker in a mount namespace of its own in which an empty directory covers the model: it
// fails every job at once, so it is always the free one.
TEST_F(ProcessFaultTest, ThirtyOfThirtyJobsSucceedBesideAWorkerThatCannotSeeTheModel) {
  MiniCluster& cluster = Start({}, absl::Seconds(10));
  const std::string model = Spec(kIndependent).model_uri.substr(std::string("file://").size());
  const std::vector<std::string> blind = {
      "/usr/bin/unshare",
      "--mount",
      "/bin/sh",
      "-c",
      absl::StrCat("mount -t tmpfs none '", model, "' && exec \"$@\""),
      "sh"};
  std::vector<std::string> probe(blind.begin() + 1, blind.end());
  probe.push_back("/bin/true");
  ChildProcess allowed(blind[0], probe, {}, cluster.File("probe.log"));
  if (allowed.WaitForExit(absl::Seconds(10)) != ExitStatus{0, 0}) {
    GTEST_SKIP() << "mounting in a namespace is not allowed here";
  }
  cluster.StartWorker("sick", {.flags = {"--threads=1"}, .wrapper = blind});
  cluster.StartWorker("well", {.flags = {"--threads=1"}});
  ASSERT_TRUE(cluster.WaitUntilReady("sick") && cluster.WaitUntilReady("well"));
  std::vector<std::string> jobs;
  for (int i = 0; i < 30; ++i) {
    QuantizationSpec spec = Spec(kIndependent);
    spec.method = QuantizationMethod::kRtn;
    absl::StrAppend(&spec.output_uri, "-", i);
    jobs.push_back(Submit(spec));
  }
  EXPECT_TRUE(WaitUntil(
      [&] {
        const auto workers = cluster.client().ListWorkers();
        return workers.ok() && std::any_of(workers->begin(), workers->end(), [](const Worker& w) {
                 return w.name == "workers/sick" && w.state == WorkerState::kQuarantined;
               });
      },
      kPatience))
      << "the sick worker is not quarantined";
  for (const std::string& name : jobs) {
    const auto job = cluster.WaitForJob(name, absl::Minutes(3));
    ASSERT_OK(job);
    EXPECT_EQ(job->state, JobState::kSucceeded) << (job->error ? job->error->message : "");
  }
}

TEST_F(ProcessFaultTest, AWrongPathFailsItsJobWithinTenSecondsWithOneWorkerOrTwo) {
  Start({}, absl::Seconds(10));
  for (const std::string worker : {"w0", "w1"}) {
    cluster_->StartWorker(worker, {.flags = {"--threads=1"}});
    ASSERT_TRUE(cluster_->WaitUntilReady(worker));
    QuantizationSpec spec = Spec(kIndependent);
    spec.model_uri = absl::StrCat("file://", cluster_->File("no-such-model"));
    const std::string name = Submit(spec, /*unchecked=*/true);
    const auto job = cluster_->WaitForJob(name, absl::Seconds(10));
    ASSERT_OK(job);
    ASSERT_EQ(job->state, JobState::kFailed);
    EXPECT_EQ(job->error->reason, "MODEL_NOT_FOUND");
    const auto task = FindTask(name, "prepare");
    ASSERT_TRUE(task.has_value());
    EXPECT_EQ(task->failures.size(), 2u);
  }
}

// T16. As a lifecycle rule of a bucket does it, or a backup that was restored.
TEST_F(ProcessFaultTest, WorkingObjectsThatDisappearAreMadeAgain) {
  Start();
  cluster_->StartWorker("w0", {.flags = {"--threads=1"}});
  const std::string name = Submit(Spec(kChain));
  ASSERT_TRUE(WaitForTask(name, "layer-0000",
                          [](const Task& t) { return t.state == TaskState::kSucceeded; }));
  ASSERT_OK(cluster_->client().PauseJob(name));
  const auto job = cluster_->client().GetJob(name);
  ASSERT_OK(job);
  const auto task = FindTask(name, "layer-0000");
  ASSERT_TRUE(task.has_value());
  int num_removed = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(cluster_->File("."))) {
    if (entry.path().filename() != task->result_sha256) continue;
    std::filesystem::remove(entry.path());
    ++num_removed;
    break;
  }
  ASSERT_EQ(num_removed, 1);
  ASSERT_OK(cluster_->client().ResumeJob(name));
  ExpectReference(name, kChain);
  EXPECT_EQ(FindTask(name, "layer-0000")->attempt, 2);
}

// The worker dies before the second layer, so that the job is certainly cancelled in its midst.
TEST_F(ProcessFaultTest, ARetryMakesAgainWhatIsGoneAllOfIt) {
  Start();
  ChildProcess* const first = cluster_->StartWorker(
      "w0", {.flags = {"--threads=1"},
             .environment = {{kCrashPointVariable, CrashPoint("worker.before_task").At(3)}}});
  const std::string name = Submit(Spec(kChain));
  ASSERT_TRUE(WaitForTask(name, "layer-0000",
                          [](const Task& t) { return t.state == TaskState::kSucceeded; }));
  ASSERT_TRUE(WaitUntil([&] { return !first->running(); }, kPatience));
  ASSERT_OK(cluster_->client().CancelJob(name));
  const auto cancelled = cluster_->WaitForJob(name, kPatience);
  ASSERT_OK(cancelled);
  ASSERT_EQ(cancelled->state, JobState::kCancelled);
  std::filesystem::path work;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(cluster_->File("."))) {
    if (entry.path().filename() == cancelled->uid) work = entry.path();
  }
  ASSERT_FALSE(work.empty());
  std::filesystem::remove_all(work / "objects");
  ASSERT_OK(cluster_->client().RetryJob(name));
  cluster_->StartWorker("w0", {.flags = {"--threads=1"}});
  ExpectReference(name, kChain);
  EXPECT_GE(FindTask(name, "prepare")->attempt, 2);
  EXPECT_GE(FindTask(name, "layer-0000")->attempt, 2);
}

TEST_F(ProcessFaultTest, ADeadWorkersTaskRunsElsewhereWithinItsLeaseAndASecond) {
  Start();
  cluster_->StartWorker("w0", {.flags = {"--threads=1"}});
  const std::string job = Submit(Spec(kChain, kMaxEpochs));
  ASSERT_TRUE(WaitUntilLeased(job, "layer-0000"));
  cluster_->StartWorker("w1", {.flags = {"--threads=1"}});
  ASSERT_TRUE(cluster_->WaitUntilReady("w1"));
  const absl::Time killed = absl::Now();
  cluster_->worker("w0")->Kill();
  ASSERT_TRUE(WaitForTask(job, "layer-0000", [](const Task& task) {
    return task.state == TaskState::kLeased && task.worker == "workers/w1";
  }));
  EXPECT_LT(absl::Now() - killed, kLease + absl::Seconds(1));
}

// gRPC by itself looks after a broken connection every 5 s only.
TEST_F(ProcessFaultTest, ClientsAndWorkersAreBackWithinThreeSecondsOfTheServer) {
  Start();
  cluster_->StartWorker("w0");
  ASSERT_TRUE(cluster_->WaitUntilReady("w0"));
  ClientOptions options;
  options.server = cluster_->address();
  options.retry.max_attempts = 100;
  options.retry.max_backoff = absl::Milliseconds(500);
  const auto client = Client::Connect(options).value();
  ASSERT_OK(client->ListWorkers());
  cluster_->KillServer();
  absl::Time back;
  std::thread restart([&] {
    absl::SleepFor(absl::Seconds(1));  // how long the server is away, not a synchronisation
    ASSERT_TRUE(cluster_->StartServer());
    back = absl::Now();
  });
  // Waits for the server, then for the worker: a server's list of workers starts empty.
  EXPECT_TRUE(WaitUntil(
      [&] {
        const auto workers = client->ListWorkers();
        return workers.ok() && workers->size() == 1;
      },
      kPatience));
  const absl::Time seen = absl::Now();
  restart.join();
  EXPECT_LT(seen - back, absl::Seconds(3));
}

TEST_F(ProcessFaultTest, ACancelledJobFreesAllItsWorkersWithinTwoSeconds) {
  Start();
  cluster_->StartWorker("w0", {.flags = {"--threads=1"}});
  cluster_->StartWorker("w1", {.flags = {"--threads=1"}});
  const std::string job = Submit(Spec(kIndependent, kMaxEpochs));
  const auto num_busy = [&] {
    const auto workers = cluster_->client().ListWorkers();
    int num = 0;
    for (const Worker& worker : workers.value()) num += !worker.tasks.empty();
    return num;
  };
  ASSERT_TRUE(WaitForTask(job, "layer-0001", [&](const Task&) { return num_busy() == 2; }));
  const absl::Time start = absl::Now();
  ASSERT_OK(cluster_->client().CancelJob(job));
  ASSERT_TRUE(WaitUntil([&] { return num_busy() == 0; }, kPatience));
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
}

// The kernel accepts the connections of a listener that nobody serves.
TEST_F(ProcessFaultTest, ACancelledJobFreesAWorkerThatWaitsForASilentStore) {
  Start();
  std::string address;
  const int listener = ListenOnLoopback(&address);
  ProgramOptions options{.flags = {"--threads=1"}};
  options.environment = {{"AWS_ENDPOINT_URL", absl::StrCat("http://", address)},
                         {"AWS_ACCESS_KEY_ID", "a"},
                         {"AWS_SECRET_ACCESS_KEY", "b"}};
  cluster_->StartWorker("w0", options);
  QuantizationSpec silent = Spec(kChain);
  silent.model_uri = "s3://bucket/model";
  silent.output_uri = absl::StrCat("file://", cluster_->File("silent"));
  const std::string job = Submit(silent);
  ASSERT_TRUE(WaitUntilLeased(job, "prepare"));
  absl::SleepFor(absl::Seconds(1));  // until it has sent its request, or else it is too easy
  const std::string next = Submit(Spec(kChain));
  const absl::Time start = absl::Now();
  ASSERT_OK(cluster_->client().CancelJob(job));
  ASSERT_TRUE(WaitForTask(next, "prepare", [](const Task& task) {
    return task.state == TaskState::kLeased || task.state == TaskState::kSucceeded;
  }));
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  ExpectReference(next, kChain);
  EXPECT_EQ(cluster_->client().GetJob(job)->state, JobState::kCancelled);
  close(listener);
}

// The result is ready, the server is away, and the worker is told to end: it waits with its result
// until the server has it.
TEST_F(ProcessFaultTest, ADrainingWorkerLosesNoFinishedWork) {
  Start({}, /*lease=*/absl::Seconds(30));
  cluster_->StartWorker("w0", {.flags = {"--threads=1"}});
  const std::string job = Submit(Spec(kChain, 300));
  ASSERT_TRUE(WaitUntilLeased(job, "layer-0000"));
  cluster_->KillServer();
  ChildProcess* const worker = cluster_->worker("w0");
  worker->Signal(SIGTERM);
  const auto is_done = [&] {
    const std::string log = worker->Log();
    const size_t done = log.find("task done", log.find("layer-0000"));
    return done != std::string::npos;
  };
  ASSERT_TRUE(WaitUntil(is_done, kPatience));
  EXPECT_TRUE(worker->running());
  ASSERT_TRUE(cluster_->StartServer());
  EXPECT_EQ(worker->WaitForExit(kPatience), (ExitStatus{0, 0}));
  const auto task = FindTask(job, "layer-0000");
  ASSERT_TRUE(task.has_value());
  EXPECT_EQ(task->state, TaskState::kSucceeded);
  EXPECT_EQ(task->attempt, 1);
}

// A worker whose object store accepts connections and says nothing, while the worker's heartbeat
// lives.
TEST_F(ProcessFaultTest, AWorkerWhoseTaskHangsReportsItAndExitsToBeStartedAgain) {
  Start();
  std::string silent;
  const int listener = ListenOnLoopback(&silent);
  cluster_->StartWorker("w0", {.flags = {"--task-stall-timeout=1s"},
                               .environment = {{"AWS_ENDPOINT_URL", "http://" + silent},
                                               {"AWS_ACCESS_KEY_ID", "key"},
                                               {"AWS_SECRET_ACCESS_KEY", "secret"}}});
  QuantizationSpec spec = Spec(kChain);
  spec.model_uri = "s3://bucket/model";
  const std::string job = Submit(spec);
  EXPECT_EQ(cluster_->worker("w0")->WaitForExit(kPatience), (ExitStatus{4, 0}));
  const auto task = FindTask(job, "prepare");
  ASSERT_TRUE(task.has_value());
  ASSERT_EQ(task->failures.size(), 1u);
  EXPECT_EQ(task->failures[0].reason, "TASK_STALLED");
  CloseWithReset(listener);
}

// ... and one that does not notice that itself: the server takes the task away.
TEST_F(ProcessFaultTest, ATaskWithoutProgressIsTakenFromAWorkerThatCalls) {
  Start({"--task-stall-timeout=1s"});
  const std::string job = Submit(Spec(kChain));
  FakeWorker fake(cluster_->address());
  v1::LeaseReport report = ReportOn(fake.Lease());
  report.mutable_running()->set_phase("reconstructing");
  v1::SynchronizeResponse response;
  ASSERT_TRUE(WaitUntil(
      [&] {
        response = fake.Synchronize({report});
        return response.directives(0).action() == v1::LeaseDirective::LOST;
      },
      kPatience));
  const auto task = FindTask(job, "prepare");
  ASSERT_TRUE(task.has_value());
  ASSERT_FALSE(task->failures.empty());
  EXPECT_EQ(task->failures[0].reason, "TASK_STALLED");
  cluster_->StartWorker("w0");
  ExpectReference(job, kChain);
}

TEST_F(ProcessFaultTest, AResultUnderAnEndedLeaseIsRefused) {
  Start();
  const std::string job = Submit(Spec(kChain));
  FakeWorker fake(cluster_->address());
  v1::LeaseReport report = ReportOn(fake.Lease());
  // Silent until the lease has ended, the task is another worker's, and that one is far from done.
  ASSERT_TRUE(WaitForTask(job, "prepare", [](const Task& t) { return !t.failures.empty(); }));
  FakeWorker* const late = &fake;
  FakeWorker other(cluster_->address());
  const v1::TaskAssignment again = other.Lease();
  ASSERT_EQ(again.attempt(), 2);
  v1::TaskOutcome* const outcome = report.mutable_succeeded();
  outcome->set_result_sha256(std::string(64, 'a'));
  outcome->set_num_layers(7);
  outcome->set_device("cpu");
  const v1::SynchronizeResponse response = late->Synchronize({report});
  ASSERT_EQ(response.directives_size(), 1);
  EXPECT_EQ(response.directives(0).action(), v1::LeaseDirective::LOST);
  const auto task = FindTask(job, "prepare");
  ASSERT_TRUE(task.has_value());
  EXPECT_NE(task->state, TaskState::kSucceeded);
}

// What a crash-looping worker does to a job: it fails, after as many attempts as are allowed.
TEST_F(ProcessFaultTest, ATaskThatKillsItsWorkersFailsItsJobAtTheLimit) {
  constexpr int kLimit = 2;
  Start({absl::StrCat("--retry-max-worker-lost=", kLimit), "--retry-backoff-initial=10ms"});
  const std::string job = Submit(Spec(kChain));
  const ProgramOptions deadly = {
      .environment = {{kCrashPointVariable, CrashPoint("worker.before_task").At(1)}}};
  std::optional<Job> failed;
  int num_deaths = 0;
  ASSERT_TRUE(WaitUntil(
      [&] {
        const auto now = cluster_->client().GetJob(job);
        if (now.ok() && IsFinal(now->state)) failed = *now;
        if (failed.has_value() || num_deaths > 3 * kLimit) return true;
        cluster_->StartWorker("w0", deadly);
        // Alive at the end: there was nothing for it to do any more.
        const bool died = cluster_->worker("w0")->WaitForExit(3 * kLease).has_value();
        if (died) ++num_deaths;
        cluster_->worker("w0")->Kill();
        return false;
      },
      kPatience));
  ASSERT_TRUE(failed.has_value()) << num_deaths << " workers died and the job goes on";
  EXPECT_EQ(failed->state, JobState::kFailed);
  EXPECT_EQ(num_deaths, kLimit);
  const auto task = FindTask(job, "prepare");
  ASSERT_TRUE(task.has_value());
  EXPECT_EQ(task->attempt, kLimit);
}

class DiskFullTest : public ProcessFaultTest {
 protected:
  DiskFullTest() : disk_(kDiskBytes) {}
  void SetUp() override {
    if (!disk_.mounted()) GTEST_SKIP() << "this test needs to mount a tmpfs";
  }
  // Takes all the space there is, down to the last page.
  void Fill() {
    std::ofstream filler(disk_.path() + "/filler", std::ios::binary);
    for (size_t block = 64 << 10; block >= 512; block /= 2) {
      while (filler.write(std::string(block, 'x').data(), static_cast<std::streamsize>(block)) &&
             filler.flush()) {
      }
      filler.clear();
    }
  }
  void Empty() { std::remove((disk_.path() + "/filler").c_str()); }

  static constexpr int64_t kDiskBytes = 8 << 20;
  TinyDisk disk_;
};

TEST_F(DiskFullTest, AServerWithoutSpaceForItsStateSaysSoAndRecovers) {
  Start({absl::StrCat("--state=", disk_.path(), "/state.sqlite")});
  cluster_->StartWorker("w0");
  const std::string first = Submit(Spec(kChain));
  ASSERT_TRUE(WaitForTask(first, "prepare", [](const Task&) { return true; }));
  Fill();
  SubmitOptions options;
  options.spec = Spec(kIndependent);
  options.spec.output_uri += "-2";
  absl::Status refused;
  // Space that the log had already taken may still hold a few changes.
  ASSERT_TRUE(WaitUntil(
      [&] {
        refused = cluster_->client().SubmitJob(options).status();
        return !refused.ok();
      },
      kPatience));
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_THAT(cluster_->server()->Log(), HasSubstr("free space on its disk"));
  EXPECT_TRUE(cluster_->server()->running());
  Empty();
  ExpectReference(first, kChain);
  EXPECT_OK(cluster_->client().SubmitJob(options));
}

TEST_F(DiskFullTest, AFullObjectStoreDelaysTheJobAndSaysWhy) {
  Start({absl::StrCat("--object-root=", disk_.path(), "/objects"), "--retry-max-transient=1000",
         "--retry-backoff-initial=50ms", "--retry-backoff-max=100ms"});
  Fill();
  cluster_->StartWorker("w0");
  const std::string job = Submit(Spec(kChain));
  ASSERT_TRUE(WaitForTask(job, "prepare", [](const Task& t) { return t.failures.size() > 1; }));
  const auto task = FindTask(job, "prepare");
  ASSERT_TRUE(task.has_value());
  EXPECT_EQ(task->failures[0].failure_class, FailureClass::kTransient);
  EXPECT_THAT(task->failures[0].message, HasSubstr("No space left"));
  EXPECT_THAT(task->failures[0].message, HasSubstr(disk_.path())) << "says where";
  Empty();
  ExpectReference(job, kChain);
}

}  // namespace
}  // namespace uniquanf
