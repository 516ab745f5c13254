// SECURITY's acceptance tests of faults that need no identity, by their names there: T13 a huge
// job, T15 a sick worker and a model that is truly wrong, T16 lost objects, T16b a clock that
// jumps.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/fault/process_fault.h"
#include "tests/support/socket_util.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

namespace fs = std::filesystem;

class AcceptanceTest : public ProcessFaultTest {
 protected:
  // The file of a working object, or an empty path.
  fs::path FindObject(const std::string& sha256) const {
    for (const auto& entry : fs::recursive_directory_iterator(
             cluster_->File("."), fs::directory_options::skip_permission_denied)) {
      if (entry.path().filename() == sha256) return entry.path();
    }
    return {};
  }
  // Of a series of the server's /metrics, 0 where it is not there.
  double Metric(const std::string& series) const {
    const std::string log = cluster_->server()->Log();
    const std::string key = "metrics_port=";
    const size_t at = log.find(key);
    if (at == std::string::npos) return 0;
    const std::string port =
        log.substr(at + key.size(), log.find_first_of(" \n", at) - at - key.size());
    const std::string page = HttpGet(absl::StrCat("127.0.0.1:", port), "/metrics");
    for (const absl::string_view line : absl::StrSplit(page, '\n')) {
      double value = 0;
      if (absl::StartsWith(line, series + " ") &&
          absl::SimpleAtod(line.substr(series.size() + 1), &value)) {
        return value;
      }
    }
    return 0;
  }
};

// T13, R9: legal numbers, each of them, and 262,146 tasks together.
TEST_F(AcceptanceTest, T13AHugeJobIsRefusedWhenItsPlanIsKnownAndHoldsUpNobody) {
  Start({"--tenant-max-creates-per-second=0"}, absl::Seconds(30));
  const std::string huge = Submit(Spec(kChain));
  FakeWorker fake(cluster_->address());
  v1::LeaseReport report = ReportOn(fake.Lease());
  v1::TaskOutcome* const outcome = report.mutable_succeeded();
  outcome->set_result_sha256(std::string(64, 'd'));
  outcome->set_num_layers(4096);
  outcome->set_num_rounds(64);
  outcome->set_device("cpu");
  std::atomic<bool> done{false};
  std::atomic<int64_t> slowest_ms{0};
  std::thread others([&] {
    while (!done) {
      SubmitOptions options;
      options.spec = Spec(kIndependent);
      options.spec.output_uri += "-other";
      const absl::Time start = absl::Now();
      const auto job = cluster_->client().SubmitJob(options);
      EXPECT_OK(job);
      slowest_ms = std::max<int64_t>(slowest_ms, absl::ToInt64Milliseconds(absl::Now() - start));
      if (job.ok()) {
        EXPECT_OK(cluster_->client().CancelJob(job->name));
      }
    }
  });
  fake.Synchronize({report});
  const auto job = cluster_->WaitForJob(huge, kPatience);
  done = true;
  others.join();
  ASSERT_OK(job);
  EXPECT_EQ(job->state, JobState::kFailed);
  ASSERT_TRUE(job->error.has_value());
  EXPECT_EQ(job->error->reason, "TASKS_EXCEEDED");
  EXPECT_THAT(job->error->message, HasSubstr("262146 tasks"));
  const auto tasks = cluster_->client().ListTasks(huge);
  ASSERT_OK(tasks);
  EXPECT_THAT(*tasks, SizeIs(1)) << "nothing was expanded";
  RecordProperty("slowest_call_ms", static_cast<int>(slowest_ms));
}

// T15, R20: the other half is ThirtyOfThirtyJobsSucceedBesideAWorkerThatCannotSeeTheModel.
TEST_F(AcceptanceTest, T15ATrulyWrongModelFailsAfterTwoWorkersWithinTenSeconds) {
  Start({}, absl::Seconds(10));
  for (const std::string worker : {"w0", "w1"}) {
    cluster_->StartWorker(worker, {.flags = {"--threads=1"}});
    ASSERT_TRUE(cluster_->WaitUntilReady(worker));
  }
  const fs::path model(Spec(kChain).model_uri.substr(std::string("file://").size()));
  for (const char* const fault : {"no config", "no JSON", "half a file"}) {
    SCOPED_TRACE(fault);
    const fs::path wrong = cluster_->File(fault);
    fs::copy(model, wrong, fs::copy_options::recursive);
    if (absl::string_view(fault) == "no config") fs::remove(wrong / "config.json");
    if (absl::string_view(fault) == "no JSON") std::ofstream(wrong / "config.json") << "{";
    if (absl::string_view(fault) == "half a file") {
      const fs::path weights = wrong / "model.safetensors";
      fs::resize_file(weights, fs::file_size(weights) / 2);
    }
    QuantizationSpec spec = Spec(kChain);
    spec.model_uri = absl::StrCat("file://", wrong.string());
    spec.output_uri = absl::StrCat("file://", cluster_->File(absl::StrCat("out of ", fault)));
    const std::string name = Submit(spec, /*unchecked=*/true);  // as where the server sees nothing
    const auto job = cluster_->WaitForJob(name, absl::Seconds(10));
    ASSERT_OK(job);
    EXPECT_EQ(job->state, JobState::kFailed);
    const auto task = FindTask(name, "prepare");
    ASSERT_TRUE(task.has_value());
    std::set<std::string> workers;
    for (const auto& failure : task->failures) workers.insert(failure.worker);
    EXPECT_THAT(task->failures, SizeIs(2));
    EXPECT_THAT(workers, SizeIs(2)) << "one worker's word is not enough";
  }
  const auto workers = cluster_->client().ListWorkers();
  ASSERT_OK(workers);
  for (const Worker& worker : *workers) {
    EXPECT_NE(worker.state, WorkerState::kQuarantined) << "users' mistakes quarantine nobody";
  }
}

// T16: the object goes again as soon as it is there, as with a rule that deletes it.
TEST_F(AcceptanceTest, T16AnObjectThatIsLostFourTimesFailsItsJobNamingTheStore) {
  Start();
  cluster_->StartWorker("w0", {.flags = {"--threads=1"}});
  const std::string name = Submit(Spec(kChain));
  ASSERT_TRUE(WaitForTask(name, "layer-0000",
                          [](const Task& t) { return t.state == TaskState::kSucceeded; }));
  ASSERT_OK(cluster_->client().PauseJob(name));
  const auto task = FindTask(name, "layer-0000");
  ASSERT_TRUE(task.has_value());
  const fs::path object = FindObject(task->result_sha256);
  ASSERT_FALSE(object.empty());
  std::atomic<bool> done{false};
  std::atomic<int> num_losses{0};
  std::thread rule([&] {
    while (!done) num_losses += unlink(object.c_str()) == 0;
  });
  EXPECT_OK(cluster_->client().ResumeJob(name));
  const auto job = cluster_->WaitForJob(name, kPatience);
  done = true;
  rule.join();
  ASSERT_OK(job);
  EXPECT_EQ(job->state, JobState::kFailed);
  ASSERT_TRUE(job->error.has_value());
  EXPECT_THAT(job->error->message, HasSubstr(cluster_->File("")))
      << "says which store loses what is written to it";
  EXPECT_EQ(num_losses, 4);
  EXPECT_EQ(FindTask(name, "layer-0000")->attempt, 4);
}

// A server whose wall clock alone moves, as the test says.
class ClockTest : public AcceptanceTest {
 protected:
  // A running job with a deadline in two hours, and a finished one that is deleted in three days.
  void StartWithJobs(const std::vector<std::string>& flags) {
    MiniClusterOptions options;
    options.binary_dir = kBinaries;
    options.lease_duration = absl::Seconds(30);
    options.server_flags = flags;
    options.server_flags.push_back("--metrics-listen=127.0.0.1:0");
    cluster_ = std::make_unique<MiniCluster>(options);
    Shift(absl::ZeroDuration());
    ASSERT_TRUE(cluster_->StartServer(
        {.environment = {{"LD_PRELOAD", UNIQUANF_SHIFTED_CLOCK},
                         {"UNIQUANF_TEST_CLOCK_FILE", cluster_->File("clock")}}}));
    cluster_->StartWorker("w0", {.flags = {"--threads=1"}});
    SubmitOptions submit;
    submit.spec = Spec(kIndependent);
    submit.time_to_live = absl::Hours(72);
    const auto finished = cluster_->client().SubmitJob(submit);
    ASSERT_OK(finished);
    finished_ = finished->name;
    ExpectReference(finished_, kIndependent);
    submit.spec = Spec(kChain, kMaxEpochs);
    submit.spec.output_uri += "-running";
    submit.time_to_live.reset();
    submit.deadline = absl::Now() + absl::Hours(2);
    const auto running = cluster_->client().SubmitJob(submit);
    ASSERT_OK(running);
    running_ = running->name;
    ASSERT_TRUE(WaitUntilLeased(running_, "layer-0000"));
  }
  void Shift(absl::Duration shift) {
    const int64_t seconds = absl::ToInt64Seconds(shift);
    std::fstream file(cluster_->File("clock"), std::ios::in | std::ios::out | std::ios::binary);
    if (!file) file.open(cluster_->File("clock"), std::ios::out | std::ios::binary);
    file.write(reinterpret_cast<const char*>(&seconds), sizeof(seconds));
  }
  int NumWarnings() const {
    int num = 0;
    const std::string log = cluster_->server()->Log();
    for (const absl::string_view line : absl::StrSplit(log, '\n')) {
      num += absl::StrContains(line, "the wall clock is ahead");
    }
    return num;
  }

  std::string finished_, running_;
};

TEST_F(ClockTest, T16bAJumpOfFiveDaysForFourSecondsEndsNothing) {
  StartWithJobs({});
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(Metric("uniquanf_clock_jumps_total"), 0);
  Shift(absl::Hours(5 * 24));
  ASSERT_TRUE(WaitUntil([&] { return NumWarnings() > 0; }, kPatience));
  EXPECT_EQ(Metric("uniquanf_clock_jumps_total"), 1);
  EXPECT_GT(Metric("uniquanf_wall_clock_ahead_seconds"), 4 * 86400);
  absl::SleepFor(absl::Seconds(4));  // for how long it is wrong, not a synchronisation
  Shift(absl::ZeroDuration());
  ASSERT_TRUE(
      WaitUntil([&] { return Metric("uniquanf_wall_clock_ahead_seconds") == 0; }, kPatience));
  const auto finished = cluster_->client().GetJob(finished_);
  ASSERT_OK(finished) << "deleted by a clock that was wrong for four seconds";
  EXPECT_EQ(finished->state, JobState::kSucceeded);
  const auto running = cluster_->client().GetJob(running_);
  ASSERT_OK(running);
  EXPECT_EQ(running->state, JobState::kRunning);
  EXPECT_EQ(NumWarnings(), 1);
  EXPECT_EQ(Metric("uniquanf_clock_jumps_total"), 1);
}

TEST_F(ClockTest, T16bAClockThatStaysAheadActsAfterTheDelay) {
  constexpr absl::Duration kDelay = absl::Seconds(5);
  StartWithJobs({absl::StrCat("--clock-settle-time=", absl::FormatDuration(kDelay))});
  ASSERT_FALSE(HasFatalFailure());
  const absl::Time jumped = absl::Now();
  Shift(absl::Hours(5 * 24));
  const auto failed = cluster_->WaitForJob(running_, kPatience);
  ASSERT_OK(failed);
  EXPECT_GE(absl::Now() - jumped, kDelay - absl::Seconds(1));
  EXPECT_EQ(failed->state, JobState::kFailed);
  ASSERT_TRUE(failed->error.has_value());
  EXPECT_EQ(failed->error->reason, "DEADLINE");
  EXPECT_TRUE(WaitUntil(
      [&] { return absl::IsNotFound(cluster_->client().GetJob(finished_).status()); }, kPatience));
  EXPECT_EQ(NumWarnings(), 1);
}

}  // namespace
}  // namespace uniquanf
